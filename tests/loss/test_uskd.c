/* slg_uskd: against double arithmetic written from distill.h (P, Z and ranks held fixed for
   finite differences), label matrices, forms, edge cases, errors. */
#include "loss_test.h"

enum { ROWS = 6, COLS = 23 };

typedef struct row {
    double x[COLS], v[COLS], label[COLS]; /* logits, weak logits, labels that sum to 1 */
    int64_t y[2];
    int targets;
    double l[2], soft[2], z[COLS];
    int64_t rank[COLS];
} row;

static bool target_of(const row *r, int64_t k)
{
    return k == r->y[0] || (r->targets > 1 && k == r->y[1]);
}

static void log_softmax(const double *x, const row *without, double *out)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < COLS; k++)
        if (!(without && target_of(without, k))) top = fmax(top, x[k]);
    for (int64_t k = 0; k < COLS; k++)
        if (!(without && target_of(without, k))) sum += exp(x[k] - top);
    for (int64_t k = 0; k < COLS; k++) out[k] = x[k] - top - log(sum);
}

static void find_ranks(row *r, bool log_score)
{
    double lx[COLS], lw[COLS], score[COLS], w = 0, p = 0, sum = 0;
    log_softmax(r->x, NULL, lx), log_softmax(r->v, NULL, lw);
    for (int j = 0; j < r->targets; j++) {
        w += exp(lw[r->y[j]]);
        p += log_score ? lx[r->y[j]] : exp(lx[r->y[j]]);
    }
    for (int64_t k = 0; k < COLS; k++)
        score[k] =
            exp(lw[k]) / (1 - w + 1e-6) + (log_score ? lx[k] : exp(lx[k])) / (1 - p + 1e-6);
    for (int64_t k = 0; k < COLS; k++) {
        r->rank[k] = 0;
        for (int64_t j = 0; j < COLS; j++)
            r->rank[k] += score[j] > score[k] || (score[j] == score[k] && j < k);
        r->z[k] = target_of(r, k) ? 0 : 1 / (1.0 + (double)r->rank[k]);
        sum += r->z[k];
    }
    for (int64_t k = 0; k < COLS; k++) r->z[k] /= sum;
}

