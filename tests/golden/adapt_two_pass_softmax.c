/* "The Two-Pass Softmax Algorithm": make_two-pass-softmax.py says what each name means. */
#include <math.h>

#include "golden/adapter.h"

static slg_softmax_opts options(run *g)
{
    slg_softmax_opts o;
    slg_softmax_opts_init(&o, sizeof o);
    o.temperature = scalar_or(g, "temperature", 1);
    return o;
}

/* A pair's n is exact for these alone. */
static bool pairs_hold(run *g, const slg_tensor *x)
{
    const double limit = 0x1p21 * scalar_or(g, "temperature", 1);
    for (int64_t i = tensor_size(x); i--;) {
        double v = fabs(tensor_get(x, i));
        if (isfinite(v) && v > limit) return false;
    }
    return true;
}

/* Both pieces of each row, [0, cut) and the rest, by themselves; then put together. */
static void in_pieces(run *g, int64_t cut)
{
    const slg_softmax_opts o = options(g);
    slg_tensor *x = input(g, "x", SLG_F32);
    const int64_t rows = x->shape[0], cols = x->shape[1], shape[] = { 2, rows };
    slg_tensor *y = output_like(g, x), *lse = output(g, SLG_F64, 1, &rows);
    slg_tensor *m = output(g, SLG_F32, 2, shape), *n = output(g, SLG_F32, 2, shape);
    slg_tensor *m_all = output(g, SLG_F32, 1, &rows), *n_all = output(g, SLG_F32, 1, &rows);
    for (int piece = 0; piece < 2; piece++) {
        slg_tensor m_piece = slg_tensor_1d(m->data, SLG_F32, rows), n_piece = m_piece;
        m_piece.data = (float *)m->data + piece * m->stride[0];
        n_piece.data = (float *)n->data + piece * n->stride[0];
        m_piece.stride[0] = m->stride[1];
        n_piece.stride[0] = n->stride[1];
        slg_tensor *part = columns(g, x, piece ? cut : 0, piece ? cols : cut);
        check(g, slg_partial_softmax(g->ctx, part, &o, &m_piece, &n_piece));
    }
    check(g, slg_partial_merge(g->ctx, m, n, m_all, n_all, lse));
    for (int piece = 0; piece < 2; piece++) {
        const int64_t from = piece ? cut : 0, to = piece ? cols : cut;
        check(g, slg_partial_finish(g->ctx, columns(g, x, from, to), m_all, n_all, &o,
                                    columns(g, y, from, to)));
    }
    expect(g, "y", y);
    expect(g, "lse", lse);
}

static void softmax(run *g)
{
    static const char *const names[] = { "auto", "two-pass", "three-pass recompute",
                                         "three-pass reload" };
    slg_softmax_opts o = options(g);
    for (int32_t a = SLG_ALGORITHM_AUTO; a <= SLG_THREE_PASS_RELOAD; a++) {
        variation(g, names[a]);
        o.algorithm = a;
        slg_tensor *x = input(g, "x", SLG_F32), *y = output_over(g, x);
        slg_tensor *lse = output_for(g, "lse", SLG_F32);
        check(g, slg_softmax(g->ctx, x, &o, y, lse));
        expect(g, "y", y);
        expect(g, "lse", lse);
    }
    variation(g, "log-softmax");
    o.algorithm = SLG_ALGORITHM_AUTO;
    slg_tensor *x = input(g, "x", SLG_F32), *y = output_over(g, x);
    slg_tensor *lse = output_for(g, "lse", SLG_F32);
    check(g, slg_log_softmax(g->ctx, x, &o, y, lse));
    expect(g, "log_y", y);
    expect(g, "lse", lse);

    variation(g, "log-sum-exp");
    x = input(g, "x", SLG_F32);
    lse = output_for(g, "lse", SLG_F64);
    if (lse) check(g, slg_logsumexp(g->ctx, x, &o, lse));
    expect(g, "lse", lse);

    variation(g, "in two pieces");
    x = input(g, "x", SLG_F32);
    if (x->ndim == 2 && pairs_hold(g, x))
        for (int64_t cut = 0; cut <= x->shape[1]; cut += 1 + x->shape[1] / 3) in_pieces(g, cut);
}

static void ext_exp(run *g)
{
    slg_tensor *x = input(g, "x", SLG_F32), *m = output_like(g, x), *n = output_like(g, x);
    check(g, slg_ext_exp(g->ctx, x, m, n));
    expect(g, "m", m);
    expect(g, "n", n);
}

/* Also with the result's pair, and a masked piece, merged once more. */
static void merge(run *g)
{
    slg_tensor *m = input(g, "m", SLG_F32), *n = input(g, "n", SLG_F32);
    slg_tensor *m_out = output_for(g, "m", SLG_F32), *n_out = output_for(g, "n", SLG_F32);
    slg_tensor *lse = output_for(g, "lse", SLG_F64);
    check(g, slg_partial_merge(g->ctx, m, n, m_out, n_out, lse));
    expect(g, "m", m_out);
    expect(g, "n", n_out);
    expect(g, "lse", lse);

    variation(g, "log-sum-exp alone, float32");
    lse = output_for(g, "lse", SLG_F32);
    check(g, slg_partial_merge(g->ctx, m, n, NULL, NULL, lse));
    expect(g, "lse", lse);
}

/* From what the library's own forward pass gives. */
static void backward(run *g)
{
    const slg_softmax_opts o = options(g);
    slg_tensor *x = input(g, "x", SLG_F32), *dy = input(g, "dy", SLG_F32);
    slg_tensor *y = output_like(g, x), *dx = output_like(g, x);
    check(g, slg_softmax(g->ctx, x, &o, y, NULL));
    expect(g, "y", y);
    check(g, slg_softmax_backward(g->ctx, y, dy, &o, dx));
    expect(g, "dx_softmax", dx);
    variation(g, "dx over y");
    check(g, slg_softmax_backward(g->ctx, y, dy, &o, y));
    expect(g, "dx_softmax", y);

    variation(g, "log-softmax");
    check(g, slg_log_softmax(g->ctx, x, &o, y, NULL));
    dx = output_over(g, dy);
    check(g, slg_log_softmax_backward(g->ctx, y, dy, &o, dx));
    expect(g, "dx_log_softmax", dx);

    variation(g, "log-sum-exp");
    slg_tensor *lse = output(g, SLG_F64, x->ndim > 1 ? x->ndim - 1 : 1,
                             x->ndim > 1 ? x->shape : (const int64_t[]){ 1 });
    check(g, slg_logsumexp(g->ctx, x, &o, lse));
    dx = output_over(g, x);
    check(g, slg_logsumexp_backward(g->ctx, x, lse, NULL, &o, dx));
    expect(g, "dx_logsumexp", dx);
}

const adapter adapt_two_pass_softmax[] = {
    { "softmax", softmax },   { "ext_exp", ext_exp }, { "merge", merge },
    { "backward", backward }, { NULL, NULL },
};
