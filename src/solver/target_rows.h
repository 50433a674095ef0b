/*
 * target_rows.h - matrices of targets, piece by piece over the pool, and losses of them.
 */
#ifndef SLG_SOLVER_TARGET_ROWS_H
#define SLG_SOLVER_TARGET_ROWS_H

#include "core/tensor.h"
#include "softlogit/surrogate.h"

/* Sums of a piece; floats of scratch of a thread: so many blocks. */
enum { TARGET_SUMS = 4, TARGET_BLOCKS = 5 };

/*
 * Columns [col, col + n) of a row: adds to sums. scratch: TARGET_BLOCKS of KERNEL_BLOCK floats.
 */
typedef void (*target_fn)(const kernel_table *k, const void *arg, int64_t row, int64_t col,
                          int64_t n, float *scratch, double sums[TARGET_SUMS]);

typedef struct target_walk {
    int64_t rows, cols;
    bool whole; /* a piece is a row; else one of at most ROW_SEGMENT columns */
    target_fn fn;
    const void *arg;
    void (*row_done)(const void *arg, int64_t row, const double sums[TARGET_SUMS]); /* NULL;
                                                                     whole: after each */
} target_walk;

/* total = the pieces' sums, added in order. Inside of an op: takes scratch. */
slg_status target_walk_run(slg_ctx *ctx, const target_walk *w, double total[TARGET_SUMS]);

/*
 * Operands [n, m] that fn sees element by element: as one row where all are contiguous, or have
 * one column. t NULL: left alone.
 */
enum { TARGET_OPERANDS = 4 };
typedef struct target_operands {
    const slg_tensor *t[TARGET_OPERANDS];
    rows r[TARGET_OPERANDS];
    int64_t count, cols;
} target_operands;

void target_operands_open(target_operands *o, bool by_row);

/* A tensor of the shape [n, m] of another, of DT_ROW. */
slg_status target_like(slg_ctx *ctx, const char *name, const slg_tensor *t,
                       const slg_tensor *like, bool out);

/* ---- Losses ----------------------------------------------------------------------------- */

typedef struct target_loss {
    int32_t kind;
    const slg_tensor *z, *data, *g, *grad; /* g: of a shift; it and grad may be NULL */
    double s;                              /* the loss is of z - s g */
} target_loss;

/* Checks kind, data [n, m] or [n], and what they hold. */
slg_status target_data_check(slg_ctx *ctx, int32_t kind, const slg_tensor *data, int64_t n,
                             int64_t m);

/* The sum over rows; grad where not NULL. All is checked; inside of an op. */
slg_status target_loss_run(slg_ctx *ctx, const target_loss *t, double *value);

/* ---- Armijo's search -------------------------------------------------------------------- */

extern const slg_armijo_opts armijo_defaults, armijo_inner_defaults;

/* given over *o, which holds the defaults; name: of messages. */
slg_status armijo_read(slg_ctx *ctx, const char *name, const slg_armijo_opts *given,
                       slg_armijo_opts *o);

/* Of out, reason, trials, step and loss; loss_at is given. at: *loss of z - s G. */
slg_status armijo_search(const slg_armijo_opts *o, double step, double square,
                         slg_status (*at)(void *arg, double s, double *loss), void *arg,
                         slg_target_search_out *out);

#endif
