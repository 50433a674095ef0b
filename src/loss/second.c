/*
 * second.c - see second.h.
 */
#include "second.h"

const float *second_fetch(const void *self, int64_t row, int64_t col, int64_t n, float *scratch)
{
    const second *s = self;
    const float *x = source_fetch(s->src, row, col, n, scratch);
    bool here = s->without >= col && s->without < col + n;
    if (!here && s->ratio == 1.0f) return x;
    for (int64_t i = 0; i < n; i++) scratch[i] = s->ratio == 1.0f ? x[i] : s->ratio * x[i];
    if (here) scratch[s->without - col] = -INFINITY;
    return scratch;
}

void second_reduce(const kernel_table *k, const second *s, int64_t col, int64_t n,
                   const float *x, const exp_arg *arg, lse_part *part)
{
    int64_t t = s->without - col;
    bool here = t >= 0 && t < n;
    k->lse((size_t)(here ? t : n), x, arg, part);
    if (here) k->lse((size_t)(n - t - 1), x + t + 1, arg, part);
}

void second_finish(const loss_call *c, int64_t row, const second *s, const lse_part *part,
                   row_stat *out)
{
    const exp_arg arg = exp_arg_of(s->temperature, 0.0f);
    row_start(out, &arg);
    row_settle(&c->ctx->k, out, part, row, s->src->cols, second_fetch, s);
}

double second_mean(const loss_call *c, int64_t row, const second *s, const row_stat *stat,
                   const second *a, const second *b, double shift)
{
    float ps[KERNEL_BLOCK], as[KERNEL_BLOCK], bs[KERNEL_BLOCK];
    const int64_t cols = s->src->cols;
    double sum = 0, total = 0;
    (void)c;
    for (int64_t col = 0; col < cols; col += KERNEL_BLOCK) {
        int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
        const float *p = second_fetch(s, row, col, n, ps),
                    *x = second_fetch(a, row, col, n, as);
        const float *y = b ? second_fetch(b, row, col, n, bs) : NULL;
        for (int64_t i = 0; i < n; i++) {
            double w =
                exp(((double)p[i] - (double)stat->arg.pre) / s->temperature - stat->lse_rel);
            if (w == 0) continue;
            total += w;
            sum += w * ((double)x[i] - (y ? (double)y[i] : shift));
        }
    }
    return sum / total;
}

exp_out second_out(double temperature, double lse_rel, double pre, double weight)
{
    exp_arg arg = exp_arg_of(temperature, (float)pre);
    return exp_out_of(&arg, lse_rel, weight);
}
