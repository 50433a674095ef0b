/*
 * mirror.c - steps on a set: see mirror.h.
 */
#include "mirror.h"

#include <math.h>
#include <string.h>

#include "core/options.h"
#include "learner.h"

/* Newton's steps in a metric: some six, as many as there are binary digits at worst. */
enum { MOST_TURNS = 100 };

slg_status domain_check(slg_ctx *ctx, const domain *s)
{
    SLG_TRY(option_choice(ctx, "domain", s->kind, SLG_DOMAIN_FREE, SLG_DOMAIN_SIMPLEX_ENTROPY));
    if (s->radius != 0) SLG_TRY(option_positive(ctx, "radius", s->radius));
    SLG_TRY(option_range(ctx, "lo", s->lo, -ONLINE_MOST, ONLINE_MOST));
    SLG_TRY(option_range(ctx, "hi", s->hi, -ONLINE_MOST, ONLINE_MOST));
    if (s->lo <= s->hi) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "lo is %g, must be at most hi, which is %g", s->lo,
                    s->hi);
}

double domain_diameter(const domain *s, int64_t n)
{
    switch (s->kind) {
    case SLG_DOMAIN_FREE:
        return NAN;
    case SLG_DOMAIN_BALL:
        return 2 * s->radius;
    case SLG_DOMAIN_BOX:
        return (s->hi - s->lo) * sqrt((double)n);
    default:
        return sqrt(2);
    }
}

bool domain_logs(const domain *s) { return s->kind == SLG_DOMAIN_SIMPLEX_ENTROPY; }

void domain_start(const domain *s, int64_t n, double *center)
{
    if (s->kind < SLG_DOMAIN_SIMPLEX) return;
    for (int64_t i = 0; i < n; i++)
        center[i] = domain_logs(s) ? -log((double)n) : 1 / (double)n;
}

static double norm(int64_t n, const double *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* ---- The simplex ------------------------------------------------------------------------ */

static void sift(double *heap, int64_t n, int64_t i)
{
    const double x = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= x) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

/*
 * max(u - tau, 0), with tau such that the k largest, which are those above it, keep a sum of 1.
 * They are taken off a heap, so a small support costs little more than O(n).
 */
void project_simplex(int64_t n, double *u, double *heap)
{
    double sum = -1, tau = 0, top = u[0];
    /* About the maximum, so that the threshold keeps its digits where u is large. */
    for (int64_t i = 1; i < n; i++) top = u[i] > top ? u[i] : top;
    for (int64_t i = 0; i < n; i++) heap[i] = u[i] -= top;
    for (int64_t i = n / 2; i-- > 0;) sift(heap, n, i);
    for (int64_t k = 1; k <= n; k++) {
        if (k > 1 && heap[0] <= tau) break;
        sum += heap[0];
        tau = sum / (double)k;
        heap[0] = heap[n - k];
        sift(heap, n - k, 0);
    }
    for (int64_t i = 0; i < n; i++) u[i] = u[i] > tau ? u[i] - tau : 0;
}

static void normalise_logs(int64_t n, double *z)
{
    double top = z[0], sum = 0;
    for (int64_t i = 1; i < n; i++) top = z[i] > top ? z[i] : top;
    for (int64_t i = 0; i < n; i++) sum += exp(z[i] - top);
    /* Two subtractions: where top is large, their sum would lose the digits of the second. */
    const double rest = log(sum);
    for (int64_t i = 0; i < n; i++) z[i] = z[i] - top - rest;
}

/* ---- Steps ------------------------------------------------------------------------------ */

void mirror_step(const domain *s, int64_t n, const double *center, double eta, const double *g,
                 double *to, double *scratch)
{
    double length;
    for (int64_t i = 0; i < n; i++) to[i] = center[i] - eta * g[i];
    switch (s->kind) {
    case SLG_DOMAIN_BALL:
        length = norm(n, to);
        if (length > s->radius)
            for (int64_t i = 0; i < n; i++) to[i] *= s->radius / length;
        break;
    case SLG_DOMAIN_BOX:
        for (int64_t i = 0; i < n; i++)
            to[i] = to[i] < s->lo ? s->lo : to[i] > s->hi ? s->hi : to[i];
        break;
    case SLG_DOMAIN_SIMPLEX:
        project_simplex(n, to, scratch);
        break;
    case SLG_DOMAIN_SIMPLEX_ENTROPY:
        normalise_logs(n, to);
        break;
    default:
        break;
    }
}

void mirror_point(const domain *s, int64_t n, double *x)
{
    if (!domain_logs(s)) return;
    for (int64_t i = 0; i < n; i++) x[i] = exp(x[i]);
}

/* ---- In a metric ------------------------------------------------------------------------ */

static void multiply(int64_t n, const double *a, const double *x, double *y)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += a[i * n + j] * x[j];
        y[i] = sum;
    }
}

