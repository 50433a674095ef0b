/*
 * uskd.c - see distill.h. Rows are seen whole, in double: the sort of the classes costs more
 * than the rest. The engine runs twice: the first time for the batch mean of p[t]^2 alone,
 * unless it is given.
 */
#include <math.h>

#include "core/options.h"
#include "second.h"
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
} uskd;

typedef struct scored {
    double score;
    int64_t k;
} scored;

/* One row: logits and weak logits as log-probabilities, its targets. */
typedef struct view {
    int64_t cols, y[2];
    int targets;
    double label[2]; /* of the targets */
    double *lx, *lw, *rank;
    scored *order, *spare;
    double rest; /* log-sum-exp of lx over the other classes */
} view;

static int64_t scratch_floats(int64_t cols)
{
    return cols * (int64_t)((3 * sizeof(double) + 2 * sizeof(scored)) / sizeof(float)) + 16;
}

static void carve(view *v, float *scratch)
{
    char *at = (char *)scratch + (-(uintptr_t)scratch & 15);
    v->order = (scored *)at;
    v->spare = v->order + v->cols;
    v->lx = (double *)(v->spare + v->cols);
    v->lw = v->lx + v->cols;
    v->rank = v->lw + v->cols;
}

static bool is_target(const view *v, int64_t k)
{
    return k == v->y[0] || (v->targets > 1 && k == v->y[1]);
}

/* (x - max) / T - log(sum): differences are kept under any common offset. False for NaN, +inf,
   nothing. */
static bool log_softmax(int64_t n, const float *x, double t, double *out)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < n; k++) {
        if (isnan(x[k])) return false;
        if ((double)x[k] > top) top = (double)x[k];
    }
    if (!isfinite(top)) return false;
    for (int64_t k = 0; k < n; k++) sum += exp(((double)x[k] - top) / t);
    for (int64_t k = 0; k < n; k++) out[k] = ((double)x[k] - top) / t - log(sum);
    return true;
}

/* Log-sum-exp of l over the classes that are no targets, with a maximum of its own. */
static double rest_lse(const view *v, const double *l)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < v->cols; k++)
        if (!is_target(v, k) && l[k] > top) top = l[k];
    if (top == -INFINITY) return -INFINITY;
    for (int64_t k = 0; k < v->cols; k++)
        if (!is_target(v, k)) sum += exp(l[k] - top);
    return top + log(sum);
}

/* The target of an index, or the two largest labels (lower classes first on ties). */
static void find_targets(const loss_call *c, const loss_row *r, view *v)
{
    *v = (view){ .cols = c->src.cols, .targets = 1, .label = { 1, 0 }, .y = { r->target, -1 } };
    if (!c->target.has_prob) return;
    v->label[0] = v->label[1] = -1;
    v->y[0] = -1;
    for (int64_t k = 0; k < v->cols; k++) {
        double q = rows_get(&c->target.prob, r->row, k);
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

/* -log p of target j. With one target from the others' share, which keeps its precision near
   1. */
static double target_nll(const view *v, int j)
{
    double l = v->lx[v->y[j]];
    return v->targets == 1 && l > -INFINITY ? loss_softplus(v->rest - l) : -l;
}

static double part(double p, double at_target)
{
    return p == -INFINITY ? -INFINITY : p / (1 - at_target + 1e-6);
}

/* Order by descending score, lower class first on ties: a merge sort, which asks for no
   memory. */
static scored *sort(scored *a, scored *b, int64_t n)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            int64_t mid = lo + width < n ? lo + width : n,
                    hi = mid + width < n ? mid + width : n;
            for (int64_t i = lo, j = mid, k = lo; k < hi; k++)
                b[k] = i < mid && (j >= hi || a[i].score >= a[j].score) ? a[i++] : a[j++];
        }
        scored *swap = a;
        a = b, b = swap;
    }
    return a;
}

static void rank_classes(const uskd *u, view *v)
{
    double w = 0, p = 0;
    for (int j = 0; j < v->targets; j++) {
        w += exp(v->lw[v->y[j]]);
        p += u->o.score == SLG_USKD_LOG ? v->lx[v->y[j]] : exp(v->lx[v->y[j]]);
    }
    for (int64_t k = 0; k < v->cols; k++) {
        double r = u->o.score == SLG_USKD_LOG ? v->lx[k] : exp(v->lx[k]);
        v->order[k] = (scored){ part(exp(v->lw[k]), w) + part(r, p), k };
    }
    const scored *sorted = sort(v->order, v->spare, v->cols);
    for (int64_t i = 0; i < v->cols; i++) v->rank[sorted[i].k] = (double)i;
}

/* Zipf weights of the other classes that are live: 1 / (1 + rank), to be divided by their
   sum. */
static double zipf_sum(const view *v)
{
    double sum = 0;
    for (int64_t k = 0; k < v->cols; k++)
        if (!is_target(v, k) && v->lx[k] > -INFINITY) sum += 1 / (1 + v->rank[k]);
    return sum;
}

static double smoothed(const loss_call *c, const uskd *u, const view *v, int64_t row, int64_t k)
{
    double hot = c->target.has_prob ? rows_get(&c->target.prob, row, k) : k == v->y[0];
    return (1 - u->o.smoothing) * hot + u->o.smoothing / (double)v->cols;
}

/* What a row's solution is made of. */
typedef struct solved {
    double soft[2], target, other, weak, zipf;
    bool others;
} solved;

