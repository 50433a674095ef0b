/*
 * loss_matrix.h - every loss as one call with one shape, and a problem that all of them take,
 * so that what must hold for each loss is written once (test_loss_matrix.c). What a loss
 * computes is compared with its formula in its own test.
 */
#ifndef TESTS_LOSS_LOSS_MATRIX_H
#define TESTS_LOSS_LOSS_MATRIX_H

#include "loss_test.h"

/* ---- The losses -------------------------------------------------------------------------- */

enum {
    INDEX = 1, /* targets it takes */
    PROB = 2,
    TEACHER = 4,
    CLASS_WEIGHT = 8,
    TEACHER_GRAD = 16,   /* has a gradient of the teacher */
    NO_LSE = 32,         /* refuses out.lse */
    NO_MASK = 64,        /* refuses a mask; a row with -inf is NaN */
    EMPTY_NAN = 128,     /* NaN for a row without a live class; else +inf */
    CLASSWISE = 256,     /* -inf and +inf are values like others */
    INF_VALUE = 512,     /* +inf is */
    FROZEN = 1024,       /* the gradient holds weights of the value constant */
    OPEN_LABEL = 2048,   /* a label's own logit of -inf has the formula's gradient; else 0 */
    NO_LIMIT = 4096,     /* with the label at -inf it is not what it is at -1e30 */
    COUNTS_MASKED = 8192 /* masked classes matter otherwise than by being absent */
};

typedef slg_status (*matrix_fn)(slg_ctx *ctx, const slg_logits *l, const slg_targets *t,
                                int32_t reduction, slg_loss_out *out, slg_logits_grad *g,
                                slg_logits_grad *tg);

/* Where a loss with another output of a number a row writes it; NULL: not wanted. */
static slg_tensor *extra;

#define ARGUMENTS                                                                              \
    slg_ctx *ctx, const slg_logits *l, const slg_targets *t, int32_t reduction,                \
        slg_loss_out *out, slg_logits_grad *g, slg_logits_grad *tg

/* A loss with its options: ... sets fields of o. */
#define LOSS(id, function, ...)                                                                \
    static slg_status id(ARGUMENTS)                                                            \
    {                                                                                          \
        function##_opts o;                                                                     \
        function##_opts_init(&o, sizeof o);                                                    \
        o.reduction = reduction, (void)tg;                                                     \
        __VA_ARGS__;                                                                           \
        return function(ctx, l, t, &o, out, g);                                                \
    }

#define LOSS_OF_PAIR(id, function, ...)                                                        \
    static slg_status id(ARGUMENTS)                                                            \
    {                                                                                          \
        function##_opts o;                                                                     \
        function##_opts_init(&o, sizeof o);                                                    \
        o.reduction = reduction;                                                               \
        __VA_ARGS__;                                                                           \
        return function(ctx, l, t, &o, out, g, tg);                                            \
    }

LOSS(cross_entropy, slg_cross_entropy, o.z_loss = 1e-3)
LOSS(smoothed, slg_cross_entropy, o.label_smoothing = 0.1, o.z_loss = 1e-3)
LOSS(focal, slg_focal, o.gamma = 1.5)
LOSS(poly1, slg_poly1, o.epsilon = 0.7)
LOSS(squared_softmax, slg_squared_softmax, (void)o)
LOSS(binary_cross_entropy, slg_binary_cross_entropy, o.class_reduction = SLG_SUM)
LOSS(comp_sum_0, slg_comp_sum, o.tau = 0, o.neg_log_p = extra)
LOSS(comp_sum_1, slg_comp_sum, o.tau = 1, o.neg_log_p = extra)
LOSS(comp_sum_15, slg_comp_sum, o.tau = 1.5, o.neg_log_p = extra)
LOSS(comp_sum_2, slg_comp_sum, o.tau = 2, o.neg_log_p = extra)
LOSS(preference, slg_preference, o.margin = extra)
LOSS(forward_kl, slg_distillation, o.temperature = 2, o.cross_entropy = 0.5)
LOSS(forward_kl_1, slg_distillation, (void)o)
LOSS(reverse_kl, slg_distillation, o.kind = SLG_REVERSE_KL, o.cross_entropy = 0.5)
LOSS(jensen_shannon, slg_distillation, o.kind = SLG_JENSEN_SHANNON, o.teacher_share = 0.3,
     o.cross_entropy = 0.5)
