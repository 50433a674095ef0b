/*
 * contrastive.c - see tempnet.h. Two sweeps over sim. The first gives for every row, and for
 * every column, its maximum, log-sum-exp and mean difference, the diagonal left out; the second
 * writes the gradient, in tiles. Columns are turned into rows a tile at a time, so that
 * the kernels of rows serve both sides and no transposed copy is made; since a tile is read
 * before it is written, and the diagonal is kept apart, the gradient may lie where sim does.
 */
#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "softlogit/tempnet.h"
#include "softmax/parts.h"

#define TAU_MIN 1e-6
#define TAU_MAX 1e30

/* A tile of sim, turned: TILE columns of DEPTH rows. */
enum { TILE = 64, DEPTH = 64 };

static const slg_contrastive_pairs pairs_defaults = { .size = sizeof(slg_contrastive_pairs) };
static const slg_contrastive_out out_defaults = { .size = sizeof(slg_contrastive_out) };
static const slg_contrastive_opts opts_defaults = {
    .size = sizeof(slg_contrastive_opts),
    .gamma = 0.8,
    .rho = 8,
};

void slg_contrastive_pairs_init(slg_contrastive_pairs *pairs, size_t size)
{
    options_init(pairs, size, &pairs_defaults, sizeof pairs_defaults);
}

