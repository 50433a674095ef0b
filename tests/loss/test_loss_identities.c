/*
 * Identities that papers state and no other test has: of normalised distillation, hinges, the
 * binary divergences, gradient alignment, shaped rewards and preferences; a label at -inf in
 * losses of a pair; and steps of two calls with any number of threads.
 */
#include "loss_matrix.h"

void openblas_set_num_threads(int threads); /* cblas.h is not in every include path */

enum { ROWS = 5, COLS = 9 };

typedef struct call {
    float x[ROWS * COLS], y[ROWS * COLS], d[ROWS * COLS], dt[ROWS * COLS];
    int32_t index[ROWS];
    double loss[ROWS], value;
} call;

static void call_fill(call *c)
{
    for (int i = 0; i < ROWS * COLS; i++) c->x[i] = (float)normal(), c->y[i] = (float)normal();
    for (int r = 0; r < ROWS; r++) c->index[r] = (int32_t)below(COLS);
}

/* A loss of the matrix on small arrays; what of the targets it takes is said by is. */
static void run_call(slg_ctx *ctx, matrix_fn fn, unsigned is, call *c)
{
    slg_tensor x = slg_tensor_2d(c->x, SLG_F32, ROWS, COLS), y = x, d = x, dt = x;
    slg_tensor index = slg_tensor_1d(c->index, SLG_I32, ROWS);
    slg_tensor loss = slg_tensor_1d(c->loss, SLG_F64, ROWS);
    y.data = c->y, d.data = c->d, dt.data = c->dt;
    slg_logits l = slg_logits_dense(&x), teacher = slg_logits_dense(&y);
    slg_targets t = slg_targets_index(is & INDEX ? &index : NULL);
    if (is & TEACHER) t.teacher = &teacher;
    slg_loss_out out = loss_out(&loss, NULL);
    slg_logits_grad g = slg_grad_dense(&d), tg = slg_grad_dense(&dt);
    OK(ctx, fn(ctx, &l, &t, SLG_SUM, &out, &g, &tg));
    c->value = out.value;
}

static void near(const char *what, double got, double want, double allowed)
{
    if (!(fabs(got - want) <= allowed)) fail_msg("%s: %.9g, should be %.9g", what, got, want);
}

/* Softmax of x / tau, without a class (-1: none), in double. */
static void softmax_of(const float *x, double tau, int without, double *p)
{
    double top = -INFINITY, sum = 0;
    for (int k = 0; k < COLS; k++)
        if (k != without) top = fmax(top, (double)x[k] / tau);
    for (int k = 0; k < COLS; k++)
        sum += p[k] = k == without ? 0 : exp((double)x[k] / tau - top);
    for (int k = 0; k < COLS; k++) p[k] /= sum;
}

/* ---- Normalised distillation ------------------------------------------------------------ */

LOSS(nkd_others, slg_nkd, o.target_weight = 0, o.gamma = 1)
LOSS(nkd_targets, slg_nkd, o.gamma = 0)
LOSS(nkd_hot, slg_nkd, o.target_weight = 0, o.temperature = 1e4, o.gamma = 1e-8)
LOSS(soft_cross_entropy, slg_cross_entropy, (void)o)

static void test_nkd(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        call c, others, targets;
        call_fill(&c);
        /* Distillation's cross-entropy at tau 1, from the parts: each others' by 1 - q[t]. */
        others = targets = c;
        run_call(ctx, nkd_others, INDEX | TEACHER, &others);
        run_call(ctx, nkd_targets, INDEX | TEACHER, &targets);
        for (int r = 0; r < ROWS; r++) {
            double p[COLS], q[COLS], kd = 0;
            const int t = c.index[r];
            softmax_of(c.x + r * COLS, 1, -1, p), softmax_of(c.y + r * COLS, 1, -1, q);
            for (int k = 0; k < COLS; k++) kd -= q[k] * log(p[k]);
            double parts =
                targets.loss[r] - (1 - q[t]) * log1p(-p[t]) + (1 - q[t]) * others.loss[r];
            near("decomposition", parts, kd, 3e-6);
        }
        /* The teacher itself: no gradient of the others. */
        memcpy(c.y, c.x, sizeof c.y);
        run_call(ctx, nkd_others, INDEX | TEACHER, &c);
        for (int i = 0; i < ROWS * COLS; i++) near("at the teacher", (double)c.d[i], 0, 2e-7);
        /* Hot: both are uniform over the others; gamma tau^2 is 1. */
        call_fill(&c);
        run_call(ctx, nkd_hot, INDEX | TEACHER, &c);
        for (int r = 0; r < ROWS; r++) near("hot", c.loss[r], log(COLS - 1), 1e-3);
    }
}

