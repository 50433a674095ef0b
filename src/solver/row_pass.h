/*
 * row_pass.h - rows of data, and one pass over them: for objectives that see a row through its
 * products with a few vectors. A pass reads the data once: a block of rows goes through
 * z = w x', through a function of the objective, and back as sums of z x, while it lies in the
 * L2 cache. Blocks are tasks of the pool; what they sum is added up in their order, so results
 * have the same bits for any number of threads.
 */
#ifndef SLG_SOLVER_ROW_PASS_H
#define SLG_SOLVER_ROW_PASS_H

#include <stdbool.h>

#include "core/tensor.h"

/* float32 where the caller's data are no more than that, else float64. Rows that are a copy end
   in zeros up to ld, an odd number of cache lines: so rows do not compete for the same ones. */
typedef struct row_data {
    int64_t n, d, ld;
    int32_t dtype; /* SLG_F32, SLG_F64 */
    void *x;
} row_data;

/* A checked copy of t [n, d], from ctx_alloc, with a column of ones after it where `ones`.
   dtype: SLG_F32 (float64 is rounded), SLG_F64, or -1: as t is. */
slg_status row_data_copy(slg_ctx *ctx, const char *name, const slg_tensor *t, bool ones,
                         int32_t dtype, row_data *to);

/* Rows as doubles, ld apart: where they lie if they are that, else in scratch [count, ld]. */
const double *row_data_doubles(const row_data *r, int64_t first, int64_t count,
                               double *scratch);

enum { PASS_SUMS = 2 };

/* What the function of an objective is given. */
typedef struct row_block {
    bool fresh; /* the first block of its task */
    int64_t first, count;
    int64_t ld;      /* of z: at least count */
    double *z;       /* [k, count]: in the products, out what sums the rows */
    double *scratch; /* [PASS_SCRATCH, ld] */
    double *sums;    /* [PASS_SUMS] of the task: 0 at first */
    double *part; /* [k, part_ld] of the task: what its earlier blocks summed; NULL: nothing is
                        to be */
    int64_t part_ld;
} row_block;
enum { PASS_SCRATCH = 4 };

typedef struct row_pass {
    slg_ctx *ctx;
    const row_data *data;
    int64_t k;       /* vectors */
    const double *w; /* [k, d] */
    bool single;     /* products in float32, their sums over blocks in double */
    bool back;       /* z is to be summed with the rows */
    void (*fn)(const struct row_pass *p, row_block *b);
    const void *user;
    /* out */
    int64_t tasks;
    double *sums;  /* [tasks, PASS_SUMS] */
    double *parts; /* [tasks, k, ld] */
} row_pass;

/* Inside of an op; takes scratch, which holds the results. */
slg_status row_pass_run(row_pass *p);

double row_pass_sum(const row_pass *p, int which);

/* to [k, d] = factor * the sum over tasks of their parts, each times its weight (NULL: 1). */
void row_pass_gather(const row_pass *p, double factor, const double *weight, double *to);

#endif
