/*
 * column_sums.h - what the layers share: rows of a vector beside rows of a matrix, sums over
 * rows that do not depend on threads, and checks that outputs lie apart.
 */
#ifndef SLG_LAYER_COLUMN_SUMS_H
#define SLG_LAYER_COLUMN_SUMS_H

#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/layer.h"

/* SLG_ERR_STRIDE where out and in share memory; but with may_be, out may be in itself. NULL:
   no. */
slg_status layer_apart(slg_ctx *ctx, const char *out_name, const slg_tensor *out,
                       const char *in_name, const slg_tensor *in, bool may_be);

/* Checks an optional vector of dim entries, and gives it as contiguous float32: its own memory,
   or scratch. *at is NULL where t is. */
slg_status layer_vector(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim,
                        const float **at);

/* Checks an optional output of the shape [dim], float32. */
slg_status layer_vector_out(slg_ctx *ctx, const char *name, const slg_tensor *t, int64_t dim);

/*
 * Rows in chunks that depend on their number alone. A task takes a chunk; sums over rows start
 * at 0 in each, in float32, and are added up in order, in double.
 */
typedef struct column_sums {
    int64_t count, dim, chunks, chunk_rows;
    float *part[2]; /* [chunks, dim], or NULL where not wanted */
} column_sums;

slg_status column_sums_open(slg_ctx *ctx, int64_t count, int64_t dim, bool first, bool second,
                            column_sums *s);

/* Rows [*first, returned) of a chunk, its sums at 0 now. */
int64_t column_sums_chunk(const column_sums *s, int64_t chunk, int64_t *first, float *sum[2]);

/* Adds chunks up into out ([dim] or NULL), over what is there where accumulate. */
void column_sums_close(const column_sums *s, int which, bool accumulate, const slg_tensor *out);

#endif
