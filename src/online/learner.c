/*
 * learner.c - the handle of online learners: see online.h. Vectors of the caller become doubles
 * in scratch before anything is written, so a call that fails has changed nothing.
 */
#include "learner.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/state_bytes.h"
#include "core/options.h"
#include "core/tensor.h"

enum { DT_VECTOR = DT_F32 | DT_BF16 | DT_F16 };

static const learner_kind *kind_of(int32_t kind)
{
    static const learner_kind *const kinds[] = { &learner_omd, &learner_hedge,
                                                 &learner_ensemble, &learner_ftrl };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i]->kind == kind) return kinds[i];
    return NULL;
}

slg_status option_positive(slg_ctx *ctx, const char *name, double value)
{
    return option_range(ctx, name, value, ONLINE_LEAST, ONLINE_MOST);
}

slg_status option_not_negative(slg_ctx *ctx, const char *name, double value)
{
    return option_range(ctx, name, value, 0, ONLINE_MOST);
}

slg_status finite_vector(const slg_learner *l, const char *name, double *v)
{
    for (int64_t i = 0; i < l->d; i++)
        if (!isfinite(v[i]))
            return slg_fail(l->ctx, SLG_ERR_RANGE, "%s[%lld] is %g, must be finite", name,
                            (long long)i, v[i]);
    return SLG_OK;
}

const double *learner_hint(const slg_learner *l) { return l->state; }

/* ---- Life ------------------------------------------------------------------------------- */

static void start(slg_learner *l)
{
    memset(l->state, 0, (size_t)l->count * sizeof *l->state);
    l->rounds = 0;
    l->kind->start(l);
}

static slg_status create(slg_ctx *ctx, int32_t kind, int64_t d, const void *opts,
                         slg_learner **out)
{
    const learner_kind *k = kind_of(kind);
    if (!k) return slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such learner", kind);
    if (d < 1 || d > INT64_MAX / 4096)
        return slg_fail(ctx, SLG_ERR_RANGE, "d is %lld, must be at least 1", (long long)d);
    slg_learner made = { .ctx = ctx, .kind = k, .d = d };
    SLG_TRY(k->open(&made, opts));
    slg_learner *l = ctx_alloc(ctx, sizeof *l);
    if (!l) return SLG_ERR_MEMORY;
    *l = made;
    l->state = ctx_alloc(ctx, (size_t)l->count * sizeof *l->state);
    if (!l->state) {
        ctx_free(ctx, l);
        return SLG_ERR_MEMORY;
    }
    start(l);
    *out = l;
    return SLG_OK;
}

slg_status slg_learner_create(slg_ctx *ctx, int32_t kind, int64_t d, const void *opts,
                              slg_learner **l)
{
    if (!ctx || !l) return SLG_ERR_NULL;
    *l = NULL;
    op_begin(ctx, "slg_learner_create");
    return op_end(ctx, create(ctx, kind, d, opts, l));
}

void slg_learner_free(slg_learner *l)
{
    if (!l) return;
    ctx_free(l->ctx, l->state);
    ctx_free(l->ctx, l);
}

slg_status slg_learner_reset(slg_learner *l)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_reset");
    start(l);
    return op_end(l->ctx, SLG_OK);
}

int64_t slg_learner_rounds(const slg_learner *l) { return l ? l->rounds : 0; }

/* ---- Rounds ----------------------------------------------------------------------------- */

static slg_status read_vector(slg_learner *l, const char *name, const slg_tensor *t,
                              double **to)
{
    slg_ctx *ctx = l->ctx;
    SLG_TRY(tensor_in(ctx, name, t, DT_VECTOR, 1, 1));
    SLG_TRY(tensor_shape_is(ctx, name, t, 1, &l->d));
    *to = arena_alloc(ctx, (size_t)l->d, sizeof **to);
    if (!*to) return SLG_ERR_MEMORY;
    const rows m = rows_of(t);
    for (int64_t i = 0; i < l->d; i++) (*to)[i] = rows_get(&m, 0, i);
    return l->kind->accept(l, name, *to);
}

/* The caller's hint, or the learner's own. */
static slg_status read_hint(slg_learner *l, const slg_tensor *hint, const double **m)
{
    double *given = NULL;
    if (hint) SLG_TRY(read_vector(l, "hint", hint, &given));
    *m = given ? given : learner_hint(l);
    return SLG_OK;
}

static slg_status check_out(slg_learner *l, const char *name, const slg_tensor *t, int32_t ndim,
                            const int64_t *shape)
{
    SLG_TRY(tensor_out(l->ctx, name, t, DT_VECTOR | DT_F64, ndim, ndim));
    return tensor_shape_is(l->ctx, name, t, ndim, shape);
}

static void write_out(const slg_tensor *t, const double *x)
{
    const rows m = rows_of(t);
    for (int64_t r = 0; r < m.count; r++)
        for (int64_t i = 0; i < m.cols; i++) rows_put(&m, r, i, x[r * m.cols + i]);
}

