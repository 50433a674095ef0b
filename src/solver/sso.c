/*
 * sso.c - see softlogit/surrogate.h. All that a driver knows is its report: batches are a
 * function of seed and t, so a run can be taken up anywhere.
 */
#include "sso.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "core/rng.h"

static const slg_sso_opts defaults = {
    .size = sizeof defaults, .inner_steps = 10, .eta = NAN, .step = NAN, .grad_norm = 1e-6
};

void slg_sso_opts_init(slg_sso_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* ---- Callbacks -------------------------------------------------------------------------- */

static const char op_step[] = "slg_sso_step";

slg_status sso_forward(slg_sso *s, const float *w, float *z)
{
    s->report.forwards++;
    outside_begin(s->ctx);
    return outside_end(s->ctx, op_step, "model.forward", s->model.forward(s->model.user, w, z));
}

slg_status sso_backward(slg_sso *s, const float *w, const float *dz, float *dw)
{
    s->report.backwards++;
    outside_begin(s->ctx);
    return outside_end(s->ctx, op_step, "model.backward",
                       s->model.backward(s->model.user, w, dz, dw));
}

slg_status sso_tangent(slg_sso *s, const float *dw, float *dz)
{
    s->report.tangents++;
    outside_begin(s->ctx);
    return outside_end(s->ctx, op_step, "model.tangent",
                       s->model.tangent(s->model.user, dw, dz));
}

static slg_status begin(slg_sso *s, const int64_t *batch)
{
    const int64_t count = s->report.batch;
    outside_begin(s->ctx);
    slg_status status = s->model.begin ? s->model.begin(s->model.user, count, batch) : SLG_OK;
    if (status == SLG_OK && s->oracle.begin)
        status = s->oracle.begin(s->oracle.user, count, batch);
    return outside_end(s->ctx, op_step, "begin", status);
}

static slg_status evaluate(slg_sso *s)
{
    double loss;
    s->report.oracle_calls++;
    outside_begin(s->ctx);
    slg_status status = s->oracle.evaluate(s->oracle.user, s->from, &loss, s->g);
    SLG_TRY(outside_end(s->ctx, op_step, "oracle.evaluate", status));
    s->report.loss = loss;
    return SLG_OK;
}

static slg_status shifted(void *arg, double step, double *loss)
{
    slg_sso *s = arg;
    s->report.losses++;
    outside_begin(s->ctx);
    slg_status status = s->oracle.shifted(s->oracle.user, s->from, s->g, step, loss);
    return outside_end(s->ctx, op_step, "oracle.shifted", status);
}

/* ---- Batches ---------------------------------------------------------------------------- */

static void in_order(slg_sso *s)
{
    for (int64_t i = 0; i < s->model.rows; i++) s->items[i] = i;
    s->epoch = -1;
}

/* items are in order before and after: what a draw moves are its own places and those of the
   items that it took. */
static const int64_t *draw(slg_sso *s)
{
    int64_t *items = s->items, *taken = items + s->model.rows;
    const int64_t count = s->batch;
    const uint64_t offset = (uint64_t)s->report.steps * (uint64_t)count;
    rng_draw_rows(s->opts.seed, offset, s->model.rows, count, items);
    memcpy(taken, items, (size_t)count * sizeof *taken);
    for (int64_t i = 0; i < count; i++) items[taken[i]] = taken[i];
    for (int64_t i = 0; i < count; i++) items[i] = i;
    s->report.batch = count;
    return taken;
}

static const int64_t *next_batch(slg_sso *s)
{
    const int64_t n = s->model.rows, batches = (n + s->batch - 1) / s->batch;
    if (s->batch < n && s->opts.order == SLG_BATCH_DRAWN) return draw(s);
    const int64_t epoch = s->report.steps / batches;
    const int64_t from = s->report.steps % batches * s->batch;
    if (s->batch < n && s->opts.order == SLG_BATCH_SHUFFLED && s->epoch != epoch) {
        in_order(s);
        rng_draw_rows(s->opts.seed, (uint64_t)epoch * (uint64_t)n, n, n, s->items);
        s->epoch = epoch;
    }
    s->report.batch = n - from < s->batch ? n - from : s->batch;
    return s->items + from;
}

/* ---- Steps ------------------------------------------------------------------------------ */

/* eta_t, and the schedule's state. */
static slg_status schedule(slg_sso *s)
{
    const double t = (double)s->report.steps, most = (double)s->opts.total_steps;
    const double norm = s->report.gradient_norm;
    double *state = &s->report.state, *eta = &s->report.eta;
    *eta = s->opts.eta;
    if (s->opts.schedule == SLG_ETA_ROOT) *eta /= sqrt(t + 1);
    if (s->opts.schedule == SLG_ETA_EXPONENTIAL) *eta *= pow(most, -(t + 1) / most);
    if (s->opts.schedule == SLG_ETA_ADAGRAD) {
        *state += norm * norm;
        *eta /= sqrt(*state) + 1e-6;
    }
    if (s->opts.schedule != SLG_ETA_SEARCH) return SLG_OK;
    slg_target_search_out out = { .size = sizeof out, .loss_at = s->report.loss };
    const double last = *state > 0 ? *state : s->opts.eta;
    SLG_TRY(armijo_search(&s->search, last, norm * norm, shifted, s, &out));
    *eta = *state = out.step;
    return SLG_OK;
}

static slg_status outer_step(slg_sso *s, float *w)
{
    slg_sso_report *r = &s->report;
    double sums[3] = { 0 };
    r->taken = r->trials = 0;
    r->value = r->inner_norm = NAN, r->inner_step = r->eta = 0;
    SLG_TRY(begin(s, next_batch(s)));
    SLG_TRY(sso_forward(s, w, s->from));
    SLG_TRY(evaluate(s));
    const size_t n = (size_t)(r->batch * s->model.targets);
    s->ctx->k.dots(n, s->g, s->g, sums);
    r->gradient_norm = sqrt(sums[1]);
    r->reason = SLG_SSO_NOT_FINITE;
    if (isfinite(r->loss) && isfinite(r->gradient_norm)) {
        SLG_TRY(schedule(s));
        SLG_TRY(sso_inner(s, w));
    }
    r->steps++;
    return SLG_OK;
}

static slg_status weights_check(slg_sso *s, const slg_tensor *w)
{
    SLG_TRY(tensor_out(s->ctx, "w", w, DT_F32, 1, 4));
    if (tensor_size(w) != s->model.dim)
        return slg_fail(s->ctx, SLG_ERR_SHAPE, "w has %lld elements, the model's dim is %lld",
                        (long long)tensor_size(w), (long long)s->model.dim);
    if (tensor_contiguous(w)) return SLG_OK;
    return slg_fail(s->ctx, SLG_ERR_STRIDE, "w must be contiguous");
}

static slg_status step(slg_sso *s, slg_tensor *w, slg_sso_report *report)
{
    const size_t bytes = (size_t)s->model.dim * sizeof(float);
    const slg_sso_report before = s->report;
    size_t size;
    SLG_TRY(weights_check(s, w));
    if (report) SLG_TRY(options_size(s->ctx, "report", report, &size));
    op_detail(s->ctx, w);
    if (s->model.rows == 0) {
        s->report.reason = SLG_SSO_EMPTY;
    } else {
        memcpy(s->start, w->data, bytes);
        slg_status status = outer_step(s, w->data);
        if (status || s->report.reason == SLG_SSO_NOT_FINITE) memcpy(w->data, s->start, bytes);
        if (status) s->report = before;
        SLG_TRY(status);
    }
    if (report) options_write(report, &s->report, sizeof s->report);
    return SLG_OK;
}

slg_status slg_sso_step(slg_sso *s, slg_tensor *w, slg_sso_report *report)
{
    if (!s) return SLG_ERR_NULL;
    op_begin(s->ctx, op_step);
    return op_end(s->ctx, step(s, w, report));
}

static slg_status restore(slg_sso *s, const slg_sso_report *report)
{
    slg_sso_report r = s->report;
    if (!report) return slg_fail(s->ctx, SLG_ERR_NULL, "report is NULL");
    SLG_TRY(options_read(s->ctx, "report", report, &r, sizeof r));
    const int64_t counts[] = { r.steps,     r.oracle_calls, r.inner_steps, r.forwards,
                               r.backwards, r.tangents,     r.losses };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i] < 0)
            return slg_fail(s->ctx, SLG_ERR_RANGE, "a count of the report is %lld",
                            (long long)counts[i]);
    SLG_TRY(option_least(s->ctx, "report.state", r.state, 0));
    s->report = r;
    return SLG_OK;
}

