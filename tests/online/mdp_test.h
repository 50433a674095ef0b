/* mdp_test.h - what tests of mdp.h share: tensors of three and four axes, random tables. */
#ifndef TESTS_ONLINE_MDP_TEST_H
#define TESTS_ONLINE_MDP_TEST_H

#include "online_test.h"

/* Contiguous; as many extents as are not 0. */
static inline slg_tensor view(const void *data, int32_t dtype, int64_t a, int64_t b, int64_t c,
                              int64_t d)
{
    slg_tensor t = { (void *)(uintptr_t)data, dtype, 4, { a, b, c, d }, { 1, 1, 1, 1 } };
    while (t.ndim > 1 && t.shape[t.ndim - 1] == 0) t.ndim--;
    for (int32_t i = t.ndim - 2; i >= 0; i--) t.stride[i] = t.stride[i + 1] * t.shape[i + 1];
    return t;
}
#define F64_1(data, a) view(data, SLG_F64, a, 0, 0, 0)
#define F64_2(data, a, b) view(data, SLG_F64, a, b, 0, 0)
#define F64_3(data, a, b, c) view(data, SLG_F64, a, b, c, 0)
#define F64_4(data, a, b, c, d) view(data, SLG_F64, a, b, c, d)

/* Of length at most 1. */
static inline void unit_features(int64_t n, int64_t d, double *phi)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < d; k++) {
            phi[i * d + k] = normal();
            sum += phi[i * d + k] * phi[i * d + k];
        }
        for (int64_t k = 0; k < d; k++) phi[i * d + k] /= fmax(1, sqrt(sum));
    }
}

/* n distributions over k. */
static inline void distributions(int64_t n, int64_t k, double *p)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++) sum += p[i * k + j] = -log(uniform());
        for (int64_t j = 0; j < k; j++) p[i * k + j] /= sum;
    }
}

static inline void uniforms(int64_t n, double *x)
{
    for (int64_t i = 0; i < n; i++) x[i] = uniform();
}

/* x'S y */
static inline double form(int64_t d, const double *x, const double *s, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += x[i] * dot(d, s + i * d, y);
    return sum;
}

#define REFUSED_AS(ctx, call, status, text)                                                    \
    do {                                                                                       \
        const slg_status got_ = (call);                                                        \
        const char *message_ = slg_ctx_message(ctx);                                           \
        if (got_ != (status) || !strstr(message_, text))                                       \
            fail_msg("line %d: status %d, should be %d; '%s', should hold '%s'", __LINE__,     \
                     got_, status, message_, text);                                            \
    } while (0)

#endif
