/*
 * regression_shift.c - a move of the weights as a move of the target and of the data: see
 * softlogit/regression.h.
 */
#include <math.h>

#include "core/blas.h"
#include "core/options.h"
#include "oracle.h"
#include "softlogit/regression.h"
#include "softmax/parts.h"

static const slg_regression_shift_opts opts_defaults = { .size = sizeof(
                                                             slg_regression_shift_opts) };
static const slg_regression_shift_out out_defaults = { .size =
                                                           sizeof(slg_regression_shift_out) };

void slg_regression_shift_opts_init(slg_regression_shift_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_regression_shift_out_init(slg_regression_shift_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

typedef struct shift {
    oracle o;
    slg_regression_shift_opts opts;
    slg_regression_shift_out out;
    double *x, *x_new, *dx;             /* [d] */
    double *f, *move, *change, *target; /* [n]: f(A x), A dx, f(A x+) - f(A x), b~ */
    double x_norm, x_new_norm, move_norm;
} shift;

/* ---- ||A|| ------------------------------------------------------------------------------ */

/* The largest magnitude; NaN where there is one. */
static double largest(panels *p, double scale, double *square)
{
    double most = 0;
    *square = 0;
    for (int64_t first = 0, ld; first < p->rows; first += p->size) {
        const int64_t n = panels_count(p, first);
        const double *a = panels_get(p, first, n, NULL, &ld);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < p->cols; j++) {
                const double v = fabs(a[i * ld + j]);
                if (isnan(v)) return NAN;
                if (v > most) most = v;
                *square += (v * scale) * (v * scale);
            }
    }
    return most;
}

/* square += scale^2 G, G the smaller of A'A and AA'. */
static slg_status gram(panels *p, double scale, double *block, double *square)
{
    const int64_t s = p->rows < p->cols ? p->rows : p->cols;
    const bool wide = p->rows < p->cols;
    const int64_t all = wide ? p->cols : p->rows;
    for (int64_t first = 0; first < all; first += p->size) {
        const int64_t n = all - first < p->size ? all - first : p->size;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < s; j++)
                block[i * s + j] = scale * (wide ? rows_get(&p->m, j, first + i)
                                                 : rows_get(&p->m, first + i, j));
        SLG_TRY(blas_dsyrk(p->ctx, s, n, 1, block, square));
    }
    return SLG_OK;
}

/* Entries are scaled by the largest, so that squares neither overflow nor vanish. */
static slg_status matrix_norm(shift *r, double *norm)
{
    panels *p = &r->o.a;
    const int64_t s = p->rows < p->cols ? p->rows : p->cols;
    double sum;
    const double most = largest(p, 1, &sum);
    *norm = most;
    if (!(most > 0) || !isfinite(most)) return SLG_OK;
    if (r->opts.norm == SLG_NORM_FROBENIUS) {
        largest(p, 1 / most, &sum);
        *norm = most * sqrt(sum);
        return SLG_OK;
    }
    double *square = arena_alloc(r->o.ctx, (size_t)s, (size_t)s * sizeof(double));
    double *left = arena_alloc(r->o.ctx, (size_t)s, (size_t)s * sizeof(double));
    double *values = arena_alloc(r->o.ctx, (size_t)s, sizeof(double));
    double *block = arena_alloc(r->o.ctx, (size_t)p->size, (size_t)s * sizeof(double));
    if (!square || !left || !values || !block) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < s * s; i++) square[i] = 0;
    SLG_TRY(gram(p, 1 / most, block, square));
    SLG_TRY(blas_dsvd(r->o.ctx, s, square, values, left));
    *norm = most * sqrt(values[0]);
    return SLG_OK;
}

/* ---- The moves -------------------------------------------------------------------------- */

static double norm2(int64_t n, const double *x)
{
    double most = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double v = fabs(x[i]);
        if (isnan(v)) return NAN;
        if (v > most) most = v;
    }
    if (most == 0 || most == INFINITY) return most;
    for (int64_t i = 0; i < n; i++) sum += (x[i] / most) * (x[i] / most);
    return most * sqrt(sum);
}

