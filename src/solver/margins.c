/*
 * margins.c - see margins.h. The samples are cut into ranges, which pool tasks take, and these
 * into blocks of rows that stay in cache: a block's margins are found, then its rows, weighted,
 * are added to the range's direction. Weights are relative to the largest so far; when a block
 * brings a larger one, what was summed is scaled down, and so ranges merge, in order.
 */
#include "margins.h"

#include <string.h>

#include "core/rng.h"

enum {
    BLOCK_BYTES = 1 << 17, /* of rows */
    MOST_ROWS = 512,       /* of a block: 2^512 does not overflow, see softplus_sum */
    MOST_RANGES = 32,
    RANGE_WORK = 1 << 16 /* multiplications of a range, at least */
};

typedef struct pass {
    slg_ctx *ctx;
    const margin_data *m;
    const margin_query *q;
    int64_t outputs, ranges, block; /* block: rows */
    margin_sums *sums;              /* [ranges] */
    double *direction;              /* [ranges, outputs, d] */
    char *scratch;                  /* of each worker: staged rows, scores, margins */
    size_t scratch_bytes, staged_bytes;
} pass;

typedef struct row_block {
    int64_t first, count;
    wide_rows a;
    double *scores;      /* [outputs, block]; then the coefficients of the rows */
    double *soft, *hard; /* margins [block]; */
    double *decay;       /* exp(-|soft|); then the weights */
    double *lift;        /* [block]: scratch */
} row_block;

/* ---- Data ------------------------------------------------------------------------------- */

slg_status margin_targets(slg_ctx *ctx, const slg_tensor *y, const margin_data *m, int32_t *to)
{
    const rows from = rows_of(y);
    for (int64_t i = 0; i < m->n; i++) {
        const double v = from.cols ? rows_get(&from, i / from.cols, i % from.cols) : 0;
        if (m->classes ? v < 0 || v >= (double)m->classes : v != 1 && v != -1)
            return m->classes ? slg_fail(ctx, SLG_ERR_RANGE,
                                         "y[%lld] is %g, must be from 0 below %lld",
                                         (long long)i, v, (long long)m->classes)
                              : slg_fail(ctx, SLG_ERR_RANGE, "y[%lld] is %g, must be -1 or 1",
                                         (long long)i, v);
        to[i] = (int32_t)v;
    }
    return SLG_OK;
}

slg_status margin_data_read(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *y,
                            int64_t classes, margin_data *m)
{
    SLG_TRY(tensor_in(ctx, "a", a, DT_ROW | DT_F64, 2, 2));
    SLG_TRY(tensor_in(ctx, "y", y, classes ? DT_INT : DT_INT | DT_F32 | DT_F64, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, "y", y, 1, a->shape));
    op_detail(ctx, a);
    if (a->shape[1] < 1) return slg_fail(ctx, SLG_ERR_SHAPE, "a has no columns");
    *m = (margin_data){ rows_of(a), a->shape[0], a->shape[1], classes, NULL };
    return SLG_OK;
}

/* ---- Rows and their scores -------------------------------------------------------------- */

static bool staged(const rows *a)
{
    return !(a->plain || (a->dtype == SLG_F64 && a->col_stride == 1));
}

static void fetch(const pass *p, row_block *b, void *scratch)
{
    const rows *a = &p->m->a;
    const int64_t d = p->m->d;
    b->a = (wide_rows){ (size_t)b->count, (size_t)d, rows_at(a, b->first), 0,
                        a->dtype == SLG_F64 };
    if (!staged(a)) {
        b->a.ld = a->outer ? a->stride[0] : 0;
        return;
    }
    b->a.a = scratch, b->a.ld = d;
    for (int64_t i = 0; i < b->count; i++)
        if (b->a.wide)
            for (int64_t j = 0; j < d; j++)
                ((double *)scratch)[i * d + j] = rows_get(a, b->first + i, j);
        else
            rows_fetch(&p->ctx->k, a, b->first + i, 0, d, (float *)scratch + i * d);
}

