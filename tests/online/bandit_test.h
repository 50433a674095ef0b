/* bandit_test.h - what tests of slg_bandit share. */
#ifndef TESTS_ONLINE_BANDIT_TEST_H
#define TESTS_ONLINE_BANDIT_TEST_H

#include "online_test.h"

enum { K = 4, D = 3, WIDTH = 6, MOST = K * D * WIDTH };

static inline slg_bandit_opts opts_of(int32_t model, int32_t rule)
{
    slg_bandit_opts o;
    slg_bandit_opts_init(&o, sizeof o);
    o.model = model, o.rule = rule, o.width = WIDTH, o.seed = 12, o.step = 0.5, o.c_p = 0.2;
    return o;
}

static inline slg_bandit *bandit(slg_ctx *ctx, const slg_bandit_opts *o)
{
    slg_bandit *b;
    OK(ctx, slg_bandit_create(ctx, K, D, NULL, o, &b));
    return b;
}

static inline slg_bandit_info_t info(slg_ctx *ctx, slg_bandit *b)
{
    slg_bandit_info_t i;
    slg_bandit_info_init(&i, sizeof i);
    OK(ctx, slg_bandit_info(b, &i));
    return i;
}

static inline void read_part(slg_ctx *ctx, slg_bandit *b, int32_t which, int64_t n, double *out)
{
    slg_tensor t = slg_tensor_1d(out, SLG_F64, n);
    OK(ctx, slg_bandit_read(b, which, &t));
}

#endif
