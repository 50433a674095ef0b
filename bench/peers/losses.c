/*
 * losses.c - each loss over logits, forward and backward, against our own cross-entropy on
 * the same rows; those with a teacher against two reads and one streaming write. A new loss
 * is a line in LOSSES (race.h) and a function here.
 */
#include <math.h>
#include <stdlib.h>

#include "race.h"
#include "softlogit/softlogit.h"

typedef struct loss_state {
    slg_tensor x, dx, index, other;
    slg_logits logits, teacher;
    slg_targets targets;
    slg_loss_out out;
    slg_logits_grad grad;
} loss_state;

#define CALL(name, function)                                                                   \
    static slg_status call_##name(slg_ctx *ctx, loss_state *s)                                 \
    {                                                                                          \
        return function(ctx, &s->logits, &s->targets, NULL, &s->out, &s->grad);                \
    }

CALL(cross_entropy, slg_cross_entropy)
CALL(comp_sum, slg_comp_sum)
CALL(focal, slg_focal)
CALL(poly1, slg_poly1)
CALL(stablemax, slg_stablemax_loss)
CALL(hinge, slg_hinge)
CALL(spherical, slg_spherical)

static slg_status call_distillation(slg_ctx *ctx, loss_state *s)
{
    return slg_distillation(ctx, &s->logits, &s->targets, NULL, &s->out, &s->grad);
}

/* The teacher: the same logits, from the last row to the first. */
static void *prepare(race *r, bool teacher)
{
    loss_state *s = calloc(1, sizeof *s);
    s->x = slg_tensor_2d(r->x, SLG_F32, r->rows, r->cols);
    s->dx = slg_tensor_2d(r->y, SLG_F32, r->rows, r->cols);
    s->other = slg_tensor_2d(r->x + (r->rows - 1) * r->cols, SLG_F32, r->rows, r->cols);
    s->other.stride[0] = -r->cols;
    s->index = slg_tensor_1d(r->target, SLG_I64, r->rows);
    s->logits = slg_logits_dense(&s->x);
    s->teacher = slg_logits_dense(&s->other);
    slg_targets_init(&s->targets, sizeof s->targets);
    if (teacher)
        s->targets.teacher = &s->teacher;
    else
        s->targets.index = &s->index;
    s->out = slg_loss_out_none();
    s->grad = slg_grad_dense(&s->dx);
    return s;
}

static void *prepare_index(race *r, const char *arg)
{
    (void)arg;
    return prepare(r, false);
}

static void *prepare_teacher(race *r, const char *arg)
{
    (void)arg;
    return prepare(r, true);
}

static void release(race *r, void *state)
{
    (void)r;
    free(state);
}

/* Values are the tests' affair; here, that every entry of the gradient was written as
   a number. */
static double check(race *r)
{
    for (int64_t i = 0; i < r->rows * r->cols; i++)
        if (!isfinite(r->y[i])) return NAN;
    return 0;
}

#define CANDIDATE(name, title, role, start)                                                    \
    static void run_##name##_##role(race *r, void *state, int64_t times)                       \
    {                                                                                          \
        while (times--) stop(r, call_##name(r->ctx, state), title);                            \
    }                                                                                          \
    static const candidate name##_##role = { title, role,    NULL, start, run_##name##_##role, \
                                             NULL,  release, NULL };

CANDIDATE(cross_entropy, "cross-entropy", FORM, prepare_index)

#define LOSS(name, start)                                                                      \
    CANDIDATE(name, "ours", OURS, start)                                                       \
    static const candidate *const name##_field[] = { &name##_OURS, &cross_entropy_FORM,        \
                                                     &floor_copy_nt, &floor_read_copy_nt,      \
                                                     NULL };                                   \
    const operation op_##name = { #name, logits_setup, check,       logits_reset, 1,           \
                                  0,     "copy-nt",    name##_field };

LOSS(comp_sum, prepare_index)
LOSS(focal, prepare_index)
LOSS(poly1, prepare_index)
LOSS(stablemax, prepare_index)
LOSS(hinge, prepare_index)
LOSS(spherical, prepare_index)
LOSS(distillation, prepare_teacher)
