/*
 * Attention, forward and backward, against double arithmetic, over what may be asked for; and
 * what must not matter: threads, tiles, layouts, types.
 */
#include "attention_test.h"

static const setting settings[] = {
    { "plain", 2, 3, 3, 70, 70, 16, 16, .window = { 0 } },
    { "windows", 1, 4, 4, 200, 200, 8, 8, .window = { 0, 1, 7, 64 } },
    { "windows of all sizes", 1, 4, 4, 150, 150, 5, 5, .window = { 65, 129, 149, 400 } },
    { "both ways", 2, 4, 2, 90, 90, 12, 20, .window = { 0, 1, 5, 70 }, .all_ways = true },
    { "grouped", 1, 6, 2, 130, 130, 33, 17, .window = { 0, 9 } },
    { "one key head", 2, 4, 1, 65, 65, 64, 64, .window = { 0 } },
    { "suffix", 1, 2, 2, 5, 300, 24, 24, .window = { 0, 100 } },
    { "cross", 1, 2, 2, 80, 30, 8, 8, .all_ways = true },
    { "one query", 3, 2, 1, 1, 77, 40, 40, .window = { 0, 3 } },
    { "one token", 2, 2, 2, 1, 1, 3, 2, .window = { 0, 1 } },
    { "two tokens", 1, 2, 2, 2, 2, 1, 1, .window = { 0, 2 } },
    { "a tile less one", 1, 2, 2, 63, 63, 16, 16, .window = { 0, 63 } },
    { "a tile", 1, 2, 2, 64, 64, 16, 16, .window = { 0, 64 } },
    { "a tile and one", 1, 2, 2, 65, 65, 16, 16, .window = { 0, 64 } },
    { "padding", 2, 2, 2, 100, 100, 16, 16, .window = { 0, 2 }, .valid = true },
    { "lengths", 4, 2, 2, 70, 70, 16, 16, .window = { 0, 30 }, .lengths = true },
    { "positions", 3, 2, 2, 70, 90, 16, 16, .window = { 0, 30 }, .positions = true },
    { "soft-cap", 1, 2, 1, 100, 100, 16, 16, .softcap = 3, .spread = 4 },
    { "slopes", 1, 4, 4, 100, 100, 16, 16, .window = { 0, 20 }, .slopes = true },
    { "slopes both ways", 1, 2, 2, 100, 100, 16, 16, .slopes = true, .all_ways = true },
    { "sinks", 2, 4, 2, 100, 100, 16, 16, .window = { 0, 4 }, .sinks = true, .valid = true },
    { "bias for all", 2, 4, 2, 70, 75, 16, 16, .bias = BIAS_SHARED, .window = { 0, 9 } },
    { "bias of heads", 2, 4, 2, 70, 75, 16, 16, .bias = BIAS_HEADS },
    { "bias of three axes", 2, 4, 2, 70, 75, 16, 16, .bias = BIAS_3D },
    { "bias of the batch", 2, 4, 2, 70, 75, 16, 16, .bias = BIAS_BATCH, .all_ways = true },
    { "bias of both", 2, 4, 4, 70, 75, 16, 16, .bias = BIAS_FULL, .softcap = 5 },
    { "a scale", 1, 2, 2, 40, 40, 16, 16, .scale = 0.7 },
    { "learned scales", 2, 4, 2, 70, 70, 16, 16, .scales = true, .window = { 0, 9 } },
    { "dropout", 2, 4, 2, 70, 75, 16, 16, .dropout = 0.3, .window = { 0, 9 }, .sinks = true },
    { "packed", 1, 4, 2, 150, 160, 16, 16, .window = { 0, 9 }, .offsets = { 0, 5, 80, 80, 147 },
      .key_offsets = { 0, 6, 85, 86, 155 }, .dropout = 0.2 },
    { "packed with a bias", 1, 2, 2, 100, 100, 16, 16, .offsets = { 0, 30, 100 },
      .key_offsets = { 0, 30, 100 }, .bias = BIAS_HEADS, .valid = true },
    { "all at once", 2, 4, 2, 140, 150, 20, 28, .window = { 0, 9, 70, 1 }, .slopes = true,
      .sinks = true, .valid = true, .lengths = true, .scales = true, .bias = BIAS_FULL,
      .softcap = 4, .dropout = 0.2 },
    { "chunks of keys", 1, 2, 1, 1300, 1300, 8, 8, .window = { 0, 600 }, .scales = true },
    { "sharp", 1, 2, 2, 70, 70, 16, 16, .spread = 40 },
    { "no queries", 1, 2, 2, 0, 10, 8, 8, .window = { 0 } },
    { "no keys", 1, 2, 2, 5, 0, 8, 8, .all_ways = true, .sinks = true },
    { "no batch", 0, 2, 2, 5, 5, 8, 8, .window = { 0 } },
};

