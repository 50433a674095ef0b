/*
 * distillation.c - see distill.h. The teacher's blocks are brought to the student's
 * temperature, so that a difference of logits is one of log-probabilities but for a constant.
 *
 * With cross-entropy at a tau that is not 1 the student has two softmaxes ("soft": the engine's
 * is the one at its own temperature). Otherwise the engine's is at tau.
 */
#include <math.h>

#include "core/options.h"
#include "second.h"
#include "softlogit/distill.h"
#include "softmax/pipeline.h"

static const slg_distillation_opts defaults = {
    .size = sizeof(slg_distillation_opts),
    .reduction = SLG_MEAN,
    .kind = SLG_FORWARD_KL,
    .tau_squared = 1,
    .temperature = 1,
    .weight = 1,
    .teacher_share = 0.5,
};

void slg_distillation_opts_init(slg_distillation_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* loss_row.parts, .sums and .more. */
enum { TEACHER, STUDENT };
enum { DOT, DOT_SQUARE, MEAN, ODD };
enum { TEACHER_LSE, TEACHER_PRE, STUDENT_LSE, STUDENT_PRE };

static bool soft(const slg_distillation_opts *o)
{
    return o->cross_entropy > 0 && o->temperature != 1;
}

static double soft_temperature(const loss_call *c, const loss_row *r)
{
    const slg_distillation_opts *o = c->opts;
    return soft(o) ? r->temperature * o->temperature : r->temperature;
}

static second student_of(const loss_call *c, const loss_row *r)
{
    return (second){ &c->src, soft_temperature(c, r), 1.0f, -1 };
}

/* The source's temperature has tau in it, see open. */
static second teacher_of(const loss_call *c, const loss_row *r)
{
    double t = soft_temperature(c, r), own = source_temperature(&c->teacher, r->row);
    return (second){ &c->teacher, t, own == t ? 1.0f : (float)(t / own), -1 };
}

static const float *at_temperature(const loss_call *c, const loss_row *r, int64_t n,
                                   const float *t, float *scratch)
{
    float ratio = teacher_of(c, r).ratio;
    if (ratio == 1.0f) return t;
    c->ctx->k.scale((size_t)n, t, ratio, scratch);
    return scratch;
}

/* Classes [from, to) of a block: both log-sum-exps, and the sum that the divergence needs: it
   is at the scale of the kernel's second row. */
static void reduce_pair(const loss_call *c, loss_row *r, int64_t from, int64_t to,
                        const float *x, const float *t, const exp_arg *arg, lse_part *student)
{
    const slg_distillation_opts *o = c->opts;
    const size_t n = (size_t)(to - from);
    lse_part *teacher = &r->parts[TEACHER];
    double *dot = r->sums + DOT;
    x += from, t += from;
    if (o->kind == SLG_REVERSE_KL)
        c->ctx->k.lse_pair(n, t, arg, teacher, x, arg, student, PAIR_DIFFERENCE, 0.0f, dot);
    else
        c->ctx->k.lse_pair(n, x, arg, student, t, arg, teacher,
                           o->kind == SLG_FORWARD_KL ? PAIR_DIFFERENCE : PAIR_SUMS, 0.0f, dot);
}

/* The student's segment ends: reverse KL's sum is at its scale, and so is kept beside. */
static void close_dot(loss_row *r)
{
    const lse_part dot = { r->sums[DOT], r->rest.segment.ref, -INFINITY };
    part_merge(&r->parts[STUDENT], &dot);
    r->sums[DOT] = 0;
}

/* The student at the engine's temperature: its other classes are the engine's sums. */
static void reduce_all(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                       const float *t)
{
    const slg_distillation_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    const exp_arg *arg = &r->rest.arg;
    float ts[KERNEL_BLOCK];
    int64_t y = r->target - col, first = y >= 0 && y < n ? y : n;
    if (o->kind == SLG_REVERSE_KL && col > 0 && col % ROW_SEGMENT == 0) close_dot(r);
    row_segment(&r->rest, col);
    t = at_temperature(c, r, n, t, ts);
    reduce_pair(c, r, 0, first, x, t, arg, &r->rest.segment);
    if (first == n) return;
    reduce_pair(c, r, first + 1, n, x, t, arg, &r->rest.segment);
    if (o->kind == SLG_FORWARD_KL) /* the teacher's sums are over all classes */
        k->lse_dot(1, t + y, x + y, 0.0f, arg, &r->parts[TEACHER], r->sums + DOT);
    else
        k->lse(1, t + y, arg, &r->parts[TEACHER]);
}

/* Two temperatures of the student's. */
static void reduce(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                   const float *t)
{
    float ts[KERNEL_BLOCK];
    const exp_arg arg = exp_arg_of(soft_temperature(c, r), 0.0f);
    (void)col;
    t = at_temperature(c, r, n, t, ts);
    reduce_pair(c, r, 0, n, x, t, &arg, &r->parts[STUDENT]);
}

/* ---- Value ------------------------------------------------------------------------------- */

/* The student at tau over all classes. */
static void student_finish(const loss_call *c, const loss_row *r, row_stat *s)
{
    const second student = student_of(c, r);
    if (soft(c->opts)) {
        second_finish(c, r->row, &student, &r->parts[STUDENT], s);
        return;
    }
    *s = r->rest;
    s->lse = r->lse;
    if (r->target < 0) return;
    s->lse_rel = r->lse - (double)s->arg.pre / r->temperature;
    /* Beyond the kernels' range the target's logit may dwarf the others': the row around it. */
    if (s->arg.pre == 0 &&
        fabs((double)r->x_target * (double)s->arg.log2e_t) <= (double)EXP_LIMIT)
        return;
    const lse_part none = { NAN, 0, NAN };
    second_finish(c, r->row, &student, &none, s);
}

/* p and q of a class, and log(p / q). */
static double log_of(float x, double temperature, double pre, double lse)
{
    return ((double)x - pre) / temperature - lse;
}

static double log_share(double log_p, double log_q, double share)
{
    double d = log_q - log_p; /* log(p / m) = -log(1 - s + s exp(d)) */
    return d > 0 ? -(d + log(share + (1 - share) * exp(-d))) : -log1p(share * expm1(d));
}

/* Rows that the kernels cannot hold. */
static void js_slow(const loss_call *c, const loss_row *r, const row_stat *p, const row_stat *q,
                    double share, double sums[2])
{
    float xs[KERNEL_BLOCK], ts[KERNEL_BLOCK];
    const second student = student_of(c, r), teacher = teacher_of(c, r);
    for (int64_t col = 0; col < c->src.cols; col += KERNEL_BLOCK) {
        int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
        const float *x = second_fetch(&student, r->row, col, n, xs);
        const float *t = second_fetch(&teacher, r->row, col, n, ts);
        for (int64_t i = 0; i < n; i++) {
            double lp = log_of(x[i], student.temperature, (double)p->arg.pre, p->lse_rel);
            double lq = log_of(t[i], student.temperature, (double)q->arg.pre, q->lse_rel);
            if (exp(lp) > 0) sums[0] += exp(lp) * log_share(lp, lq, share);
            if (exp(lq) > 0) sums[1] += exp(lq) * log_share(lq, lp, 1 - share);
        }
    }
}

static void js_fast(const loss_call *c, const loss_row *r, const row_stat *p, const row_stat *q,
                    double share, double sums[2])
{
    float xs[KERNEL_BLOCK], ts[KERNEL_BLOCK];
    const second student = student_of(c, r), teacher = teacher_of(c, r);
    const exp_out ep = exp_out_of(&p->arg, p->lse_rel, 1),
                  eq = exp_out_of(&q->arg, q->lse_rel, 1);
    for (int64_t col = 0; col < c->src.cols; col += KERNEL_BLOCK) {
        int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
        const float *x = second_fetch(&student, r->row, col, n, xs);
        const float *t = second_fetch(&teacher, r->row, col, n, ts);
        c->ctx->k.js_sums((size_t)n, x, &ep, t, &eq, (float)share, sums);
    }
}

/* Mean of x - t under the student: of the other classes, and the target's own. */
static double reverse_mean(const loss_call *c, loss_row *r, const second *teacher)
{
    if (soft(c->opts)) return r->sums[DOT] / r->parts[STUDENT].sum;
    const lse_part *rest = &r->rest.part, *dot = &r->parts[STUDENT];
    double mean = 0;
    close_dot(r);
    if (r->other > 0)
        mean = r->other * ldexp(dot->sum, (int)(dot->ref - rest->ref)) / rest->sum;
    if (r->p_target > 0) {
        float scratch[1], y = *second_fetch(teacher, r->row, r->target, 1, scratch);
        mean += r->p_target * ((double)r->x_target - (double)y);
    }
    return mean;
}

/* The divergence; r->sums[MEAN] is what the gradient needs of it. */
static double divergence(const loss_call *c, loss_row *r, const row_stat *p, const row_stat *q)
{
    const slg_distillation_opts *o = c->opts;
    const second student = student_of(c, r), teacher = teacher_of(c, r);
    const double t = student.temperature;
    if (o->kind == SLG_JENSEN_SHANNON) {
        double sums[2] = { 0, 0 }, share = o->teacher_share;
        (r->sums[ODD] != 0 ? js_slow : js_fast)(c, r, p, q, share, sums);
        r->sums[MEAN] = sums[0];
        return fmax(share * sums[1] + (1 - share) * sums[0], 0);
    }
    bool forward = o->kind == SLG_FORWARD_KL;
    double mean = forward ? r->sums[DOT] / r->parts[TEACHER].sum : reverse_mean(c, r, &teacher);
    if (r->sums[ODD] != 0)
        mean = forward ? second_mean(c, r->row, &teacher, q, &teacher, &student, 0)
                       : second_mean(c, r->row, &student, p, &student, &teacher, 0);
    r->sums[MEAN] = mean;
    double lse = q->lse_rel - p->lse_rel + ((double)q->arg.pre - (double)p->arg.pre) / t;
    double kl = forward ? mean / t - lse : mean / t + lse;
    return kl < 0 ? 0 : kl;
}

/* Gradient of the target's entry, times 1 / (slope of the divergence). */
static double target_slope(const loss_call *c, const loss_row *r, const row_stat *p,
                           const row_stat *q)
{
    const slg_distillation_opts *o = c->opts;
    const second teacher = teacher_of(c, r);
    float scratch[1];
    float y = *second_fetch(&teacher, r->row, r->target, 1, scratch);
    double t = teacher.temperature;
    double lp = log_of(r->x_target, t, (double)p->arg.pre, p->lse_rel);
    double lq = log_of(y, t, (double)q->arg.pre, q->lse_rel);
    if (o->kind == SLG_FORWARD_KL) return exp(lp) - exp(lq);
    if (exp(lp) == 0) return 0;
    if (o->kind == SLG_REVERSE_KL)
        return exp(lp) * (((double)r->x_target - (double)y) - r->sums[MEAN]) / t;
    return (1 - o->teacher_share) * exp(lp) *
           (log_share(lp, lq, o->teacher_share) - r->sums[MEAN]);
}

static void solve(const loss_call *c, loss_row *r)
{
    const slg_distillation_opts *o = c->opts;
    const second teacher = teacher_of(c, r);
    const double tau = o->temperature, scale = o->weight * (o->tau_squared ? tau * tau : 1);
    row_stat p, q;
    student_finish(c, r, &p);
    second_finish(c, r->row, &teacher, &r->parts[TEACHER], &q);
    if (q.kind != ROW_PLAIN) {
        r->loss = r->a = r->at_target = NAN;
        return;
    }
    r->sums[ODD] = p.arg.pre != 0 || q.arg.pre != 0;
    double loss = loss_term(scale, divergence(c, r, &p, &q));
    if (o->cross_entropy > 0) loss += o->cross_entropy * loss_softplus(r->log_odds);
    r->loss = loss_term(r->weight, loss);
    r->a = r->weight * scale / (soft(o) ? tau : 1);
    r->more[TEACHER_LSE] = q.lse_rel, r->more[TEACHER_PRE] = (double)q.arg.pre;
    r->more[STUDENT_LSE] = p.lse_rel, r->more[STUDENT_PRE] = (double)p.arg.pre;
    if (r->target < 0) return;
    r->at_target = loss_term(r->a, target_slope(c, r, &p, &q));
    r->at_target -= r->weight * o->cross_entropy * r->other;
}

/* ---- Gradient ---------------------------------------------------------------------------- */

static void js_emit_slow(const loss_call *c, const loss_row *r, double slope, int64_t n,
                         const float *x, const float *t, float *d)
{
    const slg_distillation_opts *o = c->opts;
    const double *m = r->more, temperature = soft_temperature(c, r);
    for (int64_t i = 0; i < n; i++) {
        double lp = log_of(x[i], temperature, m[STUDENT_PRE], m[STUDENT_LSE]);
        double lq = log_of(t[i], temperature, m[TEACHER_PRE], m[TEACHER_LSE]);
        double line = exp(lp) > 0 ? log_share(lp, lq, o->teacher_share) - r->sums[MEAN] : 0;
        d[i] = (float)(slope * exp(lp) * line);
    }
}

/* Gradient of the divergence, times slope. */
static void emit_divergence(const loss_call *c, const loss_row *r, double slope, double both,
                            int64_t n, const float *x, const float *t, float *d, int store)
{
    const slg_distillation_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    const double temperature = soft_temperature(c, r), *m = r->more;
    const exp_out q = second_out(temperature, m[TEACHER_LSE], m[TEACHER_PRE],
                                 o->kind == SLG_FORWARD_KL ? -slope : 1);
    exp_out p = second_out(temperature, m[STUDENT_LSE], m[STUDENT_PRE],
                           o->kind == SLG_FORWARD_KL ? slope + both : 1);
    if (o->kind == SLG_FORWARD_KL) {
        k->exp_emit2((size_t)n, x, &p, t, &q, d, store);
    } else if (o->kind == SLG_REVERSE_KL) {
        p.c = (float)(both - slope * r->sums[MEAN] / temperature);
        k->exp_emit_linear((size_t)n, x, &p, (float)(slope / temperature), t, 0.0f, d, store);
    } else {
        slope *= 1 - o->teacher_share;
        if (r->sums[ODD] != 0) {
            js_emit_slow(c, r, slope, n, x, t, d);
            return;
        }
        k->js_emit((size_t)n, x, &p, t, &q, (float)o->teacher_share, (float)slope,
                   (float)(both - slope * r->sums[MEAN]), d, store);
    }
}

static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *t, float *d, int store)
{
    const slg_distillation_opts *o = c->opts;
    const double factor = loss_factor(r), ce = r->weight * o->cross_entropy * factor;
    float ts[EMIT_BLOCK], own[EMIT_BLOCK];
    (void)col;
    if (isnan(r->a) || r->weight == 0) {
        fill_f32(d, n, isnan(r->a) ? NAN : 0.0f);
        return;
    }
    t = at_temperature(c, r, n, t, ts);
    bool apart = ce > 0 && (soft(o) || (o->kind == SLG_JENSEN_SHANNON && r->sums[ODD] != 0));
    apart = apart && r->rest.kind != ROW_MASKED;
    if (apart) { /* first: d may be x */
        const exp_out e = loss_softmax(c, r, ce, 0.0f);
        c->ctx->k.exp_emit((size_t)n, x, &e, own, STORE_CACHED);
    }
    emit_divergence(c, r, r->a * factor, apart ? 0 : ce, n, x, t, d,
                    apart ? STORE_CACHED : store);
    if (apart) c->ctx->k.add((size_t)n, own, d);
}

