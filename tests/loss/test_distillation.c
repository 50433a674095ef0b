/* slg_distillation and slg_nkd: against double arithmetic written from distill.h, finite
   differences, forms, edge cases, errors. */
#include "loss_test.h"

#include "kernels/kernels.h"
#include "support/gradcheck.h"

/* More than two segments of a row's sums. */
enum { LONG = 2 * ROW_SEGMENT + 2500 };

/* ---- In double --------------------------------------------------------------------------- */

/* log softmax of x / t over the classes but `without`. */
static void log_softmax(int64_t n, const double *x, double t, int64_t without, double *out)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < n; k++)
        if (k != without && x[k] > top) top = x[k];
    for (int64_t k = 0; k < n; k++)
        if (k != without) sum += exp((x[k] - top) / t);
    for (int64_t k = 0; k < n; k++)
        out[k] = k == without ? -INFINITY : (x[k] - top) / t - log(sum);
}

static double plogq(double lp, double lq) { return exp(lp) > 0 ? exp(lp) * lq : 0; }

typedef struct method {
    int kind; /* slg_divergence; -1: NKD */
    double tau, ce, share, gamma;
} method;

/* Loss of a row; t may be -1. */
static double row_loss(const method *m, int64_t n, const double *x, const double *y, int64_t t)
{
    static double lx[LONG], ly[LONG], p[LONG], q[LONG];
    double loss = 0;
    log_softmax(n, x, 1, -1, lx), log_softmax(n, y, 1, -1, ly);
    int64_t without = m->kind < 0 ? t : -1;
    log_softmax(n, x, m->tau, without, p), log_softmax(n, y, m->tau, without, q);
    for (int64_t k = 0; k < n; k++) {
        double mix = log(m->share * exp(q[k]) + (1 - m->share) * exp(p[k]));
        if (m->kind < 0) loss -= m->gamma * plogq(q[k], p[k]);
        if (m->kind == SLG_FORWARD_KL) loss += plogq(q[k], q[k] - p[k]);
        if (m->kind == SLG_REVERSE_KL) loss += plogq(p[k], p[k] - q[k]);
        if (m->kind == SLG_JENSEN_SHANNON)
            loss +=
                m->share * plogq(q[k], q[k] - mix) + (1 - m->share) * plogq(p[k], p[k] - mix);
    }
    loss *= m->tau * m->tau;
    if (m->kind < 0) loss -= exp(ly[t]) * lx[t];
    return m->ce > 0 ? loss - m->ce * lx[t] : loss;
}

/* By central differences of the above, in double: 1e-9. */
static double row_slope(const method *m, int64_t n, double *x, const double *y, int64_t t,
                        int64_t k)
{
    const double h = 1e-3, x0 = x[k];
    double f[4];
    if (x0 == -INFINITY) return 0;
    for (int i = 0; i < 4; i++) {
        x[k] = x0 + h * (i < 2 ? i + 1 : 1 - i);
        f[i] = row_loss(m, n, x, y, t);
    }
    x[k] = x0;
    return (8 * (f[0] - f[2]) - (f[1] - f[3])) / (12 * h);
}

/* ---- Calls ------------------------------------------------------------------------------- */

static slg_status run(slg_ctx *ctx, const method *m, const slg_logits *x, const slg_targets *t,
                      int32_t reduction, slg_loss_out *out, slg_logits_grad *g)
{
    slg_distillation_opts o;
    slg_nkd_opts k;
    slg_distillation_opts_init(&o, sizeof o), slg_nkd_opts_init(&k, sizeof k);
    o.kind = m->kind, o.temperature = k.temperature = m->tau, o.teacher_share = m->share;
    o.cross_entropy = k.cross_entropy = m->ce, k.gamma = m->gamma;
    o.reduction = k.reduction = reduction;
    return m->kind < 0 ? slg_nkd(ctx, x, t, &k, out, g)
                       : slg_distillation(ctx, x, t, &o, out, g);
}