/* ---- Hinges ------------------------------------------------------------------------------ */

LOSS(weston_watkins, slg_hinge, o.form = SLG_SUM_MARGIN, o.power = 1, o.per_entry = 1)
LOSS(joint_sum, slg_hinge, o.form = SLG_SUM_MARGIN)
LOSS(joint_max, slg_hinge, o.form = SLG_MAX_MARGIN)
LOSS(rest, slg_hinge, (void)o)

static void test_hinge(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        call c, shifted;
        call_fill(&c);
        run_call(ctx, weston_watkins, INDEX, &c);
        for (int r = 0; r < ROWS; r++) { /* the usual multi-class margin loss */
            const float *x = c.x + r * COLS;
            double sum = 0;
            for (int k = 0; k < COLS; k++)
                if (k != c.index[r])
                    sum += fmax(0, 1 - (double)x[c.index[r]] + (double)x[k]) / COLS;
            near("multi-class margin", c.loss[r], sum, 1e-6 * (1 + sum));
        }
        const matrix_fn fns[] = { joint_sum, joint_max, rest };
        for (int i = 0; i < 3; i++) {
            run_call(ctx, fns[i], INDEX, &c);
            shifted = c;
            for (int k = 0; k < ROWS * COLS; k++) shifted.x[k] += 0.5f;
            run_call(ctx, fns[i], INDEX, &shifted);
            double sum = 0, size = 0;
            for (int k = 0; k < ROWS * COLS; k++)
                sum += (double)c.d[k], size += fabs((double)c.d[k]);
            const bool invariant = fabs(c.value - shifted.value) < 1e-5 * c.value;
            assert_true(invariant == (i < 2) && (fabs(sum) < 1e-6 * size) == (i < 2));
        }
    }
}

/* ---- Binary divergences ------------------------------------------------------------------ */

LOSS(kl_2, slg_binary_kl, o.temperature = 2)
static slg_status normalised(ARGUMENTS)
{
    slg_binary_kl_opts o;
    slg_binary_kl_opts_init(&o, sizeof o);
    o.reduction = reduction, o.temperature = tg ? 2 : 1e4;
    return slg_binary_kl_normalised(ctx, l, t, &o, out, g);
}
static slg_status normalised_hot(ARGUMENTS)
{
    (void)tg;
    return normalised(ctx, l, t, reduction, out, g, NULL);
}

static void test_binary(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        call c, other;
        call_fill(&c);
        for (int i = 0; i < COLS; i++) c.x[i] *= 40, c.y[i] *= 40;
        other = c;
        memcpy(other.x, c.y, sizeof c.x), memcpy(other.y, c.x, sizeof c.x);
        run_call(ctx, normalised, TEACHER, &c), run_call(ctx, normalised, TEACHER, &other);
        for (int r = 0; r < ROWS; r++) assert_true(c.loss[r] == other.loss[r]); /* even */
        for (int i = 0; i < ROWS * COLS; i++)
            assert_true(c.d[i] == -other.d[i] && fabsf(c.d[i]) <= 1); /* tau / 2 */
        run_call(ctx, normalised_hot, TEACHER, &c);
        for (int r = 1; r < ROWS; r++) {
            double squares = 0;
            for (int k = r * COLS; k < (r + 1) * COLS; k++)
                squares += pow((double)c.x[k] - (double)c.y[k], 2) / 8;
            near("hot", c.loss[r], squares, 1e-5 * squares);
        }
        run_call(ctx, kl_2, TEACHER, &c);
        for (int i = 0; i < ROWS * COLS; i++) assert_true(fabsf(c.d[i]) <= 2); /* tau */
        memcpy(c.x, c.y, sizeof c.x);
        run_call(ctx, kl_2, TEACHER, &c);
        assert_true(c.value == 0);
        for (int i = 0; i < ROWS * COLS; i++) assert_true(c.d[i] == 0);
    }
}

/* g2' is at a right angle to g1 where it was changed, and g1's size does not matter. */
static void test_align(void **state)
{
    (void)state;
    enum { N = 300 };
    FOR_EACH_ISA(ctx, 1)
    {
        float g1[N], g2[2][N];
        double dot = 0, size = 0;
        for (int i = 0; i < N; i++) {
            g1[i] = (float)normal();
            g2[0][i] = g2[1][i] = (float)normal() - g1[i];
        }
        for (int j = 0; j < 2; j++) {
            slg_tensor a = slg_tensor_1d(g1, SLG_F32, N), b = slg_tensor_1d(g2[j], SLG_F32, N);
            slg_tensor *main = &a, *auxiliary = &b;
            slg_align_gradients_out out;
            slg_align_gradients_out_init(&out, sizeof out);
            OK(ctx, slg_align_gradients(ctx, 1, &main, &auxiliary, NULL, &out));
            assert_true(out.aligned && out.dot < 0);
            for (int i = 0; i < N; i++) g1[i] *= 1024;
        }
        for (int i = 0; i < N; i++) {
            assert_true(g2[0][i] == g2[1][i]);
            double term = (double)g1[i] * (double)g2[0][i];
            dot += term, size += fabs(term);
        }
        assert_true(fabs(dot) < 1e-6 * size);
    }
}