/*
 * f(z + m) - f(z) for f = softmax(z): f (exp(m - l) - 1), l = log sum f exp(m). For small m
 * neither logarithm nor difference loses digits; for others the plain difference loses few.
 */
static void prediction_change(shift *r)
{
    const oracle *g = &r->o; /* at x+ */
    double most = 0, sum = 0;
    for (int64_t i = 0; i < g->n; i++) {
        const double m = fabs(r->move[i]);
        if (r->f[i] != 0 && !(m <= most)) most = m;
    }
    r->out.small_move = most < 0.01;
    if (!(most < 0.5)) {
        for (int64_t i = 0; i < g->n; i++) r->change[i] = g->f[i] - r->f[i];
        return;
    }
    for (int64_t i = 0; i < g->n; i++) sum += r->f[i] == 0 ? 0 : r->f[i] * expm1(r->move[i]);
    const double l = log1p(sum);
    for (int64_t i = 0; i < g->n; i++)
        r->change[i] = r->f[i] == 0 ? g->f[i] : r->f[i] * expm1(r->move[i] - l);
}

static slg_status make_moves(shift *r)
{
    oracle *g = &r->o;
    SLG_TRY(oracle_forward(g, r->x, NULL));
    r->out.loss = g->loss;
    for (int64_t i = 0; i < g->n; i++) r->f[i] = g->f[i], r->target[i] = g->z[i];
    for (int64_t j = 0; j < g->d; j++) r->dx[j] = r->x_new[j] - r->x[j];
    const double *const in[1] = { r->dx };
    double *const move[1] = { r->move };
    SLG_TRY(panels_forward(&g->a, 1, in, move));
    SLG_TRY(oracle_forward(g, r->x_new, NULL));
    r->out.loss_new = g->loss;
    for (int64_t i = 0; i < g->n; i++)
        if (r->target[i] == -INFINITY && g->z[i] == -INFINITY) r->move[i] = 0;
    prediction_change(r);
    for (int64_t i = 0; i < g->n; i++) r->target[i] = g->b[i] - r->change[i];
    return SLG_OK;
}

static void make_bounds(shift *r)
{
    slg_regression_shift_out *o = &r->out;
    const oracle *g = &r->o;
    const double log_n = 1.5 * log((double)g->n);
    o->target_shift = norm2(g->n, r->change);
    o->weight_move = norm2(g->d, r->dx);
    r->x_new_norm = norm2(g->d, r->x_new);
    r->move_norm = norm2(g->n, r->move);
    o->data_move = r->x_norm > 0 ? r->move_norm / r->x_norm : NAN;
    o->weight_bound = 0.5 * o->a_norm * o->weight_move;
    o->data_bound = r->x_norm > 0 ? 0.5 * r->move_norm : NAN;
    const double x = fmax(4, r->x_norm), weights = fmax(fmax(x, o->a_norm), r->x_new_norm);
    const double data = isnan(o->data_move) ? NAN : fmax(x, o->a_norm + o->data_move);
    o->log_weight_factor = log_n + 10 * weights * weights;
    o->log_data_factor = log_n + 10 * data * data;
    o->paper_weight_bound =
        o->weight_move == 0 ? 0 : exp(o->log_weight_factor + log(o->weight_move));
    o->paper_data_bound = o->data_move == 0 ? 0 : exp(o->log_data_factor + log(o->data_move));
}