static const method methods[] = {
    { SLG_FORWARD_KL, 1, 0, 0.5, 0 },
    { SLG_FORWARD_KL, 1, 0.5, 0.5, 0 },
    { SLG_FORWARD_KL, 4, 0, 0.5, 0 },
    { SLG_FORWARD_KL, 2, 1.5, 0.5, 0 },
    { SLG_REVERSE_KL, 1, 0, 0.5, 0 },
    { SLG_REVERSE_KL, 1, 0.5, 0.5, 0 },
    { SLG_REVERSE_KL, 4, 0, 0.5, 0 },
    { SLG_REVERSE_KL, 2, 1.5, 0.5, 0 },
    { SLG_JENSEN_SHANNON, 1, 0, 0.5, 0 },
    { SLG_JENSEN_SHANNON, 1, 0.5, 0.25, 0 },
    { SLG_JENSEN_SHANNON, 4, 0, 0.9, 0 },
    { SLG_JENSEN_SHANNON, 2, 1.5, 0.5, 0 },
    { -1, 1, 0, 0.5, 1.5 },
    { -1, 1, 1, 0.5, 0 },
    { -1, 4, 1, 0.5, 1 },
    { -1, 0.5, 0, 0.5, 2 },
};

enum { ROWS = 7, COLS = 37, DIM = 5 };

/* Dense against double; the same in place, and from bf16. */
static void check_dense(slg_ctx *ctx, const method *m, int32_t type, enum layout layout,
                        bool index)
{
    tensor x = matrix(type, ROWS, COLS, layout), y = matrix(type, ROWS, COLS, layout);
    tensor t = vector(SLG_I64, ROWS, layout), loss = vector(SLG_F32, ROWS, layout);
    tensor dx = matrix(SLG_F32, ROWS, COLS, layout);
    double xs[ROWS][COLS], ys[ROWS][COLS], sum = 0;
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t k = 0; k < COLS; k++) {
            bool masked = k % 9 == 5;
            xs[r][k] = masked ? -INFINITY : as_dtype(type, 2 * normal());
            ys[r][k] = masked ? -INFINITY : as_dtype(type, 3 * normal() + 40);
            put(&x, r, k, xs[r][k]), put(&y, r, k, ys[r][k]);
        }
    for (int64_t r = 0; r < ROWS; r++) put(&t, 0, r, r == 2 ? -100 : (double)(r * 4 % 5));
    slg_logits lx = slg_logits_dense(&x.t), ly = slg_logits_dense(&y.t);
    slg_targets targets = slg_targets_index(index ? &t.t : NULL);
    targets.teacher = &ly;
    slg_loss_out out = loss_out(&loss.t, NULL);
    slg_logits_grad g = dense_grad(&dx.t);
    OK(ctx, run(ctx, m, &lx, &targets, SLG_SUM, &out, &g));
    double scale = m->tau * m->tau * (1 + m->gamma) + m->ce, most = 0;
    for (int64_t r = 0; r < ROWS; r++) {
        bool ignored = index && r == 2;
        int64_t at = r * 4 % 5;
        double want = ignored ? 0 : row_loss(m, COLS, xs[r], ys[r], at);
        sum += want;
        compare("loss", r, 0, get(&loss, 0, r), want, 5e-6 * scale * (1 + 45 / m->tau), &most);
        for (int64_t k = 0; k < COLS; k++) {
            double d = ignored ? 0 : row_slope(m, COLS, xs[r], ys[r], at, k);
            compare("dlogits", r, k, get(&dx, r, k), d, (2e-6 + 1e-7 * 45 / m->tau) * scale,
                    &most);
        }
    }
    compare("value", 0, 0, out.value, sum, 5e-6 * scale * 50 * ROWS, &most);
    g.dlogits = &x.t;
    OK(ctx, run(ctx, m, &lx, &targets, SLG_SUM, &out, &g));
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t k = 0; k < COLS; k++)
            compare("in place", r, k, get(&x, r, k), get(&dx, r, k),
                    rounding(type, get(&dx, r, k)), &most);
    assert_gaps_intact(&dx), assert_gaps_intact(&x), assert_gaps_intact(&loss);
    release(&x), release(&y), release(&t), release(&loss), release(&dx);
}

static void test_against_double(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(methods); i++)
        for (int l = 0; l < 4; l++) {
            check_dense(ctx, &methods[i], l == 3 ? SLG_BF16 : SLG_F32, (enum layout)l, true);
            if (methods[i].kind >= 0 && methods[i].ce == 0)
                check_dense(ctx, &methods[i], SLG_F32, (enum layout)l, false);
        }
}

/* Temperatures of the sources: x / 2 against y / 0.5 is the same as of logits divided
   beforehand. */