static void find_soft(row *rows)
{
    double lx[COLS], square[ROWS][2], mean[2] = { 0, 0 };
    for (int i = 0; i < ROWS; i++) {
        log_softmax(rows[i].x, NULL, lx);
        for (int j = 0; j < rows[i].targets; j++) {
            square[i][j] = exp(2 * lx[rows[i].y[j]]);
            mean[j] += square[i][j] / ROWS;
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < rows[i].targets; j++)
            rows[i].soft[j] = rows[i].l[j] > 0 ? square[i][j] + rows[i].l[j] - mean[j] : 0;
}

/* target, other, weak, and all with cross-entropy of weight ce. */
static double parts_of(const row *r, const slg_uskd_opts *o, double part[3])
{
    double lx[COLS], lw[COLS], hx[COLS], ce = 0;
    log_softmax(r->x, NULL, lx), log_softmax(r->v, NULL, lw), log_softmax(r->x, r, hx);
    part[0] = part[1] = part[2] = 0;
    for (int j = 0; j < r->targets; j++) part[0] -= r->soft[j] * lx[r->y[j]];
    for (int64_t k = 0; k < COLS; k++) {
        if (!target_of(r, k)) part[1] -= r->z[k] * hx[k];
        part[2] -= o->mu * ((1 - o->smoothing) * r->label[k] + o->smoothing / COLS) * lw[k];
        ce -= r->label[k] * lx[k];
    }
    return o->alpha * part[0] + o->beta * part[1] + part[2] + o->cross_entropy * ce;
}

static double slope(row *r, const slg_uskd_opts *o, double *at)
{
    const double h = 1e-3, was = *at;
    double f[4], part[3];
    for (int i = 0; i < 4; i++) {
        *at = was + h * (i < 2 ? i + 1 : 1 - i);
        f[i] = parts_of(r, o, part);
    }
    *at = was;
    return (8 * (f[0] - f[2]) - (f[1] - f[3])) / (12 * h);
}

static void make_rows(row *rows, bool labels)
{
    for (int i = 0; i < ROWS; i++) {
        row *r = &rows[i];
        memset(r, 0, sizeof *r);
        r->targets = labels ? 2 : 1;
        r->y[0] = (i * 7 + 3) % COLS, r->y[1] = (r->y[0] + 5) % COLS;
        r->l[0] = labels ? (i == 4 ? 1 : 0.75) : 1, r->l[1] = labels && i != 4 ? 0.25 : 0;
        if (labels && i == 4) r->y[1] = r->y[0] == 0; /* the first of equal labels */
        for (int j = 0; j < r->targets; j++) r->label[r->y[j]] = r->l[j];
        for (int64_t k = 0; k < COLS; k++) {
            r->x[k] = single(2 * normal());
            r->v[k] = single(2 * normal());
        }
    }
}

static void check(slg_ctx *ctx, bool labels, int32_t score, double ce, enum layout layout)
{
    row rows[ROWS];
    tensor x = matrix(SLG_F32, ROWS, COLS, layout), v = matrix(SLG_F32, ROWS, COLS, layout);
    tensor q = matrix(SLG_F32, ROWS, COLS, layout), t = vector(SLG_I64, ROWS, layout);
    tensor dx = matrix(SLG_F32, ROWS, COLS, layout), dv = matrix(SLG_F32, ROWS, COLS, layout);
    tensor rank = matrix(SLG_I32, ROWS, COLS, layout), part[4];
    for (int j = 0; j < 4; j++) part[j] = vector(SLG_F32, ROWS, layout);
    make_rows(rows, labels);
    for (int i = 0; i < ROWS; i++) {
        put(&t, 0, i, (double)rows[i].y[0]);
        for (int64_t k = 0; k < COLS; k++) {
            put(&x, i, k, rows[i].x[k]), put(&v, i, k, rows[i].v[k]),
                put(&q, i, k, rows[i].label[k]);
        }
    }
    slg_logits lx = slg_logits_dense(&x.t), lv = slg_logits_dense(&v.t);
    slg_targets targets = labels ? slg_targets_prob(&q.t) : slg_targets_index(&t.t);
    slg_uskd_opts o;
    slg_uskd_opts_init(&o, sizeof o);
    o.reduction = SLG_SUM, o.score = score, o.cross_entropy = ce;
    o.alpha = 0.7, o.beta = 0.3, o.mu = 0.2;
    o.target_loss = &part[0].t, o.other_loss = &part[1].t, o.weak_loss = &part[2].t;
    o.soft_target = &part[3].t, o.rank = &rank.t;
    targets.teacher = &lv;
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&dx.t), gv = dense_grad(&dv.t);
    OK(ctx, slg_uskd(ctx, &lx, &targets, &o, &out, &g, &gv));
    find_soft(rows);
    double most = 0, total = 0, want[3];
    for (int i = 0; i < ROWS; i++) {
        find_ranks(&rows[i], score == SLG_USKD_LOG);
        total += parts_of(&rows[i], &o, want);
        for (int j = 0; j < 3; j++)
            compare("part", i, j, get(&part[j], 0, i), want[j], 2e-6 * (1 + fabs(want[j])),
                    &most);
        compare("soft", i, 0, get(&part[3], 0, i), rows[i].soft[0], 1e-6, &most);
        for (int64_t k = 0; k < COLS; k++) {
            assert_int_equal(get(&rank, i, k), rows[i].rank[k]);
            compare("dx", i, k, get(&dx, i, k), slope(&rows[i], &o, &rows[i].x[k]), 1e-6,
                    &most);
            compare("dv", i, k, get(&dv, i, k), slope(&rows[i], &o, &rows[i].v[k]), 1e-6,
                    &most);
        }
    }
    compare("value", 0, 0, out.value, total, 1e-5, &most);
    g.dlogits = &x.t, gv.dlogits = &v.t; /* in place */
    OK(ctx, slg_uskd(ctx, &lx, &targets, &o, &out, &g, &gv));
    for (int i = 0; i < ROWS; i++)
        for (int64_t k = 0; k < COLS; k++)
            assert_true(get(&x, i, k) == get(&dx, i, k) && get(&v, i, k) == get(&dv, i, k));
    assert_gaps_intact(&x), assert_gaps_intact(&v), assert_gaps_intact(&rank),
        assert_gaps_intact(&dv);
    release(&x), release(&v), release(&q), release(&t), release(&dx), release(&dv),
        release(&rank);
    for (int j = 0; j < 4; j++) release(&part[j]);
}

static void test_against_double(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int i = 0; i < 16; i++)
        check(ctx, i & 1, i >> 1 & 1, i & 4 ? 0.5 : 0, (enum layout)(i / 4));
}

