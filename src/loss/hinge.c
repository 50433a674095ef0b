/*
 * hinge.c - see hinge.h. With h = max(0, (x - ref) + T m), ref 0 or the target's score, every
 * form is made of sums of h and h^2 over the rivals, or of their maximum. All in x, before
 * the temperature T: the loss is T^-p times that.
 */
#include "hinge_run.h"

#include <math.h>

#include "core/options.h"
#include "engine.h"
#include "softmax/pipeline.h"

static const slg_hinge_opts defaults = {
    .size = sizeof(slg_hinge_opts),
    .power = 2,
    .reduction = SLG_MEAN,
    .margin = 1,
};

void slg_hinge_opts_init(slg_hinge_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* r->sums, over rivals: of h, h^2, [h > 0]; where the largest is; ref. */
enum { H, H2, ACTIVE, AT, REF };

static float margin_of(const hinge_spec *s, const loss_row *r)
{
    return (float)(s->margin * r->temperature);
}

/* Where float32 overflows within a block. */
static void sum_in_double(int64_t n, const float *x, float ref, float margin, hinge_part *p)
{
    p->sum = p->square = 0;
    for (int64_t i = 0; i < n; i++) {
        double h = x[i] == -INFINITY ? 0 : (double)x[i] - (double)ref + (double)margin;
        if (h <= 0) continue;
        p->sum += h;
        p->square += h * h;
    }
}

static void add_rivals(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x)
{
    const kernel_table *k = &c->ctx->k;
    const float ref = (float)r->sums[REF], margin = margin_of(c->opts, r);
    hinge_part p = HINGE_EMPTY;
    k->hinge_sum((size_t)n, x, ref, margin, &p);
    if (!isfinite(p.square)) sum_in_double(n, x, ref, margin, &p);
    r->sums[H] += p.sum, r->sums[H2] += p.square, r->sums[ACTIVE] += p.count;
    if (!(p.max > r->rest.part.max)) return;
    r->rest.part.max = p.max;
    if (((const hinge_spec *)c->opts)->form == SLG_MAX_MARGIN)
        r->sums[AT] = (double)(col + k->find((size_t)n, x, p.max));
}

static void reduce(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                   const float *teacher)
{
    (void)teacher;
    const hinge_spec *s = c->opts;
    int64_t t = r->target - col;
    if (r->target < 0) return;
    if (col == 0) {
        float scratch[1];
        r->rest.part.max = -INFINITY;
        if (s->form != SLG_ONE_VS_REST)
            r->sums[REF] = (double)*source_fetch(&c->src, r->row, r->target, 1, scratch);
    }
    if (t < 0 || t >= n) {
        add_rivals(c, r, col, n, x);
        return;
    }
    if (t > 0) add_rivals(c, r, col, t, x);
    if (t + 1 < n) add_rivals(c, r, col + t + 1, n - t - 1, x + t + 1);
}

/* weight * value, 0 where the weight is, also of an infinite value. */
static double term(double weight, double value) { return weight == 0 ? 0 : weight * value; }

static double row_weight(const loss_call *c, const loss_row *r)
{
    const hinge_spec *s = c->opts;
    double w = loss_class_weight(c, r);
    return r->weight * w * s->factor / (s->per_entry ? (double)c->src.cols : 1.0);
}

static void solve(const loss_call *c, loss_row *r)
{
    const hinge_spec *s = c->opts;
    const bool squared = s->power == 2;
    const double t = r->temperature, margin = (double)margin_of(s, r), w = row_weight(c, r);
    const double down = squared ? 2 / t : 1; /* of the gradient: 2 h / T, or [h > 0] */
    double h = r->sums[H], h2 = r->sums[H2], active = r->sums[ACTIVE], pull; /* on the target */
    if (isnan(h) || isnan(r->x_target)) {
        r->loss = r->a = r->at_target = NAN;
        return;
    }
    if (s->form == SLG_ONE_VS_REST) {
        double own = fmax(0, margin - (double)r->x_target);
        h += own, h2 += own * own;
        pull = squared ? own : own > 0;
    } else if (s->form == SLG_SUM_MARGIN) {
        pull = squared ? h : active;
    } else {
        h = r->rest.part.max == -INFINITY
                ? 0
                : fmax(0, (double)r->rest.part.max - (double)r->x_target + margin);
        h2 = h * h;
        pull = squared ? h : h > 0;
    }
    r->loss = term(w, squared ? h2 / (t * t) : h / t);
    r->a = w * down;
    r->at_target = r->x_target == -INFINITY ? 0 : -term(r->a, pull);
    r->more[0] = term(r->a, pull); /* max-margin: what the rival takes */
}

static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *teacher, float *d, int store)
{
    (void)teacher;
    const hinge_spec *s = c->opts;
    const double factor = loss_factor(r);
    const int64_t t = r->target - col, at = (int64_t)r->sums[AT] - col;
    if (isnan(r->a)) {
        fill_f32(d, n, NAN);
    } else if (r->a == 0 || s->form == SLG_MAX_MARGIN) {
        fill_f32(d, n, 0.0f);
        if (at >= 0 && at < n && r->more[0] > 0) d[at] = (float)(r->more[0] * factor);
    } else {
        c->ctx->k.hinge_grad((size_t)n, x, (float)r->sums[REF], margin_of(s, r),
                             (float)(r->a * factor), s->power, d, store);
    }
    if (t >= 0 && t < n) d[t] = (float)(r->at_target * factor);
}

static const loss_method method = {
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT | TARGET_CLASS_WEIGHT,
    .flags = LOSS_NO_LSE | LOSS_HAS_MAX | LOSS_KEEP_TARGET,
    .reduce = reduce,
    .solve = solve,
    .emit = emit,
};

slg_status hinge_run(slg_ctx *ctx, const hinge_spec *spec, int32_t reduction,
                     const slg_logits *logits, const slg_targets *targets, slg_loss_out *out,
                     slg_logits_grad *grad)
{
    SLG_TRY(option_choice(ctx, "form", spec->form, SLG_ONE_VS_REST, SLG_SUM_MARGIN));
    SLG_TRY(option_choice(ctx, "power", spec->power, 1, 2));
    SLG_TRY(option_least(ctx, "margin", spec->margin, 0));
    return loss_run(ctx, &method, spec, reduction, logits, targets, out, grad);
}

static slg_status hinge(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                        const slg_hinge_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    slg_hinge_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_reserved(ctx, "opts.reserved", o.reserved));
    SLG_TRY(option_choice(ctx, "per_entry", o.per_entry, 0, 1));
    const hinge_spec spec = { o.form, o.power, o.margin, 1, o.per_entry != 0 };
    return hinge_run(ctx, &spec, o.reduction, logits, targets, out, grad);
}

slg_status slg_hinge(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                     const slg_hinge_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_hinge");
    return op_end(ctx, hinge(ctx, logits, targets, opts, out, grad));
}
