/*
 * tensor.h - checks on tensors, and their rows as the kernels see them.
 */
#ifndef SLG_CORE_TENSOR_H
#define SLG_CORE_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "ctx.h"

enum {
    DT_F32 = 1 << SLG_F32,
    DT_BF16 = 1 << SLG_BF16,
    DT_F16 = 1 << SLG_F16,
    DT_F64 = 1 << SLG_F64,
    DT_I32 = 1 << SLG_I32,
    DT_I64 = 1 << SLG_I64,
    DT_ROW = DT_F32 | DT_BF16 | DT_F16, /* what kernels read and write as float32 */
    DT_INT = DT_I32 | DT_I64
};

size_t dtype_size(int32_t dtype); /* bytes; 0 for an unknown type */
const char *dtype_name(int32_t dtype);

/*
 * Checks that t is a well-formed tensor whose dtype is in the set `dtypes` (DT_ flags) and
 * which has from min_dim to max_dim dimensions: not NULL, extents >= 0 whose product (a 0
 * counted as 1) and byte offsets fit in int64 and size_t, data not NULL (unless it has no
 * elements) and aligned to its type. The message is "<op>: <name> ...". tensor_in is for
 * inputs; tensor_out also refuses strides under which elements share memory.
 */
slg_status tensor_in(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                     int32_t min_dim, int32_t max_dim);
slg_status tensor_out(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                      int32_t min_dim, int32_t max_dim);

/* SLG_ERR_SHAPE with a message that names both, unless the shapes are equal. */
slg_status tensor_same_shape(slg_ctx *ctx, const char *name_a, const slg_tensor *a,
                             const char *name_b, const slg_tensor *b);

/* Checks the shape against the one given (ndim numbers). */
slg_status tensor_shape_is(slg_ctx *ctx, const char *name, const slg_tensor *t, int32_t ndim,
                           const int64_t *shape);

/* Checks that t has the shape of x without its last axis ([1] where x has one axis). */
slg_status tensor_is_per_row(slg_ctx *ctx, const char *name, const slg_tensor *t,
                             const char *name_x, const slg_tensor *x);

int64_t tensor_size(const slg_tensor *t); /* number of elements */
bool tensor_contiguous(const slg_tensor *t);

/*
 * True if the memory of out and in overlaps in a way that matters: they share bytes and are not
 * the very same view (same data, dtype, shape, and strides over the extents > 1). Conservative:
 * by the ranges of bytes that the two span. False where one is NULL.
 */
bool tensor_clash(const slg_tensor *out, const slg_tensor *in);

/* ---- Rows ------------------------------------------------------------------------------ */

/* A tensor as rows of its last axis. */
typedef struct rows {
    char *data;
    int32_t dtype;
    int32_t outer;       /* axes before the last that are left once those which lie end to
                            end are joined and those of extent 1 dropped: 0 to 3 */
    int64_t count, cols; /* rows; elements of one */
    int64_t shape[3], stride[3];
    int64_t col_stride; /* elements */
    size_t item;        /* bytes of an element */
    bool plain;         /* float32, columns contiguous: kernels may use it as it is */
} rows;

rows rows_of(const slg_tensor *t);

/* Per-row tensors (t has the shape of x without its last axis): rows of one column. */
rows rows_per_row(const slg_tensor *t);

/* Address of element 0 of row r. */
char *rows_at(const rows *m, int64_t r);

/*
 * Columns [col, col + n) of row r as contiguous float32: the row itself where it is plain, else
 * scratch (n floats), filled by the context's widening kernels. Other dtypes are converted, one
 * by one: so is an integer beyond 2^24 rounded.
 */
const float *rows_fetch(const kernel_table *k, const rows *m, int64_t r, int64_t col, int64_t n,
                        float *scratch);

/* Where to write those columns: the row itself where it is plain, else scratch. */
float *rows_stage(const rows *m, int64_t r, int64_t col, float *scratch);

/* After rows_stage: narrows scratch into the row (round to nearest even); nothing if plain. */
void rows_commit(const kernel_table *k, const rows *m, int64_t r, int64_t col, int64_t n,
                 const float *scratch);

/* SLG_ERR_RANGE with name, place and value unless all of m is finite as float32. */
slg_status rows_check_finite(slg_ctx *ctx, const char *name, const rows *m);

/* One element of a per-row or 1-d tensor as double or integer. rows_put rounds once
   to the dtype, to nearest even; integers are clamped to their type, and NaN is 0 there. */
double rows_get(const rows *m, int64_t r, int64_t c);
int64_t rows_get_int(const rows *m, int64_t r, int64_t c);
void rows_put(const rows *m, int64_t r, int64_t c, double value);

/* A whole row as doubles, and back: each number rounded once to the dtype. */
void row_doubles(const rows *m, int64_t r, double *to);
void row_store(const rows *m, int64_t r, const double *from);

/* Of columns [col, col + n). */
void row_part_doubles(const rows *m, int64_t r, int64_t col, int64_t n, double *to);
void row_part_store(const rows *m, int64_t r, int64_t col, int64_t n, const double *from);

#endif
