/*
 * regression_descent.c - gradient descent on the softmax regression's value: see
 * softlogit/regression.h.
 */
#include <math.h>

#include "core/options.h"
#include "oracle.h"
#include "softlogit/regression.h"
#include "softmax/parts.h"

enum { MAX_STEPS = 1000000, MAX_HALVINGS = 1000 };

static const slg_regression_descent_opts opts_defaults = {
    .size = sizeof(slg_regression_descent_opts),
    .steps = 1,
    .max_halvings = 50,
    .step = 1,
    .decrease = 1e-4,
};
static const slg_regression_descent_out out_defaults = { .size = sizeof(
                                                             slg_regression_descent_out) };

void slg_regression_descent_opts_init(slg_regression_descent_opts *opts, size_t size)
{
    options_init(opts, size, &opts_defaults, sizeof opts_defaults);
}

void slg_regression_descent_out_init(slg_regression_descent_out *out, size_t size)
{
    options_init(out, size, &out_defaults, sizeof out_defaults);
}

typedef struct descent {
    oracle o;
    slg_regression_descent_opts opts;
    slg_regression_descent_out out;
    double *x, *next; /* [d] */
    double *values;   /* [steps + 1] */
} descent;

static slg_status evaluate(descent *s, const double *x)
{
    s->out.evaluations++;
    return oracle_forward(&s->o, x, NULL);
}

/* One step, and the state at its end. *moved is false where the line search gave up: the
   state is then that of the last trial, and x is as it was. */
static slg_status take_step(descent *s, bool *moved)
{
    const double *g = s->o.back[BACK_GRAD], before = s->o.value;
    double eta = s->opts.step, square = 0;
    SLG_TRY(oracle_backward(&s->o));
    for (int64_t j = 0; j < s->o.d; j++) square += g[j] * g[j];
    *moved = !s->opts.line_search;
    for (int32_t k = 0; k <= s->opts.max_halvings; k++, eta /= 2) {
        for (int64_t j = 0; j < s->o.d; j++) s->next[j] = s->x[j] - eta * g[j];
        SLG_TRY(evaluate(s, s->next));
        *moved = *moved || s->o.value <= before - s->opts.decrease * eta * square;
        if (*moved) break;
    }
    if (!*moved) return SLG_OK;
    s->out.step = eta;
    double *x = s->x;
    s->x = s->next, s->next = x;
    return SLG_OK;
}

static slg_status descend(descent *s)
{
    bool moved = true;
    SLG_TRY(evaluate(s, s->x));
    s->values[0] = s->o.value;
    while (s->out.steps < s->opts.steps) {
        SLG_TRY(take_step(s, &moved));
        if (!moved) break;
        s->values[++s->out.steps] = s->o.value;
    }
    for (int32_t k = s->out.steps; k < s->opts.steps; k++) s->values[k + 1] = s->values[k];
    return moved ? SLG_OK : evaluate(s, s->x); /* back from the last trial */
}

/* ---- Checks ----------------------------------------------------------------------------- */

static slg_status check_opts(slg_ctx *ctx, const slg_regression_descent_opts *o)
{
    if (o->steps < 0 || o->steps > MAX_STEPS)
        return slg_fail(ctx, SLG_ERR_RANGE, "steps is %d, must be from 0 to %d", o->steps,
                        MAX_STEPS);
    SLG_TRY(option_choice(ctx, "line_search", o->line_search, 0, 1));
    if (o->max_halvings < 0 || o->max_halvings > MAX_HALVINGS)
        return slg_fail(ctx, SLG_ERR_RANGE, "max_halvings is %d, must be from 0 to %d",
                        o->max_halvings, MAX_HALVINGS);
    if (!(o->step > 0 && isfinite(o->step)))
        return slg_fail(ctx, SLG_ERR_RANGE, "step is %g, must be above 0 and finite", o->step);
    if (!(o->decrease > 0 && o->decrease < 1))
        return slg_fail(ctx, SLG_ERR_RANGE, "decrease is %g, must be within (0, 1)",
                        o->decrease);
    return SLG_OK;
}

static slg_status check_outputs(descent *s, const slg_tensor *x, const slg_tensor *const in[4])
{
    const slg_regression_descent_out *o = &s->out;
    slg_ctx *ctx = s->o.ctx;
    const struct {
        const char *name;
        const slg_tensor *t;
        int64_t size;
    } out[] = {
        { "x", x, s->o.d },
        { "out.values", o->values, (int64_t)s->opts.steps + 1 },
        { "out.prob", o->prob, s->o.n },
    };
    for (size_t i = 0; i < 3; i++) {
        if (i > 0 && !out[i].t) continue;
        SLG_TRY(tensor_out(ctx, out[i].name, out[i].t, DT_F32 | DT_F64, 1, 1));
        SLG_TRY(tensor_shape_is(ctx, out[i].name, out[i].t, 1, &out[i].size));
        bool clash = i == 0 && tensor_clash(x, in[3]); /* x may be x0 itself */
        for (int k = 0; k < (i == 0 ? 3 : 4); k++)
            clash = clash || outputs_clash(out[i].t, in[k]);
        for (size_t k = 0; k < i; k++) clash = clash || outputs_clash(out[i].t, out[k].t);
        if (clash)
            return slg_fail(ctx, SLG_ERR_STRIDE, "%s overlaps another tensor", out[i].name);
    }
    return SLG_OK;
}

static slg_status run(slg_ctx *ctx, const slg_tensor *const in[4],
                      const slg_regression_descent_opts *opts, slg_tensor *x,
                      slg_regression_descent_out *out)
{
    descent s = { .opts = opts_defaults, .out = out_defaults };
    SLG_TRY(options_read(ctx, "opts", opts, &s.opts, sizeof s.opts));
    SLG_TRY(options_read(ctx, "out", out, &s.out, sizeof s.out));
    SLG_TRY(check_opts(ctx, &s.opts));
    SLG_TRY(oracle_open(ctx, in[0], in[1], in[2], &s.o));
    if (!in[3]) return slg_fail(ctx, SLG_ERR_NULL, "x0 is NULL");
    SLG_TRY(vector_read(ctx, "x0", in[3], s.o.d, &s.x));
    SLG_TRY(check_outputs(&s, x, in));
    SLG_TRY(oracle_want(&s.o, 1u << BACK_GRAD));
    s.next = arena_alloc(ctx, (size_t)s.o.d, sizeof(double));
    s.values = arena_alloc(ctx, (size_t)s.opts.steps + 1, sizeof(double));
    if (!s.next || !s.values) return SLG_ERR_MEMORY;

    s.out.steps = 0, s.out.step = 0, s.out.evaluations = 0;
    SLG_TRY(descend(&s));
    vector_write(x, s.x);
    vector_write(s.out.values, s.values);
    vector_write(s.out.prob, s.o.f);
    s.out.loss = s.o.loss, s.out.value = s.o.value;
    if (out) options_write(out, &s.out, sizeof s.out);
    return SLG_OK;
}

slg_status slg_regression_descent(slg_ctx *ctx, const slg_tensor *a, const slg_tensor *b,
                                  const slg_tensor *w, const slg_tensor *x0,
                                  const slg_regression_descent_opts *opts, slg_tensor *x,
                                  slg_regression_descent_out *out)
{
    if (!ctx) return SLG_ERR_NULL;
    const slg_tensor *in[4] = { a, b, w, x0 };
    op_begin(ctx, "slg_regression_descent");
    return op_end(ctx, run(ctx, in, opts, x, out));
}