LOSS(nkd_1, slg_nkd, o.cross_entropy = 1, o.other_loss = extra)
LOSS(nkd_2, slg_nkd, o.temperature = 2, o.target_loss = extra)
LOSS_OF_PAIR(uskd, slg_uskd, o.mean_square = 0.2, o.cross_entropy = 1, o.mu = 0.1,
             o.soft_target = extra)
LOSS_OF_PAIR(uskd_labels, slg_uskd, o.mean_square = 0.2, o.mean_square2 = 0.1, o.beta = 0.5,
             o.other_loss = extra)
LOSS(binary_kl, slg_binary_kl, (void)o)
LOSS(stablemax, slg_stablemax_loss, (void)o)
LOSS(one_vs_rest, slg_hinge, o.margin = 1.1)
LOSS(max_margin, slg_hinge, o.form = SLG_MAX_MARGIN, o.margin = 1.1)
LOSS(sum_margin, slg_hinge, o.form = SLG_SUM_MARGIN, o.power = 1, o.margin = 1.1)
LOSS(reward_beta, slg_reward_cross_entropy, o.beta = -0.25, o.positive_weight = extra)
LOSS(reward_label, slg_reward_cross_entropy, o.beta = 0.5, o.form = SLG_REWARD_LABEL,
     o.entropy = extra)
LOSS(reward_top, slg_reward_cross_entropy, o.beta = 0.5, o.lambda_top = 0.05,
     o.lambda_tail = -0.1, o.top_k = 3, o.positive_weight = extra)
LOSS(z_loss, slg_spherical, o.a = 0.7, o.b = 1, o.z = extra)
LOSS(log_taylor, slg_spherical, o.kind = SLG_SPHERICAL_TAYLOR)
LOSS(log_spherical, slg_spherical, o.kind = SLG_SPHERICAL_LOG, o.eps = 0.1)
LOSS(squared_error, slg_spherical, o.kind = SLG_SPHERICAL_SQUARED)
LOSS_OF_PAIR(adversarial, slg_adversarial_comp_sum, o.tau = 1.3, o.rho = 0.7, o.nu = 0.8,
             o.margin_change = extra)
LOSS(margin_change, slg_margin_change, (void)o)

static slg_status binary_kl_normalised(ARGUMENTS)
{
    slg_binary_kl_opts o;
    slg_binary_kl_opts_init(&o, sizeof o);
    o.reduction = reduction, (void)tg;
    return slg_binary_kl_normalised(ctx, l, t, &o, out, g);
}

/* A reward for each row. */
static slg_status expected_reward(ARGUMENTS)
{
    static double reward[64];
    const slg_tensor *x = l->dense ? l->dense : l->hidden;
    slg_tensor r = slg_tensor_1d(reward, SLG_F64, x ? x->shape[0] : 0);
    slg_expected_reward_opts o;
    slg_expected_reward_opts_init(&o, sizeof o);
    for (int i = 0; i < 64; i++) reward[i] = i * 37 % 11 / 8.0 - 0.5;
    o.reduction = reduction, o.reward = &r, (void)tg;
    return slg_expected_reward(ctx, l, t, &o, out, g);
}

typedef struct entry {
    const char *name;
    matrix_fn call;
    unsigned is;
} entry;

#define SOFTMAX_LOSS (INDEX | CLASS_WEIGHT)
#define REWARDED (INDEX | FROZEN | OPEN_LABEL)
#define OF_TEACHER (INDEX | TEACHER)
#define SPHERICAL (INDEX | NO_LSE | NO_MASK | EMPTY_NAN | NO_LIMIT)
#define BINARY (NO_LSE | CLASSWISE)