/* Equal p[t] over the batch, alpha 1, beta and mu 0: cross-entropy. A mean given in advance
   gives the same; threads do not matter; a weak head as a layer gives what its product does. */
static void test_identities(void **state)
{
    (void)state;
    enum { N = 40 };
    float x[N][COLS], v[N][COLS], h[N][2], w[COLS][2], d[N][COLS], e[N][COLS], dv[N][COLS],
        dh[N][2];
    int32_t t[N];
    for (int i = 0; i < N; i++) {
        t[i] = i % COLS;
        h[i][0] = (float)normal(), h[i][1] = (float)normal();
    }
    for (int k = 0; k < COLS; k++) w[k][0] = (float)normal(), w[k][1] = (float)normal();
    for (int i = 0; i < N; i++)
        for (int k = 0; k < COLS; k++) {
            x[i][k] = (float)((k - i % COLS + COLS) % COLS) / 8;
            v[i][k] = h[i][0] * w[k][0] + h[i][1] * w[k][1];
        }
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, N, COLS), tv = slg_tensor_2d(v, SLG_F32, N, COLS);
    slg_tensor th = slg_tensor_2d(h, SLG_F32, N, 2), tw = slg_tensor_2d(w, SLG_F32, COLS, 2);
    slg_tensor ti = slg_tensor_1d(t, SLG_I32, N), td = slg_tensor_2d(d, SLG_F32, N, COLS);
    slg_tensor te = slg_tensor_2d(e, SLG_F32, N, COLS),
               tdv = slg_tensor_2d(dv, SLG_F32, N, COLS);
    slg_tensor tdh = slg_tensor_2d(dh, SLG_F32, N, 2);
    slg_logits lx = slg_logits_dense(&tx), lv = slg_logits_dense(&tv);
    slg_logits layer = slg_logits_layer(&th, &tw, NULL);
    slg_targets targets = slg_targets_index(&ti), plain = slg_targets_index(&ti);
    targets.teacher = &lv;
    FOR_EACH_ISA(ctx, 1)
    {
        slg_uskd_opts o;
        slg_loss_out out = loss_out(NULL, NULL), ce = loss_out(NULL, NULL);
        slg_logits_grad g = dense_grad(&td), ge = dense_grad(&te), gv = dense_grad(&tdv);
        slg_logits_grad gh = slg_grad_layer(&tdh, NULL, NULL);
        slg_uskd_opts_init(&o, sizeof o);
        o.beta = o.mu = 0;
        OK(ctx, slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL));
        OK(ctx, slg_cross_entropy(ctx, &lx, &plain, NULL, &ce, &ge));
        assert_true(fabs(out.value - ce.value) < 1e-6 && out.correct == ce.correct);
        for (int i = 0; i < N; i++)
            for (int k = 0; k < COLS; k++) assert_true(fabsf(d[i][k] - e[i][k]) < 1e-7f);

        o.beta = 0.1, o.mu = 0.1;
        OK(ctx, slg_uskd(ctx, &lx, &targets, &o, &out, &g, &gv));
        for (int threads = 2; threads <= 8; threads += threads == 2 ? 1 : 5) {
            slg_ctx *many = context(isa_, threads);
            slg_loss_out again = loss_out(NULL, NULL);
            OK(many, slg_uskd(many, &lx, &targets, &o, &again, &ge, NULL));
            assert_true(again.value == out.value);
            assert_memory_equal(d, e, sizeof d);
            slg_ctx_free(many);
        }
        o.mean_square = exp(-2 * ce.value); /* p[t] is the same in all rows */
        OK(ctx, slg_uskd(ctx, &lx, &targets, &o, &ce, &ge, NULL));
        assert_true(fabs(ce.value - out.value) < 1e-6);
        targets.teacher = &layer;
        OK(ctx, slg_uskd(ctx, &lx, &targets, &o, &ce, &ge, &gh));
        assert_true(fabs(ce.value - out.value) < 1e-6);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < 2; j++) {
                double want = 0;
                for (int k = 0; k < COLS; k++) want += (double)dv[i][k] * (double)w[k][j];
                assert_true(fabs((double)dh[i][j] - want) < 1e-6);
            }
        targets.teacher = &lv;
    }
}

