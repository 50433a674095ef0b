/*
 * adapter.h - how golden vectors reach the library. To add those of a paper:
 *
 *   1. Copy SLUG.golden into this folder.
 *   2. Write adapt_SLUG.c (with _ for -): a function for each operation, and a table of them.
 *   3. Add the slug's line to registry.h.
 *
 *     static void logsumexp(run *g)
 *     {
 *         slg_softmax_opts o;
 *         slg_softmax_opts_init(&o, sizeof o);
 *         o.temperature = scalar_or(g, "temperature", 1);
 *         slg_tensor *lse = output_for(g, "lse", SLG_F32);
 *         check(g, slg_logsumexp(g->ctx, input(g, "x", SLG_F32), &o, lse));
 *         expect(g, "lse", lse);
 *     }
 *
 *     const adapter adapt_my_slug[] = { { "logsumexp", logsumexp }, { NULL, NULL } };
 *
 * Each case is run several times: by contexts of one and of two threads, whose results must
 * have the same bits, and with its buffers laid out in several ways: contiguous; rows with
 * gaps; elements with gaps, and inputs upside down; in place, where the adapter uses
 * output_over. The helpers see to that, free the buffers after each run, and find writes to
 * inputs or to gaps.
 * What goes wrong ends the run at once: adapters need no error handling.
 *
 * A case passes only if each of its expectations, expect.NAME, was compared in each run.
 * An adapter must depend on names and shapes only, not on what a file's cases happen to hold.
 */
#ifndef TESTS_GOLDEN_ADAPTER_H
#define TESTS_GOLDEN_ADAPTER_H

#include <stdbool.h>

#include "softlogit/softlogit.h"

typedef struct run {
    slg_ctx *ctx;
    struct run_state *state; /* adapter.c's own */
} run;

typedef struct adapter {
    const char *operation; /* of a case OPERATION or OPERATION/VARIANT; "*", the last: of any
                              other, for files whose cases name no operation; NULL ends
                              a table */
    void (*fn)(run *g);
} adapter;

/* ---- What a case holds ----------------------------------------------------------------- */

double scalar(run *g, const char *name);
double scalar_or(run *g, const char *name, double otherwise);
bool has_input(run *g, const char *name);
bool has_expect(run *g, const char *name); /* expect.NAME */

/* A tensor of the case as dtype: SLG_F32, SLG_F64, SLG_I32 or SLG_I64. Not to be written. */
slg_tensor *input(run *g, const char *name, int32_t dtype);
slg_tensor *input_or_null(run *g, const char *name, int32_t dtype);

/* The same for one that the library updates, such as weights. */
slg_tensor *input_output(run *g, const char *name, int32_t dtype);

/* ---- Outputs --------------------------------------------------------------------------- */

/* Filled with 0x7E: large numbers, so what is not written is noticed. */
slg_tensor *output(run *g, int32_t dtype, int32_t ndim, const int64_t *shape);
slg_tensor *output_like(run *g, const slg_tensor *t); /* its type and shape */

/* Of the shape of expect.NAME; NULL where the case has none: output not wanted. */
slg_tensor *output_for(run *g, const char *name, int32_t dtype);

/* For an operation that works in place: the input itself in runs that are to try it, else
   output_like. Only the result of input() is taken, which is spent then. */
slg_tensor *output_over(run *g, slg_tensor *in);

/* As output_like, but zero: what an operation adds to. */
slg_tensor *output_zero(run *g, int32_t dtype, int32_t ndim, const int64_t *shape);

/* A view of cols [from, to) of the last axis: for pieces of rows. */
slg_tensor *columns(run *g, const slg_tensor *t, int64_t from, int64_t to);

/* Number of elements; element i in row-major order, of the types that input() takes. */
int64_t tensor_size(const slg_tensor *t);
double tensor_get(const slg_tensor *t, int64_t i);

/* ---- Layouts --------------------------------------------------------------------------- */

/* Buffers made from here on are contiguous: for operations that take no strides. */
void contiguous(run *g);

/* In what follows, a failure names this: an algorithm, as "two-pass", or a form. */
void variation(run *g, const char *label);

/* ---- Results --------------------------------------------------------------------------- */

/* Fails with the context's message where a call did. */
void check(run *g, slg_status status);

/*
 * Compares with expect.NAME: |got - want| <= absolute + relative |want|, NaN with NaN, an
 * infinity with its like. As many elements as expected, in row-major order, any shape. Nothing
 * happens where the case has no such expectation, or got is NULL.
 */
void expect(run *g, const char *name, const slg_tensor *got);
void expect_number(run *g, const char *name, double got);

/* Fails where two tensors of the same shape differ in any bit: for two ways to one result. */
void expect_same(run *g, const slg_tensor *got, const slg_tensor *want);

/* expect.NAME has no counterpart in the library: it need not be compared. Say why beside it. */
void not_applicable(run *g, const char *name);

/* For what an adapter finds by itself. */
_Noreturn void fail(run *g, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