/* ---- The call ---------------------------------------------------------------------------- */

static slg_status multiply_temperature(slg_ctx *ctx, logit_source *s, double tau)
{
    s->temperature *= tau;
    if (!(s->temperature >= 1e-30 && s->temperature <= 1e30))
        return slg_fail(ctx, SLG_ERR_RANGE,
                        "temperatures multiply to %g, must be from 1e-30 to 1e30",
                        s->temperature);
    s->arg = exp_arg_of(s->temperature, 0.0f);
    return SLG_OK;
}

static slg_status open(loss_call *c)
{
    const slg_distillation_opts *o = c->opts;
    if (o->temperature == 1) return SLG_OK;
    SLG_TRY(multiply_temperature(c->ctx, &c->teacher, o->temperature));
    return soft(o) ? SLG_OK : multiply_temperature(c->ctx, &c->src, o->temperature);
}

static slg_status check_opts(slg_ctx *ctx, const slg_distillation_opts *o)
{
    SLG_TRY(option_choice(ctx, "kind", o->kind, SLG_FORWARD_KL, SLG_JENSEN_SHANNON));
    SLG_TRY(option_choice(ctx, "tau_squared", o->tau_squared, 0, 1));
    SLG_TRY(option_range(ctx, "temperature", o->temperature, 1e-4, 1e4));
    SLG_TRY(option_least(ctx, "weight", o->weight, 0));
    SLG_TRY(option_least(ctx, "cross_entropy", o->cross_entropy, 0));
    SLG_TRY(option_range(ctx, "teacher_share", o->teacher_share, 0.001, 0.999));
    return SLG_OK;
}

static slg_status distillation(slg_ctx *ctx, const slg_logits *logits,
                               const slg_targets *targets, const slg_distillation_opts *opts,
                               slg_loss_out *out, slg_logits_grad *grad)
{
    slg_distillation_opts o = defaults;
    slg_targets t;
    loss_method method = {
        .uses = TARGET_TEACHER | TARGET_ROW_WEIGHT, .open = open, .solve = solve, .emit = emit
    };
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(check_opts(ctx, &o));
    if (soft(&o))
        method.reduce = reduce;
    else
        method.reduce_all = reduce_all;
    slg_targets_init(&t, sizeof t);
    if (targets) SLG_TRY(options_read(ctx, "targets", targets, &t, sizeof t));
    if (t.index || o.cross_entropy > 0) method.uses |= TARGET_INDEX;
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_distillation(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                            const slg_distillation_opts *opts, slg_loss_out *out,
                            slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_distillation");
    return op_end(ctx, distillation(ctx, logits, targets, opts, out, grad));
}