slg_status slg_sso_restore(slg_sso *s, const slg_sso_report *report)
{
    if (!s) return SLG_ERR_NULL;
    op_begin(s->ctx, "slg_sso_restore");
    return op_end(s->ctx, restore(s, report));
}

/* ---- Life ------------------------------------------------------------------------------- */

static slg_status callbacks_read(slg_sso *s, const slg_target_model *model,
                                 const slg_target_oracle *oracle)
{
    slg_ctx *ctx = s->ctx;
    slg_target_model *m = &s->model;
    slg_target_oracle *o = &s->oracle;
    if (!model || !oracle) return slg_fail(ctx, SLG_ERR_NULL, "model or oracle is NULL");
    SLG_TRY(options_read(ctx, "model", model, m, sizeof *m));
    SLG_TRY(options_read(ctx, "oracle", oracle, o, sizeof *o));
    SLG_TRY(option_reserved(ctx, "model.reserved", m->reserved));
    SLG_TRY(option_reserved(ctx, "oracle.reserved", o->reserved));
    if (!m->forward || !m->backward || !o->evaluate)
        return slg_fail(ctx, SLG_ERR_NULL,
                        "model.forward, model.backward or oracle.evaluate is NULL");
    if (m->rows != o->rows || m->targets != o->targets)
        return slg_fail(ctx, SLG_ERR_SHAPE, "model is %lld x %lld, oracle %lld x %lld",
                        (long long)m->rows, (long long)m->targets, (long long)o->rows,
                        (long long)o->targets);
    const int64_t most = INT64_MAX / 64;
    if (m->rows < 0 || m->rows > most || m->targets < 1 || m->targets > INT32_MAX ||
        m->dim < 1 || m->dim > most)
        return slg_fail(ctx, SLG_ERR_RANGE, "model has rows %lld, targets %lld, dim %lld",
                        (long long)m->rows, (long long)m->targets, (long long)m->dim);
    return SLG_OK;
}

