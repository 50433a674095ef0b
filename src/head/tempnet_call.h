/*
 * tempnet_call.h - inside of the temperature network, see softlogit/tempnet.h: a call of
 * forward or backward, and what the two share.
 */
#ifndef SLG_HEAD_TEMPNET_CALL_H
#define SLG_HEAD_TEMPNET_CALL_H

#include <math.h>

#include "core/tensor.h"
#include "softlogit/tempnet.h"

enum { TEMPNET_ROWS = 256 }; /* of a block */

typedef struct tempnet_call {
    slg_ctx *ctx;
    slg_tempnet net;
    slg_tempnet_saved saved;
    slg_tempnet_grad grad;
    bool features;
    int64_t rows_count, cols, hidden, m;
    rows x, tau;                               /* tau: out of forward, dtau into backward */
    const float *w1, *b1, *w2, *b2, *c, *drop; /* b2, drop NULL: none. w2: rows of length 1
                                                  where features */
    double b, sharp;                           /* sharp: exp(-phi) */
    double *norms;                             /* of w2's rows, where features */

    /* The block [first, first + count), and scratch for it. */
    int64_t first, count, ranges;
    float *u;          /* [TEMPNET_ROWS, cols]    x as w1 sees it */
    float *s, *v, *w;  /* rows of the block: the caller's, or scratch */
    float *dropped;    /* [TEMPNET_ROWS, hidden]  s times drop; s itself in a forward without */
    float *dv, *da;    /* [TEMPNET_ROWS, M], [TEMPNET_ROWS, hidden] */
    double *dt, *dphi; /* [TEMPNET_ROWS] */
    double *sum_c, *sum_b2, *sum_b1; /* [M], [M], [hidden] */
    float *dw2;                      /* [M, hidden]  by the rows of length 1, where features */
} tempnet_call;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline double tempnet_sigmoid(double a)
{
    double e = exp(-fabs(a));
    return a > 0 ? 1 / (1 + e) : e / (1 + e);
}

static inline double tempnet_sigmoid_slope(double a)
{
    double e = exp(-fabs(a));
    return e / ((1 + e) * (1 + e));
}

/* ---- Checks ----------------------------------------------------------------------------- */

/* A call with nothing given yet: the defaults. */
void tempnet_call_init(tempnet_call *c, slg_ctx *ctx);

/* c->net and x; fills in all that is of the network. */
slg_status tempnet_check(tempnet_call *c, const slg_tensor *x);
slg_status tempnet_check_saved(tempnet_call *c, const slg_tempnet_saved *given, bool out);

/* A contiguous float32 tensor of this shape (NULL: any). */
slg_status tempnet_check_flat(slg_ctx *ctx, const char *name, const slg_tensor *t, int32_t ndim,
                              const int64_t *shape, bool out);

/* No output may touch another or an input. */
slg_status tempnet_check_apart(slg_ctx *ctx, size_t outs, const slg_tensor *const *out,
                               size_t ins, const slg_tensor *const *in);

/* ---- Parts ------------------------------------------------------------------------------ */

/* Scratch; NULL where memory is short. */
float *tempnet_floats(slg_ctx *ctx, int64_t rows_count, int64_t cols);

/* Prototypes of length 1, where features. */
slg_status tempnet_normalise(tempnet_call *c);

/* The block that begins at `first`; where its rows of s, v, w are: the caller's, or these. */
void tempnet_block(tempnet_call *c, int64_t first);
void tempnet_place(tempnet_call *c, float *s, float *v, float *w);

/* For the pool: the block's rows of u. */
void tempnet_unit_rows(void *arg, int64_t task, int32_t worker);

/* t of a row whose v and w are known. */
double tempnet_head(const tempnet_call *c, const float *v, const float *w);

#endif
