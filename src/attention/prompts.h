/*
 * prompts.h - a batch of regression problems in double: what a step of descent and ridge
 * regression share.
 */
#ifndef SLG_ATTENTION_PROMPTS_H
#define SLG_ATTENTION_PROMPTS_H

#include "operands.h"
#include "softlogit/linear_attention.h"

typedef struct prompts {
    slg_ctx *ctx;
    int64_t count, n, d, queries;
    bool many;                      /* query has three axes */
    rows x, y, query, label, shape; /* data NULL: none; shape: gamma or precision [d, d] */
    rows w_out, y_hat;
    double *w; /* [count, d] */
} prompts;

/* Checks all, takes w. query may be NULL where y_hat and label are. shape_name: the
   matrix's. */
slg_status prompts_open(prompts *p, const slg_tensor *x, const slg_tensor *y,
                        const slg_tensor *query, const slg_tensor *label,
                        const char *shape_name, const slg_tensor *shape, slg_tensor *w,
                        slg_tensor *y_hat);

/* Each row of w = eta gamma X'y. */
slg_status prompts_step(prompts *p, double eta);

/* Each row of w = (X'X + lambda P)^-1 X'y. */
slg_status prompts_ridge(prompts *p, double lambda);

/* w' q of a prompt; scratch: d doubles. */
double prompts_predict(const prompts *p, int64_t prompt, int64_t query, double *scratch);

slg_status prompts_write(prompts *p);

#endif