static slg_status choices_check(slg_ctx *ctx, const slg_sso_opts *o)
{
    SLG_TRY(option_choice(ctx, "opts.surrogate", o->surrogate, SLG_SURROGATE_SQUARED,
                          SLG_SURROGATE_KL));
    SLG_TRY(option_choice(ctx, "opts.schedule", o->schedule, SLG_ETA_CONSTANT, SLG_ETA_SEARCH));
    SLG_TRY(option_choice(ctx, "opts.inner", o->inner, SLG_INNER_ARMIJO, SLG_INNER_CONJUGATE));
    SLG_TRY(option_choice(ctx, "opts.order", o->order, SLG_BATCH_DRAWN, SLG_BATCH_IN_ORDER));
    SLG_TRY(option_choice(ctx, "opts.final_value", o->final_value, 0, 1));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o->reserved));
    SLG_TRY(option_least(ctx, "opts.grad_norm", o->grad_norm, 0));
    if (o->inner_steps < 0 || o->batch < 0 || o->total_steps < 0)
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "opts.inner_steps is %d, batch %lld, total_steps %lld: at least 0",
                        o->inner_steps, (long long)o->batch, (long long)o->total_steps);
    if (o->schedule == SLG_ETA_EXPONENTIAL && o->total_steps < 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.total_steps must be given: the schedule's T");
    return SLG_OK;
}

/* eta and step, whose defaults are NaN. */
static slg_status rates_check(slg_sso *s)
{
    slg_ctx *ctx = s->ctx;
    slg_sso_opts *o = &s->opts;
    const double smooth = s->oracle.smoothness[o->surrogate];
    if (isnan(o->eta)) {
        if (!(smooth > 0 && isfinite(smooth)))
            return slg_fail(ctx, SLG_ERR_RANGE,
                            "opts.eta must be given: oracle.smoothness[%d] is %g", o->surrogate,
                            smooth);
        o->eta = 1 / smooth;
    }
    const bool constant = o->schedule == SLG_ETA_CONSTANT;
    if (!(o->eta > 0) || !isfinite(1 / o->eta) || (!constant && isinf(o->eta)))
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.eta is %g, must be positive%s", o->eta,
                        constant ? "" : " and finite");
    if (isnan(o->step) && o->inner == SLG_INNER_FIXED)
        return slg_fail(ctx, SLG_ERR_RANGE, "opts.step must be given for SLG_INNER_FIXED");
    if (isnan(o->step)) o->step = 10;
    if (o->step > 0 && isfinite(o->step)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "opts.step is %g, must be positive and finite",
                    o->step);
}

