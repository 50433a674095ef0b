/*
 * row_loss_test.h - one harness for losses with class indices: a loss gives its call and its
 * row in double; the harness tries it dense, in place and fused, on every ISA, in float32 and
 * bf16, with soft-cap, mask, temperature, row weights and ignored rows, and with 1, 2, 3 and 8
 * threads.
 */
#ifndef TESTS_LOSS_ROW_LOSS_TEST_H
#define TESTS_LOSS_ROW_LOSS_TEST_H

#include "loss_test.h"
#include "support/gradcheck.h"

typedef slg_status (*loss_fn)(slg_ctx *ctx, const slg_logits *l, const slg_targets *t,
                              int32_t reduction, slg_loss_out *out, slg_logits_grad *g,
                              void *arg);

/* A row in double: z are logits as the loss sees them; its loss and gradient by z, both without
   weights, and what errors are relative to. */
typedef void (*row_fn)(int64_t cols, const double *z, int64_t target, void *arg, double *loss,
                       double *dz, double *loss_size, double *dz_size);

typedef struct row_loss {
    loss_fn call;
    row_fn row;
    void *arg;
    double tolerance; /* of the sizes */
} row_loss;

/* log(sum of exp(z[k] - z[t])) over k != t: -inf where there is none. */
static inline double log_odds_of(int64_t cols, const double *z, int64_t t)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < cols; k++)
        if (k != t && z[k] > top) top = z[k];
    if (top == -INFINITY) return -INFINITY;
    for (int64_t k = 0; k < cols; k++)
        if (k != t) sum += exp(z[k] - top);
    return log(sum) + top - z[t];
}

static inline double log1p_exp(double a) { return a > 0 ? a + log1p(exp(-a)) : log1p(exp(a)); }

/* Values that every type of the tests holds; some rows confident, some classes tied. */
static inline void random_logits(problem *p, int32_t type, double scale)
{
    for (int64_t r = 0; r < p->rows; r++) {
        p->index[r] = below(p->cols);
        for (int64_t c = 0; c < p->cols; c++)
            p->x[r * p->cols + c] = as_dtype(type, scale * normal());
        if (r % 4 == 1) p->x[r * p->cols + p->index[r]] = as_dtype(type, 6 * scale);
        if (r % 4 == 2) p->x[r * p->cols + below(p->cols)] = -INFINITY;
    }
}

static inline void dense_call(slg_ctx *ctx, const row_loss *f, const problem *p, int32_t type,
                              enum layout layout, bool in_place, const char *what)
{
    operands o;
    operands_of(p, type, SLG_F32, SLG_I32, SLG_I32, layout, &o);
    tensor loss = vector(SLG_F64, p->rows, layout), d = matrix(type, p->rows, p->cols, layout);
    slg_loss_out out = loss_out(&loss.t, NULL);
    slg_logits_grad g = dense_grad(in_place ? &o.x.t : &d.t);
    OK(ctx, f->call(ctx, &o.logits, &o.targets, p->reduction, &out, &g, f->arg));
    double total = 0, weight = 0, worst_loss = 0, worst_grad = 0;
    int64_t count = 0;
    for (int64_t r = 0; r < p->rows; r++)
        if (p->index[r] != -100) weight += p->row_weight ? p->row_weight[r] : 1, count++;
    double scale = p->reduction == SLG_MEAN ? 1 / weight : 1;
    double *z = zeros(4 * p->cols, sizeof *z), *slope = z + p->cols, *dz = slope + p->cols;
    double *size = dz + p->cols, sum_size = 0;
    for (int64_t r = 0; r < p->rows; r++) {
        double want = 0, want_size = 0, w = p->row_weight ? p->row_weight[r] : 1;
        memset(dz, 0, (size_t)p->cols * 2 * sizeof *dz);
        for (int64_t c = 0; c < p->cols; c++)
            z[c] = transform(p, c, p->x[r * p->cols + c], &slope[c]);
        if (p->index[r] != -100)
            f->row(p->cols, z, p->index[r], f->arg, &want, dz, &want_size, size);
        want = w == 0 ? 0 : w * want;
        double more = f->tolerance * allowance(p), got = get(&loss, 0, r);
        compare(what, r, -1, got, want, more * w * want_size + 1e-300, &worst_loss);
        total += want, sum_size += w * want_size;
        for (int64_t c = 0; c < p->cols; c++) {
            double e = w * dz[c] * scale * slope[c];
            double fine = more * w * size[c] * scale * fabs(slope[c]) + rounding(type, e);
            compare(what, r, c, get(in_place ? &o.x : &d, r, c), e, fine, &worst_grad);
        }
    }
    compare(what, -1, -1, out.sum, total, f->tolerance * allowance(p) * sum_size + 1e-300,
            &worst_loss);
    compare(what, -1, -2, out.weight, weight, 1e-12 * weight, &worst_loss);
    assert_int_equal(out.count, count);
    if (!in_place) assert_gaps_intact(&d);
    free(z), release(&loss), release(&d), operands_free(&o);
}

