/* online_test.h - what tests of online learners share. */
#ifndef TESTS_ONLINE_ONLINE_TEST_H
#define TESTS_ONLINE_ONLINE_TEST_H

#include "loss/loss_test.h"

static inline slg_learner *learner(slg_ctx *ctx, int32_t kind, int64_t d, const void *opts)
{
    slg_learner *l;
    OK(ctx, slg_learner_create(ctx, kind, d, opts, &l));
    return l;
}

static inline slg_omd_opts omd_opts(int32_t domain, int32_t mode)
{
    slg_omd_opts o;
    slg_omd_opts_init(&o, sizeof o);
    o.domain = domain, o.mode = mode, o.numerator = 2;
    return o;
}

/* hint may be NULL. */
static inline void decide(slg_ctx *ctx, slg_learner *l, int64_t d, const float *hint, double *x)
{
    slg_tensor xt = slg_tensor_1d(x, SLG_F64, d), mt = slg_tensor_1d(hint, SLG_F32, d);
    OK(ctx, slg_learner_decide(l, hint ? &mt : NULL, &xt));
}

static inline void observe(slg_ctx *ctx, slg_learner *l, int64_t d, const float *hint,
                           const float *g)
{
    slg_tensor gt = slg_tensor_1d(g, SLG_F32, d), mt = slg_tensor_1d(hint, SLG_F32, d);
    OK(ctx, slg_learner_observe(l, hint ? &mt : NULL, &gt));
}

static inline void part(slg_ctx *ctx, slg_learner *l, int32_t which, int64_t n, double *out)
{
    slg_tensor t = slg_tensor_1d(out, SLG_F64, n);
    OK(ctx, slg_learner_read(l, which, &t));
}

static inline slg_learner_info_t info_of(slg_ctx *ctx, slg_learner *l)
{
    slg_learner_info_t info;
    slg_learner_info_init(&info, sizeof info);
    OK(ctx, slg_learner_info(l, &info));
    return info;
}

static inline unsigned char *export_state(slg_ctx *ctx, slg_learner *l, int64_t *bytes)
{
    OK(ctx, slg_learner_export(l, NULL, 0, bytes));
    unsigned char *state = malloc((size_t)*bytes);
    assert_non_null(state);
    int64_t written = -1;
    OK(ctx, slg_learner_export(l, state, *bytes, &written));
    assert_int_equal(written, *bytes);
    return state;
}

static inline void randoms(int64_t n, float scale, float *x)
{
    for (int64_t i = 0; i < n; i++) x[i] = scale * (float)normal();
}

static inline void close_to(int64_t n, const double *got, const double *want, double tolerance)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= tolerance * (1 + fabs(want[i]))))
            fail_msg("[%d] is %.17g, should be %.17g", (int)i, got[i], want[i]);
}

static inline double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* An allocator that fails after `left` more blocks. */
static int64_t left, live_blocks;

static inline void *limited_alloc(void *user, size_t alignment, size_t size)
{
    (void)user;
    if (left-- <= 0) return NULL;
    live_blocks++;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static inline void counted_free(void *user, void *p)
{
    (void)user;
    live_blocks -= p != NULL;
    free(p);
}

static inline slg_ctx *limited_context(void)
{
    slg_ctx_opts opts;
    slg_ctx *ctx;
    slg_ctx_opts_init(&opts, sizeof opts);
    opts.alloc = limited_alloc, opts.free = counted_free, opts.num_threads = 1;
    left = 1000;
    assert_int_equal(slg_ctx_create(&opts, &ctx), SLG_OK);
    return ctx;
}

#endif