static void write_change(const shift *r)
{
    const slg_tensor *t = r->out.data_change;
    if (!t) return;
    const rows m = rows_of(t);
    for (int64_t i = 0; i < m.count; i++)
        for (int64_t j = 0; j < m.cols; j++)
            rows_put(&m, i, j, r->move[i] / r->x_norm * (r->x[j] / r->x_norm));
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_opts(slg_ctx *ctx, const slg_regression_shift_opts *o)
{
    SLG_TRY(option_choice(ctx, "norm", o->norm, SLG_NORM_SPECTRAL, SLG_NORM_FROBENIUS));
    if (!(o->a_norm >= 0 && isfinite(o->a_norm)))
        return slg_fail(ctx, SLG_ERR_RANGE, "a_norm is %g, must be at least 0 and finite",
                        o->a_norm);
    return SLG_OK;
}

static slg_status check_outputs(shift *r, const slg_tensor *const in[4])
{
    const slg_regression_shift_out *o = &r->out;
    slg_ctx *ctx = r->o.ctx;
    const int64_t n = r->o.n, d = r->o.d;
    const struct {
        const char *name;
        const slg_tensor *t;
        int32_t axes;
        int64_t shape[2];
    } out[] = {
        { "out.implied_target", o->implied_target, 1, { n, 0 } },
        { "out.data_change", o->data_change, 2, { n, d } },
        { "out.prob", o->prob, 1, { n, 0 } },
        { "out.prob_new", o->prob_new, 1, { n, 0 } },
    };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        if (!out[i].t) continue;
        SLG_TRY(
            tensor_out(ctx, out[i].name, out[i].t, DT_F32 | DT_F64, out[i].axes, out[i].axes));
        SLG_TRY(tensor_shape_is(ctx, out[i].name, out[i].t, out[i].axes, out[i].shape));
        bool clash = false;
        for (int k = 0; k < 4; k++) clash = clash || outputs_clash(out[i].t, in[k]);
        for (size_t k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
    }
    if (o->data_change && d > 0 && r->x_norm == 0)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "x is 0: no change of the data moves its prediction");
    return SLG_OK;
}

static slg_status run(slg_ctx *ctx, const slg_tensor *const in[4],
                      const slg_regression_shift_opts *opts, slg_regression_shift_out *out)
{
    shift r = { .opts = opts_defaults, .out = out_defaults };
    if (!out) return slg_fail(ctx, SLG_ERR_NULL, "out is NULL");
    SLG_TRY(options_read(ctx, "opts", opts, &r.opts, sizeof r.opts));
    SLG_TRY(options_read(ctx, "out", out, &r.out, sizeof r.out));
    SLG_TRY(check_opts(ctx, &r.opts));
    SLG_TRY(oracle_open(ctx, in[0], in[1], NULL, &r.o));
    if (!in[2] || !in[3])
        return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", in[2] ? "x_new" : "x");
    SLG_TRY(vector_read(ctx, "x", in[2], r.o.d, &r.x));
    SLG_TRY(vector_read(ctx, "x_new", in[3], r.o.d, &r.x_new));
    r.x_norm = norm2(r.o.d, r.x);
    SLG_TRY(check_outputs(&r, in));
    double *of_n = arena_alloc(ctx, (size_t)r.o.n, 4 * sizeof(double));
    r.dx = arena_alloc(ctx, (size_t)r.o.d, sizeof(double));
    if (!of_n || !r.dx) return SLG_ERR_MEMORY;
    r.f = of_n, r.move = of_n + r.o.n, r.change = of_n + 2 * r.o.n, r.target = of_n + 3 * r.o.n;

    SLG_TRY(make_moves(&r));
    r.out.a_norm = r.opts.a_norm;
    if (r.opts.a_norm == 0) SLG_TRY(matrix_norm(&r, &r.out.a_norm));
    make_bounds(&r);
    vector_write(r.out.implied_target, r.target);
    vector_write(r.out.prob, r.f);
    vector_write(r.out.prob_new, r.o.f);
    write_change(&r);
    options_write(out, &r.out, sizeof r.out);
    return SLG_OK;
}

slg_status slg_regression_shift(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                                const slg_tensor *x, const slg_tensor *x_new,
                                const slg_regression_shift_opts *opts,
                                slg_regression_shift_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    const slg_tensor *in[4] = { a, b, x, x_new };
    op_begin(ctx, "slg_regression_shift");
    return op_end(ctx, run(ctx, in, opts, out));
}
