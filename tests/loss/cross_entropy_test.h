/*
 * cross_entropy_test.h - what tests of slg_cross_entropy share: random problems with any of the
 * things that a problem may have, and a call in all its forms against double arithmetic.
 */
#ifndef TESTS_LOSS_CROSS_ENTROPY_TEST_H
#define TESTS_LOSS_CROSS_ENTROPY_TEST_H

#include "loss_test.h"

static worst overall;

/* ---- Random problems --------------------------------------------------------------------- */

/* A bit of `choice` for each thing that a problem may have. */
enum {
    PROB = 1,
    SMOOTHING = 2,
    CLASS_WEIGHT = 4,
    ROW_WEIGHT = 8,
    Z_LOSS = 16,
    SOFTCAP = 32,
    TEMPERATURE = 64,
    MASK = 128,
    CHOICES = 256
};

static const int32_t row_types[] = { SLG_F32, SLG_BF16, SLG_F16 };

/* Distributions that any of the types holds: a few powers of 2 that add up to 1; or, in
   float32, something everywhere. No mass where a class is masked. */
static inline void random_prob(problem *p, int64_t r, int32_t type)
{
    double *q = p->q + r * p->cols, sum = 0, mass = 1;
    int64_t alive = 0, last = -1;
    for (int64_t k = 0; k < p->cols; k++)
        if (live(p, r, k)) alive++, last = k;
    if (type == SLG_F32 && r % 3 && alive) {
        for (int64_t k = 0; k < p->cols; k++)
            if (live(p, r, k)) sum += q[k] = exp(2 * normal());
        for (int64_t k = 0; k < p->cols; k++) q[k] = as_dtype(type, q[k] / sum);
        return;
    }
    for (int i = 0; i < 5 && alive > 1; i++) {
        int64_t k = below(p->cols);
        if (live(p, r, k)) q[k] += mass /= 2;
    }
    q[last < 0 ? 0 : last] += mass;
}

static inline problem random_problem(int64_t rows, int64_t cols, unsigned choice,
                                     int32_t reduction, int32_t x_type, int32_t q_type)
{
    problem p = problem_of(rows, cols);
    p.reduction = reduction;
    p.has_prob = choice & PROB;
    if (choice & MASK) {
        p.mask = zeros(cols, sizeof *p.mask);
        for (int64_t c = 0; c < cols; c++) p.mask[c] = uniform() < 0.7 ? 1 + (int)below(3) : 0;
        p.mask[below(cols)] = 1;
    }
    for (int64_t i = 0; i < rows * cols; i++) {
        p.x[i] = as_dtype(x_type, 3 * normal());
        if (uniform() < 0.02) p.x[i] = -INFINITY;
    }
    if (choice & CLASS_WEIGHT) {
        p.class_weight = zeros(cols, sizeof *p.class_weight);
        for (int64_t c = 0; c < cols; c++)
            p.class_weight[c] = c % 7 == 3 ? 0 : single(2 * uniform());
    }
    if (choice & ROW_WEIGHT) {
        p.row_weight = zeros(rows, sizeof *p.row_weight);
        for (int64_t r = 0; r < rows; r++) p.row_weight[r] = r == 1 ? 0 : single(3 * uniform());
    }
    if (choice & SMOOTHING) p.smoothing = uniform() < 0.1 ? 1 : 0.1;
    if (choice & Z_LOSS) p.z_loss = 1e-2;
    if (choice & SOFTCAP) p.softcap = 5;
    if (choice & TEMPERATURE) p.temperature = uniform() < 0.5 ? 0.7 : 3;
    p.ignore_index = below(2) ? -100 : below(cols);
    if (p.has_prob) p.q = zeros(rows * cols, sizeof *p.q);
    for (int64_t r = 0; r < rows; r++) {
        int64_t t = below(cols);
        while (p.mask && !p.mask[t]) t = below(cols);
        if (p.x[r * cols + t] == -INFINITY) p.x[r * cols + t] = 1;
        p.index[r] = t;
        if (!p.has_prob && uniform() < 0.15) p.index[r] = p.ignore_index;
        if (p.has_prob) random_prob(&p, r, q_type);
    }
    return p;
}

/* ---- All forms of a call ----------------------------------------------------------------- */

static inline void same_numbers(const slg_loss_out *a, const slg_loss_out *b)
{
    assert_memory_equal(&a->value, &b->value, sizeof a->value);
    assert_memory_equal(&a->sum, &b->sum, sizeof a->sum);
    assert_true(a->weight == b->weight && a->count == b->count && a->correct == b->correct);
}

static inline void check_problem(slg_ctx *ctx, const problem *p, int32_t x_type, int32_t q_type,
                                 int32_t grad_type, enum layout layout)
{
    const answer a = answer_of(p);
    const int32_t index_type = layout % 2 ? SLG_I32 : SLG_I64;
    const int32_t mask_types[] = { SLG_I32, SLG_I64, SLG_F32, SLG_I32 };
    operands o;
    operands_of(p, x_type, q_type, index_type, mask_types[layout], layout, &o);
    tensor loss = vector(SLG_F32, p->rows, layout), lse = vector(SLG_F32, p->rows, layout);
    tensor dx = matrix(grad_type, p->rows, p->cols, layout);
    slg_logits_grad grad = dense_grad(&dx.t);

    slg_loss_out full = loss_out(&loss.t, &lse.t);
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &full, &grad));
    compare_out(p, &a, &full, &loss, &lse, &overall);
    compare_grad(p, &a, &dx, &overall);

    /* Values alone; gradient alone. */
    slg_loss_out out = loss_out(NULL, NULL);
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, NULL));
    same_numbers(&full, &out);
    tensor again = matrix(grad_type, p->rows, p->cols, layout);
    grad.dlogits = &again.t;
    out = loss_out(NULL, NULL);
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
    same_numbers(&full, &out);
    assert_memory_equal(dx.memory, again.memory, dx.bytes);

    /* In place. */
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t c = 0; c < p->cols; c++) {
            double x = p->x[r * p->cols + c];
            assert_true(get(&o.x, r, c) == x || isnan(x)); /* inputs are as they were */
        }
    grad.dlogits = &o.x.t;
    OK(ctx, slg_cross_entropy(ctx, &o.logits, &o.targets, &o.opts, &out, &grad));
    same_numbers(&full, &out);
    compare_grad(p, &a, &o.x, &overall);
    if (x_type == grad_type)
        for (int64_t r = 0; r < p->rows; r++)
            for (int64_t c = 0; c < p->cols; c++)
                assert_memory_equal(item_at(&o.x.t, r, c), item_at(&dx.t, r, c),
                                    item_size(x_type));

    assert_gaps_intact(&dx), assert_gaps_intact(&loss), assert_gaps_intact(&lse);
    assert_gaps_intact(&o.x);
    release(&dx), release(&again), release(&loss), release(&lse);
    operands_free(&o);
    answer_free((answer *)&a);
}

static inline int print_worst(void **state)
{
    (void)state;
    print_message("of what is allowed (loss %g, lse %g, gradient %g): loss %.2f, lse %.2f, "
                  "gradient %.2f, value %.2f\n",
                  LOSS_TOLERANCE, LSE_TOLERANCE, GRAD_TOLERANCE, overall.loss, overall.lse,
                  overall.grad, overall.value);
    return 0;
}

#endif