static void given_margins(const pass *p, row_block *b)
{
    const rows *a = &p->m->a;
    for (int64_t i = 0; i < b->count; i++)
        b->scores[i] = rows_get(a, (b->first + i) / a->cols, (b->first + i) % a->cols);
}

/* soft = hard = y z; scores become y. */
static void signed_margins(const pass *p, row_block *b)
{
    const int32_t *y = p->m->y ? p->m->y + b->first : NULL;
    for (int64_t i = 0; i < b->count; i++) {
        const double sign = y ? y[i] : 1;
        b->soft[i] = b->hard[i] = sign * b->scores[i];
        b->scores[i] = sign;
    }
}

/* soft = z_y - logsumexp of the others, hard = z_y - the largest of them; scores become 1 at y
   and at the others minus their softmax, or minus 1 at the first largest. */
static void class_margin(const pass *p, row_block *b, int64_t i)
{
    const int64_t y = p->m->y[b->first + i], step = p->block;
    double *z = b->scores + i, top = -INFINITY, sum = 0;
    int64_t best = -1;
    bool nan = false;
    for (int64_t k = 0; k < p->outputs; k++) {
        nan = nan || isnan(z[k * step]);
        if (k != y && (best < 0 || z[k * step] > top)) top = z[k * step], best = k;
    }
    const double own = z[y * step];
    for (int64_t k = 0; k < p->outputs; k++) {
        double *e = z + k * step;
        *e = *e == top ? 1 : exp(*e - top);
        if (k != y) sum += *e;
    }
    for (int64_t k = 0; k < p->outputs; k++)
        z[k * step] = p->q->weights == MARGIN_WRONG ? -(double)(k == best) : z[k * step] / -sum;
    z[y * step] = 1;
    b->hard[i] = nan ? NAN : own - top;
    b->soft[i] = b->hard[i] - log(sum);
}

static void scores(const pass *p, row_block *b)
{
    const int64_t d = p->m->d;
    if (d == 0) given_margins(p, b);
    for (int64_t k = 0; k < p->outputs && d > 0; k++)
        p->ctx->k.rows_dot(&b->a, p->q->theta + k * d, b->scores + k * p->block);
    if (p->m->classes == 0)
        signed_margins(p, b);
    else
        for (int64_t i = 0; i < b->count; i++) class_margin(p, b, i);
}

/* ---- Sums ------------------------------------------------------------------------------- */

/* Fills decay, too. log1p of a sum is that of u = the product of 1 + e, less 1: a logarithm for
   each of a few lanes, and no small e is lost. */
static double softplus_sum(const pass *p, row_block *b, int64_t *nans)
{
    enum { LANES = 4 };
    double line = 0, u[LANES] = { 0 }, sum = 0;
    for (int64_t i = 0; i < b->count; i++) b->decay[i] = -fabs(b->soft[i]);
    p->ctx->k.exp_f64((size_t)b->count, b->decay, b->decay);
    for (int64_t i = 0; i < b->count; i++) {
        const double m = b->soft[i], e = b->decay[i], v = u[i % LANES];
        *nans += isnan(m);
        line += m < 0 ? -m : 0;
        u[i % LANES] = (v + e) + v * e;
    }
    for (int lane = 0; lane < LANES; lane++) sum += log1p(u[lane]);
    return line + sum;
}

static uint64_t rank_of(const margin_query *q, int64_t i)
{
    return q->draw ? rng_number(q->seed, q->number + (uint64_t)i) : (uint64_t)i;
}

