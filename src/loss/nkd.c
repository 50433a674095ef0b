/*
 * nkd.c - see distill.h. The engine's softmax leaves the target out already: at tau = 1 it
 * is P, the student's over the other classes, and the gradient is two exponentials, of P and
 * of the teacher's Q.
 */
#include <math.h>

#include "core/options.h"
#include "second.h"
#include "softlogit/distill.h"
#include "softmax/pipeline.h"

static const slg_nkd_opts defaults = {
    .size = sizeof(slg_nkd_opts),
    .reduction = SLG_MEAN,
    .temperature = 1,
    .gamma = 1.5,
    .target_weight = 1,
};

void slg_nkd_opts_init(slg_nkd_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

/* parts: the teacher at tau, and where tau is not 1 the student at tau and the teacher at 1;
   all without the target. sums[DOT] is of Q (x - sums[SHIFT]), the shift being the student's
   maximum so far: so differences keep their precision under a large common offset. */
enum { TEACHER, STUDENT, TEACHER_ONE };
enum { DOT, SHIFT, SHIFTED };
enum { TEACHER_LSE, TEACHER_PRE, STUDENT_LSE, STUDENT_PRE };

static second student_of(const loss_call *c, const loss_row *r)
{
    const slg_nkd_opts *o = c->opts;
    return (second){ &c->src, r->temperature * o->temperature, 1.0f, r->target };
}

static second teacher_of(const loss_call *c, const loss_row *r, double tau)
{
    return (second){ &c->teacher, source_temperature(&c->teacher, r->row) * tau, 1.0f,
                     r->target };
}

/* To the maximum of the other classes up to and with this block; first: the target's place, or
   n. */
static void move_shift(const kernel_table *k, loss_row *r, int64_t first, int64_t n,
                       const float *x)
{
    double *s = r->sums, max = (double)k->max((size_t)first, x);
    if (first < n) max = fmax(max, (double)k->max((size_t)(n - first - 1), x + first + 1));
    if (!isfinite(max) || (s[SHIFTED] != 0 && max <= s[SHIFT])) return;
    if (r->parts[TEACHER].sum != 0) s[DOT] += r->parts[TEACHER].sum * (s[SHIFT] - max);
    s[SHIFT] = max;
    s[SHIFTED] = 1;
}

/* Other classes [from, to) of a block: the student into *student, the teacher at tau, Q (x -
   shift). */
static void reduce_pair(const loss_call *c, loss_row *r, int64_t from, int64_t to,
                        const float *x, const exp_arg *arg, lse_part *student, const float *t,
                        const exp_arg *arg_t)
{
    c->ctx->k.lse_pair((size_t)(to - from), x + from, arg, student, t + from, arg_t,
                       &r->parts[TEACHER], PAIR_CROSS, (float)r->sums[SHIFT], r->sums + DOT);
}

/* tau is 1: P is the engine's softmax. */
static void reduce_all(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                       const float *t)
{
    const exp_arg arg_t = exp_arg_of(source_temperature(&c->teacher, r->row), 0.0f);
    const exp_arg *arg = &r->rest.arg;
    lse_part *student = &r->rest.segment;
    int64_t y = r->target - col, first = y >= 0 && y < n ? y : n;
    move_shift(&c->ctx->k, r, first, n, x);
    row_segment(&r->rest, col);
    reduce_pair(c, r, 0, first, x, arg, student, t, &arg_t);
    if (first < n) reduce_pair(c, r, first + 1, n, x, arg, student, t, &arg_t);
}

static void reduce(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                   const float *t)
{
    const slg_nkd_opts *o = c->opts;
    const second student = student_of(c, r), teacher = teacher_of(c, r, o->temperature),
                 one = teacher_of(c, r, 1);
    const exp_arg arg = exp_arg_of(student.temperature, 0.0f),
                  arg_t = exp_arg_of(teacher.temperature, 0.0f),
                  one_arg = exp_arg_of(one.temperature, 0.0f);
    int64_t y = r->target - col, first = y >= 0 && y < n ? y : n;
    move_shift(&c->ctx->k, r, first, n, x);
    reduce_pair(c, r, 0, first, x, &arg, &r->parts[STUDENT], t, &arg_t);
    if (first < n) reduce_pair(c, r, first + 1, n, x, &arg, &r->parts[STUDENT], t, &arg_t);
    second_reduce(&c->ctx->k, &one, col, n, t, &one_arg, &r->parts[TEACHER_ONE]);
}

/* q[t]; NaN where the teacher's row is no distribution. rest: the others, at the temperature
   of s. */
static double teacher_target(const loss_row *r, const second *s, const row_stat *rest)
{
    second whole = *s;
    float scratch[1];
    whole.without = -1;
    float y = *second_fetch(&whole, r->row, r->target, 1, scratch);
    if (rest->kind == ROW_NAN || rest->kind == ROW_INF || isnan(y) || y == INFINITY) return NAN;
    if (y == -INFINITY) return rest->kind == ROW_MASKED ? (double)NAN : 0;
    if (rest->kind == ROW_MASKED) return 1;
    return 1 / (1 + exp(rest->lse_rel + ((double)rest->arg.pre - (double)y) / s->temperature));
}

/* sum Q (-log P). */
static double other_loss(const loss_call *c, const loss_row *r, const second *student,
                         const second *teacher, const row_stat *p, const row_stat *q)
{
    double shift = r->sums[SHIFT], mean = r->sums[DOT] / r->parts[TEACHER].sum;
    if (p->arg.pre != 0 || q->arg.pre != 0) {
        shift = (double)p->arg.pre;
        mean = second_mean(c, r->row, teacher, q, student, NULL, shift);
    }
    return p->lse_rel - (mean + shift - (double)p->arg.pre) / student->temperature;
}

static void solve(const loss_call *c, loss_row *r)
{
    const slg_nkd_opts *o = c->opts;
    const double tau = o->temperature;
    const second student = student_of(c, r), teacher = teacher_of(c, r, tau),
                 one = teacher_of(c, r, 1);
    row_stat p = r->rest, q, q_one;
    second_finish(c, r->row, &teacher, &r->parts[TEACHER], &q);
    q_one = q;
    if (tau != 1) {
        second_finish(c, r->row, &student, &r->parts[STUDENT], &p);
        second_finish(c, r->row, &one, &r->parts[TEACHER_ONE], &q_one);
    }
    double share = teacher_target(r, &one, &q_one), nll = loss_softplus(r->log_odds), other = 0;
    /* c: slope of the others' part. A single other class is certain in both. */
    r->c = 0;
    if (p.kind == ROW_PLAIN && q.kind == ROW_PLAIN && c->src.cols > 2 && o->gamma > 0) {
        other = o->gamma * tau * tau * other_loss(c, r, &student, &teacher, &p, &q);
        r->c = r->weight * o->gamma * tau;
    }
    double target = isnan(share) ? share : loss_term(share, nll);
    r->a = r->weight * (o->target_weight * share + o->cross_entropy);
    r->loss = loss_term(o->target_weight, target) + other + loss_term(o->cross_entropy, nll);
    if (isnan(share)) r->loss = other = r->a = NAN;
    r->loss = loss_term(r->weight, r->loss);
    r->at_target = -r->a * r->other;
    r->extra[0] = target;
    r->extra[1] = other;
    r->more[TEACHER_LSE] = q.lse_rel, r->more[TEACHER_PRE] = (double)q.arg.pre;
    r->more[STUDENT_LSE] = p.lse_rel, r->more[STUDENT_PRE] = (double)p.arg.pre;
}

static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *t, float *d, int store)
{
    const slg_nkd_opts *o = c->opts;
    const kernel_table *k = &c->ctx->k;
    const double factor = loss_factor(r), others = r->c * factor, *m = r->more;
    float own[EMIT_BLOCK];
    (void)col;
    if (isnan(r->a) || r->weight == 0 || r->rest.kind == ROW_MASKED) {
        fill_f32(d, n, isnan(r->a) ? NAN : 0.0f);
        return;
    }
    exp_out p =
        row_out(&r->rest, r->a * r->other * factor + (o->temperature == 1 ? others : 0), 0.0f);
    if (others == 0) {
        k->exp_emit((size_t)n, x, &p, d, store);
        return;
    }
    const second teacher = teacher_of(c, r, o->temperature);
    const exp_out q = second_out(teacher.temperature, m[TEACHER_LSE], m[TEACHER_PRE], -others);
    if (o->temperature == 1) {
        k->exp_emit2((size_t)n, x, &p, t, &q, d, store);
        return;
    }
    const exp_out soft =
        second_out(student_of(c, r).temperature, m[STUDENT_LSE], m[STUDENT_PRE], others);
    k->exp_emit((size_t)n, x, &p, own, STORE_CACHED); /* first: d may be x */
    k->exp_emit2((size_t)n, x, &soft, t, &q, d, STORE_CACHED);
    k->add((size_t)n, own, d);
}

