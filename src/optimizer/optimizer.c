/*
 * optimizer.c - the handle: a chain, a rule, their options and state. A step is one pass over
 * memory, two where the chain needs sums, in pieces that depend on sizes alone; each weight is
 * updated by itself, so threads do not matter.
 */
#include <math.h>
#include <string.h>

#include "core/arena.h"
#include "core/pool.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "handle.h"

static const slg_optimizer_setup setup_defaults = { .size = sizeof(slg_optimizer_setup),
                                                    .state_dtype = SLG_F32 };
static const slg_param_group group_defaults = {
    .size = sizeof(slg_param_group), .perpendicular = 1, .lr_scale = 1, .decay_scale = 1
};
static const slg_optimizer_report report_defaults = { .size = sizeof(slg_optimizer_report),
                                                      .grad_norm = -1,
                                                      .clip_factor = 1 };
static const chain_report nothing_seen = { .norm = -1, .factor = 1 };

void slg_optimizer_setup_init(slg_optimizer_setup *setup, size_t size)
{
    options_init(setup, size, &setup_defaults, sizeof setup_defaults);
}

void slg_param_group_init(slg_param_group *group, size_t size)
{
    options_init(group, size, &group_defaults, sizeof group_defaults);
}

void slg_optimizer_report_init(slg_optimizer_report *report, size_t size)
{
    options_init(report, size, &report_defaults, sizeof report_defaults);
}

const rule *rule_of(int32_t kind)
{
    static const rule *const rules[] = { &rule_sgd,   &rule_adamw,    &rule_optimistic,
                                         &rule_nadam, &rule_lion,     &rule_rmsprop,
                                         &rule_egd,   &rule_adafactor };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i]->kind == kind) return rules[i];
    return NULL;
}

slg_status rule_below(slg_ctx *ctx, const char *name, double value, double low, double high)
{
    if (value >= low && value < high) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %g, must be from %g to below %g", name, value,
                    low, high);
}

slg_status rule_rates(slg_ctx *ctx, double lr, double weight_decay)
{
    SLG_TRY(rule_below(ctx, "lr", lr, 0, RATE_MAX));
    return rule_below(ctx, "weight_decay", weight_decay, 0, RATE_MAX);
}

/* ---- Life ------------------------------------------------------------------------------- */

static void reset(slg_optimizer *o)
{
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++)
        if (o->state[i]) memset(o->state[i], 0, state_array_bytes(o, i));
    o->steps = 0;
    o->memory = 0;
    o->report = nothing_seen;
}

/* Copies the shapes; what is left of a tensor has no data and is contiguous. */
static slg_status read_shapes(slg_optimizer *o, int64_t count, const slg_tensor *const *w)
{
    if (count < 0 || count > INT64_MAX / 128)
        return slg_fail(o->ctx, SLG_ERR_RANGE, "count is %lld, must be at least 0",
                        (long long)count);
    if (count > 0 && !w) return slg_fail(o->ctx, SLG_ERR_NULL, "w is NULL");
    o->shapes = ctx_alloc(o->ctx, (size_t)(count ? count : 1) * sizeof *o->shapes);
    if (!o->shapes) return SLG_ERR_MEMORY;
    o->shaped = count;
    for (int64_t i = 0; i < count; i++) {
        slg_tensor *t = &o->shapes[i];
        if (!w[i]) return slg_fail(o->ctx, SLG_ERR_NULL, "w[%lld] is NULL", (long long)i);
        *t = (slg_tensor){ .data = o, .dtype = w[i]->dtype, .ndim = w[i]->ndim };
        /* Strides of 0: all that is checked is the shape, and nothing is read. */
        for (int32_t d = 0; d < 4 && d < t->ndim; d++) t->shape[d] = w[i]->shape[d];
        SLG_TRY(tensor_in(o->ctx, "w", t, DT_F32, 1, 4));
        t->data = NULL;
        if (__builtin_add_overflow(o->n, tensor_size(t), &o->n)) o->n = INT64_MAX;
    }
    return SLG_OK;
}

/* Numbers of array i. */
static int64_t array_length(const slg_optimizer *o, int32_t i)
{
    const whole_rule *whole = o->rule->whole;
    int64_t length = 0;
    if (!(o->arrays >> i & 1)) return 0;
    if (!whole) return o->n;
    if (!o->shapes) return whole->length(i, o->n, 1);
    for (int64_t s = 0; s < o->shaped; s++)
        length += whole->length(i, tensor_size(&o->shapes[s]), shape_rows(&o->shapes[s]));
    return length;
}

