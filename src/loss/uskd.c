/*
 * uskd.c - see distill.h. Rows are seen whole: the sort of the classes costs more than the
 * rest. Both gradients are a softmax and a row beside it, written by the kernels of other
 * losses. The engine runs twice: the first time for the batch mean of p[t]^2 alone, unless it
 * is given.
 */
#include <math.h>
#include <string.h>

#include "core/options.h"
#include "engine.h"
#include "rank.h"
#include "softlogit/distill.h"

static const slg_uskd_opts defaults = {
    .size = sizeof(slg_uskd_opts),
    .reduction = SLG_MEAN,
    .score = SLG_USKD_LOG,
    .alpha = 1,
    .beta = 0.1,
    .mu = 0.005,
    .smoothing = 0.1,
    .mean_square = -1,
    .mean_square2 = -1,
};

void slg_uskd_opts_init(slg_uskd_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct uskd {
    slg_uskd_opts o;
    bool squares_only; /* the first run */
    double *square[2]; /* [rows] p^2 of the row's first and second target; NaN where there
                          is none */
    bool *done;        /* [rows] seen by whole */
    double mean[2];
    rows rank;
    float *zipf; /* [cols] 1 / (1 + rank) */
} uskd;

/* One side of a row: its logits, and its softmax as a sum over all classes but the targets,
   beside which the targets' logits stand in double. Log-probabilities are
   (x - base) / temperature - total. */
typedef struct side {
    const float *x;
    double temperature, base;
    row_stat rest;
    double others;   /* log-sum-exp of the others, relative to base */
    double total;    /* of all */
    double log_p[2]; /* of the targets */
    double max;      /* of x */
} side;

/* One row: both sides, its targets. */
typedef struct view {
    int64_t cols, y[2]; /* -1: none */
    int targets;
    double label[2]; /* of the targets */
    side x, v;
    float *w, *z, *q; /* [cols] scratch: probabilities of the weak head; Zipf weights; labels */
    void *rank_scratch;
} view;

static int64_t scratch_floats(int64_t cols)
{
    return 3 * cols + (int64_t)(rank_scratch((size_t)cols) / sizeof(float)) + 2;
}

static void carve(view *v, float *scratch)
{
    char *at = (char *)scratch + (-(uintptr_t)scratch & 7);
    v->rank_scratch = at;
    v->w = (float *)(at + rank_scratch((size_t)v->cols) / 8 * 8);
    v->z = v->w + v->cols;
    v->q = v->z + v->cols;
}

/* The target of an index, or the two largest labels (lower classes first on ties). */
static void find_targets(const loss_call *c, const loss_row *r, view *v)
{
    v->targets = 1;
    v->label[0] = 1, v->label[1] = 0;
    v->y[0] = r->target, v->y[1] = -1;
    if (!c->target.has_prob) return;
    for (int64_t col = 0; col < v->cols; col += KERNEL_BLOCK) {
        int64_t n = v->cols - col < KERNEL_BLOCK ? v->cols - col : KERNEL_BLOCK;
        const float *q = rows_fetch(&c->ctx->k, &c->target.prob, r->row, col, n, v->q + col);
        if (q != v->q + col) memcpy(v->q + col, q, (size_t)n * sizeof *q);
    }
    v->label[0] = v->label[1] = -1;
    v->y[0] = -1;
    for (int64_t k = 0; k < v->cols; k++) {
        double q = (double)v->q[k];
        if (q > v->label[0]) {
            v->label[1] = v->label[0], v->y[1] = v->y[0];
            v->label[0] = q, v->y[0] = k;
        } else if (q > v->label[1]) {
            v->label[1] = q, v->y[1] = k;
        }
    }
    v->targets = v->cols > 1 ? 2 : 1;
    if (v->cols == 1) v->label[1] = 0;
}

/* ---- A side's softmax -------------------------------------------------------------------- */

typedef struct others {
    const float *x;
    const int64_t *y;
} others;

static const float *others_fetch(const void *self, int64_t row, int64_t col, int64_t n,
                                 float *scratch)
{
    const others *s = self;
    (void)row;
    memcpy(scratch, s->x + col, (size_t)n * sizeof *scratch);
    for (int j = 0; j < 2; j++)
        if (s->y[j] >= col && s->y[j] < col + n) scratch[s->y[j] - col] = -INFINITY;
    return scratch;
}

static void reduce_others(const kernel_table *k, const view *v, side *s)
{
    const exp_arg arg = exp_arg_of(s->temperature, 0.0f);
    const others rest = { s->x, v->y };
    const int64_t low = v->y[1] >= 0 && v->y[1] < v->y[0] ? v->y[1] : v->y[0],
                  high = low == v->y[0] ? v->y[1] : v->y[0];
    row_start(&s->rest, &arg);
    for (int64_t col = 0; col < v->cols; col += KERNEL_BLOCK) {
        int64_t from = col, end = col + KERNEL_BLOCK < v->cols ? col + KERNEL_BLOCK : v->cols;
        row_segment(&s->rest, col);
        for (int j = 0; j < 2; j++) {
            const int64_t y = j ? high : low;
            if (y < from || y >= end) continue;
            k->lse((size_t)(y - from), s->x + from, &arg, &s->rest.segment);
            from = y + 1;
        }
        k->lse((size_t)(end - from), s->x + from, &arg, &s->rest.segment);
    }
    row_finish(k, &s->rest, 0, v->cols, others_fetch, &rest);
}

/* Joins the targets to the others. False for NaN, +inf, nothing. */
static bool join(const view *v, side *s)
{
    const row_kind kind = s->rest.kind;
    double top = -INFINITY, at[2], sum = 0;
    if (kind == ROW_NAN || kind == ROW_INF) return false;
    s->max = kind == ROW_MASKED ? -INFINITY : (double)s->rest.part.max;
    for (int j = 0; j < v->targets; j++) {
        const double x = (double)s->x[v->y[j]];
        if (isnan(x) || x == INFINITY) return false;
        if (x > s->max) s->max = x;
    }
    if (s->max == -INFINITY) return false;
    s->base = kind == ROW_MASKED ? s->max : (double)s->rest.arg.pre;
    s->others = top = s->rest.lse_rel;
    for (int j = 0; j < v->targets; j++) {
        at[j] = ((double)s->x[v->y[j]] - s->base) / s->temperature;
        if (at[j] > top) top = at[j];
    }
    sum = exp(s->others - top);
    for (int j = 0; j < v->targets; j++) sum += exp(at[j] - top);
    s->total = top + log(sum);
    for (int j = 0; j < v->targets; j++) s->log_p[j] = at[j] - s->total;
    /* From the others' share, which keeps its precision near 1. */
    if (v->targets == 1 && at[0] > -INFINITY) s->log_p[0] = -loss_softplus(s->others - at[0]);
    return true;
}

/* Pass 2 of all classes; a target beyond the range of the others is put in apart. */
static exp_out softmax_of(const side *s, double weight)
{
    const exp_arg arg = exp_arg_of(s->temperature, (float)s->base);
    return exp_out_of(&arg, s->total, weight);
}

static void probabilities(const kernel_table *k, const view *v, const side *s, float *p)
{
    const exp_out e = softmax_of(s, 1);
    k->exp_emit((size_t)v->cols, s->x, &e, p, STORE_CACHED);
    for (int j = 0; j < v->targets; j++)
        if (fabs(((double)s->x[v->y[j]] - s->base) / s->temperature) > (double)EXP_LIMIT / 2)
            p[v->y[j]] = (float)exp(s->log_p[j]);
}

/* Sum over classes of q log p, for weights that sum to `all`; nothing is added where q is 0. */
static double cross(const kernel_table *k, const view *v, const side *s, const float *q,
                    double all)
{
    const double sum = k->dot((size_t)v->cols, q, s->x, (float)s->max);
    return sum / s->temperature + all * ((s->max - s->base) / s->temperature - s->total);
}

/* ---- Ranks ------------------------------------------------------------------------------- */

/* 1 / (1 + rank) of the other classes that are live, into z; their sum. */
static double rank_classes(const loss_call *c, const loss_row *r, const uskd *u, view *v)
{
    const kernel_table *k = &c->ctx->k;
    const size_t n = (size_t)v->cols;
    const bool log_score = u->o.score == SLG_USKD_LOG;
    const float *x = v->x.x;
    double w = 0, p = 0, sum;
    for (int j = 0; j < v->targets; j++) {
        w += exp(v->v.log_p[j]);
        p += log_score ? v->x.log_p[j] : exp(v->x.log_p[j]);
    }
    w = 1 - w + 1e-6, p = 1 - p + 1e-6;
    rank_arg arg = { 1 / w, 1 / p, 0, 0 };
    probabilities(k, v, &v->v, v->w);
    if (log_score)
        arg.slope = 1 / (p * v->x.temperature), arg.base = v->x.base,
        arg.offset = -v->x.total / p;
    else
        probabilities(k, v, &v->x, v->q), x = v->q;
    const uint64_t *order = rank_order(k, n, x, v->w, &arg, v->y, v->rank_scratch);
    for (size_t i = 0; i < n; i++) v->z[(uint32_t)order[i]] = u->zipf[i];
    for (size_t i = 0; u->rank.data && i < n; i++)
        rows_put(&u->rank, r->row, (uint32_t)order[i], (double)i);
    for (int j = 0; j < v->targets; j++) v->z[v->y[j]] = 0;
    k->target_mix(n, v->x.x, NULL, 0.0f, 1.0f, v->z, v->z); /* 0 where masked */
    k->within(n, v->z, INFINITY, &sum);
    return sum;
}

/* ---- Value and gradients ----------------------------------------------------------------- */

/* What a row's solution is made of. */
typedef struct solved {
    double soft[2], target, other, weak, zipf;
    bool others;
} solved;

/* sum q log w over the weak head's labels q; -inf where a class that it masks has mass. */
static double weak_cross(const loss_call *c, const uskd *u, const view *v)
{
    const kernel_table *k = &c->ctx->k;
    const double hot = 1 - u->o.smoothing, each = u->o.smoothing / (double)v->cols;
    double sum = 0, live[3];
    if (hot > 0 && c->target.has_prob) {
        double all = 0;
        k->within((size_t)v->cols, v->q, INFINITY, &all);
        sum = hot * cross(k, v, &v->v, v->q, all);
    } else if (hot > 0) {
        sum = hot * v->v.log_p[0];
    }
    if (each == 0) return sum;
    k->live_sums((size_t)v->cols, v->v.x, NULL, (float)v->v.max, live);
    if (live[2] < (double)v->cols) return -INFINITY;
    return sum + each * (live[0] / v->v.temperature +
                         live[2] * ((v->v.max - v->v.base) / v->v.temperature - v->v.total));
}

static void value(const loss_call *c, const loss_row *r, const uskd *u, const view *v,
                  solved *s)
{
    s->target = s->other = s->weak = 0;
    for (int j = 0; j < v->targets; j++) {
        double p2 = u->square[j][r->row];
        s->soft[j] = v->label[j] > 0 ? p2 + v->label[j] - u->mean[j] : 0;
        s->target += isnan(s->soft[j]) ? s->soft[j] : loss_term(s->soft[j], -v->x.log_p[j]);
    }
    s->others = v->cols - v->targets > 1 && v->x.others > -INFINITY;
    if (s->others) {
        /* Relative to the others' sum: what cross adds of the total is taken off. */
        double sum = cross(&c->ctx->k, v, &v->x, v->z, s->zipf);
        s->other = v->x.others - v->x.total - sum / s->zipf;
    }
    if (u->o.mu > 0) s->weak = -u->o.mu * weak_cross(c, u, v);
}

static void gradient(const loss_call *c, const loss_row *r, const uskd *u, const view *v,
                     const solved *s, float *d)
{
    const kernel_table *k = &c->ctx->k;
    const slg_uskd_opts *o = &u->o;
    double pull = 0, factor = r->weight * loss_factor(r);
    for (int j = 0; j < v->targets; j++) pull += o->alpha * s->soft[j];
    pull += o->cross_entropy;
    if (isnan(pull)) { /* the batch mean is */
        for (int64_t i = 0; i < v->cols; i++) d[i] = v->x.x[i] == -INFINITY ? 0.0f : NAN;
    } else if (v->x.rest.kind == ROW_MASKED) {
        fill_f32(d, v->cols, 0.0f); /* targets alone are live */
    } else {
        const double beta = s->others ? o->beta : 0;
        const exp_out e =
            row_out(&v->x.rest, factor * (pull * exp(v->x.others - v->x.total) + beta), 0.0f);
        const double back = beta > 0 ? -factor * beta / s->zipf : 0;
        k->exp_emit_q((size_t)v->cols, v->x.x, &e, (float)back, v->z, d, STORE_CACHED);
    }
    for (int j = 0; j < v->targets; j++) {
        double own = o->alpha * s->soft[j] + o->cross_entropy * v->label[j], l = v->x.log_p[j];
        double g = (pull - own) * exp(l) + own * expm1(l);
        d[v->y[j]] = l == -INFINITY ? 0.0f : (float)(factor * g);
    }
    /* Cross-entropy with labels beside the two: their share of -label. z is 0 for the targets
       and what is masked. */
    for (int64_t i = 0; c->target.has_prob && o->cross_entropy > 0 && i < v->cols; i++)
        if (v->z[i] > 0) d[i] -= (float)(factor * o->cross_entropy * (double)v->q[i]);
}

static double cross_entropy(const loss_call *c, const view *v)
{
    double all = 0;
    if (!c->target.has_prob) return -v->x.log_p[0];
    c->ctx->k.within((size_t)v->cols, v->q, INFINITY, &all);
    return -cross(&c->ctx->k, v, &v->x, v->q, all);
}

/* The weak head's gradient: its softmax less its labels. */
static void put_weak(const loss_call *c, const loss_row *r, const uskd *u, const view *v)
{
    const kernel_table *k = &c->ctx->k;
    const double factor = r->weight * u->o.mu * r->scale / v->v.temperature;
    const double hot = 1 - u->o.smoothing, each = u->o.smoothing / (double)v->cols;
    float *dt = r->dt;
    exp_out e = softmax_of(&v->v, factor);
    if (c->target.has_prob) {
        k->target_mix((size_t)v->cols, v->v.x, v->q, (float)hot, (float)each, NULL, v->w);
        k->exp_emit_q((size_t)v->cols, v->v.x, &e, (float)-factor, v->w, dt, STORE_CACHED);
    } else {
        e.c = (float)(-factor * each);
        k->exp_emit((size_t)v->cols, v->v.x, &e, dt, STORE_CACHED);
    }
    for (int j = 0; j < v->targets; j++) {
        const double l = v->v.log_p[j], q = hot * v->label[j] + each;
        dt[v->y[j]] = l == -INFINITY ? 0.0f : (float)(factor * (expm1(l) + (1 - q)));
    }
}

static void no_row(const loss_call *c, loss_row *r, const uskd *u, float *d)
{
    r->loss = r->extra[0] = r->extra[1] = r->extra[2] = r->extra[3] = NAN;
    for (int64_t k = 0; u->rank.data && k < c->src.cols; k++) rows_put(&u->rank, r->row, k, -1);
    if (r->dt) fill_f32(r->dt, c->src.cols, NAN);
    if (d) fill_f32(d, c->src.cols, NAN);
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const uskd *u = c->opts;
    const kernel_table *k = &c->ctx->k;
    view v = { .cols = c->src.cols };
    solved s;
    carve(&v, scratch);
    find_targets(c, r, &v);
    v.x = (side){ .x = x, .temperature = r->temperature, .rest = r->rest };
    if (c->target.has_prob) reduce_others(k, &v, &v.x);
    join(&v, &v.x); /* an ordinary row */
    for (int j = 0; j < v.targets; j++) u->square[j][r->row] = exp(2 * v.x.log_p[j]);
    if (u->squares_only) return;
    u->done[r->row] = true;
    v.v = (side){ .x = t, .temperature = source_temperature(&c->teacher, r->row) };
    reduce_others(k, &v, &v.v);
    if (!join(&v, &v.v)) {
        no_row(c, r, u, d);
        return;
    }
    s.zipf = rank_classes(c, r, u, &v);
    if (c->target.has_prob && u->o.score != SLG_USKD_LOG) find_targets(c, r, &v); /* q again */
    value(c, r, u, &v, &s);
    double loss = loss_term(u->o.alpha, s.target) + loss_term(u->o.beta, s.other) + s.weak;
    if (isnan(s.target)) loss = NAN; /* the batch mean is */
    if (u->o.cross_entropy > 0) loss += u->o.cross_entropy * cross_entropy(c, &v);
    r->loss = loss_term(r->weight, loss);
    r->extra[0] = s.target, r->extra[1] = s.other, r->extra[2] = s.weak,
    r->extra[3] = s.soft[0];
    if (r->dt) put_weak(c, r, u, &v);
    if (d) gradient(c, r, u, &v, &s, d);
}

/* ---- The call ---------------------------------------------------------------------------- */

static slg_status open(loss_call *c)
{
    uskd *u = c->state = (uskd *)(uintptr_t)c->opts;
    const slg_uskd_opts *o = &u->o;
    const int64_t shape[2] = { c->src.rows, c->src.cols };
    if (u->squares_only) return SLG_OK;
    if (c->src.cols > INT32_MAX)
        return slg_fail(c->ctx, SLG_ERR_SHAPE, "logits has %lld columns: at most %d",
                        (long long)c->src.cols, INT32_MAX);
    u->zipf = arena_alloc(c->ctx, (size_t)c->src.cols, sizeof *u->zipf);
    if (!u->zipf) return SLG_ERR_MEMORY;
    for (int64_t k = 0; k < c->src.cols; k++) u->zipf[k] = (float)(1 / (1 + (double)k));
    SLG_TRY(loss_open_extra(c, 0, "opts.target_loss", o->target_loss));
    SLG_TRY(loss_open_extra(c, 1, "opts.other_loss", o->other_loss));
    SLG_TRY(loss_open_extra(c, 2, "opts.weak_loss", o->weak_loss));
    SLG_TRY(loss_open_extra(c, 3, "opts.soft_target", o->soft_target));
    if (!o->rank) return SLG_OK;
    SLG_TRY(tensor_out(c->ctx, "opts.rank", o->rank, DT_INT, 2, 2));
    SLG_TRY(tensor_shape_is(c->ctx, "opts.rank", o->rank, 2, shape));
    SLG_TRY(loss_open_apart(c, "opts.rank", o->rank));
    u->rank = rows_of(o->rank);
    return SLG_OK;
}

static slg_status reserve(slg_ctx *ctx, uskd *u, int64_t count)
{
    for (int j = 0; j < 2; j++)
        if (!(u->square[j] = arena_alloc(ctx, (size_t)count, sizeof(double))))
            return SLG_ERR_MEMORY;
    if (!(u->done = arena_alloc(ctx, (size_t)count, sizeof(bool)))) return SLG_ERR_MEMORY;
    for (int64_t r = 0; r < count; r++) {
        u->square[0][r] = u->square[1][r] = NAN;
        u->done[r] = false;
    }
    return SLG_OK;
}

static bool ignored(const slg_targets *t, const rows *index, int64_t r)
{
    return t->index && rows_get_int(index, r, 0) == t->ignore_index;
}

/* Over rows that count: a row that is no distribution makes the mean NaN. */
static void take_means(uskd *u, const slg_targets *t, int64_t count)
{
    const rows index = t->index ? rows_per_row(t->index) : (rows){ 0 };
    double sum[2] = { 0, 0 }, n = 0;
    for (int64_t r = 0; r < count; r++) {
        if (ignored(t, &index, r)) continue;
        n++;
        sum[0] += u->square[0][r];
        sum[1] += t->index ? 0 : u->square[1][r];
    }
    for (int j = 0; j < 2; j++) u->mean[j] = n > 0 ? sum[j] / n : 0;
}

/* Rows that `whole` did not see have no ranks. */
static void fill_unseen(const uskd *u, int64_t count)
{
    for (int64_t r = 0; r < count && u->rank.data; r++)
        for (int64_t k = 0; !u->done[r] && k < u->rank.cols; k++) rows_put(&u->rank, r, k, -1);
}

static slg_status check_opts(slg_ctx *ctx, const slg_uskd_opts *o)
{
    SLG_TRY(option_least(ctx, "alpha", o->alpha, 0));
    SLG_TRY(option_least(ctx, "beta", o->beta, 0));
    SLG_TRY(option_least(ctx, "mu", o->mu, 0));
    SLG_TRY(option_least(ctx, "cross_entropy", o->cross_entropy, 0));
    SLG_TRY(option_range(ctx, "smoothing", o->smoothing, 0, 1));
    SLG_TRY(option_choice(ctx, "score", o->score, SLG_USKD_LOG, SLG_USKD_PROBABILITY));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    if (!(o->mean_square <= 1) || !(o->mean_square2 <= 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "mean_square is %g, %g, must be at most 1",
                        o->mean_square, o->mean_square2);
    return SLG_OK;
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_PROB | TARGET_TEACHER | TARGET_ROW_WEIGHT,
    .open = open,
    .whole = whole,
    .scratch_floats = scratch_floats,
    .extra_masked = { (double)NAN, (double)NAN, (double)NAN, (double)NAN },
};

static slg_status uskd_run(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                           const slg_uskd_opts *opts, slg_loss_out *out, slg_logits_grad *grad,
                           slg_logits_grad *weak_grad)
{
    uskd u = { .o = defaults, .squares_only = false };
    slg_logits l;
    slg_targets t;
    slg_loss_out first = slg_loss_out_none();
    SLG_TRY(options_read(ctx, "opts", opts, &u.o, sizeof u.o));
    SLG_TRY(check_opts(ctx, &u.o));
    if (!logits) return slg_fail(ctx, SLG_ERR_NULL, "logits is NULL");
    if (!targets) return slg_fail(ctx, SLG_ERR_NULL, "targets is NULL");
    slg_logits_init(&l, sizeof l), slg_targets_init(&t, sizeof t);
    SLG_TRY(options_read(ctx, "logits", logits, &l, sizeof l));
    SLG_TRY(options_read(ctx, "targets", targets, &t, sizeof t));
    const slg_tensor *shape = l.dense ? l.dense : l.hidden;
    if (!shape) return slg_fail(ctx, SLG_ERR_NULL, "logits has neither dense nor hidden");
    SLG_TRY(tensor_in(ctx, "logits", shape, DT_ROW, 2, 2));
    const int64_t count = shape->shape[0];
    SLG_TRY(reserve(ctx, &u, count));
    if (u.o.mean_square < 0 || (t.prob && u.o.mean_square2 < 0)) {
        u.squares_only = true;
        SLG_TRY(loss_run(ctx, &method, &u, u.o.reduction, logits, targets, &first, NULL));
        take_means(&u, &t, count);
        u.squares_only = false;
    }
    if (u.o.mean_square >= 0) u.mean[0] = u.o.mean_square;
    if (u.o.mean_square2 >= 0) u.mean[1] = u.o.mean_square2;
    SLG_TRY(
        loss_run_pair(ctx, &method, &u, u.o.reduction, logits, targets, out, grad, weak_grad));
    fill_unseen(&u, count);
    return SLG_OK;
}

slg_status slg_uskd(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                    const slg_uskd_opts *opts, slg_loss_out *out, slg_logits_grad *grad,
                    slg_logits_grad *weak_grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_uskd");
    return op_end(ctx, uskd_run(ctx, logits, targets, opts, out, grad, weak_grad));
}