static const entry entries[] = {
    { "cross_entropy", cross_entropy, SOFTMAX_LOSS },
    { "cross_entropy, smoothed", smoothed, SOFTMAX_LOSS | NO_LIMIT },
    { "cross_entropy, prob", smoothed, PROB | CLASS_WEIGHT },
    { "focal", focal, SOFTMAX_LOSS },
    { "poly1", poly1, SOFTMAX_LOSS },
    { "squared_softmax", squared_softmax, INDEX },
    { "squared_softmax, prob", squared_softmax, PROB },
    { "binary_cross_entropy", binary_cross_entropy, PROB | CLASS_WEIGHT | BINARY },
    { "comp_sum, tau 0", comp_sum_0, INDEX | OPEN_LABEL },
    { "comp_sum, tau 1", comp_sum_1, INDEX | OPEN_LABEL },
    { "comp_sum, tau 1.5", comp_sum_15, INDEX | OPEN_LABEL },
    { "comp_sum, tau 2", comp_sum_2, INDEX | OPEN_LABEL },
    { "preference", preference, INDEX | OPEN_LABEL },
    { "forward KL, cross-entropy", forward_kl, OF_TEACHER },
    { "forward KL", forward_kl_1, TEACHER },
    { "reverse KL", reverse_kl, OF_TEACHER },
    { "Jensen-Shannon", jensen_shannon, OF_TEACHER },
    { "nkd, tau 1", nkd_1, OF_TEACHER },
    { "nkd, tau 2", nkd_2, OF_TEACHER },
    { "uskd", uskd, OF_TEACHER | TEACHER_GRAD | FROZEN | COUNTS_MASKED },
    { "uskd, labels", uskd_labels, PROB | TEACHER | TEACHER_GRAD | FROZEN | COUNTS_MASKED },
    { "binary_kl", binary_kl, TEACHER | BINARY },
    { "binary_kl_normalised", binary_kl_normalised, TEACHER | BINARY },
    { "stablemax", stablemax, INDEX | NO_LSE | EMPTY_NAN | INF_VALUE | NO_LIMIT },
    { "stablemax, prob", stablemax, PROB | NO_LSE | EMPTY_NAN | INF_VALUE },
    { "hinge, one against the rest", one_vs_rest, SOFTMAX_LOSS | BINARY },
    { "hinge, max-margin", max_margin, SOFTMAX_LOSS | BINARY },
    { "hinge, sum-margin", sum_margin, SOFTMAX_LOSS | BINARY },
    { "reward, beta", reward_beta, REWARDED },
    { "reward, label", reward_label, REWARDED },
    { "reward, top and tail", reward_top, REWARDED },
    { "expected_reward", expected_reward, INDEX },
    { "Z-loss", z_loss, SPHERICAL },
    { "log-Taylor", log_taylor, SPHERICAL },
    { "log-spherical", log_spherical, SPHERICAL },
    { "squared error", squared_error, SPHERICAL },
    { "adversarial comp-sum", adversarial, OF_TEACHER | TEACHER_GRAD | OPEN_LABEL | NO_LIMIT },
    { "margin change", margin_change, OF_TEACHER | NO_LIMIT },
};

/* ---- A problem --------------------------------------------------------------------------- */

/* All in numbers that float32, bf16 and f16 hold, but for the weights. */
typedef struct world {
    int64_t rows, cols;
    double *x, *y, *q; /* logits, the teacher's, a distribution: [rows, cols] */
    int64_t *index;
    double *row_weight, *class_weight;
    int *mask;               /* NULL: none */
    bool teacher_whole;      /* the mask is not of the teacher's logits */
    double *row_temperature; /* NULL: none */
    double temperature, softcap;
    int32_t reduction;
} world;

static inline double coarse(double x, double step) { return rint(x / step) * step; }

static inline world world_of(int64_t rows, int64_t cols)
{
    world w = { .rows = rows, .cols = cols, .temperature = 1, .reduction = SLG_SUM };
    w.x = zeros(rows * cols, sizeof *w.x), w.y = zeros(rows * cols, sizeof *w.y);
    w.q = zeros(rows * cols, sizeof *w.q), w.index = zeros(rows, sizeof *w.index);
    w.row_weight = zeros(rows, sizeof *w.row_weight);
    w.class_weight = zeros(cols, sizeof *w.class_weight);
    for (int64_t i = 0; i < rows * cols; i++) {
        w.x[i] = coarse(fmax(-6, fmin(6, 2 * normal())), 1.0 / 16);
        w.y[i] = coarse(fmax(-6, fmin(6, 2 * normal())), 1.0 / 16);
    }
    for (int64_t r = 0; r < rows; r++) {
        w.row_weight[r] = single(0.5 + uniform());
        do w.index[r] = below(cols);
        while (w.index[r] % 5 == 3); /* what masks leave out */
        w.q[r * cols + w.index[r]] += 0.5;
        w.q[r * cols + (w.index[r] / 5 + 1) * 5 % cols / 5 * 5] += 0.5;
    }
    for (int64_t c = 0; c < cols; c++) w.class_weight[c] = single(0.5 + uniform());
    return w;
}

