/*
 * source.h - logits as a source: a matrix, or the product that makes one, formed a block
 * of rows at a time; with soft-cap, mask and temperature on the way, and the way back for
 * gradients. What reads a source does not know which it is.
 */
#ifndef SLG_LOSS_SOURCE_H
#define SLG_LOSS_SOURCE_H

#include "softlogit/loss.h"
#include "softmax/parts.h"

typedef struct logit_source {
    slg_ctx *ctx;
    int64_t rows, cols, dim;
    bool fused;
    rows dense;                /* where not fused */
    rows hidden, weight, bias; /* where fused; bias.data NULL: none */
    double temperature;
    float softcap;        /* 0: none */
    const float *mask;    /* [cols] or NULL */
    rows row_temperature; /* data NULL: none */
    exp_arg arg;          /* of the temperature alone */

    /* The block of rows that is in scratch; fused only. Row r is at logits + (r - first) *
       cols. */
    int64_t block_rows; /* the most that a block has: from the shape alone */
    int64_t first;
    float *logits;
    float *bias_row;     /* [cols] */
    float *hidden_block; /* [block_rows, dim]; NULL where hidden can be used as it is */
    float *weight_panel; /* [PANEL_ROWS, dim]; NULL where weight can be used as it is */
} logit_source;

/* Checks given and its tensors ("logits.dense" in messages, if name is "logits"). No scratch
   yet. */
slg_status source_open(slg_ctx *ctx, const char *name, const slg_logits *given,
                       logit_source *s);

/* Takes scratch. All sources of a call need the same number of rows a block:
   source_block_rows. */
int64_t source_block_rows(const logit_source *s);
slg_status source_reserve(logit_source *s, int64_t block_rows);

/* The temperature of a row. */
double source_temperature(const logit_source *s, int64_t row);

/* Makes rows [first, first + count) available. Does nothing where dense. */
slg_status source_form(logit_source *s, int64_t first, int64_t count);

/* row_fetch: columns after soft-cap and mask, not divided by the temperature. */
const float *source_fetch(const void *s, int64_t row, int64_t col, int64_t n, float *scratch);

/* The same; with a soft-cap, slope (n floats, or NULL) is the derivative of it. */
const float *source_fetch_slope(const logit_source *s, int64_t row, int64_t col, int64_t n,
                                float *scratch, float *slope);

/* ---- Gradients -------------------------------------------------------------------------- */

typedef struct source_grad {
    bool wanted;
    rows dlogits;          /* of a dense source; data NULL: none */
    rows dhidden, dweight; /* of a fused source; data NULL: none */
    rows dbias;
    bool accumulate;       /* dweight, dbias */
    bool accumulate_input; /* dlogits, dhidden */
    bool in_place;         /* dlogits is the source's memory */
    float *dhidden_block;
} source_grad;

/* Checks given (NULL: no gradient) against the source and its tensors. */
slg_status source_grad_open(slg_ctx *ctx, const slg_logits_grad *given,
                            const slg_logits *logits, const logit_source *s, source_grad *g);
slg_status source_grad_reserve(const logit_source *s, source_grad *g);

/*
 * Where the gradient of a block [from, from + n) of a row is written: float32. The source's own
 * scratch where fused, the caller's memory where that is plain, else scratch.
 */
float *source_grad_stage(const logit_source *s, const source_grad *g, int64_t row, int64_t from,
                         float *scratch);

/* After it is written, with the slope that source_fetch_slope gave: to its place. */
void source_grad_commit(const logit_source *s, const source_grad *g, int64_t row, int64_t from,
                        int64_t n, const float *slope, float *d, const float *scratch);

/* Carries the gradients of the block in scratch back to hidden, weight and bias. */
slg_status source_grad_carry(logit_source *s, source_grad *g, int64_t first, int64_t count);

/* Where there are no rows: zeroes what is not accumulated. */
void source_grad_none(const logit_source *s, const source_grad *g);

#endif