static slg_status make_state(slg_optimizer *o)
{
    if (o->n < 0 || o->n > INT64_MAX / 64)
        return slg_fail(o->ctx, SLG_ERR_RANGE, "n is %lld, must be from 0 to %lld",
                        (long long)o->n, (long long)(INT64_MAX / 64));
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++) {
        o->length[i] = array_length(o, i);
        if (o->length[i] == 0) continue;
        o->state[i] = ctx_alloc(o->ctx, state_array_bytes(o, i));
        if (!o->state[i]) return SLG_ERR_MEMORY;
    }
    return SLG_OK;
}

/* n weights, or the shapes of `count` tensors: n is 0 then. */
typedef struct contents {
    int64_t n, count;
    const slg_tensor *const *w;
    bool shaped;
} contents;

static slg_status create(slg_ctx *ctx, int32_t kind, const contents *c, const void *opts,
                         const slg_optimizer_setup *given, slg_optimizer **out)
{
    const rule *r = rule_of(kind);
    slg_optimizer_setup setup = setup_defaults;
    rule_opts options;
    if (!r) return slg_fail(ctx, SLG_ERR_RANGE, "kind is %d, there is no such optimizer", kind);
    SLG_TRY(r->open(ctx, opts, &options));
    SLG_TRY(options_read(ctx, "setup", given, &setup, sizeof setup));
    if (setup.state_dtype != SLG_F32 && setup.state_dtype != SLG_BF16)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "setup.state_dtype is %d, must be SLG_F32 or SLG_BF16",
                        setup.state_dtype);
    slg_optimizer *o = ctx_alloc(ctx, sizeof *o);
    if (!o) return SLG_ERR_MEMORY;
    *o = (slg_optimizer){ .ctx = ctx,
                          .rule = r,
                          .opts = options,
                          .setup = setup,
                          .n = c->n,
                          .grad_scale = 1,
                          .arrays = r->arrays(&options) };
    slg_status status = c->shaped ? read_shapes(o, c->count, c->w) : SLG_OK;
    if (status == SLG_OK) status = make_state(o);
    if (status != SLG_OK) {
        slg_optimizer_free(o);
        return status;
    }
    reset(o);
    *out = o;
    return SLG_OK;
}

static slg_status create_from(slg_ctx *ctx, int32_t kind, const contents *c, const void *opts,
                              const slg_optimizer_setup *setup, slg_optimizer **o)
{
    if (!ctx || !o) return SLG_ERR_NULL;
    *o = NULL;
    op_begin(ctx, "slg_optimizer_create");
    return op_end(ctx, create(ctx, kind, c, opts, setup, o));
}

slg_status slg_optimizer_create_list(slg_ctx *ctx, int32_t kind, int64_t count,
                                     const slg_tensor *const *w, const void *opts,
                                     const slg_optimizer_setup *setup, slg_optimizer **o)
{
    const contents c = { .count = count, .w = w, .shaped = true };
    return create_from(ctx, kind, &c, opts, setup, o);
}

slg_status slg_optimizer_create_with(slg_ctx *ctx, int32_t kind, int64_t n, const void *opts,
                                     const slg_optimizer_setup *setup, slg_optimizer **o)
{
    const contents c = { .n = n };
    return create_from(ctx, kind, &c, opts, setup, o);
}

slg_status slg_optimizer_create(slg_ctx *ctx, int32_t kind, int64_t n, const void *opts,
                                slg_optimizer **o)
{
    return slg_optimizer_create_with(ctx, kind, n, opts, NULL, o);
}

void slg_optimizer_free(slg_optimizer *o)
{
    if (!o) return;
    slg_ctx *ctx = o->ctx;
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++)
        if (o->state[i]) ctx_free(ctx, o->state[i]);
    if (o->groups) ctx_free(ctx, o->groups);
    if (o->shapes) ctx_free(ctx, o->shapes);
    ctx_free(ctx, o);
}

slg_status slg_optimizer_reset(slg_optimizer *o)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_reset");
    reset(o);
    return op_end(o->ctx, SLG_OK);
}

/* ---- Steps ------------------------------------------------------------------------------ */

static const slg_param_group *group_of(const slg_optimizer *o, int64_t tensor)
{
    return tensor < o->grouped ? &o->groups[tensor] : &group_defaults;
}

static bool same_rates(const slg_param_group *a, const slg_param_group *b)
{
    return a->lr_scale == b->lr_scale && a->decay_scale == b->decay_scale;
}

