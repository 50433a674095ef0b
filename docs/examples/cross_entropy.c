/* cross_entropy.c - the smallest use of libsoftlogit: a loss and its gradient. */
#include <softlogit/softlogit.h>
#include <stdio.h>

int main(void)
{
    float x[2][3] = { { 1, 2, 3 }, { 1, 2, 3 } }; /* two rows of logits over three classes */
    int32_t label[2] = { 2, 0 };
    slg_tensor logits = slg_tensor_2d(x, SLG_F32, 2, 3),
               index = slg_tensor_1d(label, SLG_I32, 2);
    slg_logits source = slg_logits_dense(&logits);
    slg_targets targets = slg_targets_index(&index);
    slg_logits_grad grad = slg_grad_dense(&logits); /* in place of the logits */
    slg_loss_out out = slg_loss_out_none();
    slg_ctx *ctx;
    if (slg_ctx_create(NULL, &ctx) != SLG_OK) return 1;
    if (slg_cross_entropy(ctx, &source, &targets, NULL, &out, &grad) != SLG_OK)
        fprintf(stderr, "%s\n", slg_ctx_message(ctx));
    printf("loss %.4f, gradient of the first row %.4f %.4f %.4f\n", out.value, (double)x[0][0],
           (double)x[0][1], (double)x[0][2]);
    slg_ctx_free(ctx);
    return 0;
}