/* Logits as a layer's output, in double; its gradients against those of the dense reference. */
static inline void fused_call(slg_ctx *ctx, const row_loss *f, int64_t rows, int64_t cols)
{
    enum { DIM = 3 };
    problem p = problem_of(rows, cols);
    tensor h = matrix(SLG_F32, rows, DIM, CONTIGUOUS),
           w = matrix(SLG_F32, cols, DIM, CONTIGUOUS);
    tensor dh = matrix(SLG_F32, rows, DIM, CONTIGUOUS),
           index = vector(SLG_I64, rows, CONTIGUOUS);
    tensor dw = matrix(SLG_F32, cols, DIM, CONTIGUOUS),
           loss = vector(SLG_F64, rows, CONTIGUOUS);
    double *z = zeros(3 * cols, sizeof *z), *dz = z + cols, *size = dz + cols, worst_seen = 0;
    double *dweight = zeros(cols * DIM, sizeof *dweight);
    for (int64_t r = 0; r < rows; r++) {
        put(&index, 0, r, (double)below(cols));
        for (int64_t i = 0; i < DIM; i++) put(&h, r, i, normal());
    }
    for (int64_t c = 0; c < cols; c++)
        for (int64_t i = 0; i < DIM; i++) put(&w, c, i, normal());
    slg_logits l = slg_logits_layer(&h.t, &w.t, NULL);
    slg_targets t = slg_targets_index(&index.t);
    slg_loss_out out = loss_out(&loss.t, NULL);
    slg_logits_grad g = slg_grad_layer(&dh.t, &dw.t, NULL);
    OK(ctx, f->call(ctx, &l, &t, SLG_SUM, &out, &g, f->arg));
    for (int64_t r = 0; r < rows; r++) {
        double want, want_size;
        for (int64_t c = 0; c < cols; c++) {
            z[c] = 0;
            for (int64_t i = 0; i < DIM; i++) z[c] += get(&h, r, i) * get(&w, c, i);
        }
        f->row(cols, z, (int64_t)get(&index, 0, r), f->arg, &want, dz, &want_size, size);
        compare("fused loss", r, 0, get(&loss, 0, r), want, 1e-5 * want_size, &worst_seen);
        for (int64_t i = 0; i < DIM; i++) {
            double d = 0, d_size = 0;
            for (int64_t c = 0; c < cols; c++) {
                d += dz[c] * get(&w, c, i), d_size += size[c] * fabs(get(&w, c, i));
                dweight[c * DIM + i] += dz[c] * get(&h, r, i);
            }
            compare("dhidden", r, i, get(&dh, r, i), d, 1e-5 * d_size + 1e-7, &worst_seen);
        }
    }
    for (int64_t c = 0; c < cols; c++)
        for (int64_t i = 0; i < DIM; i++)
            compare("dweight", c, i, get(&dw, c, i), dweight[c * DIM + i],
                    1e-4 * (1 + fabs(dweight[c * DIM + i])), &worst_seen);
    release(&h), release(&w), release(&dh), release(&dw), release(&index), release(&loss);
    free(z), free(dweight), problem_free(&p);
}