/* ---- The call ---------------------------------------------------------------------------- */

static slg_status open(loss_call *c)
{
    const slg_nkd_opts *o = c->opts;
    SLG_TRY(loss_open_extra(c, 0, "opts.target_loss", o->target_loss));
    return loss_open_extra(c, 1, "opts.other_loss", o->other_loss);
}

static slg_status nkd(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                      const slg_nkd_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    slg_nkd_opts o = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_range(ctx, "temperature", o.temperature, 1e-4, 1e4));
    SLG_TRY(option_least(ctx, "gamma", o.gamma, 0));
    SLG_TRY(option_least(ctx, "target_weight", o.target_weight, 0));
    SLG_TRY(option_least(ctx, "cross_entropy", o.cross_entropy, 0));
    loss_method method = {
        .uses = TARGET_INDEX | TARGET_TEACHER | TARGET_ROW_WEIGHT,
        .open = open,
        .solve = solve,
        .emit = emit,
        .extra_masked = { INFINITY, 0 },
    };
    if (o.temperature == 1)
        method.reduce_all = reduce_all;
    else
        method.reduce = reduce;
    return loss_run(ctx, &method, &o, o.reduction, logits, targets, out, grad);
}

slg_status slg_nkd(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                   const slg_nkd_opts *opts, slg_loss_out *out, slg_logits_grad *grad)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_nkd");
    return op_end(ctx, nkd(ctx, logits, targets, opts, out, grad));
}