static void test_temperatures(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(methods); i++) {
        tensor x = matrix(SLG_F32, 3, 3000, CONTIGUOUS),
               y = matrix(SLG_F32, 3, 3000, CONTIGUOUS);
        tensor x2 = matrix(SLG_F32, 3, 3000, CONTIGUOUS),
               y2 = matrix(SLG_F32, 3, 3000, CONTIGUOUS);
        tensor d = matrix(SLG_F32, 3, 3000, CONTIGUOUS),
               d2 = matrix(SLG_F32, 3, 3000, CONTIGUOUS);
        tensor t = vector(SLG_I32, 3, CONTIGUOUS);
        for (int64_t j = 0; j < 9000; j++) {
            double a = single(2 * normal()), b = single(2 * normal());
            put(&x, j / 3000, j % 3000, a), put(&y, j / 3000, j % 3000, b);
            put(&x2, j / 3000, j % 3000, 2 * a), put(&y2, j / 3000, j % 3000, b / 2);
        }
        for (int64_t r = 0; r < 3; r++) put(&t, 0, r, 2050 * (double)(r > 0));
        slg_logits lx = slg_logits_dense(&x.t), ly = slg_logits_dense(&y.t);
        slg_logits lx2 = slg_logits_dense(&x2.t), ly2 = slg_logits_dense(&y2.t);
        lx2.temperature = 2, ly2.temperature = 0.5;
        slg_targets targets = slg_targets_index(&t.t);
        slg_loss_out out = loss_out(NULL, NULL), out2 = loss_out(NULL, NULL);
        slg_logits_grad g = dense_grad(&d.t), g2 = dense_grad(&d2.t);
        targets.teacher = &ly;
        OK(ctx, run(ctx, &methods[i], &lx, &targets, SLG_MEAN, &out, &g));
        targets.teacher = &ly2;
        OK(ctx, run(ctx, &methods[i], &lx2, &targets, SLG_MEAN, &out2, &g2));
        double most = 0,
               scale = methods[i].tau * methods[i].tau * (1 + methods[i].gamma) + methods[i].ce;
        compare("value", i, 0, out2.value, out.value, 1e-5 * scale, &most);
        for (int64_t j = 0; j < 9000; j++)
            compare("dlogits", i, j, 2 * get(&d2, j / 3000, j % 3000),
                    get(&d, j / 3000, j % 3000), 1e-6 * scale, &most);
        release(&x), release(&y), release(&x2), release(&y2), release(&d), release(&d2),
            release(&t);
    }
}

/* Student and teacher as output layers give what their products do; threads do not matter. */
static void test_forms(void **state)
{
    (void)state;
    const int64_t cols = 2100, rows = 9;
    tensor h = matrix(SLG_F32, rows, DIM, CONTIGUOUS),
           w = matrix(SLG_F32, cols, DIM, CONTIGUOUS);
    tensor h2 = matrix(SLG_F32, rows, 3, CONTIGUOUS), w2 = matrix(SLG_F32, cols, 3, CONTIGUOUS);
    tensor x = matrix(SLG_F32, rows, cols, CONTIGUOUS),
           y = matrix(SLG_F32, rows, cols, CONTIGUOUS);
    tensor d = matrix(SLG_F32, rows, cols, CONTIGUOUS),
           e = matrix(SLG_F32, rows, cols, CONTIGUOUS);
    tensor dh = matrix(SLG_F32, rows, DIM, CONTIGUOUS), t = vector(SLG_I32, rows, CONTIGUOUS);
    for (int64_t j = 0; j < rows * DIM; j++) put(&h, j / DIM, j % DIM, single(normal()));
    for (int64_t j = 0; j < cols * DIM; j++) put(&w, j / DIM, j % DIM, single(normal()));
    for (int64_t j = 0; j < rows * 3; j++) put(&h2, j / 3, j % 3, single(normal()));
    for (int64_t j = 0; j < cols * 3; j++) put(&w2, j / 3, j % 3, single(normal()));
    for (int64_t r = 0; r < rows; r++) {
        put(&t, 0, r, (double)(r * 250));
        for (int64_t k = 0; k < cols; k++) {
            double a = 0, b = 0;
            for (int64_t i = 0; i < DIM; i++) a += get(&h, r, i) * get(&w, k, i);
            for (int64_t i = 0; i < 3; i++) b += get(&h2, r, i) * get(&w2, k, i);
            put(&x, r, k, a), put(&y, r, k, b);
        }
    }
    slg_logits lx = slg_logits_dense(&x.t), ly = slg_logits_dense(&y.t);
    slg_logits fx = slg_logits_layer(&h.t, &w.t, NULL),
               fy = slg_logits_layer(&h2.t, &w2.t, NULL);
    slg_targets targets = slg_targets_index(&t.t);
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(methods); i++) {
        slg_loss_out out = loss_out(NULL, NULL), fused = loss_out(NULL, NULL);
        slg_logits_grad g = dense_grad(&d.t), f = slg_grad_layer(&dh.t, NULL, NULL);
        targets.teacher = &ly;
        OK(ctx, run(ctx, &methods[i], &lx, &targets, SLG_SUM, &out, &g));
        for (int threads = 2; threads <= 8; threads += threads == 2 ? 1 : 5) {
            slg_ctx *many = context(isa_, threads);
            slg_loss_out again = loss_out(NULL, NULL);
            slg_logits_grad ge = dense_grad(&e.t);
            OK(many, run(many, &methods[i], &lx, &targets, SLG_SUM, &again, &ge));
            assert_memory_equal(&again.value, &out.value, sizeof out.value);
            assert_memory_equal(d.memory, e.memory, d.bytes);
            slg_ctx_free(many);
        }
        targets.teacher = &fy;
        OK(ctx, run(ctx, &methods[i], &fx, &targets, SLG_SUM, &fused, &f));
        double most = 0;
        compare("fused value", i, 0, fused.value, out.value, 1e-5 * (1 + fabs(out.value)),
                &most);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < DIM; j++) {
                double want = 0;
                for (int64_t k = 0; k < cols; k++) want += get(&d, r, k) * get(&w, k, j);
                compare("dhidden", r, j, get(&dh, r, j), want, 1e-4 * (1 + fabs(want)), &most);
            }
    }
    release(&h), release(&w), release(&h2), release(&w2), release(&x), release(&y);
    release(&d), release(&e), release(&dh), release(&t);
}