static inline void check_forms(const row_loss *f)
{
    static const struct form {
        int64_t rows, cols;
        int32_t type, reduction;
        double scale, temperature, softcap;
        bool more; /* mask, weights, ignored rows */
    } forms[] = {
        { 9, 5, SLG_F32, SLG_SUM, 2, 1, 0, false },
        { 6, 1, SLG_F32, SLG_SUM, 2, 1, 0, false },
        { 8, 37, SLG_F32, SLG_MEAN, 1, 1, 0, true },
        { 5, 2500, SLG_F32, SLG_SUM, 2, 1, 0, true },
        { 7, 33, SLG_F32, SLG_NONE, 3, 1.7, 5, true },
        { 9, 65, SLG_BF16, SLG_MEAN, 2, 1, 0, true },
        { 6, 4100, SLG_F16, SLG_SUM, 1, 0.8, 0, true },
        { 3, 3, SLG_F32, SLG_SUM, 1e5, 1, 0, false },
    };
    FOR_EACH_ISA(ctx, 2)
    {
        for (int64_t i = 0; i < COUNT(forms); i++) {
            const struct form *s = &forms[i];
            if (s->scale > 100 && s->type != SLG_F32) continue;
            problem p = problem_of(s->rows, s->cols);
            char what[64];
            random_logits(&p, s->type, s->scale);
            p.temperature = s->temperature, p.softcap = s->softcap, p.reduction = s->reduction;
            if (s->more) {
                p.mask = zeros(p.cols, sizeof *p.mask);
                for (int64_t c = 0; c < p.cols; c++) p.mask[c] = c % 7 != 3;
                p.row_weight = zeros(p.rows, sizeof *p.row_weight);
                for (int64_t r = 0; r < p.rows; r++) {
                    p.row_weight[r] = r == 3 ? 0 : single(uniform());
                    if (p.index[r] % 7 == 3) p.index[r]--;
                    if (p.x[r * p.cols + p.index[r]] == -INFINITY)
                        p.x[r * p.cols + p.index[r]] = 1;
                }
                p.index[2] = -100;
            }
            snprintf(what, sizeof what, "isa %d, form %lld", (int)isa_, (long long)i);
            for (int64_t r = 0; r < p.rows && !s->more; r++) /* masked targets: the loss's own
                                                                tests */
                if (p.x[r * p.cols + p.index[r]] == -INFINITY) p.x[r * p.cols + p.index[r]] = 1;
            dense_call(ctx, f, &p, s->type, CONTIGUOUS, false, what);
            dense_call(ctx, f, &p, s->type, COL_GAPS, false, what);
            dense_call(ctx, f, &p, s->type, ROW_GAPS, true, what);
            problem_free(&p);
        }
        fused_call(ctx, f, 7, 19);
        fused_call(ctx, f, 3, 2300);
    }
}

/* Bits of loss and gradient for any number of threads. */
static inline void check_threads(const row_loss *f)
{
    enum { ROWS = 23, COLS = 2100 };
    problem p = problem_of(ROWS, COLS);
    random_logits(&p, SLG_F32, 2);
    static const int32_t threads[] = { 1, 2, 3, 8 };
    tensor loss[4], d[4];
    for (int i = 0; i < 4; i++) {
        slg_ctx *ctx = context(SLG_ISA_AUTO, threads[i]);
        operands o;
        operands_of(&p, SLG_F32, SLG_F32, SLG_I64, SLG_I32, CONTIGUOUS, &o);
        loss[i] = vector(SLG_F32, ROWS, CONTIGUOUS),
        d[i] = matrix(SLG_F32, ROWS, COLS, CONTIGUOUS);
        slg_loss_out out = loss_out(&loss[i].t, NULL);
        slg_logits_grad g = dense_grad(&d[i].t);
        OK(ctx, f->call(ctx, &o.logits, &o.targets, SLG_MEAN, &out, &g, f->arg));
        assert_memory_equal(loss[i].memory, loss[0].memory, loss[0].bytes);
        assert_memory_equal(d[i].memory, d[0].memory, d[0].bytes);
        operands_free(&o), slg_ctx_free(ctx);
    }
    for (int i = 0; i < 4; i++) release(&loss[i]), release(&d[i]);
    problem_free(&p);
}

#endif
