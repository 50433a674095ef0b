/*
 * moe_common.h - what the files of mixtures of experts share: see softlogit/moe.h.
 */
#ifndef SLG_HEAD_MOE_COMMON_H
#define SLG_HEAD_MOE_COMMON_H

#include <math.h>
#include <string.h>

#include "core/blas.h"
#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/moe.h"

enum { MOE_ROWS = 64 }; /* of a task */

static inline int64_t moe_tasks(int64_t rows_count)
{
    return (rows_count + MOE_ROWS - 1) / MOE_ROWS;
}

static inline int64_t moe_least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int32_t *moe_int(const rows *m, int64_t r, int64_t c)
{
    return (int32_t *)(void *)rows_at(m, r) + c * m->col_stride;
}

/* SLG_ERR_STRIDE where an output touches another tensor. NULLs are passed over; names beside
   them. */
typedef struct moe_operand {
    const char *name;
    const slg_tensor *t;
} moe_operand;

slg_status moe_apart(slg_ctx *ctx, size_t outs, const moe_operand *out, size_t ins,
                     const moe_operand *in);

/* A [rows, cols] tensor in or out; rows, cols < 0: any. NULL: SLG_ERR_NULL. */
slg_status moe_in(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                  int64_t rows_count, int64_t cols);
slg_status moe_out(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                   int64_t rows_count, int64_t cols);
/* The same of vectors. */
slg_status moe_in_1d(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                     int64_t size);
slg_status moe_out_1d(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                      int64_t size);

/* Entries from low to below high, else SLG_ERR_RANGE. */
slg_status moe_indices(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t low,
                       int64_t high);

/* A vector, or zeros where t is NULL, in double; a matrix in float32 or double, contiguous, its
   own memory where it can. NULL where memory is short. */
double *moe_vector(slg_ctx *ctx, const slg_tensor *t, int64_t size);
const float *moe_floats(slg_ctx *ctx, const slg_tensor *t);
const double *moe_doubles(slg_ctx *ctx, const slg_tensor *t);
/* from [rows, cols] into t, or added to it; NULL: nothing. */
void moe_put(const slg_tensor *t, const double *from, bool add);

#endif