/* ---- Edges ------------------------------------------------------------------------------- */

static double one_row(slg_ctx *ctx, const method *m, int64_t n, const float *x, const float *y,
                      int32_t t, float *dx)
{
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, n), ty = slg_tensor_2d(y, SLG_F32, 1, n);
    slg_tensor ti = slg_tensor_1d(&t, SLG_I32, 1), td = slg_tensor_2d(dx, SLG_F32, 1, n);
    slg_logits lx = slg_logits_dense(&tx), ly = slg_logits_dense(&ty);
    slg_targets targets = slg_targets_index(&ti);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&td);
    targets.teacher = &ly;
    OK(ctx, run(ctx, m, &lx, &targets, SLG_SUM, &out, &g));
    return out.value;
}

static void test_edges(void **state)
{
    (void)state;
    const float inf = INFINITY, one[1] = { 3 }, equal[4] = { 1, -2, 0.5f, 4 };
    const float huge[3] = { 1e30f, -1e30f, 0 }, other[3] = { 0, 1e30f, 5 };
    const float masked[3] = { 1, -inf, 2 }, full[3] = { 1, 2, 3 }, bad[3] = { 1, NAN, 2 };
    const float none[3] = { -inf, -inf, -inf };
    float d[4];
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(methods); i++) {
        const method *m = &methods[i];
        double v = one_row(ctx, m, 1, one, one, 0, d);
        assert_true(fabs(v) < 1e-6 * m->tau * m->tau && fabsf(d[0]) < 1e-6f * (float)m->tau);
        v = one_row(ctx, m, 4, equal, equal, 3, d);
        if (m->kind >= 0 && m->ce == 0) {
            assert_true(fabs(v) < 1e-5);
            for (int k = 0; k < 4; k++) assert_true(fabsf(d[k]) < 1e-5f);
        }
        v = one_row(ctx, m, 3, huge, other, 2, d); /* finite, but for reverse KL's p (x - y) at
                                                      most */
        assert_true(isfinite(v) || v == INFINITY);
        for (int k = 0; k < 3; k++) assert_true(d[k] == d[k]);
        if (m->kind == SLG_JENSEN_SHANNON && m->ce == 0) {
            double s = m->share, top = -s * log(s) - (1 - s) * log(1 - s);
            assert_true(fabs(v / (m->tau * m->tau) - top) < 1e-6);
        }
        assert_true(isnan(one_row(ctx, m, 3, full, bad, 0, d)) && isnan(d[0]) && isnan(d[1]));
        assert_true(isnan(one_row(ctx, m, 3, full, none, 0, d)) && isnan(d[2]));
        assert_true(isnan(one_row(ctx, m, 3, bad, full, 0, d)) && isnan(d[2]));
        v = one_row(ctx, m, 3, masked, full, 0, d);
        bool covers = m->kind == SLG_FORWARD_KL || (m->kind < 0 && m->gamma > 0);
        assert_true(covers ? v == INFINITY : isfinite(v));
        assert_true(d[1] == 0.0f && !isnan(d[0]) && !isnan(d[2]));
        v = one_row(ctx, m, 3, full, masked, 0, d);
        assert_true(m->kind == SLG_REVERSE_KL ? v == INFINITY : isfinite(v));
    }
}

