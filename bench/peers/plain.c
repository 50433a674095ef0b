/*
 * plain.c - what a user writes, left to the compiler: three loops over a row, each vectorised,
 * expf from libmvec. And float64 references, vectorised the same way. -ffast-math supposes
 * finite numbers, so the references compare -inf and NaN by their bits or by ranges.
 */
#include "plain.h"

#include <math.h>
#include <string.h>

#ifndef PLAIN_SUFFIX
#define PLAIN_SUFFIX
#define PLAIN_REFERENCES
#endif
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(name) JOIN(name, PLAIN_SUFFIX)

static float row_max(int64_t n, const float *x)
{
    float max = x[0];
    for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

static float row_sum(int64_t n, const float *x, float max)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += expf(x[i] - max);
    return sum;
}

void NAME(loop_softmax)(int64_t rows, int64_t cols, const float *x, float *y)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float max = row_max(cols, x), sum = 0;
        for (int64_t i = 0; i < cols; i++) {
            float e = expf(x[i] - max);
            y[i] = e;
            sum += e;
        }
        float inv = 1.0f / sum;
        for (int64_t i = 0; i < cols; i++) y[i] *= inv;
    }
}

void NAME(loop_log_softmax)(int64_t rows, int64_t cols, const float *x, float *y)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        float max = row_max(cols, x), lse = max + logf(row_sum(cols, x, max));
        for (int64_t i = 0; i < cols; i++) y[i] = x[i] - lse;
    }
}

void NAME(loop_logsumexp)(int64_t rows, int64_t cols, const float *x, float *lse)
{
    for (int64_t r = 0; r < rows; r++, x += cols) {
        float max = row_max(cols, x);
        lse[r] = max + logf(row_sum(cols, x, max));
    }
}

double NAME(loop_cross_entropy)(int64_t rows, int64_t cols, const float *x,
                                const int64_t *target, float *dx)
{
    double loss = 0;
    for (int64_t r = 0; r < rows; r++, x += cols, dx += cols) {
        float max = row_max(cols, x), sum = 0;
        for (int64_t i = 0; i < cols; i++) {
            float e = expf(x[i] - max);
            dx[i] = e;
            sum += e;
        }
        float scale = 1.0f / (sum * (float)rows);
        for (int64_t i = 0; i < cols; i++) dx[i] *= scale;
        dx[target[r]] -= 1.0f / (float)rows;
        loss += (double)(logf(sum) + max - x[target[r]]);
    }
    return loss / (double)rows;
}

/* One head, causal; a: [tokens]. */
void NAME(loop_attention)(int64_t tokens, int64_t dim, int64_t window, const float *q,
                          const float *k, const float *v, float *o, float *a)
{
    const float scale = 1.0f / sqrtf((float)dim);
    for (int64_t i = 0; i < tokens; i++, q += dim, o += dim) {
        const int64_t first = window && i >= window ? i - window + 1 : 0;
        for (int64_t j = first; j <= i; j++) {
            float sum = 0;
            for (int64_t c = 0; c < dim; c++) sum += q[c] * k[j * dim + c];
            a[j] = scale * sum;
        }
        const float max = row_max(i + 1 - first, a + first);
        float sum = 0;
        for (int64_t j = first; j <= i; j++) {
            a[j] = expf(a[j] - max);
            sum += a[j];
        }
        for (int64_t c = 0; c < dim; c++) o[c] = 0;
        for (int64_t j = first; j <= i; j++)
            for (int64_t c = 0; c < dim; c++) o[c] += a[j] * v[j * dim + c];
        for (int64_t c = 0; c < dim; c++) o[c] /= sum;
    }
}

void NAME(loop_adamw)(int64_t n, float *w, const float *g, float *m, float *v, int t)
{
    const float lr = 1e-3f, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, decay = 0.01f;
    float c1 = 1.0f / (1.0f - powf(beta1, (float)t)),
          c2 = 1.0f / (1.0f - powf(beta2, (float)t));
    for (int64_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + (1.0f - beta1) * g[i];
        v[i] = beta2 * v[i] + (1.0f - beta2) * g[i] * g[i];
        w[i] -= lr * (m[i] * c1 / (sqrtf(v[i] * c2) + eps) + decay * w[i]);
    }
}

#ifdef PLAIN_REFERENCES

/* Box and Muller, of two uniforms from a counter. */
void ref_fill_normal(float *x, int64_t n, float sd, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = ((uint64_t)i + seed) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        float u = ((float)(int32_t)(z >> 33) + 0.5f) * 0x1p-31f;
        float a = (float)(int32_t)(z & 0x7FFFFFFF) * (6.2831853f * 0x1p-31f);
        x[i] = sd * sqrtf(-2.0f * logf(u)) * cosf(a);
    }
}

/* exp(d), 0 from -720 down (and for -inf), where float32 has long ended. */
static inline double ref_exp(double d) { return exp(d > -720.0 ? d : -720.0); }

double ref_logsumexp(int64_t n, const float *x)
{
    double max = (double)row_max(n, x), sum = 0;
    for (int64_t i = 0; i < n; i++) sum += ref_exp((double)x[i] - max);
    return max + log(sum);
}

/* NaN or infinite, by its bits. */
static inline int strange(float y)
{
    uint32_t bits;
    memcpy(&bits, &y, sizeof bits);
    return (bits & 0x7F800000u) == 0x7F800000u;
}

double ref_softmax_error(int64_t n, const float *x, double lse, const float *y, int64_t *bad)
{
    double worst = 0;
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        double p = ref_exp((double)x[i] - lse), e = fabs((double)y[i] - p);
        double relative = p >= 0x1p-125 ? e / p : 0;
        worst = relative > worst ? relative : worst;
        wrong += strange(y[i]) | (p < 0x1p-125 && e > 0x1p-124);
    }
    *bad += wrong;
    return worst;
}

double ref_gradient_error(int64_t n, const float *x, double lse, int64_t target, double scale,
                          const float *dx, int64_t *bad)
{
    double worst = 0;
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        double p = ref_exp((double)x[i] - lse), hot = i == target ? 1.0 : 0.0;
        double e = fabs(scale * (double)dx[i] - (p - hot)), unit = hot > p ? hot : p;
        double relative = unit >= scale * 0x1p-125 ? e / unit : 0;
        worst = relative > worst ? relative : worst;
        wrong += strange(dx[i]) | (unit < scale * 0x1p-125 && e > scale * 0x1p-124);
    }
    *bad += wrong;
    return worst;
}

double ref_log_error(int64_t n, const float *x, double lse, const float *y, int64_t *bad)
{
    double worst = 0;
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        if (strange(x[i])) {
            wrong += memcmp(&x[i], &y[i], sizeof(float)) != 0; /* -inf stays */
            continue;
        }
        double want = (double)x[i] - lse, e = fabs((double)y[i] - want) / (1.0 + fabs(want));
        worst = e > worst ? e : worst;
        wrong += strange(y[i]);
    }
    *bad += wrong;
    return worst;
}

#endif
