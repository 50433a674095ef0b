/*
 * parts.h - the partial softmax as a value: pieces of a row, their merge, and what a whole
 * row's pass 1 leaves for pass 2. Everything that needs a normaliser goes through here:
 * softmax, losses, attention.
 *
 * A row is reduced in segments of ROW_SEGMENT columns, each in blocks of KERNEL_BLOCK, merged
 * in order: so its bits depend on the row alone, not on threads or on how rows are interleaved.
 */
#ifndef SLG_SOFTMAX_PARTS_H
#define SLG_SOFTMAX_PARTS_H

#include "core/tensor.h"

/* The argument (x - pre) / temperature. */
exp_arg exp_arg_of(double temperature, float pre);

/* Adds b to *a. */
void part_merge(lse_part *a, const lse_part *b);

typedef enum row_kind {
    ROW_PLAIN,
    ROW_MASKED, /* no column, or all -inf: log-sum-exp -inf */
    ROW_INF,    /* +inf, no NaN: log-sum-exp +inf */
    ROW_NAN
} row_kind;

/* A row while it is reduced, and after row_finish. */
typedef struct row_stat {
    exp_arg arg;
    lse_part segment; /* the one that is being added to */
    lse_part part;    /* those before; after row_finish the whole row */
    row_kind kind;
    double lse_rel; /* log-sum-exp of (x - arg.pre) / T; +-inf, NaN by kind */
    double lse;     /* log-sum-exp of x / T */
} row_stat;

/* Where blocks of a row come from. Columns [col, col + n), n <= KERNEL_BLOCK; may use
   scratch. */
typedef const float *(*row_fetch)(const void *source, int64_t row, int64_t col, int64_t n,
                                  float *scratch);

void row_start(row_stat *s, const exp_arg *arg);

/* Before the block at col, a multiple of KERNEL_BLOCK: closes a segment that ends there. */
static inline void row_segment(row_stat *s, int64_t col)
{
    if (col % ROW_SEGMENT != 0 || col == 0) return;
    part_merge(&s->part, &s->segment);
    s->segment = LSE_EMPTY;
}

/* Adds columns [col, col + n), which start at a multiple of KERNEL_BLOCK, n <= KERNEL_BLOCK. */
static inline void row_reduce(const kernel_table *k, row_stat *s, int64_t col, int64_t n,
                              const float *x)
{
    row_segment(s, col);
    k->lse((size_t)n, x, &s->arg, &s->segment);
}

/* A streamed row of probabilities (or of a gradient that is one times them) beside pass 1
   of the next row, both plain float32: x, y and next are the rows' starts, the block is [col,
   col + n) of both. */
void row_emit_reduce(const kernel_table *k, const exp_out *e, const float *x, float *y,
                     row_stat *now, const float *next, int64_t cols, int64_t col, int64_t n);

/*
 * Ends pass 1: kind and log-sum-exp. A row that is not ordinary (NaN, infinite, beyond
 * EXP_LIMIT) is looked at again through fetch, and reduced around its maximum.
 */
void row_finish(const kernel_table *k, row_stat *s, int64_t row, int64_t cols, row_fetch fetch,
                const void *source);

/* The same for a row whose part is already whole (a kernel that does a row at once). */
void row_settle(const kernel_table *k, row_stat *s, const lse_part *part, int64_t row,
                int64_t cols, row_fetch fetch, const void *source);

/* Pass 2 of a plain row:  weight * exp((x - pre) / T - lse_rel) + c. */
exp_out row_out(const row_stat *s, double weight, float c);

/* The same from a log-sum-exp alone, of x / T. */
exp_out exp_out_of(const exp_arg *arg, double lse, double weight);

/* row_fetch for a tensor's rows; source is a rows_source. */
typedef struct rows_source {
    const kernel_table *k;
    rows x;
} rows_source;
const float *rows_source_fetch(const void *source, int64_t row, int64_t col, int64_t n,
                               float *scratch);

/* Floats from y to the next line. */
static inline int64_t line_skew(const float *y)
{
    return (int64_t)(((64 - ((uintptr_t)y & 63)) & 63) / sizeof(float));
}

/*
 * For pass 2 on whole cache lines of the output: the block [col, col + n) of a row of cols
 * columns becomes [*from, *to), shifted by what the row's start lies off a line. The first
 * block grows by that: buffers of pass 2 hold EMIT_BLOCK floats.
 */
enum { EMIT_BLOCK = KERNEL_BLOCK + 16 };

static inline void line_cut(const float *y_row, int64_t cols, int64_t col, int64_t n,
                            int64_t *from, int64_t *to)
{
    int64_t skew = line_skew(y_row);
    *from = col == 0 ? 0 : (col + skew < cols ? col + skew : cols);
    *to = col + n >= cols || col + n + skew > cols ? cols : col + n + skew;
}

void fill_f32(float *y, int64_t n, float value);

/* As tensor_clash, for two outputs: the very same view is a clash too. */
static inline bool outputs_clash(const slg_tensor *a, const slg_tensor *b)
{
    if (!a || !b) return false;
    return tensor_clash(a, b) ||
           (a->data == b->data && tensor_size(a) > 0 && tensor_size(b) > 0);
}

#endif