/* L_non does not see the target's logit nor shifts; two classes have none; parts add up. */
static void test_nkd_parts(void **state)
{
    (void)state;
    float x[6] = { 1, 2, -1, 0.5f, 3, -2 }, y[6] = { 0, 1, 4, -1, 2, 2 }, d[6], parts[2],
          before;
    int32_t t = 2;
    slg_tensor tt = slg_tensor_1d(parts, SLG_F32, 1), to = slg_tensor_1d(parts + 1, SLG_F32, 1);
    slg_tensor ti = slg_tensor_1d(&t, SLG_I32, 1);
    FOR_EACH_ISA(ctx, 1)
    {
        for (int n = 6; n >= 2; n -= 4) {
            slg_tensor tx = slg_tensor_2d(x, SLG_F32, 1, n),
                       ty = slg_tensor_2d(y, SLG_F32, 1, n);
            slg_tensor td = slg_tensor_2d(d, SLG_F32, 1, n);
            slg_logits lx = slg_logits_dense(&tx), ly = slg_logits_dense(&ty);
            slg_targets targets = slg_targets_index(&ti);
            slg_logits_grad g = dense_grad(&td);
            slg_loss_out out = loss_out(NULL, NULL);
            slg_nkd_opts o;
            slg_nkd_opts_init(&o, sizeof o);
            o.target_loss = &tt, o.other_loss = &to, o.temperature = 2;
            targets.teacher = &ly;
            t = n == 6 ? 2 : 1;
            OK(ctx, slg_nkd(ctx, &lx, &targets, &o, &out, &g));
            assert_true(fabs(out.value - (double)parts[0] - (double)parts[1]) < 1e-5);
            double total = 0;
            for (int k = 0; k < n; k++) total += (double)d[k];
            assert_true(fabs(total) < 1e-5);
            before = parts[1];
            if (n == 2) assert_true(before == 0);
            x[t] += 7;
            OK(ctx, slg_nkd(ctx, &lx, &targets, &o, &out, &g));
            assert_true(parts[1] == before);
            x[t] -= 7;
            for (int k = 0; k < n; k++) x[k] += 1024;
            OK(ctx, slg_nkd(ctx, &lx, &targets, &o, &out, &g));
            assert_true(fabsf(parts[1] - before) < 1e-4f);
            for (int k = 0; k < n; k++) x[k] -= 1024;
            t = -100;
            OK(ctx, slg_nkd(ctx, &lx, &targets, &o, &out, &g));
            assert_true(parts[0] == 0 && parts[1] == 0 && out.count == 0 && d[0] == 0);
        }
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[6] = { 0 }, d[6] = { 9, 9, 9, 9, 9, 9 };
    int32_t t[2] = { 0, 1 };
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, 2, 3), tw = slg_tensor_2d(x, SLG_F32, 3, 2);
    slg_tensor ti = slg_tensor_1d(t, SLG_I32, 2), td = slg_tensor_2d(d, SLG_F32, 2, 3);
    slg_tensor on = slg_tensor_1d(d, SLG_F32, 2);
    slg_logits lx = slg_logits_dense(&tx), wrong = slg_logits_dense(&tw);
    slg_targets targets = slg_targets_index(&ti);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&td);
    const struct {
        double tau, weight, ce, share;
        int32_t kind;
    } wrongs[] = {
        { 0, 1, 0, 0.5, 0 },  { 1e5, 1, 0, 0.5, 0 }, { (double)NAN, 1, 0, 0.5, 0 },
        { 1, -1, 0, 0.5, 0 }, { 1, 1, -1, 0.5, 0 },  { 1, 1, 0, 0, 0 },
        { 1, 1, 0, 1, 0 },    { 1, 1, 0, 0.5, 3 },   { 1, 1, 0, 0.5, -1 },
    };
    targets.teacher = &lx;
    for (int64_t i = 0; i < COUNT(wrongs); i++) {
        slg_distillation_opts o;
        slg_nkd_opts k;
        slg_distillation_opts_init(&o, sizeof o), slg_nkd_opts_init(&k, sizeof k);
        o.temperature = wrongs[i].tau, o.weight = wrongs[i].weight,
        o.cross_entropy = wrongs[i].ce;
        o.teacher_share = wrongs[i].share, o.kind = wrongs[i].kind;
        assert_int_equal(slg_distillation(ctx, &lx, &targets, &o, &out, &g), SLG_ERR_RANGE);
        k.temperature = wrongs[i].tau, k.gamma = wrongs[i].weight,
        k.cross_entropy = wrongs[i].ce;
        if (i < 5) assert_int_equal(slg_nkd(ctx, &lx, &targets, &k, &out, &g), SLG_ERR_RANGE);
    }
    targets.teacher = &wrong;
    assert_int_equal(slg_distillation(ctx, &lx, &targets, NULL, &out, &g), SLG_ERR_SHAPE);
    targets.teacher = NULL;
    assert_int_equal(slg_nkd(ctx, &lx, &targets, NULL, &out, &g), SLG_ERR_NULL);
    targets.teacher = &lx, targets.index = NULL;
    assert_int_equal(slg_nkd(ctx, &lx, &targets, NULL, &out, &g), SLG_ERR_NULL);
    slg_distillation_opts ce;
    slg_distillation_opts_init(&ce, sizeof ce);
    ce.cross_entropy = 1;
    assert_int_equal(slg_distillation(ctx, &lx, &targets, &ce, &out, &g), SLG_ERR_NULL);
    targets.index = &ti, t[1] = 3;
    assert_int_equal(slg_nkd(ctx, &lx, &targets, NULL, &out, &g), SLG_ERR_RANGE);
    t[1] = 1;
    slg_nkd_opts k;
    slg_nkd_opts_init(&k, sizeof k);
    k.other_loss = &on;
    assert_int_equal(slg_nkd(ctx, &lx, &targets, &k, &out, &g), SLG_ERR_STRIDE);
    for (int i = 0; i < 6; i++) assert_true(d[i] == 9);
    assert_int_equal(slg_distillation(NULL, &lx, &targets, NULL, &out, &g), SLG_ERR_NULL);
    slg_ctx_free(ctx);
}

