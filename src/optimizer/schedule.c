/*
 * schedule.c - learning rates: see schedule.h.
 */
#include <math.h>

#include "softlogit/schedule.h"

static const double pi = 3.141592653589793;

/* The part of the peak that the warm-up allows. */
static double rise(int64_t step, int64_t warmup)
{
    return step < warmup ? (double)(step + 1) / (double)warmup : 1;
}

/* How far from the end of the warm-up (0) to step total - 1 (1). */
static double way(int64_t step, int64_t warmup, int64_t total)
{
    double from = warmup > 0 ? (double)warmup - 1 : 0, to = (double)total - 1;
    if ((double)step >= to) return 1;
    return fmax(0, ((double)step - from) / (to - from));
}

static int64_t whole(int64_t a) { return a > 0 ? a : 0; }

double slg_lr_constant(double peak, int64_t step, int64_t warmup)
{
    return peak * rise(whole(step), warmup);
}

double slg_lr_linear(double peak, double last, int64_t step, int64_t warmup, int64_t total)
{
    step = whole(step);
    if (step < warmup) return peak * rise(step, warmup);
    return peak + (last - peak) * way(step, warmup, total);
}

double slg_lr_cosine(double peak, double last, int64_t step, int64_t warmup, int64_t total)
{
    step = whole(step);
    if (step < warmup) return peak * rise(step, warmup);
    return last + (peak - last) * 0.5 * (1 + cos(pi * way(step, warmup, total)));
}

double slg_lr_inverse_sqrt(double peak, int64_t step, int64_t warmup)
{
    step = whole(step);
    double from = warmup > 1 ? (double)warmup : 1;
    return step < warmup ? peak * rise(step, warmup) : peak * sqrt(from / ((double)step + 1));
}