static void count_wrong(const pass *p, const row_block *b, margin_sums *s)
{
    int64_t wrong = 0;
    double least = s->least;
    for (int64_t i = 0; i < b->count; i++) {
        least = b->hard[i] < least ? b->hard[i] : least;
        wrong += !(b->hard[i] > 0);
    }
    s->wrong += wrong, s->least = least;
    if (wrong == 0 || (s->pick >= 0 && !p->q->draw)) return;
    for (int64_t i = 0; i < b->count; i++) {
        if (b->hard[i] > 0) continue;
        const uint64_t rank = rank_of(p->q, b->first + i);
        if (s->pick < 0 || rank < s->rank) s->pick = b->first + i, s->rank = rank;
    }
}

/* s and direction (NULL: none), which has n numbers, to a reference that is no lower. */
static void raise_reference(margin_sums *s, double ref, int64_t n, double *direction)
{
    if (!(ref > s->ref)) return;
    const double scale = exp(s->ref - ref);
    for (int64_t i = 0; i < n && direction; i++) direction[i] *= scale;
    s->sum *= scale, s->ref = ref;
}

/* decay becomes q e^-ref, as margin_weight. */
static void relative_weights(const pass *p, row_block *b, double ref)
{
    double *q = b->decay, *lift = b->lift;
    if (ref == 0) {
        for (int64_t i = 0; i < b->count; i++) q[i] = (b->soft[i] > 0 ? q[i] : 1) / (1 + q[i]);
        return;
    }
    /* Every margin is above 0. Where all are +inf, ref is -inf. */
    for (int64_t i = 0; i < b->count; i++)
        lift[i] = b->soft[i] < (double)INFINITY ? -b->soft[i] - ref : -(double)INFINITY;
    p->ctx->k.exp_f64((size_t)b->count, lift, lift);
    for (int64_t i = 0; i < b->count; i++) q[i] = lift[i] / (1 + q[i]);
}

static void weigh(const pass *p, row_block *b, margin_sums *s, double *direction)
{
    const margin_weights how = p->q->weights;
    double ref = -INFINITY;
    for (int64_t i = 0; i < b->count; i++) {
        const double r = b->soft[i] > 0 ? -b->soft[i] : 0;
        ref = r > ref ? r : ref;
    }
    raise_reference(s, ref, p->outputs * p->m->d, how == MARGIN_SOFT ? direction : NULL);
    relative_weights(p, b, s->ref);
    for (int64_t i = 0; i < b->count; i++) s->sum += b->decay[i];
    for (int64_t k = 0; k < p->outputs; k++) {
        double *c = b->scores + k * p->block;
        if (how == MARGIN_SOFT)
            for (int64_t i = 0; i < b->count; i++) c[i] *= b->decay[i];
        if (how == MARGIN_WRONG)
            for (int64_t i = 0; i < b->count; i++) c[i] = b->hard[i] <= 0 ? c[i] : 0;
    }
}

static void range_run(void *arg, int64_t range, int32_t worker)
{
    const pass *p = arg;
    const margin_query *q = p->q;
    const int64_t d = p->m->d, size = p->outputs * d;
    char *scratch = p->scratch + (size_t)worker * p->scratch_bytes;
    margin_sums *s = p->sums + range;
    double *direction = p->direction ? p->direction + range * size : NULL;
    row_block b = { .scores = (double *)(void *)(scratch + p->staged_bytes) };
    b.soft = b.scores + p->outputs * p->block, b.hard = b.soft + p->block;
    b.decay = b.hard + p->block, b.lift = b.decay + p->block;
    *s = (margin_sums){ .least = INFINITY, .ref = -INFINITY, .pick = -1 };
    if (direction) memset(direction, 0, (size_t)size * sizeof *direction);
    const int64_t end = q->first + pool_range_start(q->count, p->ranges, range + 1);
    b.first = q->first + pool_range_start(q->count, p->ranges, range);
    for (; b.first < end; b.first += b.count) {
        b.count = end - b.first < p->block ? end - b.first : p->block;
        if (d > 0) fetch(p, &b, scratch);
        scores(p, &b);
        s->loss += softplus_sum(p, &b, &s->nans);
        count_wrong(p, &b, s);
        weigh(p, &b, s, direction);
        if (q->margins)
            memcpy(q->margins + (b.first - q->first), b.soft, (size_t)b.count * sizeof *b.soft);
        for (int64_t k = 0; k < p->outputs && direction; k++)
            p->ctx->k.rows_sum(&b.a, b.scores + k * p->block, direction + k * d);
    }
}