/* Whether the list is the one that the optimizer was made for. */
static slg_status match_shapes(const slg_optimizer *o, int64_t count, slg_tensor *const *w)
{
    if (!o->shapes) return SLG_OK;
    if (count != o->shaped)
        return slg_fail(o->ctx, SLG_ERR_SHAPE, "%lld tensors, the optimizer was made for %lld",
                        (long long)count, (long long)o->shaped);
    for (int64_t i = 0; i < count; i++)
        SLG_TRY(tensor_same_shape(o->ctx, "w", w[i], "the one at creation", &o->shapes[i]));
    return SLG_OK;
}

/* The tensors of a list, checked. */
static slg_status gather(slg_optimizer *o, int64_t count, slg_tensor *const *w,
                         const slg_tensor *const *dw, step_pieces *p)
{
    int64_t total = 0;
    if (count < 0 || (count > 0 && (!w || !dw)))
        return slg_fail(o->ctx, SLG_ERR_NULL, "w or dw is NULL, or count is %lld",
                        (long long)count);
    for (int64_t i = 0; i < count; i++) {
        SLG_TRY(pieces_check(o->ctx, "w", w[i], "dw", dw[i]));
        if (__builtin_add_overflow(total, tensor_size(w[i]), &total)) total = -1;
    }
    if (total != o->n)
        return slg_fail(o->ctx, SLG_ERR_SHAPE,
                        "w has %lld elements, the optimizer was made for %lld",
                        (long long)total, (long long)o->n);
    SLG_TRY(match_shapes(o, count, w));
    SLG_TRY(pieces_tensors(o->ctx, count, p));
    for (int64_t i = 0, offset = 0; i < count; i++) {
        const slg_param_group *g = group_of(o, i);
        step_tensor *t = &p->tensors[i];
        t->w = w[i]->data, t->dw = dw[i]->data, t->n = tensor_size(w[i]), t->offset = offset;
        t->rows = o->shapes ? shape_rows(&o->shapes[i]) : 1;
        t->without = (g->frozen ? 1u : 0) | (g->perpendicular ? 0 : 1u << SLG_PERPENDICULAR);
        offset += t->n;
    }
    return pieces_cut(o->ctx, p);
}

/* The scalars of step t for each tensor: one set for tensors of the same rates in a row. */
static slg_status prepare(slg_optimizer *o, int64_t t, double memory, step_pieces *p)
{
    rule_args *args = NULL;
    for (int64_t i = 0; i < p->count; i++) {
        const slg_param_group *g = group_of(o, i);
        if (i == 0 || !same_rates(g, group_of(o, i - 1))) {
            rule_opts opts = o->opts;
            *o->rule->lr(&opts) *= g->lr_scale;
            *o->rule->decay(&opts) *= g->decay_scale;
            args = arena_alloc(o->ctx, 1, sizeof *args);
            if (!args) return SLG_ERR_MEMORY;
            o->rule->prepare(&opts, t, memory, args);
        }
        p->tensors[i].args = args;
    }
    return SLG_OK;
}

typedef struct step_run {
    const slg_optimizer *o;
    const step_pieces *p;
    uint32_t key;
} step_run;

static void update_piece(void *arg, int64_t task, int32_t worker)
{
    const step_run *s = arg;
    const piece *p = &s->p->pieces[task];
    const step_tensor *t = &s->p->tensors[p->tensor];
    const rule_args *args = t->args;
    const size_t first = (size_t)(t->offset + p->from);
    update_part part = { .half = s->o->setup.state_dtype == SLG_BF16,
                         .first = (uint32_t)first,
                         .key = s->key,
                         .grad = chain_fold(&t->map, args->decay) };
    (void)worker;
    for (int32_t i = 0; i < STATE_ARRAYS_MAX; i++)
        if (s->o->state[i]) part.state[i] = s->o->state[i] + first * state_item(s->o, i);
    s->o->rule->update(&s->o->ctx->k, args->kernel, (size_t)p->n, t->w + p->from,
                       t->dw + p->from, &part);
}

static slg_status step_list(slg_optimizer *o, int64_t count, slg_tensor *const *w,
                            const slg_tensor *const *dw)
{
    const rule *r = o->rule;
    const int64_t t = o->steps + 1;
    const double memory = r->advance ? r->advance(&o->opts, t, o->memory) : 0;
    step_pieces p;
    chain_report report;
    SLG_TRY(gather(o, count, w, dw, &p));
    op_detail(o->ctx, count > 0 ? w[0] : NULL);
    SLG_TRY(chain_run(o->ctx, &o->chain, o->grad_scale, &p, &report));
    SLG_TRY(prepare(o, t, memory, &p));
    step_run run = { o, &p, (uint32_t)rng_number(o->setup.seed, (uint64_t)t) };
    if (!report.skip && r->whole) SLG_TRY(r->whole->step(o, &p, run.key));
    o->report = report;
    if (report.skip) return SLG_OK;
    if (!r->whole) pool_run(o->ctx, p.tasks, update_piece, &run);
    o->steps = t;
    o->memory = memory;
    return SLG_OK;
}

