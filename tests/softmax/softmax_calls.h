/*
 * softmax_calls.h - the functions of softmax.h as a table: what each takes, in which order, and
 * a way to call it with an array of tensors. slg_partial_merge, whose shapes are its own,
 * is missing.
 */
#ifndef TESTS_SOFTMAX_SOFTMAX_CALLS_H
#define TESTS_SOFTMAX_SOFTMAX_CALLS_H

#include <stdbool.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "softlogit/softmax.h"

enum { OPERANDS = 4 };

enum role { ROW_IN, ROW_OUT, PER_ROW_IN, PER_ROW_OUT }; /* [rows, cols] or [rows] */

enum {
    OPTIONAL = 1,
    HALVES = 2,
    DOUBLES = 4
}; /* may be NULL; bf16, f16; f64. All may be f32. */

typedef struct operand {
    const char *name;
    enum role role;
    unsigned flags;
    unsigned may_be; /* an output: the inputs, by bit, whose view it may be */
} operand;

typedef struct function {
    const char *name;
    int count;
    bool opts;
    operand with[OPERANDS];
    slg_status (*call)(slg_ctx *ctx, slg_tensor *const *t, const slg_softmax_opts *o);
} function;

static inline slg_status call_softmax(slg_ctx *c, slg_tensor *const *t,
                                      const slg_softmax_opts *o)
{
    return slg_softmax(c, t[0], o, t[1], t[2]);
}
static inline slg_status call_log_softmax(slg_ctx *c, slg_tensor *const *t,
                                          const slg_softmax_opts *o)
{
    return slg_log_softmax(c, t[0], o, t[1], t[2]);
}
static inline slg_status call_logsumexp(slg_ctx *c, slg_tensor *const *t,
                                        const slg_softmax_opts *o)
{
    return slg_logsumexp(c, t[0], o, t[1]);
}
static inline slg_status call_softmax_backward(slg_ctx *c, slg_tensor *const *t,
                                               const slg_softmax_opts *o)
{
    return slg_softmax_backward(c, t[0], t[1], o, t[2]);
}
static inline slg_status call_log_softmax_backward(slg_ctx *c, slg_tensor *const *t,
                                                   const slg_softmax_opts *o)
{
    return slg_log_softmax_backward(c, t[0], t[1], o, t[2]);
}
static inline slg_status call_logsumexp_backward(slg_ctx *c, slg_tensor *const *t,
                                                 const slg_softmax_opts *o)
{
    return slg_logsumexp_backward(c, t[0], t[1], t[2], o, t[3]);
}
static inline slg_status call_ext_exp(slg_ctx *c, slg_tensor *const *t,
                                      const slg_softmax_opts *o)
{
    (void)o;
    return slg_ext_exp(c, t[0], t[1], t[2]);
}
static inline slg_status call_partial_softmax(slg_ctx *c, slg_tensor *const *t,
                                              const slg_softmax_opts *o)
{
    return slg_partial_softmax(c, t[0], o, t[1], t[2]);
}
static inline slg_status call_partial_finish(slg_ctx *c, slg_tensor *const *t,
                                             const slg_softmax_opts *o)
{
    return slg_partial_finish(c, t[0], t[1], t[2], o, t[3]);
}

/* clang-format off: a line an operand */
static const function functions[] = {
    { "slg_softmax",
      3,
      true,
      { { "x", ROW_IN, HALVES, 0 },
        { "y", ROW_OUT, HALVES, 1 },
        { "lse", PER_ROW_OUT, OPTIONAL | DOUBLES, 0 } },
      call_softmax },
    { "slg_log_softmax",
      3,
      true,
      { { "x", ROW_IN, HALVES, 0 },
        { "y", ROW_OUT, HALVES, 1 },
        { "lse", PER_ROW_OUT, OPTIONAL | DOUBLES, 0 } },
      call_log_softmax },
    { "slg_logsumexp",
      2,
      true,
      { { "x", ROW_IN, HALVES, 0 }, { "lse", PER_ROW_OUT, DOUBLES, 0 } },
      call_logsumexp },
    { "slg_softmax_backward",
      3,
      true,
      { { "y", ROW_IN, HALVES, 0 }, { "dy", ROW_IN, HALVES, 0 }, { "dx", ROW_OUT, HALVES, 3 } },
      call_softmax_backward },
    { "slg_log_softmax_backward",
      3,
      true,
      { { "y", ROW_IN, HALVES, 0 }, { "dy", ROW_IN, HALVES, 0 }, { "dx", ROW_OUT, HALVES, 3 } },
      call_log_softmax_backward },
    { "slg_logsumexp_backward",
      4,
      true,
      { { "x", ROW_IN, HALVES, 0 },
        { "lse", PER_ROW_IN, DOUBLES, 0 },
        { "dlse", PER_ROW_IN, OPTIONAL, 0 },
        { "dx", ROW_OUT, HALVES, 1 } },
      call_logsumexp_backward },
    { "slg_ext_exp",
      3,
      false,
      { { "x", ROW_IN, 0, 0 }, { "m", ROW_OUT, 0, 1 }, { "n", ROW_OUT, 0, 1 } },
      call_ext_exp },
    { "slg_partial_softmax",
      3,
      true,
      { { "x", ROW_IN, HALVES, 0 }, { "m", PER_ROW_OUT, 0, 0 }, { "n", PER_ROW_OUT, 0, 0 } },
      call_partial_softmax },
    { "slg_partial_finish",
      4,
      true,
      { { "x", ROW_IN, HALVES, 0 },
        { "m", PER_ROW_IN, 0, 0 },
        { "n", PER_ROW_IN, 0, 0 },
        { "y", ROW_OUT, HALVES, 1 } },
      call_partial_finish },
};
/* clang-format on */

static inline bool is_output(const operand *with)
{
    return with->role == ROW_OUT || with->role == PER_ROW_OUT;
}

static inline bool is_rows(const operand *with) { return with->role <= ROW_OUT; }

/* Values that make sense together: logits, some of them masked; log-sum-exps and pairs above
   them. */
static inline float sensible(const operand *with, double uniform, double normal)
{
    if (is_rows(with)) return uniform < 0.1 ? -INFINITY : (float)(3 * normal);
    if (strcmp(with->name, "m") == 0) return (float)(1 + uniform);
    if (strcmp(with->name, "n") == 0) return (float)(int)(9 + 4 * uniform);
    return (float)(7 + uniform); /* lse, dlse */
}

#endif