static void run_both(slg_ctx *ctx, const call *c, outputs *y, bool use_dlse, int64_t query_tile,
                     int64_t key_tile)
{
    if (use_dlse) y->grad.dlse = &y->dlse;
    if (query_tile == QUERY_TILE && key_tile == KEY_TILE) {
        OK(ctx, slg_attention(ctx, &c->in, &c->opts, &y->out));
        OK(ctx, slg_attention_backward(ctx, &c->in, &c->opts, &y->out, &y->dout, &y->grad));
        return;
    }
    OK(ctx, attention_forward(ctx, &c->in, &c->opts, &y->out, query_tile, key_tile));
    OK(ctx, attention_backward(ctx, &c->in, &c->opts, &y->out, &y->dout, &y->grad, query_tile,
                               key_tile));
}

static void judge(const setting *s, const result *r, const outputs *y, double loose)
{
    const double hard = s->spread > 0 ? s->spread : 1;
    for (int i = 0; i < 9; i++)
        compare_output(s->name, r, y, i, loose * (i < 3 ? 3e-6 : i < 8 ? 2e-5 : 1e-4) * hard);
}

static void test_reference(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT(settings); i++) {
        const setting *s = &settings[i];
        call c;
        result r;
        call_open(&c, s);
        result_open(s, &r);
        const bool use_dlse = i % 2;
        reference(&c, use_dlse, &r);
        FOR_EACH_ISA(ctx, 2)
        {
            outputs y;
            outputs_open(&c, &r, &y);
            run_both(ctx, &c, &y, use_dlse, QUERY_TILE, KEY_TILE);
            judge(s, &r, &y, 1);
            outputs_close(&y);
        }
        result_close(&r);
        call_close(&c);
    }
}

/* Tiles of other sizes: the same but for rounding. */
static void test_tiles(void **state)
{
    static const int64_t sizes[][2] = { { 16, 64 }, { 64, 1 }, { 1, 7 }, { 33, 13 } };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int64_t i = 0; i < COUNT(settings); i++) {
        const setting *s = &settings[i];
        call c;
        result r;
        if (s->queries > 500) continue;
        call_open(&c, s);
        result_open(s, &r);
        reference(&c, false, &r);
        for (int64_t k = 0; k < COUNT(sizes); k++) {
            outputs y;
            outputs_open(&c, &r, &y);
            run_both(ctx, &c, &y, false, sizes[k][0], sizes[k][1]);
            judge(s, &r, &y, 1);
            outputs_close(&y);
        }
        result_close(&r);
        call_close(&c);
    }
    slg_ctx_free(ctx);
}

/* The same bits for any number of threads. */
static void test_threads(void **state)
{
    static const int32_t threads[] = { 1, 2, 3, 8 };
    (void)state;
    for (int64_t i = 0; i < COUNT(settings); i++) {
        const setting *s = &settings[i];
        call c;
        result r;
        outputs y[COUNT(threads)];
        call_open(&c, s);
        result_open(s, &r);
        for (int64_t k = 0; k < COUNT(threads); k++) {
            slg_ctx *ctx = context(SLG_ISA_AUTO, threads[k]);
            outputs_open(&c, &r, &y[k]);
            run_both(ctx, &c, &y[k], false, QUERY_TILE, KEY_TILE);
            slg_ctx_free(ctx);
            for (int j = 0; j < 9; j++)
                if (memcmp(y[k].x[j], y[0].x[j], (size_t)r.n[j] * sizeof(float)))
                    fail_msg("%s: %s differs between 1 and %d threads", s->name,
                             output_names[j], threads[k]);
            if (k) outputs_close(&y[k]);
        }
        outputs_close(&y[0]);
        result_close(&r);
        call_close(&c);
    }
}

/* ---- Layouts and types ------------------------------------------------------------------- */

/* A tensor in another layout: of `dtype`, axes in memory in the order given, elements `gap`
   apart. */