/* ---- The pass --------------------------------------------------------------------------- */

static void merge(const pass *p, margin_sums *s, double *direction)
{
    const int64_t size = p->outputs * p->m->d;
    const bool soft = p->q->weights == MARGIN_SOFT;
    *s = p->sums[0];
    if (direction) memcpy(direction, p->direction, (size_t)size * sizeof *direction);
    for (int64_t r = 1; r < p->ranges; r++) {
        margin_sums *t = p->sums + r;
        double *more = p->direction ? p->direction + r * size : NULL;
        raise_reference(s, t->ref, size, soft ? direction : NULL);
        raise_reference(t, s->ref, size, soft ? more : NULL);
        for (int64_t i = 0; i < size && direction; i++) direction[i] += more[i];
        s->sum += t->sum, s->loss += t->loss;
        s->wrong += t->wrong, s->nans += t->nans;
        if (t->least < s->least) s->least = t->least;
        if (t->pick >= 0 && (s->pick < 0 || t->rank < s->rank))
            s->pick = t->pick, s->rank = t->rank;
    }
    if (s->nans) s->loss = s->least = s->sum = NAN;
}

/* Sizes that depend on the shape alone. */
static void plan(pass *p)
{
    const margin_data *m = p->m;
    const int64_t row = (m->d > 0 ? m->d : 1) * (int64_t)(m->a.dtype == SLG_F64 ? 8 : 4);
    int64_t block = BLOCK_BYTES / row, scored = BLOCK_BYTES / 8 / p->outputs;
    if (block > scored) block = scored;
    if (block > MOST_ROWS) block = MOST_ROWS;
    p->block = block < 4 ? 4 : block / 4 * 4;
    /* The ranges' directions together are no more than a. */
    int64_t least = RANGE_WORK / (m->d * p->outputs + 32) + 1;
    if (least < 8) least = 8;
    if (least < 2 * p->outputs) least = 2 * p->outputs;
    p->ranges = p->q->count / least;
    if (p->ranges > MOST_RANGES) p->ranges = MOST_RANGES;
    if (p->ranges < 1) p->ranges = 1;
    p->staged_bytes = staged(&m->a) && m->d > 0 ? (size_t)(p->block * row) : 0;
    p->staged_bytes = (p->staged_bytes + 63) / 64 * 64;
    p->scratch_bytes = p->staged_bytes + (size_t)((p->outputs + 4) * p->block) * sizeof(double);
    p->scratch_bytes = (p->scratch_bytes + 63) / 64 * 64;
}

slg_status margin_pass(slg_ctx *ctx, const margin_data *m, const margin_query *q,
                       margin_sums *sums, double *direction)
{
    pass p = { .ctx = ctx, .m = m, .q = q, .outputs = margin_outputs(m) };
    plan(&p);
    const size_t size = (size_t)(p.outputs * m->d);
    const arena_mark_t mark = arena_mark(ctx);
    p.sums = arena_alloc(ctx, (size_t)p.ranges, sizeof *p.sums);
    p.scratch = arena_alloc(ctx, (size_t)ctx->num_threads, p.scratch_bytes);
    if (q->weights != MARGIN_NONE)
        p.direction = arena_alloc(ctx, (size_t)p.ranges, size * sizeof *p.direction);
    if (!p.sums || !p.scratch || (q->weights != MARGIN_NONE && !p.direction))
        return SLG_ERR_MEMORY;
    pool_run(ctx, p.ranges, range_run, &p);
    merge(&p, sums, q->weights == MARGIN_NONE ? NULL : direction);
    arena_release(ctx, mark);
    return SLG_OK;
}