void slg_contrastive_out_init(slg_contrastive_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

void slg_contrastive_opts_init(slg_contrastive_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

/* A row (image side) or a column (text side). */
typedef struct anchor {
    double tau, self; /* self: sim with its own partner */
    exp_arg arg;      /* around the largest negative */
    lse_part part;
    double dot[2];                /* of p (x - pre), in part's scale */
    double log_s, weights, value; /* sum of w; sum of w diff */
    exp_out out;                  /* w / B */
    bool live;                    /* has a negative */
} anchor;

enum { IMAGE, TEXT, SIDES };

typedef struct contrast {
    slg_ctx *ctx;
    slg_contrastive_pairs pairs;
    slg_contrastive_opts opts;
    slg_contrastive_out out;
    slg_tensor *state[SIDES];
    rows id; /* data NULL: places are 0, 1, ... */
    int64_t n, dim;
    const float *sim;
    float *dsim; /* NULL: no gradient by sim or features */
    anchor *side[SIDES];
} contrast;

/* ---- Sweep 1 ---------------------------------------------------------------------------- */

/* Around the maximum nothing overflows; a NaN or +inf makes the sum say so. */
static void anchor_start(anchor *a, float max)
{
    a->live = max != -INFINITY;
    a->arg = exp_arg_of(a->tau, isfinite(max) ? max : 0.0f);
    a->part = LSE_EMPTY;
}

/* Entries of one anchor, from `first` on; the one at `self` is its own partner. */
static void anchor_add(const kernel_table *k, anchor *a, const float *x, int64_t n,
                       int64_t self)
{
    int64_t cut = self >= 0 && self < n ? self : n;
    k->lse_dot((size_t)cut, x, NULL, a->arg.pre, &a->arg, &a->part, a->dot);
    if (cut < n)
        k->lse_dot((size_t)(n - cut - 1), x + cut + 1, NULL, a->arg.pre, &a->arg, &a->part,
                   a->dot);
}

static void image_row(void *arg, int64_t i, int32_t worker)
{
    const contrast *c = arg;
    const kernel_table *k = &c->ctx->k;
    const float *x = c->sim + i * c->n;
    (void)worker;
    float before = k->max((size_t)i, x), after = k->max((size_t)(c->n - i - 1), x + i + 1);
    anchor *a = &c->side[IMAGE][i];
    anchor_start(a, fmaxf(before, after));
    anchor_add(k, a, x, c->n, i);
}

/* Rows [row, row + depth) of columns [col, col + width), turned. */
static void turn(const float *x, int64_t ld, int64_t depth, int64_t width, float *t)
{
    for (int64_t r = 0; r < depth; r++)
        for (int64_t j = 0; j < width; j++) t[j * DEPTH + r] = x[r * ld + j];
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void text_columns(void *arg, int64_t task, int32_t worker)
{
    const contrast *c = arg;
    const int64_t col = task * TILE, width = least(TILE, c->n - col);
    anchor *a = c->side[TEXT] + col;
    float max[TILE], t[TILE * DEPTH];
    (void)worker;
    fill_f32(max, TILE, -INFINITY);
    for (int64_t r = 0; r < c->n; r++) {
        const float *x = c->sim + r * c->n + col;
        for (int64_t j = 0; j < width; j++)
            if (x[j] > max[j] && r != col + j) max[j] = x[j];
    }
    for (int64_t j = 0; j < width; j++) anchor_start(&a[j], max[j]);
    for (int64_t r = 0; r < c->n; r += DEPTH) {
        int64_t depth = least(DEPTH, c->n - r);
        turn(c->sim + r * c->n + col, c->n, depth, width, t);
        for (int64_t j = 0; j < width; j++)
            anchor_add(&c->ctx->k, &a[j], t + j * DEPTH, depth, col + j - r);
    }
}

/* ---- Between the sweeps ----------------------------------------------------------------- */

static int64_t place(const contrast *c, int64_t i)
{
    return c->id.data ? rows_get_int(&c->id, 0, i) : i;
}

static double log_add(double a, double b)
{
    double m = fmax(a, b);
    return m == -INFINITY ? m : m + log1p(exp(-fabs(a - b)));
}

static void settle(const contrast *c, int side, int64_t i)
{
    anchor *a = &c->side[side][i];
    const double gamma = c->opts.gamma,
                 old = (double)((const float *)c->state[side]->data)[place(c, i)];
    a->out = (exp_out){ a->arg, 0.0f, 0.0f, 0.0f };
    a->log_s = old;
    if (a->part.sum == 0) a->live = false;
    if (!isfinite(a->part.sum) || !isfinite(a->self)) {
        a->live = true;
        a->log_s = a->weights = a->value = NAN;
        a->out.c = NAN;
        return;
    }
    if (!a->live) return;
    double far = ((double)a->arg.pre - a->self) / a->tau; /* of the maximum, in units of tau */
    double lse = log(a->part.sum) + (double)a->part.ref * a->arg.unit, g = lse + far;
    bool history = !c->opts.first && old > -INFINITY; /* of a NaN: none */
    a->log_s = history ? log_add(log1p(-gamma) + old, log(gamma) + g) : g;
    a->weights = exp(g - a->log_s);
    a->value = a->weights * ((double)a->arg.pre - a->self + a->dot[0] / a->part.sum);
    double weight = a->weights / (a->part.sum * (double)c->n);
    a->out = (exp_out){ a->arg, a->part.ref, (float)weight, 0.0f };
}

static double dtau_of(const contrast *c, const anchor *a)
{
    if (!a->live) return 0;
    double n = (double)c->n;
    return (a->log_s - log(n - 1) + c->opts.rho - a->value / a->tau) / n;
}

/* ---- Sweep 2 ---------------------------------------------------------------------------- */

/* A stripe of DEPTH rows, tile by tile. */
static void gradient_rows(void *arg, int64_t task, int32_t worker)
{
    const contrast *c = arg;
    const kernel_table *k = &c->ctx->k;
    const int64_t row = task * DEPTH, depth = least(DEPTH, c->n - row);
    float t[TILE * DEPTH];
    (void)worker;
    for (int64_t col = 0; col < c->n; col += TILE) {
        int64_t width = least(TILE, c->n - col);
        turn(c->sim + row * c->n + col, c->n, depth, width, t);
        for (int64_t j = 0; j < width; j++)
            k->exp_emit((size_t)depth, t + j * DEPTH, &c->side[TEXT][col + j].out,
                        t + j * DEPTH, STORE_CACHED);
        for (int64_t r = 0; r < depth; r++) {
            float *d = c->dsim + (row + r) * c->n + col;
            const float *x = c->sim + (row + r) * c->n + col;
            k->exp_emit((size_t)width, x, &c->side[IMAGE][row + r].out, d, STORE_CACHED);
            for (int64_t j = 0; j < width; j++) d[j] += t[j * DEPTH + r];
        }
    }
    for (int64_t i = row; i < row + depth; i++) {
        double both = c->side[IMAGE][i].weights + c->side[TEXT][i].weights;
        c->dsim[i * c->n + i] = (float)(-both / (double)c->n);
    }
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_matrix(slg_ctx *ctx, const char *name, const slg_tensor *t,
                               int32_t ndim, const int64_t *shape, unsigned dtypes, bool out)
{
    if (out)
        SLG_TRY(tensor_out(ctx, name, t, dtypes, ndim, ndim));
    else
        SLG_TRY(tensor_in(ctx, name, t, dtypes, ndim, ndim));
    if (shape) SLG_TRY(tensor_shape_is(ctx, name, t, ndim, shape));
    if (tensor_contiguous(t)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STRIDE, "%s must be contiguous", name);
}

static slg_status check_source(contrast *c)
{
    slg_ctx *ctx = c->ctx;
    const slg_contrastive_pairs *p = &c->pairs;
    if (p->sim ? (p->image || p->text) : !(p->image && p->text))
        return slg_fail(ctx, SLG_ERR_NULL, "pairs needs sim, or image and text, and not both");
    if (p->sim) {
        SLG_TRY(check_matrix(ctx, "pairs.sim", p->sim, 2, NULL, DT_F32, false));
        const int64_t square[2] = { p->sim->shape[0], p->sim->shape[0] };
        SLG_TRY(tensor_shape_is(ctx, "pairs.sim", p->sim, 2, square));
        c->n = square[0];
        c->sim = p->sim->data;
    } else {
        SLG_TRY(check_matrix(ctx, "pairs.image", p->image, 2, NULL, DT_F32, false));
        SLG_TRY(check_matrix(ctx, "pairs.text", p->text, 2, p->image->shape, DT_F32, false));
        c->n = p->image->shape[0];
        c->dim = p->image->shape[1];
    }
    if (c->n > INT32_MAX || c->dim > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE, "%lld pairs of %lld: at most %d each",
                        (long long)c->n, (long long)c->dim, INT32_MAX);
    return SLG_OK;
}

static slg_status check_tau(contrast *c, const char *name, const slg_tensor *t)
{
    SLG_TRY(check_matrix(c->ctx, name, t, 1, &c->n, DT_F32, false));
    const float *tau = t->data;
    for (int64_t i = 0; i < c->n; i++)
        if (!((double)tau[i] >= TAU_MIN && (double)tau[i] <= TAU_MAX))
            return slg_fail(c->ctx, SLG_ERR_RANGE, "%s[%lld] is %g, must be from %g to %g",
                            name, (long long)i, (double)tau[i], TAU_MIN, TAU_MAX);
    return SLG_OK;
}

/* After the states are known to be well-formed. */
static slg_status check_id(contrast *c)
{
    const slg_tensor *id = c->pairs.id;
    int64_t room = least(c->state[IMAGE]->shape[0], c->state[TEXT]->shape[0]);
    if (!id) {
        if (c->n <= room) return SLG_OK;
        return slg_fail(c->ctx, SLG_ERR_SHAPE,
                        "%lld pairs without id, room for %lld in the states", (long long)c->n,
                        (long long)room);
    }
    SLG_TRY(tensor_in(c->ctx, "pairs.id", id, DT_INT, 1, 1));
    SLG_TRY(tensor_shape_is(c->ctx, "pairs.id", id, 1, &c->n));
    c->id = rows_of(id);
    for (int64_t i = 0; i < c->n; i++) {
        int64_t at = place(c, i);
        if (at < 0 || at >= room)
            return slg_fail(c->ctx, SLG_ERR_RANGE,
                            "pairs.id[%lld] is %lld, must be in [0, %lld)", (long long)i,
                            (long long)at, (long long)room);
    }
    return SLG_OK;
}

static slg_status check_outputs(contrast *c)
{
    slg_ctx *ctx = c->ctx;
    const slg_contrastive_pairs *p = &c->pairs;
    const slg_contrastive_out *o = &c->out;
    const int64_t square[2] = { c->n, c->n }, features[2] = { c->n, c->dim };
    if (p->sim ? (o->dimage || o->dtext) : !!o->dsim)
        return slg_fail(ctx, SLG_ERR_NULL,
                        p->sim ? "out.dimage and out.dtext must be NULL: sim is given"
                               : "out.dsim must be NULL: features are given");
    if (o->dsim) SLG_TRY(check_matrix(ctx, "out.dsim", o->dsim, 2, square, DT_F32, true));
    if (o->dimage)
        SLG_TRY(check_matrix(ctx, "out.dimage", o->dimage, 2, features, DT_F32, true));
    if (o->dtext) SLG_TRY(check_matrix(ctx, "out.dtext", o->dtext, 2, features, DT_F32, true));
    if (o->dtau_image)
        SLG_TRY(check_matrix(ctx, "out.dtau_image", o->dtau_image, 1, &c->n, DT_F32, true));
    if (o->dtau_text)
        SLG_TRY(check_matrix(ctx, "out.dtau_text", o->dtau_text, 1, &c->n, DT_F32, true));
    const slg_tensor *outs[] = { o->dsim,      o->dimage,       o->dtext,      o->dtau_image,
                                 o->dtau_text, c->state[IMAGE], c->state[TEXT] };
    const slg_tensor *ins[] = { p->sim, p->image, p->text, p->id, p->tau_image, p->tau_text };
    for (size_t i = 0; i < 7; i++) {
        for (size_t j = 0; j < i; j++)
            if (outputs_clash(outs[i], outs[j]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "two outputs or states overlap");
        for (size_t j = 0; j < 6; j++)
            if (i == 0 && j == 0 ? tensor_clash(outs[i], ins[j])
                                 : outputs_clash(outs[i], ins[j]))
                return slg_fail(ctx, SLG_ERR_STRIDE, "an output or state overlaps an input");
    }
    return SLG_OK;
}

static slg_status check_opts(slg_ctx *ctx, const contrast *c)
{
    const slg_contrastive_opts *o = &c->opts;
    SLG_TRY(option_reserved(ctx, "pairs.reserved", c->pairs.reserved));
    SLG_TRY(option_reserved(ctx, "out.reserved", c->out.reserved));
    SLG_TRY(option_choice(ctx, "first", o->first, 0, 1));
    if (!(o->gamma > 0 && o->gamma <= 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "gamma is %g, must be above 0 and at most 1",
                        o->gamma);
    if (isfinite(o->rho)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "rho is %g, must be finite", o->rho);
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status reserve(contrast *c)
{
    for (int s = 0; s < SIDES; s++) {
        c->side[s] = arena_alloc(c->ctx, (size_t)c->n, sizeof(anchor));
        if (!c->side[s]) return SLG_ERR_MEMORY;
        memset(c->side[s], 0, (size_t)c->n * sizeof(anchor));
    }
    if (c->out.dsim) c->dsim = c->out.dsim->data;
    if (c->pairs.sim) return SLG_OK;
    float *sim = arena_alloc(c->ctx, (size_t)c->n * (size_t)c->n, sizeof *sim);
    if (!sim) return SLG_ERR_MEMORY;
    c->sim = sim;
    if (c->out.dimage || c->out.dtext) c->dsim = sim;
    return blas_sgemm(c->ctx, false, true, c->n, c->n, c->dim, 1.0f, c->pairs.image->data,
                      c->dim, c->pairs.text->data, c->dim, 0.0f, sim, c->n);
}

static slg_status feature_gradients(contrast *c)
{
    if (c->out.dimage)
        SLG_TRY(blas_sgemm(c->ctx, false, false, c->n, c->dim, c->n, 1.0f, c->dsim, c->n,
                           c->pairs.text->data, c->dim, 0.0f, c->out.dimage->data, c->dim));
    if (c->out.dtext)
        SLG_TRY(blas_sgemm(c->ctx, true, false, c->n, c->dim, c->n, 1.0f, c->dsim, c->n,
                           c->pairs.image->data, c->dim, 0.0f, c->out.dtext->data, c->dim));
    return SLG_OK;
}

/* Loss, dtau and the new states: in order, so of an id that comes twice the later one stays. */
static void put_results(contrast *c)
{
    const slg_tensor *dtau[SIDES] = { c->out.dtau_image, c->out.dtau_text };
    double sum = 0;
    for (int s = 0; s < SIDES; s++)
        for (int64_t i = 0; i < c->n; i++) {
            const anchor *a = &c->side[s][i];
            sum += a->value;
            if (dtau[s]) ((float *)dtau[s]->data)[i] = (float)dtau_of(c, a);
            if (a->live) ((float *)c->state[s]->data)[place(c, i)] = (float)a->log_s;
        }
    c->out.value = c->n > 0 ? sum / (double)c->n : 0;
}

static slg_status run(contrast *c)
{
    const slg_contrastive_pairs *p = &c->pairs;
    const float *tau[SIDES] = { p->tau_image->data, p->tau_text->data };
    SLG_TRY(reserve(c));
    for (int s = 0; s < SIDES; s++)
        for (int64_t i = 0; i < c->n; i++) {
            c->side[s][i].tau = (double)tau[s][i];
            c->side[s][i].self = (double)c->sim[i * c->n + i];
        }
    pool_run(c->ctx, c->n, image_row, c);
    pool_run(c->ctx, (c->n + TILE - 1) / TILE, text_columns, c);
    for (int s = 0; s < SIDES; s++)
        for (int64_t i = 0; i < c->n; i++) settle(c, s, i);
    if (c->dsim) pool_run(c->ctx, (c->n + DEPTH - 1) / DEPTH, gradient_rows, c);
    SLG_TRY(feature_gradients(c));
    put_results(c);
    return SLG_OK;
}

static slg_status contrastive(slg_ctx *ctx, const slg_contrastive_pairs *pairs,
                              const slg_contrastive_opts *opts, slg_tensor *state_image,
                              slg_tensor *state_text, slg_contrastive_out *out)
{
    contrast c = {
        .ctx = ctx, .pairs = pairs_defaults, .opts = opts_defaults, .out = out_defaults
    };
    if (!pairs || !out)
        return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", pairs ? "out" : "pairs");
    SLG_TRY(options_read(ctx, "pairs", pairs, &c.pairs, sizeof c.pairs));
    SLG_TRY(options_read(ctx, "opts", opts, &c.opts, sizeof c.opts));
    SLG_TRY(options_read(ctx, "out", out, &c.out, sizeof c.out));
    SLG_TRY(check_opts(ctx, &c));
    SLG_TRY(check_source(&c));
    SLG_TRY(check_matrix(ctx, "state_image", state_image, 1, NULL, DT_F32, true));
    SLG_TRY(check_matrix(ctx, "state_text", state_text, 1, NULL, DT_F32, true));
    c.state[IMAGE] = state_image;
    c.state[TEXT] = state_text;
    SLG_TRY(check_id(&c));
    SLG_TRY(check_tau(&c, "pairs.tau_image", c.pairs.tau_image));
    SLG_TRY(check_tau(&c, "pairs.tau_text", c.pairs.tau_text));
    SLG_TRY(check_outputs(&c));
    SLG_TRY(run(&c));
    options_write(out, &c.out, sizeof c.out);
    return SLG_OK;
}

slg_status slg_contrastive(slg_ctx *ctx, const slg_contrastive_pairs *pairs,
                           const slg_contrastive_opts *opts, slg_tensor *state_image,
                           slg_tensor *state_text, slg_contrastive_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_contrastive");
    return op_end(ctx, contrastive(ctx, pairs, opts, state_image, state_text, out));
}
