/*
 * losses.c - every loss over rows of logits, forward and backward: those with one source
 * against our own cross-entropy on the same rows, those with a second matrix against two reads
 * and one streaming write, some with an output layer against its products. PyTorch's side, by
 * the same names, is in torch_losses.py. A new loss is a function and a line of `losses` here,
 * a function there, and a line in workloads.c.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"

typedef struct loss_state {
    slg_tensor x, dx, index, other, dother, prob, tau, row_out, hidden, weight, dhidden,
        dweight, teacher_hidden, teacher_weight;
    slg_logits logits, teacher;
    slg_targets targets;
    slg_loss_out out, other_out;
    slg_logits_grad grad, other_grad;
} loss_state;

/* ---- Calls: options, then the loss ------------------------------------------------------- */

#define OPTIONS(function, ...)                                                                 \
    function##_opts o;                                                                         \
    function##_opts_init(&o, sizeof o);                                                        \
    __VA_ARGS__;

#define CALL(name, function, ...)                                                              \
    static slg_status name(slg_ctx *ctx, loss_state *s)                                        \
    {                                                                                          \
        OPTIONS(function, __VA_ARGS__)                                                         \
        return function(ctx, &s->logits, &s->targets, &o, &s->out, &s->grad);                  \
    }

CALL(cross_entropy, slg_cross_entropy, (void)o)
CALL(smoothed, slg_cross_entropy, o.label_smoothing = 0.1, o.z_loss = 1e-4)
CALL(comp_sum, slg_comp_sum, o.tau = 1.5)
CALL(squared_softmax, slg_squared_softmax, (void)o)
CALL(bce, slg_binary_cross_entropy, (void)o)
CALL(focal, slg_focal, (void)o)
CALL(poly1, slg_poly1, (void)o)
CALL(stablemax, slg_stablemax_loss, (void)o)
CALL(hinge, slg_hinge, (void)o)
CALL(hinge_max, slg_hinge, o.form = SLG_MAX_MARGIN)
CALL(hinge_sum, slg_hinge, o.form = SLG_SUM_MARGIN)
CALL(z_loss, slg_spherical, (void)o)
CALL(taylor, slg_spherical, o.kind = SLG_SPHERICAL_TAYLOR)
CALL(log_spherical, slg_spherical, o.kind = SLG_SPHERICAL_LOG)
CALL(squared_error, slg_spherical, o.kind = SLG_SPHERICAL_SQUARED)
CALL(preference, slg_preference, o.margin = &s->row_out)
CALL(reward, slg_reward_cross_entropy, o.beta = 0.5)
CALL(reward_k100, slg_reward_cross_entropy, o.beta = 0.5, o.lambda_top = 0.1,
     o.lambda_tail = -0.1)
CALL(reward_k5000, slg_reward_cross_entropy, o.beta = 0.5, o.lambda_top = 0.1,
     o.lambda_tail = -0.1, o.top_k = 5000)
CALL(expected_reward, slg_expected_reward, o.reward = s->prob.data ? &s->prob : &s->tau)
CALL(forward_kl, slg_distillation, (void)o)
CALL(reverse_kl, slg_distillation, o.kind = SLG_REVERSE_KL)
CALL(js, slg_distillation, o.kind = SLG_JENSEN_SHANNON)
CALL(kd, slg_distillation, o.temperature = 2, o.weight = 0.5, o.cross_entropy = 0.5)
CALL(nkd, slg_nkd, o.cross_entropy = 1)
CALL(nkd_tau, slg_nkd, o.cross_entropy = 1, o.temperature = 2)
CALL(binary_kl, slg_binary_kl, (void)o)
CALL(margin_change, slg_margin_change, o.reduction = SLG_MEAN)
CALL(svm, slg_svm_layer, o.outer_decay = 1)

static slg_status binary_kl_normalised(slg_ctx *ctx, loss_state *s)
{
    return slg_binary_kl_normalised(ctx, &s->logits, &s->targets, NULL, &s->out, &s->grad);
}

static slg_status robust(slg_ctx *ctx, loss_state *s)
{
    s->logits.row_temperature = &s->tau;
    return slg_robust_cross_entropy(ctx, &s->logits, &s->targets, NULL, &s->out, &s->grad,
                                    &s->row_out, NULL);
}