/* Sums of a row in segments, each at a reference of its own: it rises on the way. */
static void test_long_rows(void **state)
{
    static double x[LONG], y[LONG];
    const int64_t places[] = { -1, 0, 2047, ROW_SEGMENT - 1, ROW_SEGMENT, LONG - 1 };
    tensor xs = matrix(SLG_F32, 1, LONG, CONTIGUOUS), ys = matrix(SLG_F32, 1, LONG, CONTIGUOUS);
    tensor t = vector(SLG_I64, 1, CONTIGUOUS);
    (void)state;
    for (int64_t k = 0; k < LONG; k++) {
        double up = k >= 2 * ROW_SEGMENT ? 40 : k >= ROW_SEGMENT - 3 ? 12 : 0;
        x[k] = k == 7 ? -INFINITY : single(normal() + up);
        y[k] = k == 7 ? -INFINITY : single(normal() + 0.9 * up + 3);
        put(&xs, 0, k, x[k]), put(&ys, 0, k, y[k]);
    }
    for (int64_t i = 0; i < COUNT(methods); i++)
        for (int64_t j = 0; j < COUNT(places); j++) {
            const method *m = &methods[i];
            if (places[j] < 0 && (m->kind < 0 || m->ce > 0)) continue;
            slg_logits lx = slg_logits_dense(&xs.t), ly = slg_logits_dense(&ys.t);
            slg_targets targets = slg_targets_index(places[j] < 0 ? NULL : &t.t);
            slg_loss_out out = loss_out(NULL, NULL);
            double most = 0, want = row_loss(m, LONG, x, y, places[j]);
            targets.teacher = &ly;
            put(&t, 0, 0, (double)places[j]);
            FOR_EACH_ISA(ctx, 1)
            {
                OK(ctx, run(ctx, m, &lx, &targets, SLG_SUM, &out, NULL));
                compare(m->kind < 0 ? "nkd" : "distillation", i, places[j], out.value, want,
                        2e-6 * (fabs(want) + m->tau * m->tau * 45 / m->tau), &most);
            }
        }
    release(&xs), release(&ys), release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_temperatures),
        cmocka_unit_test(test_forms),          cmocka_unit_test(test_edges),
        cmocka_unit_test(test_long_rows),      cmocka_unit_test(test_nkd_parts),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
