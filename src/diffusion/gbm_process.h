/*
 * gbm_process.h - what the functions of diffusion.h share: parameters by column, times by row,
 * and matrices in pieces of contiguous float32. A piece is several whole rows where they are
 * short, else a part of a row; element by element all pieces are alike, so kernels see long
 * vectors whatever d is.
 *
 * Everything is linear in h and in the noise (or log x_t - log x_0), with coefficients that are
 * a power of t times a function of the column's sigma and mu: see term.
 */
#ifndef SLG_DIFFUSION_PROCESS_H
#define SLG_DIFFUSION_PROCESS_H

#include "core/options.h"
#include "core/tensor.h"
#include "softlogit/diffusion.h"

/* Two counts for each worker are a cache line apart. */
enum { PIECE_SIZE = 2048, PIECE_BUFFERS = 9, COUNT_GAP = 8 };

typedef struct motion {
    const kernel_table *k;
    int64_t rows, cols;
    bool log_state;
    double sigma, mu;
    const double *sigmas, *mus; /* [cols] both, or NULL both: sigma and mu for all */
    const double *t;            /* [rows]; NULL: no function of it */
    int64_t piece_rows, parts;  /* rows of a piece; pieces of a row: one of them is 1 */
    float *scratch;             /* PIECE_BUFFERS of PIECE_SIZE for each worker */
    int64_t *lost;              /* [workers, COUNT_GAP] */
    int32_t workers;
} motion;

typedef struct piece {
    int64_t number, row, rows, col, cols; /* number: by rows, then columns */
    size_t n;                             /* rows * cols */
    int32_t worker;
} piece;

/*
 * Reads the process for matrices of the shape of x ([n, d], checked here to have two axes):
 * its options, its columns and t ([n]; NULL: none). positive: sigma > 0 is needed.
 */
slg_status process_open(slg_ctx *ctx, const slg_gbm *given, const char *name,
                        const slg_tensor *x, const slg_tensor *t, bool positive, motion *p);

/* Calls fn for all pieces, over the pool; subnormal numbers are as in IEEE 754 there. */
typedef void (*piece_fn)(void *arg, const motion *p, const piece *q);
void process_run(slg_ctx *ctx, const motion *p, piece_fn fn, void *arg);

/* SLG_ERR_RANGE unless all of x is in its domain: positive and finite, or finite in log
   state. */
slg_status process_domain(slg_ctx *ctx, const motion *p, const char *name, const slg_tensor *x);

/* ---- Operands ---------------------------------------------------------------------------- */

typedef struct operand {
    const char *name;
    const slg_tensor *t; /* NULL: not there */
    unsigned over;       /* of an output: bit j where it may be input j itself */
} operand;

/* Checks shapes, types and overlap; all are of the shape of `like`. */
slg_status process_operands(slg_ctx *ctx, const char *like_name, const slg_tensor *like,
                            size_t ins, const operand *in, size_t outs, const operand *out);

/* No output overlaps what is not of the shape [n, d]. */
slg_status process_apart(slg_ctx *ctx, const char *name, const slg_tensor *in, size_t outs,
                         const operand *out);

/* An optional [n] output of float32 or double. */
slg_status process_row_output(slg_ctx *ctx, const motion *p, const char *name,
                              const slg_tensor *t);

/* The noise: z, or a generator if needed; both are an error. */
slg_status process_noise(slg_ctx *ctx, const slg_tensor *z, const slg_rng *rng, bool needed);

/* ---- Pieces ------------------------------------------------------------------------------ */

float *piece_buffer(const motion *p, const piece *q, int which);

/* As rows_fetch and rows_stage. */
const float *piece_fetch(const motion *p, const rows *m, const piece *q, float *scratch);
float *piece_stage(const rows *m, const piece *q, float *scratch);

/* Writes values; where piece_stage gave m's own memory for them, they are there. */
void piece_put(const motion *p, const rows *m, const piece *q, const float *values);

/* z of the piece: fetched, or drawn. */
typedef struct noise_source {
    bool given;
    rows z;
    slg_rng rng;
} noise_source;
noise_source noise_of(const slg_tensor *z, const slg_rng *rng);
const float *piece_noise(const motion *p, const noise_source *from, const piece *q,
                         float *scratch);

/* What the loss and its target see of the noise: z itself, or log x_t - log x_0. x and x0 are
   NULL with z, but for x where the score is raw. */
typedef struct denoised {
    bool given; /* z */
    rows z, x, x0;
} denoised;
slg_status denoised_check(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *x0,
                          const slg_tensor *z, bool need_x);
slg_status denoised_open(slg_ctx *ctx, const motion *p, const slg_tensor *x,
                         const slg_tensor *x0, const slg_tensor *z, denoised *d);
const float *piece_step(const motion *p, const denoised *d, const piece *q, float *scratch,
                        float *more);

/* ---- Coefficients ------------------------------------------------------------------------ */

/* scale f(sigma, mu) t^(half_powers / 2) */
typedef struct term {
    int half_powers;
    double value;         /* of scale f */
    const double *values; /* [cols], the same by column; or NULL */
    const float *narrow;  /* [cols], those in float32 */
} term;

typedef double (*term_fn)(double sigma, double mu);
slg_status term_open(slg_ctx *ctx, const motion *p, int half_powers, term_fn f, double scale,
                     term *out);

/* The term over a piece: factor times *at[i], *at NULL: ones; scratch holds a piece. */
float term_over(const motion *p, const term *c, const piece *q, float *scratch,
                const float **at);

typedef struct line_terms {
    term a, b, c;
} line_terms;

/* All three, in buffers 0 to 2. */
line_arg line_over(const motion *p, const line_terms *terms, const piece *q);

double one_of(double sigma, double mu); /* 1 */
double sigma_of(double sigma, double mu);
double variance_of(double sigma, double mu); /* sigma^2 */
double inverse_of(double sigma, double mu);  /* 1 / sigma */

/* ---- Results ----------------------------------------------------------------------------- */

/* Checks counts before anything is written; adds up what the workers counted. */
slg_status counts_check(slg_ctx *ctx, const slg_gbm_counts *counts);
void counts_write(const motion *p, slg_gbm_counts *counts);

/* Sums of parts of rows [rows, parts], and which of them column 0 of a piece's row r adds to.
   */
double *process_sums(slg_ctx *ctx, const motion *p);
static inline double *piece_sum(const motion *p, const piece *q, double *sums, int64_t r)
{
    return &sums[(q->row + r) * p->parts + q->col / PIECE_SIZE];
}

/* Adds them up, in order, into loss ([n] or NULL) and value (or NULL). */
void process_rows_out(const motion *p, const double *sums, int32_t reduction,
                      const slg_tensor *loss, double *value);

#endif