static inline void world_free(world *w)
{
    free(w->x), free(w->y), free(w->q), free(w->index), free(w->row_weight);
    free(w->class_weight), free(w->mask), free(w->row_temperature);
    memset(w, 0, sizeof *w);
}

/* ---- A call ------------------------------------------------------------------------------ */

/* How operands lie and of what type they are. */
typedef struct form {
    int32_t type, grad_type; /* 0 for both: float32 */
    enum layout layout;
    bool in_place, no_grad, accumulate;
} form;

typedef struct operand_set {
    tensor x, y, q, index, row_weight, class_weight, mask, row_temperature;
    slg_logits logits, teacher;
    slg_targets targets;
} operand_set;

static inline tensor matrix_of(const double *from, int32_t type, int64_t rows, int64_t cols,
                               enum layout layout)
{
    tensor a = matrix(type, rows, cols, layout);
    fill(&a, from);
    return a;
}

static inline tensor vector_of(const double *from, int32_t type, int64_t n, enum layout layout)
{
    tensor a = vector(type, n, layout);
    fill(&a, from);
    return a;
}

/* What of targets and logits does not depend on where logits come from. */
static inline void targets_of(const entry *e, const world *w, const form *f, operand_set *o)
{
    slg_targets_init(&o->targets, sizeof o->targets);
    o->row_weight = vector_of(w->row_weight, SLG_F32, w->rows, f->layout);
    o->targets.row_weight = &o->row_weight.t;
    o->class_weight = vector_of(w->class_weight, SLG_F32, w->cols, f->layout);
    if (e->is & CLASS_WEIGHT) o->targets.class_weight = &o->class_weight.t;
    o->index = vector(SLG_I64, w->rows, f->layout);
    for (int64_t r = 0; r < w->rows; r++) put(&o->index, 0, r, (double)w->index[r]);
    if (e->is & INDEX) o->targets.index = &o->index.t;
    o->q = matrix_of(w->q, f->type, w->rows, w->cols, f->layout);
    if (e->is & PROB) o->targets.prob = &o->q.t;
    if (e->is & TEACHER) o->targets.teacher = &o->teacher;
    o->mask = vector(SLG_I32, w->cols, f->layout);
    for (int64_t c = 0; c < w->cols; c++) put(&o->mask, 0, c, w->mask ? w->mask[c] : 1);
    o->row_temperature = vector(SLG_F32, w->rows, f->layout);
    for (int64_t r = 0; r < w->rows; r++)
        put(&o->row_temperature, 0, r, w->row_temperature ? w->row_temperature[r] : 1);
    for (int i = 0; i < 2; i++) {
        slg_logits *l = i ? &o->teacher : &o->logits;
        l->temperature = w->temperature, l->softcap = w->softcap;
        if (w->mask && !(i && w->teacher_whole)) l->mask = &o->mask.t;
        if (w->row_temperature) l->row_temperature = &o->row_temperature.t;
    }
}

static inline void dense_operands(const entry *e, const world *w, const form *f, operand_set *o)
{
    memset(o, 0, sizeof *o);
    o->x = matrix_of(w->x, f->type, w->rows, w->cols, f->layout);
    o->y = matrix_of(w->y, f->type, w->rows, w->cols, f->layout);
    o->logits = slg_logits_dense(&o->x.t), o->teacher = slg_logits_dense(&o->y.t);
    targets_of(e, w, f, o);
}

static inline void operand_set_free(operand_set *o)
{
    release(&o->x), release(&o->y), release(&o->q), release(&o->index);
    release(&o->row_weight), release(&o->class_weight), release(&o->mask);
    release(&o->row_temperature);
}

typedef struct result {
    int64_t rows, cols;
    double *loss, *extra; /* [rows] */
    double *d, *dt;       /* [rows, cols]; dt zeros where there is none */
    slg_loss_out out;
} result;

static inline void result_free(result *y)
{
    free(y->loss), free(y->extra), free(y->d), free(y->dt);
    memset(y, 0, sizeof *y);
}

