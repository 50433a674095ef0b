/*
 * operands.h - tables of operands: checks of many tensors by their names and shapes.
 */
#ifndef SLG_ATTENTION_OPERANDS_H
#define SLG_ATTENTION_OPERANDS_H

#include "core/tensor.h"

typedef struct operand {
    const char *name;
    const slg_tensor *t; /* NULL: an error where needed, else left out */
    unsigned dtypes;
    bool needed;
    int32_t axes;
    int64_t shape[4];
    rows *rows;               /* out, where not NULL: of t; data NULL without t */
    const slg_tensor *may_be; /* of outputs: the input whose very view it may be */
} operand;

slg_status operands_in(slg_ctx *ctx, const operand *in, size_t count);

/* The same for outputs, none of which may overlap an input or another output. */
slg_status operands_out(slg_ctx *ctx, const operand *out, size_t count, const operand *in,
                        size_t inputs);

/* A matrix of the caller as doubles in scratch: the identity where it is NULL. */
slg_status matrix_doubles(slg_ctx *ctx, const rows *m, int64_t d, double **to);

/* SLG_ERR_RANGE unless it is finite and symmetric. */
slg_status matrix_symmetric(slg_ctx *ctx, const char *name, int64_t d, const double *a);

#endif