static double few(slg_ctx *ctx, int64_t rows, int64_t cols, const float *x, const float *v,
                  int32_t *t, const slg_uskd_opts *o, float *d, float *dv)
{
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, rows, cols),
               tv = slg_tensor_2d(v, SLG_F32, rows, cols);
    slg_tensor ti = slg_tensor_1d(t, SLG_I32, rows), td = slg_tensor_2d(d, SLG_F32, rows, cols);
    slg_tensor tdv = slg_tensor_2d(dv, SLG_F32, rows, cols);
    slg_logits lx = slg_logits_dense(&tx), lv = slg_logits_dense(&tv);
    slg_targets targets = slg_targets_index(&ti);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&td), gv = dense_grad(&tdv);
    targets.teacher = &lv;
    OK(ctx, slg_uskd(ctx, &lx, &targets, o, &out, &g, &gv));
    return out.value;
}

static void test_edges(void **state)
{
    (void)state;
    const float inf = INFINITY, zero[8] = { 0 };
    float d[8], dv[8], part[2];
    int32_t rank[8], t[2] = { 0, 0 }, other[2] = { 1, -100 };
    FOR_EACH_ISA(ctx, 1)
    {
        slg_uskd_opts o;
        slg_tensor to = slg_tensor_1d(part, SLG_F32, 1),
                   ts = slg_tensor_1d(part + 1, SLG_F32, 1);
        slg_uskd_opts_init(&o, sizeof o);
        o.other_loss = &to, o.soft_target = &ts;
        slg_uskd_opts none = o;
        none.other_loss = none.soft_target = NULL;
        assert_true(few(ctx, 0, 4, zero, zero, t, &none, d, dv) == 0);
        o.mu = 0;
        assert_true(few(ctx, 1, 1, zero, zero, t, &o, d, dv) == 0 && d[0] == 0 && part[0] == 0);
        few(ctx, 1, 2, zero, zero, t, &o, d, dv);
        assert_true(part[0] == 0 && part[1] == 1); /* two classes; one row: P = 1 */
        const float sure[4] = { 1e30f, 0, -1e30f, 5 }, masked[4] = { 1, -inf, 2, 3 };
        assert_true(isfinite(few(ctx, 1, 4, sure, sure, t, &o, d, dv)) && part[0] >= 0);
        assert_true(isfinite(few(ctx, 1, 4, sure, sure, other, &o, d, dv)));
        assert_true(isfinite(few(ctx, 1, 4, masked, zero, t, &o, d, dv)) && d[1] == 0);
        o.mu = 0.1;
        assert_true(few(ctx, 1, 4, zero, masked, t, &o, d, dv) == INFINITY && dv[1] == 0);

        /* Rows that are no distributions. */
        const float bad[8] = { 1, 2, 3, 4, NAN, 1, 2, 3 }, fine[8] = { 1, 2, 3, 4, 4, 3, 2, 1 };
        slg_tensor tr = slg_tensor_2d(rank, SLG_I32, 2, 4);
        o.other_loss = o.soft_target = NULL, o.rank = &tr;
        assert_true(isnan(few(ctx, 2, 4, bad, fine, t, &o, d, dv)) && isnan(d[0]) &&
                    isnan(d[1]) && isnan(d[4]));
        assert_true(isnan(dv[4]) && !isnan(dv[0]) && rank[4] == -1 && rank[0] >= 0);
        o.mean_square = 0.5;
        few(ctx, 2, 4, bad, fine, t, &o, d, dv);
        assert_true(d[0] == d[0] && isnan(d[4]));
        o.mean_square = -1;
        few(ctx, 2, 4, fine, bad, t, &o, d, dv);
        assert_true(d[0] == d[0] && isnan(d[4]) && isnan(dv[4]) && rank[4] == -1);
        /* An ignored one does not count, whatever it holds. */
        assert_true(isfinite(few(ctx, 2, 4, bad, fine, other, &o, d, dv)));
        assert_true(d[4] == 0 && dv[4] == 0 && rank[4] == -1);
        /* Ties: by class. */
        few(ctx, 2, 4, zero, zero, t, &o, d, dv);
        for (int k = 0; k < 4; k++) assert_int_equal(rank[k], k);
    }
}

/* Rows long enough for the radix sort, whose scores fall together in float32, lie far apart or
   are equal; against an order by comparison of the same scores. */
