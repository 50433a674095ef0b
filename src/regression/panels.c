/*
 * panels.c - see panels.h.
 */
#include "panels.h"

#include <math.h>
#include <string.h>

#include "core/blas.h"

enum {
    PANEL = 1 << 17 /* doubles: 1 MiB */,
    TASK = 1 << 13 /* elements that are worth a task */
};

slg_status panels_open(slg_ctx *ctx, const slg_tensor *t, panels *p)
{
    *p = (panels){
        .ctx = ctx, .m = rows_of(t), .rows = t->shape[0], .cols = t->shape[1], .held = -1
    };
    const int64_t least = p->cols > 1 ? p->cols : 1;
    p->ld = p->rows > 1 ? t->stride[0] : least;
    p->direct =
        t->dtype == SLG_F64 && p->m.col_stride == 1 && p->ld >= least && p->ld <= INT32_MAX;
    p->size = PANEL / least > 0 ? PANEL / least : 1;
    if (p->size > p->rows) p->size = p->rows > 0 ? p->rows : 1;
    p->scratch = arena_alloc(ctx, (size_t)p->size * (size_t)least, sizeof *p->scratch);
    return p->scratch ? SLG_OK : SLG_ERR_MEMORY;
}

typedef struct conversion {
    const panels *p;
    int64_t first, count, ranges;
    const double *z;
} conversion;

static void convert_row(const panels *p, int64_t r, double *to)
{
    const char *from = rows_at(&p->m, r);
    if (p->m.plain) {
        const float *x = (const void *)from;
        for (int64_t j = 0; j < p->cols; j++) to[j] = (double)x[j];
    } else if (p->direct) {
        memcpy(to, from, (size_t)p->cols * sizeof *to);
    } else {
        for (int64_t j = 0; j < p->cols; j++) to[j] = rows_get(&p->m, r, j);
    }
}

static void convert_range(void *arg, int64_t task, int32_t worker)
{
    const conversion *c = arg;
    const panels *p = c->p;
    (void)worker;
    const int64_t to = pool_range_start(c->count, c->ranges, task + 1);
    for (int64_t i = pool_range_start(c->count, c->ranges, task); i < to; i++) {
        double *row = p->scratch + i * p->cols;
        if (c->z && c->z[c->first + i] == -INFINITY)
            memset(row, 0, (size_t)p->cols * sizeof *row);
        else
            convert_row(p, c->first + i, row);
    }
}

const double *panels_get(panels *p, int64_t first, int64_t count, const double *z, int64_t *ld)
{
    bool gaps = false;
    for (int64_t i = 0; z && i < count; i++) gaps = gaps || z[first + i] == -INFINITY;
    if (p->direct && !gaps) {
        *ld = p->ld;
        return (const double *)(const void *)rows_at(&p->m, first);
    }
    *ld = p->cols > 1 ? p->cols : 1;
    if (p->held == first && !gaps) return p->scratch;
    conversion c = { p, first, count, pool_ranges(p->ctx, count, TASK / *ld + 1), z };
    pool_run(p->ctx, c.ranges, convert_range, &c);
    p->held = gaps ? -1 : first;
    return p->scratch;
}

slg_status panels_forward(panels *p, int count, const double *const *x, double *const *y)
{
    for (int64_t first = 0, ld; first < p->rows; first += p->size) {
        const int64_t n = panels_count(p, first);
        const double *a = panels_get(p, first, n, NULL, &ld);
        for (int v = 0; v < count; v++)
            if (x[v])
                SLG_TRY(
                    blas_dgemv(p->ctx, false, n, p->cols, a, ld, x[v], false, y[v] + first));
    }
    return SLG_OK;
}

slg_status panels_backward(panels *p, int count, const double *const *q, const double *z,
                           double *const *y)
{
    for (int v = 0; v < count; v++)
        if (q[v] && p->cols > 0) memset(y[v], 0, (size_t)p->cols * sizeof *y[v]);
    for (int64_t first = 0, ld; first < p->rows; first += p->size) {
        const int64_t n = panels_count(p, first);
        const double *a = panels_get(p, first, n, z, &ld);
        for (int v = 0; v < count; v++)
            if (q[v])
                SLG_TRY(blas_dgemv(p->ctx, true, n, p->cols, a, ld, q[v] + first, true, y[v]));
    }
    return SLG_OK;
}