/* ---- Shaped rewards ---------------------------------------------------------------------- */

LOSS(diverse, slg_reward_cross_entropy, o.beta = 0.5)
LOSS(even, slg_reward_cross_entropy, o.lambda_top = 0.3, o.lambda_tail = 0.3, o.top_k = 4)
LOSS(shaped, slg_reward_cross_entropy, o.beta = -0.25, o.lambda_top = 0.05,
     o.lambda_tail = -0.1, o.top_k = 3)

/* Reverses the order of classes. */
static void reverse(call *c)
{
    for (int r = 0; r < ROWS; r++) {
        for (int a = r * COLS, b = a + COLS - 1; a < b; a++, b--) {
            float x = c->x[a];
            c->x[a] = c->x[b], c->x[b] = x;
        }
        c->index[r] = COLS - 1 - c->index[r];
    }
}

static void test_reward(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        call c, ce, moved;
        call_fill(&c);
        ce = c;
        run_call(ctx, soft_cross_entropy, INDEX, &ce);
        run_call(ctx, diverse, INDEX, &c); /* the weight times cross-entropy's gradient */
        for (int i = 0; i < ROWS * COLS; i++)
            near("weight", (double)c.d[i], sqrt(-expm1(-ce.loss[i / COLS])) * (double)ce.d[i],
                 1e-6);
        /* One lambda: an expected reward of c for all but the label, beside cross-entropy. */
        run_call(ctx, even, INDEX, &c);
        for (int i = 0; i < ROWS * COLS; i++) {
            double p[COLS];
            const int r = i / COLS, k = i % COLS, t = c.index[r];
            softmax_of(c.x + r * COLS, 1, -1, p);
            double others = 0.3 * (p[k] * (1 - p[t]) - (k == t ? 0 : p[k]));
            near("one lambda", (double)c.d[i], (double)ce.d[i] + others, 1e-6);
        }
        /* -sum p[a] r(a) (onehot_a - p), by brute force; shifts; an order of the classes. */
        run_call(ctx, shaped, INDEX, &c);
        moved = c;
        for (int i = 0; i < ROWS * COLS; i++) moved.x[i] += 8;
        run_call(ctx, shaped, INDEX, &moved);
        for (int r = 0; r < ROWS; r++) {
            double p[COLS], d[COLS] = { 0 }, sum = 0;
            const float *x = c.x + r * COLS;
            softmax_of(x, 1, -1, p);
            for (int a = 0; a < COLS; a++) {
                int above = 0;
                for (int k = 0; k < COLS; k++) above += x[k] > x[a];
                double reward = above < 3 ? 0.05 : -0.1;
                if (a == c.index[r]) reward = pow(1 - p[a], -0.25) / p[a];
                for (int k = 0; k < COLS; k++) d[k] -= p[a] * reward * ((k == a) - p[k]);
            }
            for (int k = 0; k < COLS; k++) {
                near("brute force", (double)c.d[r * COLS + k], d[k], 2e-6);
                near("shift", (double)moved.d[r * COLS + k], d[k], 1e-5);
                sum += (double)c.d[r * COLS + k];
            }
            near("sum", sum, 0, 1e-6);
        }
        moved = c, reverse(&moved);
        run_call(ctx, shaped, INDEX, &moved);
        for (int i = 0; i < ROWS * COLS; i++)
            near("order", (double)moved.d[i],
                 (double)c.d[i / COLS * COLS + COLS - 1 - i % COLS], 1e-6);
    }
}

/* ---- Preferences, and labels at -inf ----------------------------------------------------- */