slg_status slg_optimizer_step_list(slg_optimizer *o, int64_t count, slg_tensor *const *w,
                                   const slg_tensor *const *dw)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_step");
    return op_end(o->ctx, step_list(o, count, w, dw));
}

slg_status slg_optimizer_step(slg_optimizer *o, slg_tensor *w, const slg_tensor *dw)
{
    return slg_optimizer_step_list(o, 1, &w, &dw);
}

int64_t slg_optimizer_steps(const slg_optimizer *o) { return o ? o->steps : 0; }

slg_status slg_optimizer_last_step(const slg_optimizer *o, slg_optimizer_report *report)
{
    size_t size;
    if (!o || !report) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_last_step");
    slg_status status = options_size(o->ctx, "report", report, &size);
    if (status == SLG_OK) {
        const slg_optimizer_report r = { .size = (uint32_t)size,
                                         .skipped = o->report.skip,
                                         .nonfinite = o->report.nonfinite,
                                         .zeroed = o->report.zeroed,
                                         .grad_norm = o->report.norm,
                                         .clip_factor = o->report.factor };
        options_write(report, &r, sizeof r);
    }
    return op_end(o->ctx, status);
}

/* ---- Settings --------------------------------------------------------------------------- */

slg_status slg_optimizer_set_lr(slg_optimizer *o, double lr)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_set_lr");
    slg_status status = rule_below(o->ctx, "lr", lr, 0, RATE_MAX);
    if (status == SLG_OK) *o->rule->lr(&o->opts) = lr;
    return op_end(o->ctx, status);
}

slg_status slg_optimizer_set_grad_scale(slg_optimizer *o, double scale)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_set_grad_scale");
    slg_status status =
        isfinite((float)scale)
            ? SLG_OK
            : slg_fail(o->ctx, SLG_ERR_RANGE, "scale is %g, must be finite in float32", scale);
    if (status == SLG_OK) o->grad_scale = scale;
    return op_end(o->ctx, status);
}

slg_status slg_optimizer_set_chain(slg_optimizer *o, int64_t count, const slg_transform *links)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_set_chain");
    return op_end(o->ctx, chain_read(o->ctx, links, count, &o->chain));
}

static slg_status set_group(slg_optimizer *o, int64_t first, int64_t count,
                            const slg_param_group *given)
{
    slg_ctx *ctx = o->ctx;
    slg_param_group g = group_defaults;
    int64_t end;
    if (!given) return slg_fail(ctx, SLG_ERR_NULL, "group is NULL");
    SLG_TRY(options_read(ctx, "group", given, &g, sizeof g));
    SLG_TRY(option_choice(ctx, "frozen", g.frozen, 0, 1));
    SLG_TRY(option_choice(ctx, "perpendicular", g.perpendicular, 0, 1));
    SLG_TRY(option_reserved(ctx, "group.reserved", g.reserved));
    SLG_TRY(rule_below(ctx, "lr_scale", g.lr_scale, 0, RATE_MAX));
    SLG_TRY(rule_below(ctx, "decay_scale", g.decay_scale, 0, RATE_MAX));
    if (first < 0 || count < 0 || __builtin_add_overflow(first, count, &end))
        return slg_fail(ctx, SLG_ERR_RANGE, "first is %lld and count %lld, must be at least 0",
                        (long long)first, (long long)count);
    if (count > 0 && end > o->grouped) {
        if (end > INT64_MAX / 128)
            return slg_fail(ctx, SLG_ERR_RANGE, "first + count is %lld, too many",
                            (long long)end);
        slg_param_group *groups = ctx_alloc(ctx, (size_t)end * sizeof *groups);
        if (!groups) return SLG_ERR_MEMORY;
        for (int64_t i = 0; i < end; i++) groups[i] = *group_of(o, i);
        if (o->groups) ctx_free(ctx, o->groups);
        o->groups = groups, o->grouped = end;
    }
    for (int64_t i = first; i < first + count; i++) o->groups[i] = g;
    return SLG_OK;
}

slg_status slg_optimizer_set_group(slg_optimizer *o, int64_t first, int64_t count,
                                   const slg_param_group *group)
{
    if (!o) return SLG_ERR_NULL;
    op_begin(o->ctx, "slg_optimizer_set_group");
    return op_end(o->ctx, set_group(o, first, count, group));
}
