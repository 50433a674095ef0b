/*
 * spherical_terms.c - see spherical_terms.h. All in double.
 */
#include "spherical_terms.h"

#include <math.h>

#include "core/options.h"

slg_status spherical_form_check(slg_ctx *ctx, const spherical_form *f)
{
    SLG_TRY(option_choice(ctx, "kind", f->kind, SLG_SPHERICAL_SQUARED, SLG_SPHERICAL_Z));
    SLG_TRY(option_range(ctx, "a", f->a, 1e-30, 1e30));
    if (!isfinite(f->b)) return slg_fail(ctx, SLG_ERR_RANGE, "b is %g, must be finite", f->b);
    SLG_TRY(option_range(ctx, "eps", f->eps, 1e-30, 1e30));
    return SLG_OK;
}

double spherical_z(const spherical_sums *r)
{
    if (isnan(r->spread) || !isfinite(r->s) || !isfinite(r->target)) return NAN;
    if (r->spread <= 0) return 0;
    return (r->target - r->s / r->classes) / sqrt(r->spread / r->classes);
}

double spherical_z_slope(const spherical_form *f, double z)
{
    return -1 / (1 + exp(-f->a * (f->b - z)));
}

/* softplus(a (b - z)) / a: the linear part apart, so that a small a does not lose it. */
double spherical_z_loss(const spherical_form *f, double z)
{
    double x = f->b - z;
    return (x > 0 ? x : 0) + log1p(exp(-f->a * fabs(x))) / f->a;
}

static spherical_value z_value(const spherical_form *f, const spherical_sums *r)
{
    double z = spherical_z(r), n = r->classes, mu = r->s / n;
    spherical_value v = { .loss = spherical_z_loss(f, z), .z = z };
    if (isnan(z)) return (spherical_value){ NAN, NAN, NAN, NAN, NAN };
    if (r->spread <= 0) return v;
    double sigma = sqrt(r->spread / n), g = spherical_z_slope(f, z);
    v.dt = g / sigma;
    v.ds = g * (z * mu / sigma - 1) / (n * sigma);
    v.dq = -g * z / (2 * n * sigma * sigma);
    return v;
}

spherical_value spherical_evaluate(const spherical_form *f, const spherical_sums *r)
{
    double o = r->target, den, num;
    switch (f->kind) {
    case SLG_SPHERICAL_SQUARED:
        return (spherical_value){ r->q - 2 * o + 1, 0, 1, -2, 0 };
    case SLG_SPHERICAL_TAYLOR:
        den = r->classes + r->s + 0.5 * r->q, num = 1 + o + 0.5 * o * o;
        return (spherical_value){ log(den) - log(num), 1 / den, 0.5 / den, -(1 + o) / num, 0 };
    case SLG_SPHERICAL_LOG:
        den = r->q + r->classes * f->eps, num = o * o + f->eps;
        return (spherical_value){ log(den) - log(num), 0, 1 / den, -2 * o / num, 0 };
    default:
        return z_value(f, r);
    }
}