/* A shift changes neither loss, gradient nor margin; rows of the gradient sum to 0. */
static void test_preference(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        call c, moved;
        double margin[2][ROWS];
        call_fill(&c);
        for (int i = 0; i < ROWS * COLS; i++) c.x[i] = (float)coarse((double)c.x[i], 1.0 / 64);
        moved = c;
        for (int i = 0; i < ROWS * COLS; i++) moved.x[i] += 64;
        for (int j = 0; j < 2; j++) {
            slg_tensor m = slg_tensor_1d(margin[j], SLG_F64, ROWS);
            extra = &m;
            run_call(ctx, preference, INDEX, j ? &moved : &c);
        }
        extra = NULL;
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int i = r * COLS; i < (r + 1) * COLS; i++) {
                near("shift", (double)moved.d[i], (double)c.d[i], 2e-6);
                sum += (double)c.d[i];
            }
            near("sum", sum, 0, 1e-6);
            near("loss", moved.loss[r], c.loss[r], 1e-5 * (1 + c.loss[r]));
            near("margin", margin[1][r], margin[0][r], 1e-5 * (1 + fabs(margin[0][r])));
        }
    }
}

/* What headers say of a label at -inf where the loss is of a pair. */
static void test_labels(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        call c, without;
        call_fill(&c);
        const int64_t at = c.index[0];
        c.x[at] = -INFINITY;
        without = c;
        run_call(ctx, adversarial, INDEX | TEACHER, &c); /* tau 1.3: 1 / (tau - 1) and no r */
        near("loss", c.loss[0], 1 / 0.3, 1e-6);
        for (int k = 0; k < COLS; k++) assert_true(c.d[k] == 0 && c.dt[k] == 0);
        run_call(ctx, uskd, INDEX | TEACHER, &without);
        assert_true(without.loss[0] == INFINITY && without.d[at] == 0 && without.dt[at] != 0);
        for (int k = 0; k < COLS; k++) assert_true(isfinite(without.d[k]));
    }
}

/* ---- Threads of what is two calls -------------------------------------------------------- */

enum { N = 70, CLASSES = 300, DIM = 6 };

typedef struct step {
    float hidden[N * DIM], w1[CLASSES * DIM], w2[CLASSES * DIM], teacher[N * CLASSES];
    int32_t index[N];
    float dhidden[N * DIM], dw1[CLASSES * DIM], dw2[CLASSES * DIM];
    double value[3];
} step;

static void run_step(slg_ctx *ctx, step *s)
{
    slg_tensor h = slg_tensor_2d(s->hidden, SLG_F32, N, DIM), dh = h;
    slg_tensor w1 = slg_tensor_2d(s->w1, SLG_F32, CLASSES, DIM), w2 = w1, dw1 = w1, dw2 = w1;
    slg_tensor t = slg_tensor_2d(s->teacher, SLG_F32, N, CLASSES);
    slg_tensor index = slg_tensor_1d(s->index, SLG_I32, N);
    dh.data = s->dhidden, w2.data = s->w2, dw1.data = s->dw1, dw2.data = s->dw2;
    slg_logits a = slg_logits_layer(&h, &w1, NULL), b = slg_logits_layer(&h, &w2, NULL);
    slg_logits teacher = slg_logits_dense(&t);
    slg_targets targets = slg_targets_index(&index), labels = targets;
    targets.teacher = &teacher;
    slg_logits_grad da = slg_grad_layer(&dh, &dw1, NULL), db = slg_grad_layer(&dh, &dw2, NULL);
    slg_loss_out o1 = loss_out(NULL, NULL), o2 = o1, o3 = o1;
    OK(ctx, slg_dual_head(ctx, &a, &b, &targets, NULL, &o1, &o2, &da, &db));
    da.accumulate = SLG_ACCUMULATE_WEIGHTS | SLG_ACCUMULATE_INPUTS;
    OK(ctx, slg_svm_layer(ctx, &a, &labels, NULL, &o3, &da)); /* on top of these */
    s->value[0] = o1.value, s->value[1] = o2.value, s->value[2] = o3.value;
}

static void test_threads(void **state)
{
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 8 };
    static step s, first;
    for (int i = 0; i < N * DIM; i++) s.hidden[i] = (float)normal();
    for (int i = 0; i < CLASSES * DIM; i++)
        s.w1[i] = (float)normal(), s.w2[i] = (float)normal();
    for (int i = 0; i < N * CLASSES; i++) s.teacher[i] = (float)normal();
    for (int i = 0; i < N; i++) s.index[i] = (int32_t)below(CLASSES);
    for (int i = 0; i < 4; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        run_step(ctx, &s);
        if (i == 0) first = s;
        assert_memory_equal(&first, &s, sizeof s);
        slg_ctx_free(ctx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nkd),    cmocka_unit_test(test_hinge),
        cmocka_unit_test(test_binary), cmocka_unit_test(test_align),
        cmocka_unit_test(test_reward), cmocka_unit_test(test_preference),
        cmocka_unit_test(test_labels), cmocka_unit_test(test_threads),
    };
    openblas_set_num_threads(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
