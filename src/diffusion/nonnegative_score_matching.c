/*
 * nonnegative_score_matching.c - the loss of h and x dh/dx that needs no noise.
 */
#include "gbm_process.h"

enum { SHORT = 16 }; /* rows shorter than this are summed one by one */

typedef struct job {
    rows h, xdh, dh, dxdh;
    bool want_dh, want_dxdh;
    float scale;
    double *sums;
} job;

static double row_sum(const motion *p, int64_t n, const float *h, const float *e)
{
    double sum = 0;
    if (n >= SHORT) return p->k->score_sum((size_t)n, h, e, 0.0f, NULL);
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)h[i];
        sum += v + (double)e[i] + 0.5 * v * v;
    }
    return sum;
}

static void run_piece(void *arg, const motion *p, const piece *q)
{
    const job *j = arg;
    const float *h = piece_fetch(p, &j->h, q, piece_buffer(p, q, 0));
    const float *e = piece_fetch(p, &j->xdh, q, piece_buffer(p, q, 1));
    for (int64_t r = 0; r < q->rows; r++)
        *piece_sum(p, q, j->sums, r) = row_sum(p, q->cols, h + r * q->cols, e + r * q->cols);
    if (j->want_dh) {
        const line_arg l = { .a = j->scale, .b = j->scale };
        float *dh = piece_stage(&j->dh, q, piece_buffer(p, q, 2));
        p->k->line(q->n, NULL, h, NULL, &l, dh);
        piece_put(p, &j->dh, q, dh);
    }
    if (j->want_dxdh) {
        const line_arg l = { .b = j->scale };
        float *dxdh = piece_stage(&j->dxdh, q, piece_buffer(p, q, 2));
        p->k->line(q->n, NULL, NULL, NULL, &l, dxdh);
        piece_put(p, &j->dxdh, q, dxdh);
    }
}

static slg_status score_matching(slg_ctx *ctx, const slg_tensor *h, const slg_tensor *xdh,
                                 int32_t reduction, slg_tensor *loss, double *value,
                                 slg_tensor *dh, slg_tensor *dxdh)
{
    motion p;
    const operand in[] = { { "h", h, 0 }, { "xdh", xdh, 0 } };
    const operand out[] = { { "dh", dh, 1 }, { "dxdh", dxdh, 2 } };
    const operand per_row[] = { { "loss", loss, 0 } };
    SLG_TRY(option_choice(ctx, "reduction", reduction, SLG_MEAN, SLG_SUM));
    SLG_TRY(process_open(ctx, NULL, "h", h, NULL, false, &p));
    if (!xdh) return slg_fail(ctx, SLG_ERR_NULL, "xdh is NULL");
    SLG_TRY(process_operands(ctx, "h", h, 2, in, 2, out));
    SLG_TRY(process_row_output(ctx, &p, "loss", loss));
    for (int i = 0; i < 2; i++) {
        SLG_TRY(process_apart(ctx, in[i].name, in[i].t, 1, per_row));
        if (out[i].t) SLG_TRY(process_apart(ctx, out[i].name, out[i].t, 1, per_row));
    }
    job j = { .h = rows_of(h),
              .xdh = rows_of(xdh),
              .want_dh = dh,
              .want_dxdh = dxdh,
              .scale = reduction == SLG_MEAN && p.rows > 0 ? 1.0f / (float)p.rows : 1.0f,
              .sums = process_sums(ctx, &p) };
    if (!j.sums) return SLG_ERR_MEMORY;
    if (dh) j.dh = rows_of(dh);
    if (dxdh) j.dxdh = rows_of(dxdh);
    process_run(ctx, &p, run_piece, &j);
    process_rows_out(&p, j.sums, reduction, loss, value);
    return SLG_OK;
}

slg_status slg_nonnegative_score_matching(slg_ctx *ctx, const slg_tensor *h,
                                          const slg_tensor *xdh, int32_t reduction,
                                          slg_tensor *loss, double *value, slg_tensor *dh,
                                          slg_tensor *dxdh)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_nonnegative_score_matching");
    return op_end(ctx, score_matching(ctx, h, xdh, reduction, loss, value, dh, dxdh));
}