static const double *scores_;
static int by_score(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (scores_[i] != scores_[j]) return scores_[i] > scores_[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

static void test_long_rows(void **state)
{
    (void)state;
    enum { N = 9000, KINDS = 6 };
    static float x[N], v[N], d[N], dv[N];
    static double score[N];
    static int32_t rank[N], want[N];
    const int32_t y = 7000;
    FOR_EACH_ISA(ctx, 1)
    for (int kind = 0; kind < KINDS; kind++) {
        double top = -INFINITY, sum = 0;
        for (int k = 0; k < N; k++) {
            double g = normal();
            x[k] = (float)(kind == 0   ? g
                           : kind == 1 ? 1e-4 * g
                           : kind == 2 ? -exp(30 * fabs(g))
                           : kind == 3 ? rint(2 * g)
                           : kind == 4 ? (k % 3 == 0 ? -(double)INFINITY : g)
                                       : 100 * g);
            v[k] = 0; /* the same for all classes: logits alone tell them apart */
        }
        x[y] = kind == 5 ? 1000.0f : -1.0f;
        for (int k = 0; k < N; k++)
            if (k != y) top = fmax(top, (double)x[k]);
        for (int k = 0; k < N; k++)
            if (k != y) sum += exp((double)x[k] - top);
        for (int k = 0; k < N; k++) score[k] = (double)x[k], want[k] = k;
        scores_ = score;
        qsort(want, N, sizeof *want, by_score);
        slg_uskd_opts o;
        float part = 0;
        slg_tensor tr = slg_tensor_2d(rank, SLG_I32, 1, N),
                   to = slg_tensor_1d(&part, SLG_F32, 1);
        int32_t t[1] = { y };
        slg_uskd_opts_init(&o, sizeof o);
        o.rank = &tr, o.other_loss = &to;
        few(ctx, 1, N, x, v, t, &o, d, dv);
        double zipf = 0, other = 0, rest = top + log(sum);
        for (int i = 0; i < N; i++) {
            const int k = want[i];
            assert_int_equal(rank[k], i);
            if (k == y || x[k] == -INFINITY) continue;
            zipf += 1.0 / (1 + i);
            other -= ((double)x[k] - rest) / (1 + i);
        }
        assert_true(fabs((double)part - other / zipf) < 3e-6 * (1 + fabs(other / zipf)));
    }
}

static void test_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    float x[6] = { 0 }, d[6] = { 9, 9, 9, 9, 9, 9 };
    int32_t t[2] = { 0, 1 };
    slg_tensor tx = slg_tensor_2d(x, SLG_F32, 2, 3), ti = slg_tensor_1d(t, SLG_I32, 2);
    slg_tensor td = slg_tensor_2d(d, SLG_F32, 2, 3), on = slg_tensor_1d(d, SLG_F32, 2);
    slg_tensor ir = slg_tensor_2d(d, SLG_I32, 2, 3),
               short_rank = slg_tensor_2d(x, SLG_I32, 2, 2);
    slg_logits lx = slg_logits_dense(&tx);
    slg_targets targets = slg_targets_index(&ti);
    slg_loss_out out = loss_out(NULL, NULL);
    slg_logits_grad g = dense_grad(&td);
    targets.teacher = &lx;
    for (int i = 0; i < 9; i++) {
        slg_uskd_opts o;
        slg_uskd_opts_init(&o, sizeof o);
        if (i < 4) *(&o.alpha + i) = i == 3 ? 1.5 : -1;
        if (i == 4) o.cross_entropy = INFINITY;
        if (i == 5) o.score = 2;
        if (i == 6) o.mean_square = 1.5;
        if (i == 7) o.reduction = 7;
        if (i == 8) o.mean_square2 = NAN;
        assert_int_equal(slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL), SLG_ERR_RANGE);
    }
    slg_uskd_opts o;
    slg_uskd_opts_init(&o, sizeof o);
    o.rank = &short_rank;
    assert_int_equal(slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL), SLG_ERR_SHAPE);
    o.rank = &ir;
    assert_int_equal(slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL), SLG_ERR_STRIDE);
    o.rank = NULL, o.weak_loss = &on;
    assert_int_equal(slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL), SLG_ERR_STRIDE);
    o.weak_loss = NULL, t[1] = 3;
    assert_int_equal(slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL), SLG_ERR_RANGE);
    t[1] = 1, targets.teacher = NULL;
    assert_int_equal(slg_uskd(ctx, &lx, &targets, &o, &out, &g, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_uskd(ctx, NULL, &targets, &o, &out, &g, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_uskd(ctx, &lx, NULL, &o, &out, &g, NULL), SLG_ERR_NULL);
    for (int i = 0; i < 6; i++) assert_true(d[i] == 9);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_identities),
        cmocka_unit_test(test_edges),          cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