static void value(const loss_call *c, loss_row *r, const uskd *u, const view *v, solved *s)
{
    s->target = s->other = s->weak = 0;
    for (int j = 0; j < v->targets; j++) {
        double p2 = u->square[j][r->row];
        s->soft[j] = v->label[j] > 0 ? p2 + v->label[j] - u->mean[j] : 0;
        s->target += isnan(s->soft[j]) ? s->soft[j] : loss_term(s->soft[j], target_nll(v, j));
    }
    s->zipf = zipf_sum(v);
    s->others = v->cols - v->targets > 1 && v->rest > -INFINITY;
    for (int64_t k = 0; k < v->cols && s->others; k++)
        if (!is_target(v, k) && v->lx[k] > -INFINITY)
            s->other -= (v->lx[k] - v->rest) / ((1 + v->rank[k]) * s->zipf);
    for (int64_t k = 0; k < v->cols; k++)
        s->weak -= loss_term(u->o.mu * smoothed(c, u, v, r->row, k), v->lw[k]);
}

static void gradient(const loss_call *c, const loss_row *r, const uskd *u, const view *v,
                     const solved *s, float *d)
{
    const slg_uskd_opts *o = &u->o;
    double pull = 0, factor = r->weight * loss_factor(r);
    for (int j = 0; j < v->targets; j++) pull += o->alpha * s->soft[j];
    pull += o->cross_entropy;
    for (int64_t k = 0; k < v->cols; k++) {
        double g = pull * exp(v->lx[k]);
        if (s->others && !is_target(v, k))
            g += o->beta * (exp(v->lx[k] - v->rest) - 1 / ((1 + v->rank[k]) * s->zipf));
        d[k] = v->lx[k] == -INFINITY ? 0.0f : (float)(factor * g);
    }
    for (int j = 0; j < v->targets; j++) {
        double own = o->alpha * s->soft[j] + o->cross_entropy * v->label[j], l = v->lx[v->y[j]];
        double g = (pull - own) * exp(l) + own * expm1(-target_nll(v, j));
        d[v->y[j]] = l == -INFINITY ? 0.0f : (float)(factor * g);
    }
    /* Cross-entropy with labels beside the two: their share of -label. */
    for (int64_t k = 0; c->target.has_prob && o->cross_entropy > 0 && k < v->cols; k++)
        if (!is_target(v, k) && v->lx[k] > -INFINITY)
            d[k] -= (float)(factor * o->cross_entropy * rows_get(&c->target.prob, r->row, k));
}

static double cross_entropy(const loss_call *c, const loss_row *r, const view *v)
{
    double sum = 0;
    if (!c->target.has_prob) return target_nll(v, 0);
    for (int64_t k = 0; k < v->cols; k++)
        sum -= loss_term(rows_get(&c->target.prob, r->row, k), v->lx[k]);
    return sum;
}

/* Rank, and the weak head's gradient, of a row: -1 and NaN where its row is no distribution. */
static void put_weak(const loss_call *c, const loss_row *r, const uskd *u, const view *v,
                     bool good)
{
    double factor = r->weight * u->o.mu * r->scale / source_temperature(&c->teacher, r->row);
    for (int64_t k = 0; k < v->cols; k++) {
        if (u->rank.data) rows_put(&u->rank, r->row, k, good ? v->rank[k] : -1);
        if (!r->dt) continue;
        double g = good ? factor * (exp(v->lw[k]) - smoothed(c, u, v, r->row, k)) : (double)NAN;
        r->dt[k] = good && v->lw[k] == -INFINITY ? 0.0f : (float)g;
    }
}

static void whole(const loss_call *c, loss_row *r, const float *x, const float *t, float *d,
                  float *scratch)
{
    const uskd *u = c->opts;
    view v;
    solved s;
    find_targets(c, r, &v);
    carve(&v, scratch);
    log_softmax(v.cols, x, r->temperature, v.lx); /* an ordinary row */
    v.rest = rest_lse(&v, v.lx);
    if (u->squares_only) {
        for (int j = 0; j < v.targets; j++) u->square[j][r->row] = exp(-2 * target_nll(&v, j));
        return;
    }
    bool good = log_softmax(v.cols, t, source_temperature(&c->teacher, r->row), v.lw);
    u->done[r->row] = true;
    for (int j = 0; j < v.targets; j++) u->square[j][r->row] = exp(-2 * target_nll(&v, j));
    if (!good) {
        put_weak(c, r, u, &v, false);
        r->loss = r->extra[0] = r->extra[1] = r->extra[2] = r->extra[3] = NAN;
        for (int64_t k = 0; d && k < v.cols; k++) d[k] = NAN;
        return;
    }
    rank_classes(u, &v);
    value(c, r, u, &v, &s);
    double loss = loss_term(u->o.alpha, s.target) + loss_term(u->o.beta, s.other) + s.weak;
    if (isnan(s.target)) loss = NAN; /* the batch mean is */
    if (u->o.cross_entropy > 0) loss += u->o.cross_entropy * cross_entropy(c, r, &v);
    r->loss = loss_term(r->weight, loss);
    r->extra[0] = s.target, r->extra[1] = s.other, r->extra[2] = s.weak,
    r->extra[3] = s.soft[0];
    put_weak(c, r, u, &v, true);
    if (d) gradient(c, r, u, &v, &s, d);
}

/* ---- The call ---------------------------------------------------------------------------- */

static slg_status open(loss_call *c)
{
    uskd *u = c->state = (uskd *)(uintptr_t)c->opts;
    const slg_uskd_opts *o = &u->o;
    const int64_t shape[2] = { c->src.rows, c->src.cols };
    if (u->squares_only) return SLG_OK;
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