static slg_status uskd(slg_ctx *ctx, loss_state *s)
{
    OPTIONS(slg_uskd, o.cross_entropy = 1)
    return slg_uskd(ctx, &s->logits, &s->targets, &o, &s->out, &s->grad, &s->other_grad);
}

static slg_status adversarial(slg_ctx *ctx, loss_state *s)
{
    return slg_adversarial_comp_sum(ctx, &s->logits, &s->targets, NULL, &s->out, &s->grad,
                                    &s->other_grad);
}

/* The auxiliary head's logits are the second matrix, the teacher's the main head's. */
static slg_status dual_head(slg_ctx *ctx, loss_state *s)
{
    slg_targets targets = s->targets;
    targets.teacher = &s->logits;
    return slg_dual_head(ctx, &s->logits, &s->teacher, &targets, NULL, &s->out, &s->other_out,
                         &s->grad, &s->other_grad);
}

/* ---- What each takes --------------------------------------------------------------------- */

enum {
    INDEX = 1,
    PROB = 2,    /* targets->prob */
    TEACHER = 4, /* a second source */
    SECOND = 8,  /* gradients for it too */
    TABLE = 16   /* a matrix among the options */
};

typedef struct loss {
    const char *name;
    slg_status (*call)(slg_ctx *ctx, loss_state *s);
    int takes;
} loss;

static const loss losses[] = {
    { "smoothed", smoothed, INDEX },
    { "comp-sum", comp_sum, INDEX },
    { "squared-softmax", squared_softmax, INDEX },
    { "focal", focal, INDEX },
    { "poly1", poly1, INDEX },
    { "stablemax", stablemax, INDEX },
    { "hinge", hinge, INDEX },
    { "hinge-max", hinge_max, INDEX },
    { "hinge-sum", hinge_sum, INDEX },
    { "z-loss", z_loss, INDEX },
    { "taylor", taylor, INDEX },
    { "log-spherical", log_spherical, INDEX },
    { "squared-error", squared_error, INDEX },
    { "preference", preference, INDEX },
    { "robust", robust, INDEX },
    { "reward", reward, INDEX },
    { "reward-k100", reward_k100, INDEX },
    { "reward-k5000", reward_k5000, INDEX },
    { "expected-reward", expected_reward, INDEX },
    { "expected-reward-table", expected_reward, TABLE },
    { "cross-entropy-prob", cross_entropy, PROB },
    { "squared-softmax-prob", squared_softmax, PROB },
    { "stablemax-prob", stablemax, PROB },
    { "bce", bce, PROB },
    { "forward-kl", forward_kl, TEACHER },
    { "reverse-kl", reverse_kl, TEACHER },
    { "jensen-shannon", js, TEACHER },
    { "kd", kd, INDEX | TEACHER },
    { "nkd", nkd, INDEX | TEACHER },
    { "nkd-tau2", nkd_tau, INDEX | TEACHER },
    { "binary-kl", binary_kl, TEACHER },
    { "binary-kl-normalised", binary_kl_normalised, TEACHER },
    { "margin-change", margin_change, INDEX | TEACHER },
    { "uskd", uskd, INDEX | TEACHER | SECOND },
    { "adversarial", adversarial, INDEX | TEACHER | SECOND },
    { "dual-head", dual_head, INDEX | TEACHER | SECOND },
    { "svm-layer", svm, INDEX },
};

static const loss *find(const race *r)
{
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++)
        if (!strcmp(losses[i].name, r->w->loss)) return &losses[i];
    fprintf(stderr, "peers: %s: no loss %s\n", r->w->name, r->w->loss);
    exit(2);
}

/* ---- On a matrix ------------------------------------------------------------------------- */

/* Distributions that are not those of the logits beside them. */
static void fill_prob(race *r, loss_state *s)
{
    r->prob = race_floats(r, r->rows * r->cols);
    slg_tensor prob = slg_tensor_2d(r->prob, SLG_F32, r->rows, r->cols);
    stop(r, slg_softmax(r->ctx, &s->other, NULL, &prob, NULL), "softmax");
}