static slg_status options_check(slg_sso *s, const slg_sso_opts *given)
{
    slg_ctx *ctx = s->ctx;
    slg_sso_opts *o = &s->opts;
    SLG_TRY(options_read(ctx, "opts", given, o, sizeof *o));
    SLG_TRY(choices_check(ctx, o));
    SLG_TRY(rates_check(s));
    SLG_TRY(armijo_read(ctx, "opts.search", o->search, &s->search));
    SLG_TRY(armijo_read(ctx, "opts.inner_search", o->inner_search, &s->inner));
    if (o->inner == SLG_INNER_OPTIMIZER && !o->optimizer)
        return slg_fail(ctx, SLG_ERR_NULL, "opts.optimizer is NULL");
    if (o->schedule == SLG_ETA_SEARCH && !s->oracle.shifted)
        return slg_fail(ctx, SLG_ERR_UNSUPPORTED, "SLG_ETA_SEARCH: oracle.shifted is NULL");
    if (o->inner == SLG_INNER_CONJUGATE &&
        (!s->model.tangent || o->surrogate != SLG_SURROGATE_SQUARED || isinf(o->eta)))
        return slg_fail(ctx, SLG_ERR_UNSUPPORTED,
                        "SLG_INNER_CONJUGATE needs model.tangent, SLG_SURROGATE_SQUARED and a "
                        "finite eta");
    return SLG_OK;
}

static slg_status create(slg_sso *s, const slg_target_model *model,
                         const slg_target_oracle *oracle, const slg_sso_opts *opts)
{
    SLG_TRY(callbacks_read(s, model, oracle));
    SLG_TRY(options_check(s, opts));
    const int64_t n = s->model.rows, dim = s->model.dim;
    s->batch = s->opts.batch > 0 && s->opts.batch < n ? s->opts.batch : n;
    int64_t size;
    if (__builtin_mul_overflow(s->batch, s->model.targets, &size) || size > INT64_MAX / 64)
        return slg_fail(s->ctx, SLG_ERR_MEMORY, "a batch of %lld x %lld is too large",
                        (long long)s->batch, (long long)s->model.targets);
    if (n == 0) return SLG_OK;
    s->items = ctx_alloc(s->ctx, (size_t)(n + s->batch) * sizeof *s->items);
    s->g = s->items ? ctx_alloc(s->ctx, 3 * (size_t)size * sizeof *s->g) : NULL;
    s->start = s->g ? ctx_alloc(s->ctx, 3 * (size_t)dim * sizeof *s->start) : NULL;
    if (!s->start) return SLG_ERR_MEMORY;
    s->from = s->g + size, s->z = s->from + size;
    s->d = s->start + dim, s->to = s->d + dim;
    in_order(s);
    return SLG_OK;
}

slg_status slg_sso_create(slg_ctx *ctx, const slg_target_model *model,
                          const slg_target_oracle *oracle, const slg_sso_opts *opts,
                          slg_sso **out)
{
    if (!ctx || !out) return SLG_ERR_NULL;
    *out = NULL;
    op_begin(ctx, "slg_sso_create");
    slg_sso *s = ctx_alloc(ctx, sizeof *s);
    if (!s) return op_end(ctx, SLG_ERR_MEMORY);
    *s = (slg_sso){ .ctx = ctx,
                    .opts = defaults,
                    .search = armijo_defaults,
                    .inner = armijo_inner_defaults,
                    .report = { .size = sizeof s->report } };
    slg_status status = create(s, model, oracle, opts);
    if (status)
        slg_sso_free(s);
    else
        *out = s;
    return op_end(ctx, status);
}

void slg_sso_free(slg_sso *s)
{
    if (!s) return;
    slg_ctx *ctx = s->ctx;
    ctx_free(ctx, s->items), ctx_free(ctx, s->g), ctx_free(ctx, s->start), ctx_free(ctx, s);
}
