/*
 * comp_sum_bound.c - see robust.h: T_tau and its inverse. Near tau = 2 the powers 1 / (2 - tau)
 * overflow: with (1+b) taken out, S = (1+b) ((1 + ((1-b)/(1+b))^q) / 2)^(1/q),
 * q = 1 / (2 - tau).
 */
#include <math.h>

#include "softlogit/robust.h"

/* log S, to its own precision near b = 0, where S - 1 is of second order. */
static double log_mean(double b, double q)
{
    double up = log1p(b), down = log1p(-b); /* down: -inf at b = 1 */
    double half = (up + down) / 2, d = q * (up - down) / 2;
    if (d > 30) return up + (log1p(exp(-2 * d)) - log(2.0)) / q;
    /* ((1+b)^q + (1-b)^q) / 2 = (1-b^2)^(q/2) cosh(d); log cosh = log1p(2 sinh(d/2)^2) */
    double s = sinh(d / 2);
    return half + log1p(2 * s * s) / q;
}

double slg_comp_sum_transform(double tau, int64_t classes, double b)
{
    if (!(tau >= 0) || !(b >= 0 && b <= 1) || classes < 1) return NAN;
    double n = (double)classes;
    if (tau >= 2) return b / ((tau - 1) * pow(n, tau - 1));
    if (fabs(tau - 1) < 1e-8) {
        double down = b < 1 ? (1 - b) * log1p(-b) : 0;
        return ((1 + b) * log1p(b) + down) / 2;
    }
    double s = expm1(log_mean(b, 1 / (2 - tau)));
    if (tau < 1) return -pow(2, 1 - tau) / (1 - tau) * s;
    return s / ((tau - 1) * pow(n, tau - 1));
}

double slg_comp_sum_bound(double tau, int64_t classes, double t)
{
    if (!(t >= 0) || isnan(slg_comp_sum_transform(tau, classes, 0))) return NAN;
    double low = 0, high = 1;
    if (t >= slg_comp_sum_transform(tau, classes, 1)) return 1;
    for (int i = 0; i < 1100 && high - low > 1e-16 * high; i++) {
        double mid = low + (high - low) / 2;
        if (mid <= low || mid >= high) break;
        *(slg_comp_sum_transform(tau, classes, mid) < t ? &low : &high) = mid;
    }
    return low + (high - low) / 2;
}