/* The second matrix: the same logits, from the last row to the first; no row meets itself, as
   their number is even. */
static void open_matrices(const race *r, loss_state *s)
{
    s->x = slg_tensor_2d(r->x, SLG_F32, r->rows, r->cols);
    s->dx = slg_tensor_2d(r->y, SLG_F32, r->rows, r->cols);
    s->other = slg_tensor_2d(r->x + (r->rows - 1) * r->cols, SLG_F32, r->rows, r->cols);
    s->other.stride[0] = -r->cols;
    s->dother = slg_tensor_2d(r->dother, SLG_F32, r->rows, r->cols);
    s->logits = slg_logits_dense(&s->x);
    s->teacher = slg_logits_dense(&s->other);
    s->grad = slg_grad_dense(&s->dx);
    s->other_grad = slg_grad_dense(&s->dother);
}

static void open_rows(const race *r, int takes, loss_state *s)
{
    if (r->prob) s->prob = slg_tensor_2d(r->prob, SLG_F32, r->rows, r->cols);
    s->index = slg_tensor_1d(r->target, SLG_I64, r->rows);
    s->tau = slg_tensor_1d(r->row_tau, SLG_F32, r->rows);
    s->row_out = slg_tensor_1d(r->row_out, SLG_F32, r->rows);
    slg_targets_init(&s->targets, sizeof s->targets);
    if (takes & INDEX) s->targets.index = &s->index;
    if (takes & PROB) s->targets.prob = &s->prob;
    if (takes & TEACHER) s->targets.teacher = &s->teacher;
    s->out = s->other_out = slg_loss_out_none();
}

static void fill_row_tau(race *r)
{
    r->row_tau = race_floats(r, r->rows);
    for (int64_t i = 0; i < r->rows; i++) r->row_tau[i] = 1.0f + (float)(i % 8) / 8.0f;
}

static void loss_setup(race *r)
{
    int takes = find(r)->takes;
    logits_setup(r);
    r->rows -= r->rows % 2;
    fill_row_tau(r);
    if (takes & SECOND) r->dother = race_floats(r, r->rows * r->cols);
    if (!(takes & (PROB | TABLE))) return;
    loss_state s;
    open_matrices(r, &s);
    fill_prob(r, &s);
}

static void loss_reset(race *r)
{
    logits_reset(r);
    if (r->dother) memset(r->dother, 0xFF, (size_t)(r->rows * r->cols) * sizeof(float));
}

static void *loss_prepare(race *r, const char *arg)
{
    loss_state *s = calloc(1, sizeof *s);
    open_matrices(r, s);
    open_rows(r, arg ? INDEX : find(r)->takes, s);
    return s;
}

static void loss_run(race *r, void *state, int64_t times)
{
    const loss *l = find(r);
    while (times--) stop(r, l->call(r->ctx, state), l->name);
}

static void cross_entropy_run(race *r, void *state, int64_t times)
{
    loss_state *s = state;
    while (times--) stop(r, cross_entropy(r->ctx, s), "cross-entropy");
    r->loss = s->out.value;
}

/* ---- Check ------------------------------------------------------------------------------- */

/* Whether all are numbers. */
static bool all_finite(int64_t n, const float *x)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

/* The library's gradients of the first rows, kept for PyTorch's to be compared with. */
static void keep(race *r)
{
    size_t n = (size_t)(loss_part(r) * r->cols);
    r->kept = race_floats(r, (int64_t)n);
    memcpy(r->kept, r->y, n * sizeof(float));
    if (!r->dother) return;
    r->kept_other = race_floats(r, (int64_t)n);
    memcpy(r->kept_other, r->dother, n * sizeof(float));
}

/* Largest difference of the first rows, each beside its largest entry. */
static double difference(const race *r, const float *got, const float *want)
{
    double worst = 0;
    for (int64_t i = 0; i < loss_part(r); i++) {
        double most = 0, error = 0;
        for (int64_t k = i * r->cols; k < (i + 1) * r->cols; k++) {
            double e = fabs((double)got[k] - (double)want[k]);
            if (!(e <= error)) error = e; /* takes a NaN, and keeps it */
            most = fmax(most, fabs((double)want[k]));
        }
        if (isnan(error)) return NAN;
        worst = fmax(worst, most > 0 ? error / most : error);
    }
    return worst;
}