static slg_tensor laid_out(const slg_tensor *t, int32_t dtype, const int *order, int64_t gap,
                           bool flip)
{
    slg_tensor to = *t;
    int64_t step = gap;
    to.dtype = dtype;
    for (int i = t->ndim - 1; i >= 0; i--)
        to.stride[order[i]] = step, step *= t->shape[order[i]] + 1;
    char *data = calloc((size_t)step + 1, item_size(dtype));
    assert_non_null(data);
    int64_t first = 0;
    if (flip) first = to.stride[2] * (to.shape[2] - 1), to.stride[2] = -to.stride[2];
    to.data = data + first * (int64_t)item_size(dtype);
    return to;
}

static void *memory_of(const slg_tensor *t)
{
    int64_t first = t->stride[2] < 0 ? t->stride[2] * (t->shape[2] - 1) : 0;
    return (char *)t->data + first * (int64_t)item_size(t->dtype);
}

static char *place_of(const slg_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int a = t->ndim - 1; a >= 0; a--)
        at += i % t->shape[a] * t->stride[a], i /= t->shape[a];
    return (char *)t->data + at * (int64_t)item_size(t->dtype);
}

static int64_t size_of(const slg_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

static const struct arrangement {
    int32_t dtype;
    int order[4];
    int64_t gap;
    bool flip;
} layouts[] = {
    { SLG_F32, { 0, 2, 1, 3 }, 1, false }, { SLG_F32, { 0, 1, 2, 3 }, 3, false },
    { SLG_F32, { 3, 1, 0, 2 }, 1, true },  { SLG_BF16, { 0, 2, 1, 3 }, 1, false },
    { SLG_F16, { 0, 1, 2, 3 }, 2, true },
};

/* q, k, v, dout in, o, dq, dk, dv out, in a layout; against the reference on what the type
   holds. */
static void check_layout(slg_ctx *ctx, const setting *s, const struct arrangement *l)
{
    call c;
    result r;
    outputs y;
    call_open(&c, s);
    float *const from[4] = { c.q, c.k, c.v, c.dout };
    slg_tensor in[4], out[4];
    result_open(s, &r);
    outputs_open(&c, &r, &y);
    for (int i = 0; i < 4; i++) {
        const slg_tensor *like = i < 3 ? &c.t[i] : &y.dout;
        in[i] = laid_out(like, l->dtype, l->order, l->gap, l->flip);
        for (int64_t n = 0; n < size_of(like); n++) {
            put_item(l->dtype, place_of(&in[i], n), (double)from[i][n]);
            from[i][n] = (float)get_item(l->dtype, place_of(&in[i], n));
        }
    }
    for (int i = 0; i < 4; i++)
        out[i] = laid_out(i ? &y.t[2 + i] : &y.t[0], l->dtype, l->order, l->gap, l->flip);
    reference(&c, false, &r);
    c.in.q = &in[0], c.in.k = &in[1], c.in.v = &in[2];
    y.out.o = &out[0], y.grad.dq = &out[1], y.grad.dk = &out[2], y.grad.dv = &out[3];
    OK(ctx, slg_attention(ctx, &c.in, &c.opts, &y.out));
    OK(ctx, slg_attention_backward(ctx, &c.in, &c.opts, &y.out, &in[3], &y.grad));
    for (int i = 0; i < 4; i++)
        for (int64_t n = 0; n < size_of(&out[i]); n++)
            y.x[i ? 2 + i : 0][n] = (float)get_item(l->dtype, place_of(&out[i], n));
    judge(s, &r, &y, l->dtype == SLG_F32 ? 1 : l->dtype == SLG_F16 ? 200 : 1500);
    for (int i = 0; i < 4; i++) free(memory_of(&in[i])), free(memory_of(&out[i]));
    outputs_close(&y);
    result_close(&r);
    call_close(&c);
}

static void test_layouts(void **state)
{
    static const char *const names[] = { "plain", "grouped", "both ways", "all at once" };
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(settings); i++)
        for (int64_t n = 0; n < COUNT(names); n++)
            for (int64_t l = 0; l < COUNT(layouts) && !strcmp(names[n], settings[i].name); l++)
                check_layout(ctx, &settings[i], &layouts[l]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_reference),
                                        cmocka_unit_test(test_tiles),
                                        cmocka_unit_test(test_threads),
                                        cmocka_unit_test(test_layouts) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
