/*
 * robust_cross_entropy.c - see tempnet.h. The engine's row temperature is tau; what is new
 * is the entropy, from kernel lse_dot over all classes, and the count of live ones.
 */
#include "engine.h"

#include <math.h>

#include "core/options.h"
#include "softlogit/tempnet.h"
#include "softmax/pipeline.h"

static const slg_robust_cross_entropy_opts defaults = {
    .size = sizeof(slg_robust_cross_entropy_opts),
    .reduction = SLG_MEAN,
    .rho = 8.5,
};

void slg_robust_cross_entropy_opts_init(slg_robust_cross_entropy_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

typedef struct robust_opts {
    slg_robust_cross_entropy_opts given;
    slg_tensor *dtau, *entropy;
} robust_opts;

/* Of loss_row.extra. */
enum { DTAU, ENTROPY };

/* In loss_row.sums: over live classes but the label, p (x - SHIFT) and p (x - SHIFT)^2 in
   parts[0]'s scale, by lse_dot, whose second sum has no use here; the number of all live ones.
   SHIFT follows the maximum: differences from it keep their precision. */
enum { DOT, DOT2, LIVE, SHIFT, SHIFTED };

static void count_live(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                       const float *teacher)
{
    double live[3];
    (void)col, (void)teacher;
    c->ctx->k.live_sums((size_t)n, x, NULL, 0.0f, live);
    r->sums[LIVE] += live[2];
}

/* A block is what lies before the label, and behind it. */
static float others_max(const kernel_table *k, int64_t label, int64_t n, const float *x)
{
    if (label < 0 || label >= n) return k->max((size_t)n, x);
    return fmaxf(k->max((size_t)label, x), k->max((size_t)(n - label - 1), x + label + 1));
}

static void dot_block(const kernel_table *k, loss_row *r, const exp_arg *arg, float max,
                      int64_t label, int64_t n, const float *x)
{
    const bool here = label >= 0 && label < n;
    double *s = r->sums;
    if (isfinite(max) && (s[SHIFTED] == 0 || (double)max > s[SHIFT])) {
        s[DOT] += r->parts[0].sum * (s[SHIFT] - (double)max);
        s[SHIFT] = (double)max;
        s[SHIFTED] = 1;
    }
    const float shift = (float)s[SHIFT];
    k->lse_dot((size_t)(here ? label : n), x, NULL, shift, arg, &r->parts[0], s);
    if (here)
        k->lse_dot((size_t)(n - label - 1), x + label + 1, NULL, shift, arg, &r->parts[0], s);
}

/* The log-sum-exp beside the sums is the engine's own: one exponential for both. */
static void reduce_all(const loss_call *c, loss_row *r, int64_t col, int64_t n, const float *x,
                       const float *teacher)
{
    const kernel_table *k = &c->ctx->k;
    const int64_t label = r->target - col;
    count_live(c, r, col, n, x, teacher);
    dot_block(k, r, &r->rest.arg, others_max(k, label, n, x), label, n, x);
    r->rest.segment = r->parts[0];
}

/* Again around the maximum: logits beyond what whole steps of the exponential reach. */
static exp_arg reduce_far(const loss_call *c, loss_row *r)
{
    const kernel_table *k = &c->ctx->k;
    float scratch[KERNEL_BLOCK], max = -INFINITY;
    for (int pass = 0; pass < 2; pass++) {
        const exp_arg arg = exp_arg_of(r->temperature, max);
        if (pass == 1) {
            r->parts[0] = LSE_EMPTY;
            r->sums[DOT] = r->sums[DOT2] = r->sums[SHIFTED] = 0;
        }
        for (int64_t col = 0; col < c->src.cols; col += KERNEL_BLOCK) {
            int64_t n = c->src.cols - col < KERNEL_BLOCK ? c->src.cols - col : KERNEL_BLOCK;
            const float *x = source_fetch(&c->src, r->row, col, n, scratch);
            if (pass == 0)
                max = fmaxf(max, others_max(k, r->target - col, n, x));
            else
                dot_block(k, r, &arg, max, r->target - col, n, x);
        }
    }
    return exp_arg_of(r->temperature, max);
}

static double softplus(double a) { return a > 0 ? a + log1p(exp(-a)) : log1p(exp(a)); }

/* That of label or not, and with the share of the others theirs: no two large terms cancel. */
static double entropy_of(const loss_call *c, loss_row *r)
{
    if (r->rest.kind == ROW_MASKED) return 0;
    const exp_arg arg = r->rest.arg.pre != 0 ? reduce_far(c, r) : r->rest.arg;
    const lse_part *p = &r->parts[0];
    const double mean = r->sums[DOT] / p->sum / r->temperature; /* of (x - SHIFT) / T */
    const double lse = log(p->sum) + (double)p->ref * arg.unit -
                       (r->sums[SHIFT] - (double)arg.pre) / r->temperature;
    const double others = fmax(lse - mean, 0.0);
    if (r->x_target == -INFINITY) return others;
    return r->other * (others + softplus(-r->log_odds)) + r->p_target * softplus(r->log_odds);
}

static void solve(const loss_call *c, loss_row *r)
{
    const robust_opts *o = c->opts;
    const double tau = r->temperature;
    const double slack = o->given.rho - log(r->sums[LIVE]);
    double loss = tau * (softplus(r->log_odds) + slack);
    r->loss = r->weight == 0 ? 0 : r->weight * loss;
    r->a = r->weight * tau;
    r->at_target = -r->weight * tau * r->other;
    if (!o->dtau && !o->entropy) return;
    r->extra[ENTROPY] = entropy_of(c, r);
    r->extra[DTAU] = r->weight == 0 ? 0 : r->weight * r->scale * (r->extra[ENTROPY] + slack);
}

/* The target's entry is p - 1 also where its class is masked. */
static void emit(const loss_call *c, const loss_row *r, int64_t col, int64_t n, const float *x,
                 const float *teacher, float *d, int store)
{
    (void)teacher;
    loss_emit_common(c, r, n, x, d, store);
    if (r->target >= col && r->target < col + n)
        d[r->target - col] = (float)(r->at_target * loss_factor(r));
}

/* ---- The call --------------------------------------------------------------------------- */

static slg_status open(loss_call *c)
{
    const robust_opts *o = c->opts;
    SLG_TRY(loss_open_extra(c, DTAU, "dtau", o->dtau));
    return loss_open_extra(c, ENTROPY, "entropy", o->entropy);
}

#define ROBUST                                                                                 \
    .uses = TARGET_INDEX | TARGET_ROW_WEIGHT, .flags = LOSS_KEEP_TARGET | LOSS_EMPTY_NAN,      \
    .open = open, .solve = solve, .emit = emit, .extra_masked = { NAN, NAN }

static const loss_method method = { ROBUST, .reduce = count_live };
static const loss_method with_entropy = { ROBUST, .reduce_all = reduce_all };

static slg_status robust(slg_ctx *ctx, const slg_logits *logits, const slg_targets *targets,
                         const slg_robust_cross_entropy_opts *opts, robust_opts *o,
                         slg_loss_out *out, slg_logits_grad *grad)
{
    o->given = defaults;
    SLG_TRY(options_read(ctx, "opts", opts, &o->given, sizeof o->given));
    SLG_TRY(option_least(ctx, "rho", o->given.rho, 0));
    return loss_run(ctx, o->dtau || o->entropy ? &with_entropy : &method, o, o->given.reduction,
                    logits, targets, out, grad);
}

slg_status slg_robust_cross_entropy(slg_ctx *ctx, const slg_logits *logits,
                                    const slg_targets *targets,
                                    const slg_robust_cross_entropy_opts *opts,
                                    slg_loss_out *out, slg_logits_grad *grad, slg_tensor *dtau,
                                    slg_tensor *entropy)
{
    robust_opts o = { .dtau = dtau, .entropy = entropy };
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_robust_cross_entropy");
    return op_end(ctx, robust(ctx, logits, targets, opts, &o, out, grad));
}