static inline result run(slg_ctx *ctx, const entry *e, const world *w, const form *given)
{
    const form f = { given->type ? given->type : SLG_F32,
                     given->grad_type ? given->grad_type : SLG_F32,
                     given->layout,
                     given->in_place,
                     given->no_grad,
                     given->accumulate };
    const int64_t rows = w->rows, cols = w->cols;
    result y = { .rows = rows, .cols = cols };
    operand_set o;
    y.loss = zeros(rows, sizeof *y.loss), y.d = zeros(rows * cols, sizeof *y.d);
    y.dt = zeros(rows * cols, sizeof *y.dt), y.extra = zeros(rows, sizeof *y.extra);
    dense_operands(e, w, &f, &o);
    tensor loss = vector(SLG_F64, rows, f.layout);
    tensor d = matrix(f.grad_type, rows, cols, f.layout);
    tensor dt = matrix(f.grad_type, rows, cols, f.layout);
    for (int64_t i = 0; i < rows * cols && f.accumulate; i++)
        put(&d, i / cols, i % cols, 1), put(&dt, i / cols, i % cols, 1);
    y.out = loss_out(&loss.t, NULL);
    slg_logits_grad g = dense_grad(f.in_place ? &o.x.t : &d.t);
    slg_logits_grad tg = dense_grad(f.in_place ? &o.y.t : &dt.t);
    slg_tensor extra_of_rows = slg_tensor_1d(y.extra, SLG_F64, rows);
    extra = &extra_of_rows;
    if (f.accumulate) g.accumulate = tg.accumulate = SLG_ACCUMULATE_INPUTS;
    slg_status status = e->call(ctx, &o.logits, &o.targets, w->reduction, &y.out,
                                f.no_grad ? NULL : &g, f.no_grad ? NULL : &tg);
    if (status) fail_msg("%s: %d, %s", e->name, status, slg_ctx_message(ctx));
    y.out.loss = NULL, extra = NULL;
    for (int64_t r = 0; r < rows; r++) {
        y.loss[r] = get(&loss, 0, r);
        for (int64_t c = 0; c < cols && !f.no_grad; c++) {
            y.d[r * cols + c] = get(f.in_place ? &o.x : &d, r, c);
            if (e->is & TEACHER_GRAD) y.dt[r * cols + c] = get(f.in_place ? &o.y : &dt, r, c);
        }
    }
    assert_gaps_intact(&loss), assert_gaps_intact(f.in_place ? &o.x : &d);
    release(&loss), release(&d), release(&dt), operand_set_free(&o);
    return y;
}

/* ---- Comparison -------------------------------------------------------------------------- */

static inline bool alike(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static inline void same_row(const entry *e, const char *what, const result *a, const result *b,
                            int64_t r)
{
    if (!alike(a->loss[r], b->loss[r]) || !alike(a->extra[r], b->extra[r]))
        fail_msg("%s, %s: loss[%d] is %.9g, not %.9g", e->name, what, (int)r, b->loss[r],
                 a->loss[r]);
    for (int64_t i = r * a->cols; i < (r + 1) * a->cols; i++)
        if (!alike(a->d[i], b->d[i]) || !alike(a->dt[i], b->dt[i]))
            fail_msg("%s, %s: gradient[%d] is %.9g, %.9g, not %.9g, %.9g", e->name, what,
                     (int)i, b->d[i], b->dt[i], a->d[i], a->dt[i]);
}

static inline void same(const entry *e, const char *what, const result *a, const result *b)
{
    for (int64_t r = 0; r < a->rows; r++) same_row(e, what, a, b, r);
    if (!alike(a->out.value, b->out.value) || !alike(a->out.sum, b->out.sum) ||
        a->out.weight != b->out.weight || a->out.count != b->out.count ||
        a->out.correct != b->out.correct)
        fail_msg("%s, %s: value %.9g, not %.9g", e->name, what, b->out.value, a->out.value);
}

static inline void close_to(const entry *e, const char *what, double got, double want,
                            double size, double tolerance)
{
    if (alike(got, want) || fabs(got - want) <= tolerance * size) return;
    fail_msg("%s, %s: %.9g, should be %.9g", e->name, what, got, want);
}

/* The largest entry of a gradient's row: what errors of a row are relative to. */
static inline double row_size(const result *y, const double *d, int64_t r)
{
    double most = 1e-30;
    for (int64_t c = 0; c < y->cols; c++) most = fmax(most, fabs(d[r * y->cols + c]));
    return most;
}

static const form plain = { 0 };

#define FOR_EACH_LOSS(e) for (const entry *e = entries; e < entries + COUNT(entries); e++)

#endif
