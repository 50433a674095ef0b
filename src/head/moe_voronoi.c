/*
 * moe_voronoi.c - cells and losses between two sets of parameters. The maximum over sets of K
 * true experts is the sum of the K largest cells.
 */
#include "moe_mixture.h"

static const slg_moe_voronoi_opts defaults = { .size = sizeof(slg_moe_voronoi_opts) };

void slg_moe_voronoi_opts_init(slg_moe_voronoi_opts *opts, size_t size)
{
    options_init(opts, size, &defaults, sizeof defaults);
}

static double distance(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sum;
}

/* |dbeta1|, |da|, |db|, |dv| of fitted j and true i. */
static void differences(const mix_params *f, int64_t j, const mix_params *t, int64_t i,
                        double d[4])
{
    const int64_t dim = f->dim;
    d[0] = sqrt(distance(dim, f->beta1 + j * dim, t->beta1 + i * dim));
    d[1] = sqrt(distance(dim, f->a + j * dim, t->a + i * dim));
    d[2] = fabs(f->b[j] - t->b[i]);
    d[3] = fabs(exp(f->log_v[j]) - exp(t->log_v[i]));
}

static void find_cells(const mix_params *f, const mix_params *t, int32_t *cell,
                       int64_t *members)
{
    for (int64_t i = 0; i < t->experts; i++) members[i] = 0;
    for (int64_t j = 0; j < f->experts; j++) {
        double least = 0, d[4];
        cell[j] = 0;
        for (int64_t i = 0; i < t->experts; i++) {
            differences(f, j, t, i, d);
            const double all = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + d[3] * d[3];
            if (i == 0 || all < least) least = all, cell[j] = (int32_t)i;
        }
        members[cell[j]]++;
    }
}

static double cell_loss(const mix_params *f, const mix_params *t, const int32_t *cell,
                        int64_t i, int64_t members, bool over)
{
    static const double powers[] = { 1, 1, 4, 6, 7 };
    const double r = over ? powers[members < 4 ? members : 4] : 1;
    double loss = 0, mass = 0, d[4];
    for (int64_t j = 0; j < f->experts; j++) {
        if (cell[j] != i) continue;
        const double e = exp(f->beta0[j]);
        differences(f, j, t, i, d);
        mass += e;
        loss +=
            e * (r == 1 ? d[0] + d[1] + d[2] + d[3]
                        : pow(d[0], r) + pow(d[1], r / 2) + pow(d[2], r) + pow(d[3], r / 2));
    }
    return loss + fabs(mass - exp(t->beta0[i]));
}

static slg_status voronoi(slg_ctx *ctx, const slg_moe_mixture *fit,
                          const slg_moe_mixture *truth, const slg_moe_voronoi_opts *opts,
                          const slg_tensor *cell, const slg_tensor *losses, double *loss)
{
    slg_moe_voronoi_opts o = defaults;
    mix_params f, t;
    SLG_TRY(options_read(ctx, "opts", opts, &o, sizeof o));
    SLG_TRY(option_choice(ctx, "over_specified", o.over_specified, 0, 1));
    SLG_TRY(option_reserved(ctx, "reserved", o.reserved));
    SLG_TRY(mixture_read(ctx, "fit", fit, &f));
    SLG_TRY(mixture_read(ctx, "truth", truth, &t));
    if (f.dim != t.dim)
        return slg_fail(ctx, SLG_ERR_SHAPE, "fit has %lld columns, truth has %lld",
                        (long long)f.dim, (long long)t.dim);
    const int64_t chosen = o.chosen ? o.chosen : t.chosen;
    if (chosen < 1 || chosen > t.experts)
        return slg_fail(ctx, SLG_ERR_RANGE, "chosen is %lld, must be from 1 to %lld experts",
                        (long long)chosen, (long long)t.experts);
    if (cell) SLG_TRY(moe_out_1d(ctx, "cell", cell, DT_I32, f.experts));
    if (losses) SLG_TRY(moe_out_1d(ctx, "cell_loss", losses, DT_REAL, t.experts));
    int32_t *of = arena_alloc(ctx, (size_t)f.experts, sizeof *of);
    int64_t *members = arena_alloc(ctx, (size_t)t.experts, sizeof *members);
    double *per = arena_alloc(ctx, (size_t)t.experts, sizeof *per), sum = 0;
    int32_t *largest = arena_alloc(ctx, (size_t)chosen, sizeof *largest);
    if (!of || !members || !per || !largest) return SLG_ERR_MEMORY;
    find_cells(&f, &t, of, members);
    for (int64_t i = 0; i < t.experts; i++)
        per[i] = cell_loss(&f, &t, of, i, members[i], o.over_specified);
    mix_choose(t.experts, chosen, per, largest);
    for (int64_t j = 0; j < chosen; j++) sum += per[largest[j]];
    for (int64_t j = 0; cell && j < f.experts; j++) {
        const rows m = rows_of(cell);
        *moe_int(&m, 0, j) = of[j];
    }
    moe_put(losses, per, false);
    if (loss) *loss = sum;
    return SLG_OK;
}

slg_status slg_moe_voronoi(slg_ctx *ctx, const slg_moe_mixture *fit,
                           const slg_moe_mixture *truth, const slg_moe_voronoi_opts *opts,
                           slg_tensor *cell, slg_tensor *cell_loss, double *loss)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_moe_voronoi");
    return op_end(ctx, voronoi(ctx, fit, truth, opts, cell, cell_loss, loss));
}