/*
 * Values of the library are the tests' affair: here, that every entry was written as a number.
 * PyTorch's gradient is compared with the library's; cross-entropy with float64.
 */
static double loss_check(race *r)
{
    if (r->checked->role == FORM) return cross_entropy_check(r);
    if (r->checked->role == PEER) {
        double a = difference(r, r->y, r->kept);
        double b = r->dother ? difference(r, r->dother, r->kept_other) : 0;
        return isnan(a) || a > b ? a : b;
    }
    int64_t n = r->rows * r->cols;
    if (!all_finite(n, r->y) || (r->dother && !all_finite(n, r->dother))) return NAN;
    keep(r);
    return 0;
}

/* ---- With an output layer ---------------------------------------------------------------- */

enum { TEACHER_DIM = 1024 };

static void fused_setup(race *r)
{
    linear_setup(r);
    fill_row_tau(r);
    r->row_out = race_floats(r, r->rows);
    if (!(find(r)->takes & TEACHER)) return;
    r->teacher_dim = r->quick ? r->dim : TEACHER_DIM;
    r->teacher_hidden = race_floats(r, r->rows * r->teacher_dim);
    r->teacher_weight = race_floats(r, r->cols * r->teacher_dim);
    fill_normal(r->teacher_hidden, r->rows * r->teacher_dim, 1.0f, 6);
    fill_normal(r->teacher_weight, r->cols * r->teacher_dim,
                3.0f / sqrtf((float)r->teacher_dim), 7);
}

static void *fused_prepare(race *r, const char *arg)
{
    loss_state *s = calloc(1, sizeof *s);
    (void)arg;
    s->hidden = slg_tensor_2d(r->hidden, SLG_F32, r->rows, r->dim);
    s->weight = slg_tensor_2d(r->weight, SLG_F32, r->cols, r->dim);
    s->dhidden = slg_tensor_2d(r->dhidden, SLG_F32, r->rows, r->dim);
    s->dweight = slg_tensor_2d(r->dweight, SLG_F32, r->cols, r->dim);
    s->teacher_hidden = slg_tensor_2d(r->teacher_hidden, SLG_F32, r->rows, r->teacher_dim);
    s->teacher_weight = slg_tensor_2d(r->teacher_weight, SLG_F32, r->cols, r->teacher_dim);
    s->logits = slg_logits_layer(&s->hidden, &s->weight, NULL);
    s->teacher = slg_logits_layer(&s->teacher_hidden, &s->teacher_weight, NULL);
    s->grad = slg_grad_layer(&s->dhidden, &s->dweight, NULL);
    open_rows(r, find(r)->takes, s);
    return s;
}

static double fused_check(race *r)
{
    if (!all_finite(r->rows * r->dim, r->dhidden) || !all_finite(r->cols * r->dim, r->dweight))
        return NAN;
    return linear_products_error(r);
}

/* ---- Candidates and operations ----------------------------------------------------------- */

static void release(race *r, void *state) { (void)r, free(state); }

static const candidate ours = {
    "ours", OURS, NULL, loss_prepare, loss_run, NULL, release, NULL
};
static const candidate plain_form = { "cross-entropy",   FORM, "cross-entropy", loss_prepare,
                                      cross_entropy_run, NULL, release,         NULL };
static const candidate ours_fused = { "ours",   OURS,           NULL,    fused_prepare,
                                      loss_run, scratch_memory, release, NULL };

static const candidate *const loss_field[] = { &ours,
                                               &plain_form,
                                               &torch_loss,
                                               &floor_copy_nt,
                                               &floor_read_copy_nt,
                                               &floor_copy_nt_2,
                                               &floor_read_copy_nt_2,
                                               NULL };
static const candidate *const fused_field[] = { &ours_fused, &floor_gemms, NULL };

const operation op_loss = { "loss", loss_setup, loss_check, loss_reset,
                            1e-2,   0,          "copy-nt",  loss_field };
const operation op_fused_loss = { "fused_loss", fused_setup, fused_check, linear_reset,
                                  1e-3,         0,           "gemms",     fused_field };
