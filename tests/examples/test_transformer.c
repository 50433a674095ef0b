/*
 * The transformer of docs/examples: gradients of all weights against finite differences, in
 * every form; later words do not matter; generation with caches is the forward pass; files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "docs/examples/transformer.h"

enum { VOCAB = 11, TOKENS = 9, BATCH = 2, N = BATCH * TOKENS };

static const int32_t token[N] = { 1, 4, 2, 8, 5, 7, 1, 4, 2, 10, 0, 3, 3, 9, 6, 2, 2, 1 };
static const int32_t target[N] = { 4, 2, 8, -1, 7, 1, 4, 2, 10, 0, 3, 3, 9, 6, 2, 2, 1, 5 };

static slg_ctx *context(void)
{
    slg_ctx *ctx;
    assert_int_equal(slg_ctx_create(NULL, &ctx), SLG_OK);
    return ctx;
}

/* Form k of the model: places, norms, normalised queries, windows, activations. */
enum { FORMS = 5 };

static transformer_opts form(int k)
{
    transformer_opts o = transformer_defaults(VOCAB);
    o.context = TOKENS, o.layers = 2, o.heads = 2, o.width = 16, o.hidden = 24;
    o.rotary = k % 2;
    o.rms = k == 1 || k == 2;
    o.untied = k == 2 || k == 4;
    o.qk_norm = k == 2 || k == 3;
    o.local_heads = k == 3 || k == 4, o.window = 3;
    o.activation = k == 1 ? SLG_SILU : k == 4 ? SLG_GELU : SLG_GELU_TANH;
    return o;
}

static double loss_at(transformer *m, float *w, float x)
{
    const float before = *w;
    *w = x;
    double loss = transformer_test(m, BATCH, TOKENS, token, target, NULL);
    *w = before;
    return loss;
}

static void test_gradients(void **state)
{
    slg_ctx *ctx = context();
    (void)state;
    for (int k = 0; k < FORMS; k++) {
        const transformer_opts o = form(k);
        transformer *m = transformer_create(ctx, &o, BATCH, 7);
        slg_tensor w = transformer_weights(m), dw = transformer_gradients(m);
        float *x = w.data, largest = 0;
        const double loss = transformer_train(m, BATCH, TOKENS, token, target, NULL);
        assert_true(fabs(loss - transformer_test(m, BATCH, TOKENS, token, target, NULL)) <
                    1e-6);
        float *g = malloc((size_t)dw.shape[0] * sizeof *g);
        memcpy(g, dw.data, (size_t)dw.shape[0] * sizeof *g);
        for (int64_t i = 0; i < w.shape[0]; i++) largest = fmaxf(largest, fabsf(g[i]));
        assert_true(largest > 0.01f && largest < 10);
        for (int64_t i = 0; i < w.shape[0]; i += 1 + i % 7) {
            const float h = 0.004f;
            double near =
                (loss_at(m, x + i, x[i] + h) - loss_at(m, x + i, x[i] - h)) / (2 * (double)h);
            double far = (loss_at(m, x + i, x[i] + 2 * h) - loss_at(m, x + i, x[i] - 2 * h)) /
                         (4 * (double)h);
            double want = (4 * near - far) / 3;
            if (fabs((double)g[i] - want) > 4e-4 * (1 + fabs(want)))
                fail_msg("form %d, weight %d: %g, should be %g", k, (int)i, (double)g[i], want);
        }
        free(g);
        transformer_free(m);
    }
    slg_ctx_free(ctx);
}

/* A word that comes later changes nothing before it; generation gives what the forward pass
   does. */
static void test_generation(void **state)
{
    slg_ctx *ctx = context();
    (void)state;
    for (int k = 0; k < FORMS; k++) {
        const transformer_opts o = form(k);
        transformer *m = transformer_create(ctx, &o, BATCH, 3);
        float loss[TOKENS], changed[TOKENS], logits[VOCAB];
        int32_t other[TOKENS];
        memcpy(other, token, sizeof other);
        other[6] = 9;
        transformer_test(m, 1, TOKENS, token, target, loss);
        transformer_test(m, 1, TOKENS, other, target, changed);
        assert_memory_equal(loss, changed, 6 * sizeof *loss);
        assert_true(loss[6] != changed[6]);
        for (int64_t first = 1; first <= 4;
             first += 3) { /* a prompt of one, and of four words */
            transformer_restart(m);
            for (int64_t t = 0, n = first; t < TOKENS; t += n, n = 1) {
                double sum = 0;
                const int64_t last = t + n - 1;
                transformer_next(m, n, token + t, logits);
                if (target[last] < 0) continue;
                for (int c = 0; c < VOCAB; c++) sum += exp((double)logits[c]);
                double got = log(sum) - (double)logits[target[last]];
                assert_true(fabs(got - (double)loss[last]) < 1e-4);
            }
        }
        transformer_free(m);
    }
    slg_ctx_free(ctx);
}

/* A few steps of descent lower the loss; with dropout losses vary, without they do not. */
static void test_descent_and_dropout(void **state)
{
    slg_ctx *ctx = context();
    transformer_opts o = form(0);
    (void)state;
    transformer *m = transformer_create(ctx, &o, BATCH, 1);
    slg_tensor w = transformer_weights(m), dw = transformer_gradients(m);
    float *x = w.data, *g = dw.data;
    const double before = transformer_train(m, BATCH, TOKENS, token, target, NULL);
    for (int step = 0; step < 30; step++) {
        for (int64_t i = 0; i < w.shape[0]; i++) x[i] -= 0.1f * g[i];
        transformer_train(m, BATCH, TOKENS, token, target, NULL);
    }
    assert_true(transformer_test(m, BATCH, TOKENS, token, target, NULL) < 0.7 * before);
    transformer_free(m);
    o.dropout = 0.3;
    m = transformer_create(ctx, &o, BATCH, 1);
    const double first = transformer_train(m, BATCH, TOKENS, token, target, NULL);
    assert_true(first != transformer_train(m, BATCH, TOKENS, token, target, NULL));
    assert_true(first != transformer_test(m, BATCH, TOKENS, token, target, NULL));
    transformer_free(m);
    m = transformer_create(ctx, &o, BATCH, 1);
    assert_true(first == transformer_train(m, BATCH, TOKENS, token, target, NULL));
    transformer_free(m);
    slg_ctx_free(ctx);
}

static void test_files(void **state)
{
    char path[] = "/tmp/transformer-XXXXXX";
    slg_ctx *ctx = context();
    const transformer_opts o = form(3);
    (void)state;
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    transformer *m = transformer_create(ctx, &o, BATCH, 5);
    const double loss = transformer_test(m, BATCH, TOKENS, token, target, NULL);
    assert_null(transformer_load(ctx, path, BATCH)); /* empty */
    assert_true(transformer_save(m, path));
    assert_false(transformer_save(m, "/nowhere/x"));
    transformer *again = transformer_load(ctx, path, BATCH);
    assert_non_null(again);
    assert_true(loss == transformer_test(again, BATCH, TOKENS, token, target, NULL));
    assert_int_equal(transformer_opts_of(again)->local_heads, o.local_heads);
    assert_int_equal(truncate(path, 1000), 0);
    assert_null(transformer_load(ctx, path, BATCH));
    assert_null(transformer_load(ctx, "/nowhere/x", BATCH));
    remove(path);
    transformer_free(m), transformer_free(again);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_descent_and_dropout),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
