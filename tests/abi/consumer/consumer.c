/* A program that uses the installed library: the softmax of (0, 0, -inf) is (1/2, 1/2, 0). */
#include <math.h>
#include <softlogit/softlogit.h>
#include <stdio.h>

int main(void)
{
    const float x[3] = { 0.0f, 0.0f, -INFINITY };
    float y[3] = { -1.0f, -1.0f, -1.0f };
    slg_tensor tx = slg_tensor_1d(x, SLG_F32, 3), ty = slg_tensor_1d(y, SLG_F32, 3);
    slg_ctx *ctx = NULL;
    slg_status status = slg_ctx_create(NULL, &ctx);

    if (status == SLG_OK) status = slg_softmax(ctx, &tx, NULL, &ty, NULL);
    printf("%s: %g %g %g\n", slg_version_string(), (double)y[0], (double)y[1], (double)y[2]);
    if (status != SLG_OK) fprintf(stderr, "%s\n", slg_status_string(status));
    slg_ctx_free(ctx);
    return !(status == SLG_OK && y[0] == 0.5f && y[1] == 0.5f && y[2] == 0.0f);
}