/* The Cholesky factor of I + mu p, in the lower triangle of a. */
static void factorise(int64_t n, double mu, const double *p, double *a)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = mu * p[i * n + j] + (i == j);
            for (int64_t k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
        }
}

static void solve(int64_t n, const double *a, double *x)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < i; k++) x[i] -= a[i * n + k] * x[k];
        x[i] /= a[i * n + i];
    }
    for (int64_t i = n; i-- > 0;) {
        for (int64_t k = i + 1; k < n; k++) x[i] -= a[k * n + i] * x[k];
        x[i] /= a[i * n + i];
    }
}

size_t metric_scratch(const domain *s, int64_t n)
{
    size_t d = (size_t)n;
    return s->kind == SLG_DOMAIN_BALL ? d * d + 3 * d : d;
}

/*
 * The point of the ball nearest to u in the metric H: x(mu) = (H + mu I)^-1 H u, which is
 * (I + mu P)^-1 u with P = H^-1, for the mu >= 0 with |x(mu)| = radius. 1 / |x(mu)| rises and
 * is concave: Newton's steps from 0 rise to the root and never pass it.
 */
static void metric_ball(int64_t n, const double *p, double radius, double *u, double *scratch)
{
    double *a = scratch, *x = a + n * n, *y = x + n, *py = y + n;
    const size_t bytes = (size_t)n * sizeof *x;
    double mu = 0, length = norm(n, u);
    if (length <= radius) return;
    memcpy(x, u, bytes);
    for (int turn = 0; turn < MOST_TURNS && length > radius * (1 + 1e-14); turn++) {
        double slope = 0;
        memcpy(y, x, bytes);
        if (turn > 0) solve(n, a, y);
        multiply(n, p, x, py);
        for (int64_t i = 0; i < n; i++) slope += y[i] * py[i];
        const double next = mu + (length - radius) / radius * (length * length / slope);
        if (!(next > mu) || !isfinite(next)) break;
        mu = next;
        factorise(n, mu, p, a);
        memcpy(x, u, bytes);
        solve(n, a, x);
        length = norm(n, x);
    }
    /* Where P is so uneven that it has no digits left, a step is no number: as without it. */
    if (!isfinite(length)) memcpy(x, u, bytes), length = norm(n, u);
    const double scale = length > radius ? radius / length : 1; /* what rounding leaves */
    for (int64_t i = 0; i < n; i++) u[i] = x[i] * scale;
}

void metric_step(const domain *s, int64_t n, const double *inverse, const double *center,
                 const double *g, double *to, double *scratch)
{
    multiply(n, inverse, g, scratch);
    for (int64_t i = 0; i < n; i++) to[i] = center[i] - scratch[i];
    if (s->kind != SLG_DOMAIN_BALL) return;
    if (s->radius > 0)
        metric_ball(n, inverse, s->radius, to, scratch);
    else
        memset(to, 0, (size_t)n * sizeof *to);
}

/* Sherman-Morrison. */
bool metric_add(int64_t n, double c, const double *g, double *inverse, double *scratch)
{
    double along = 0;
    multiply(n, inverse, g, scratch);
    for (int64_t i = 0; i < n; i++) along += g[i] * scratch[i];
    if (!(along > 0)) return true; /* 0; or H is so large along g that H^-1 has no digits */
    if (!(1 + c * along > 1e-14)) return false;
    const double scale = c / (1 + c * along);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) inverse[i * n + j] -= scale * (scratch[i] * scratch[j]);
    return true;
}