static slg_status decide(slg_learner *l, const slg_tensor *hint, slg_tensor *x)
{
    const double *m;
    SLG_TRY(check_out(l, "x", x, 1, &l->d));
    SLG_TRY(read_hint(l, hint, &m));
    if (tensor_clash(x, hint)) return slg_fail(l->ctx, SLG_ERR_STRIDE, "x and hint overlap");
    double *play = arena_alloc(l->ctx, (size_t)l->d, sizeof *play);
    if (!play) return SLG_ERR_MEMORY;
    SLG_TRY(l->kind->decide(l, m, play));
    write_out(x, play);
    return SLG_OK;
}

slg_status slg_learner_decide(slg_learner *l, const slg_tensor *hint, slg_tensor *x)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_decide");
    op_detail(l->ctx, x);
    return op_end(l->ctx, decide(l, hint, x));
}

static slg_status observe(slg_learner *l, const slg_tensor *hint, const slg_tensor *g)
{
    const double *m;
    double *seen;
    SLG_TRY(read_vector(l, "g", g, &seen));
    SLG_TRY(read_hint(l, hint, &m));
    SLG_TRY(l->kind->observe(l, m, seen));
    if (l->hint == SLG_HINT_LAST) memcpy(l->state, seen, (size_t)l->d * sizeof *seen);
    l->rounds++;
    return SLG_OK;
}

slg_status slg_learner_observe(slg_learner *l, const slg_tensor *hint, const slg_tensor *g)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_observe");
    op_detail(l->ctx, g);
    return op_end(l->ctx, observe(l, hint, g));
}

/* ---- What it holds ---------------------------------------------------------------------- */

void slg_learner_info_init(slg_learner_info_t *info, size_t size)
{
    static const slg_learner_info_t none = { .size = sizeof none };
    options_init(info, size, &none, sizeof none);
}

slg_status slg_learner_info(slg_learner *l, slg_learner_info_t *info)
{
    size_t size;
    if (!l || !info) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_info");
    slg_status status = options_size(l->ctx, "info", info, &size);
    if (status == SLG_OK) {
        slg_learner_info_t ours = { .kind = l->kind->kind, .experts = l->experts };
        l->kind->info(l, &ours);
        options_write(info, &ours, sizeof ours);
    }
    return op_end(l->ctx, status);
}

static slg_status read_part(slg_learner *l, int32_t part, slg_tensor *out)
{
    int64_t shape[2] = { 0, 1 };
    const int32_t ndim = l->kind->shape(l, part, shape);
    if (ndim == 0)
        return slg_fail(l->ctx, SLG_ERR_RANGE, "part is %d, this learner has no such part",
                        part);
    SLG_TRY(check_out(l, "out", out, ndim, shape));
    double *values = arena_alloc(l->ctx, (size_t)(shape[0] * shape[1]), sizeof *values);
    if (!values) return SLG_ERR_MEMORY;
    SLG_TRY(l->kind->read(l, part, values));
    write_out(out, values);
    return SLG_OK;
}

slg_status slg_learner_read(slg_learner *l, int32_t part, slg_tensor *out)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_read");
    return op_end(l->ctx, read_part(l, part, out));
}

/* ---- State as bytes --------------------------------------------------------------------- */

/* In front of the state. */
typedef struct state_header {
    char magic[8];
    int32_t kind, experts;
    int64_t d, rounds, count;
    uint64_t checksum; /* of what comes before it and of the state */
} state_header;

static const char magic[8] = { 's', 'l', 'g', 'l', 'r', 'n', '0', '1' };

slg_status slg_learner_export(slg_learner *l, void *buffer, int64_t capacity, int64_t *bytes)
{
    if (!l || !bytes) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_export");
    const state_part part = { l->state, (size_t)l->count * sizeof *l->state };
    state_header h = { .kind = l->kind->kind,
                       .experts = l->experts,
                       .d = l->d,
                       .rounds = l->rounds,
                       .count = l->count };
    memcpy(h.magic, magic, sizeof magic);
    return op_end(l->ctx, state_write(l->ctx, &h, sizeof h, &part, 1, buffer, capacity, bytes));
}

static slg_status import(slg_learner *l, const void *buffer, int64_t bytes)
{
    state_header h;
    slg_ctx *ctx = l->ctx;
    const state_part part = { l->state, (size_t)l->count * sizeof *l->state };
    SLG_TRY(state_open(ctx, "a learner", magic, buffer, bytes, &h, sizeof h));
    if (h.kind != l->kind->kind || h.d != l->d || h.count != l->count ||
        h.experts != l->experts || h.rounds < 0)
        return slg_fail(ctx, SLG_ERR_STATE,
                        "state is of kind %d, d %lld, %lld numbers; the learner of %d, %lld, "
                        "%lld",
                        h.kind, (long long)h.d, (long long)h.count, l->kind->kind,
                        (long long)l->d, (long long)l->count);
    const int64_t total = state_total(sizeof h, &part, 1);
    SLG_TRY(state_check(ctx, &h, sizeof h, total, buffer, bytes));
    state_read(buffer, sizeof h, &part, 1);
    l->rounds = h.rounds;
    return SLG_OK;
}

slg_status slg_learner_import(slg_learner *l, const void *buffer, int64_t bytes)
{
    if (!l) return SLG_ERR_NULL;
    op_begin(l->ctx, "slg_learner_import");
    return op_end(l->ctx, import(l, buffer, bytes));
}
