/*
 * A run is one call of an adapter under one context and one layout. Its buffers are a list; a
 * failure is a longjmp back to one_run, which frees them.
 */
#include "golden/adapter.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden/runner.h"
#include "support/ulp.h"

enum layout { PLAIN, GAPS_AFTER_ROWS, GAPS_EVERYWHERE, IN_PLACE, LAYOUTS };

static const char *const layout_names[] = { "contiguous", "rows with gaps",
                                            "elements with gaps", "in place" };

enum { FILL_INPUT = 0xFF, FILL_OUTPUT = 0x7E }; /* NaN, or -1; large numbers */

typedef struct buffer {
    struct buffer *next;
    slg_tensor view;
    bool writable;
    size_t bytes; /* 0 for a view into another buffer, which has no memory of its own */
    char *memory, *before; /* what memory held when the adapter got it */
} buffer;

struct run_state {
    const golden_case *c;
    enum layout layout;
    int threads;
    const char *label;
    buffer *buffers;
    bool *compared; /* a flag for each tensor of the case */
    uint64_t digest;
    outcome *out;
    jmp_buf end;
};

void fail(run *g, const char *format, ...)
{
    struct run_state *s = g->state;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(s->out->text, sizeof s->out->text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof s->out->text) n = (int)sizeof s->out->text - 1;
    snprintf(s->out->text + n, sizeof s->out->text - (size_t)n, " (%s%s%s, %d thread%s)",
             s->label ? s->label : "", s->label ? ", " : "", layout_names[s->layout],
             s->threads, s->threads == 1 ? "" : "s");
    s->out->passed = false;
    longjmp(s->end, 1);
}

void variation(run *g, const char *label) { g->state->label = label; }

void contiguous(run *g)
{
    if (g->state->layout != IN_PLACE) g->state->layout = PLAIN;
}

void check(run *g, slg_status status)
{
    if (status)
        fail(g, "status %" PRId32 " %s: %s", status, slg_status_string(status),
             slg_ctx_message(g->ctx));
}

/* ---- Elements -------------------------------------------------------------------------- */

static size_t item_size(int32_t dtype) { return dtype == SLG_F64 || dtype == SLG_I64 ? 8 : 4; }

int64_t tensor_size(const slg_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

/* Element i in row-major order. */
static void *element(const slg_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->ndim; d--; i /= t->shape[d]) at += i % t->shape[d] * t->stride[d];
    return (char *)t->data + at * (int64_t)item_size(t->dtype);
}

double tensor_get(const slg_tensor *t, int64_t i)
{
    const void *p = element(t, i);
    switch (t->dtype) {
    case SLG_F32:
        return (double)*(const float *)p;
    case SLG_F64:
        return *(const double *)p;
    case SLG_I32:
        return *(const int32_t *)p;
    default:
        return (double)*(const int64_t *)p;
    }
}

static void set(run *g, const char *name, const slg_tensor *t, int64_t i, double v)
{
    void *p = element(t, i);
    double limit = t->dtype == SLG_I32 ? 0x1p31 : 0x1p53;
    if (t->dtype == SLG_F32) {
        *(float *)p = (float)v;
    } else if (t->dtype == SLG_F64) {
        *(double *)p = v;
    } else if (!(v == trunc(v) && fabs(v) < limit)) {
        fail(g, "%s[%" PRId64 "] = %g is not a whole number", name, i, v);
    } else if (t->dtype == SLG_I32) {
        *(int32_t *)p = (int32_t)v;
    } else {
        *(int64_t *)p = (int64_t)v;
    }
}

/* ---- Buffers --------------------------------------------------------------------------- */

/* Strides of the layout, in elements; returns how many elements they span, gaps included. */
static int64_t lay_out(slg_tensor *t, enum layout layout)
{
    const bool gaps = layout == GAPS_AFTER_ROWS || layout == GAPS_EVERYWHERE;
    int64_t span = layout == GAPS_EVERYWHERE ? 2 : 1;
    for (int d = t->ndim; d--;) {
        t->stride[d] = span;
        span *= t->shape[d];
        if (gaps && d == t->ndim - 1) span += 3;
    }
    return span;
}

static void *allocate(run *g, size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) fail(g, "out of memory");
    return p;
}

static void remember(buffer *b) { memcpy(b->before, b->memory, b->bytes); }

/* An empty buffer, on the list. */
static buffer *new_view(run *g)
{
    buffer *b = calloc(1, sizeof *b);
    if (!b) fail(g, "out of memory");
    b->next = g->state->buffers;
    return g->state->buffers = b;
}

static buffer *new_buffer(run *g, int32_t dtype, int32_t ndim, const int64_t *shape, int fill)
{
    const enum layout layout = g->state->layout;
    if (dtype != SLG_F32 && dtype != SLG_F64 && dtype != SLG_I32 && dtype != SLG_I64)
        fail(g, "the adapter asks for a buffer of type %" PRId32, dtype);
    buffer *b = new_view(g);
    b->view.dtype = dtype;
    b->view.ndim = ndim;
    for (int d = 0; d < 4; d++) b->view.shape[d] = d < ndim ? shape[d] : 1;
    /* With gaps, also an odd start. */
    size_t start = layout == GAPS_AFTER_ROWS || layout == GAPS_EVERYWHERE ? 1 : 0;
    size_t span = (size_t)lay_out(&b->view, layout);
    b->memory = allocate(g, (span + start) * item_size(dtype));
    b->before = allocate(g, (span + start) * item_size(dtype));
    b->bytes = (span + start) * item_size(dtype);
    memset(b->memory, fill, b->bytes);
    b->view.data = b->memory + start * item_size(dtype);
    b->writable = fill == FILL_OUTPUT;
    remember(b);
    return b;
}

/* Inputs may have negative strides: rows are in memory from last to first. */
static void turn_upside_down(slg_tensor *t)
{
    if (t->ndim < 2 || tensor_size(t) == 0) return;
    t->data = (char *)t->data + (t->shape[0] - 1) * t->stride[0] * (int64_t)item_size(t->dtype);
    t->stride[0] = -t->stride[0];
}

static buffer *input_buffer(run *g, const char *name, int32_t dtype, bool writable)
{
    const golden_tensor *from = golden_find_tensor(g->state->c, name);
    if (!from) fail(g, "the case has no tensor %s", name);
    buffer *b = new_buffer(g, dtype, from->ndim, from->shape, FILL_INPUT);
    b->writable = writable;
    if (!writable && g->state->layout == GAPS_EVERYWHERE) turn_upside_down(&b->view);
    for (int64_t i = 0; i < from->size; i++) set(g, name, &b->view, i, from->values[i]);
    remember(b);
    return b;
}

slg_tensor *input(run *g, const char *name, int32_t dtype)
{
    return &input_buffer(g, name, dtype, false)->view;
}

slg_tensor *input_or_null(run *g, const char *name, int32_t dtype)
{
    return has_input(g, name) ? input(g, name, dtype) : NULL;
}

slg_tensor *input_output(run *g, const char *name, int32_t dtype)
{
    return &input_buffer(g, name, dtype, true)->view;
}

slg_tensor *output(run *g, int32_t dtype, int32_t ndim, const int64_t *shape)
{
    return &new_buffer(g, dtype, ndim, shape, FILL_OUTPUT)->view;
}

slg_tensor *output_like(run *g, const slg_tensor *t)
{
    return output(g, t->dtype, t->ndim, t->shape);
}

slg_tensor *output_zero(run *g, int32_t dtype, int32_t ndim, const int64_t *shape)
{
    slg_tensor *t = output(g, dtype, ndim, shape);
    for (int64_t i = tensor_size(t); i--;) memset(element(t, i), 0, item_size(dtype));
    return t;
}

slg_tensor *output_over(run *g, slg_tensor *in)
{
    if (g->state->layout != IN_PLACE) return output_like(g, in);
    for (buffer *b = g->state->buffers; b; b = b->next)
        if (&b->view == in) b->writable = true;
    return in;
}

slg_tensor *columns(run *g, const slg_tensor *t, int64_t from, int64_t to)
{
    slg_tensor *view = &new_view(g)->view;
    *view = *t;
    view->data = (char *)t->data + from * t->stride[t->ndim - 1] * (int64_t)item_size(t->dtype);
    view->shape[t->ndim - 1] = to - from;
    return view;
}

/* Was anything written but elements of outputs? */
static void check_buffer(run *g, buffer *b)
{
    if (!b->bytes) return;
    if (b->writable)
        for (int64_t i = tensor_size(&b->view); i--;) {
            char *p = element(&b->view, i);
            memcpy(b->before + (p - b->memory), p, item_size(b->view.dtype));
        }
    if (memcmp(b->before, b->memory, b->bytes) != 0)
        fail(g, b->writable ? "wrote beside an output" : "wrote to an input");
}

static void free_buffers(struct run_state *s)
{
    for (buffer *b; (b = s->buffers) != NULL;) {
        s->buffers = b->next;
        free(b->memory);
        free(b->before);
        free(b);
    }
}

/* ---- What a case holds ----------------------------------------------------------------- */

double scalar_or(run *g, const char *name, double otherwise)
{
    const golden_scalar *s = golden_find_scalar(g->state->c, name);
    return s ? s->value : otherwise;
}

double scalar(run *g, const char *name)
{
    if (!golden_find_scalar(g->state->c, name)) fail(g, "the case has no scalar %s", name);
    return scalar_or(g, name, 0);
}

bool has_input(run *g, const char *name)
{
    return golden_find_tensor(g->state->c, name) != NULL;
}

static const golden_tensor *expectation(run *g, const char *name)
{
    char full[256];
    if ((size_t)snprintf(full, sizeof full, "expect.%s", name) >= sizeof full)
        fail(g, "the name %s is too long", name);
    return golden_find_tensor(g->state->c, full);
}

bool has_expect(run *g, const char *name) { return expectation(g, name) != NULL; }

slg_tensor *output_for(run *g, const char *name, int32_t dtype)
{
    const golden_tensor *t = expectation(g, name);
    return t ? output(g, dtype, t->ndim, t->shape) : NULL;
}

/* ---- Results --------------------------------------------------------------------------- */

/* Marks an expectation as compared. */
static void mark(run *g, const golden_tensor *t)
{
    g->state->compared[t - g->state->c->tensors] = true;
}

void not_applicable(run *g, const char *name)
{
    const golden_tensor *t = expectation(g, name);
    if (t) mark(g, t);
}

/* FNV-1a over values: all NaN are one, as are -0 and 0. */
static void digest(struct run_state *s, double value)
{
    uint64_t bits = 0x7FF8000000000000u;
    if (value == 0) value = 0;
    if (!isnan(value)) memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 64; i += 8)
        s->digest = (s->digest ^ (bits >> i & 255)) * 0x100000001B3u;
}

/* [2,0,1] of element i. */
static const char *position(const golden_tensor *t, int64_t i, char text[100])
{
    int64_t index[GOLDEN_MAX_DIMS];
    size_t n = 0;
    for (int d = t->ndim; d--; i /= t->shape[d]) index[d] = i % t->shape[d];
    for (int d = 0; d < t->ndim; d++)
        n += (size_t)snprintf(text + n, 100 - n, "%c%" PRId64, d ? ',' : '[', index[d]);
    snprintf(text + n, 100 - n, "]");
    return text;
}

static void compare(run *g, const golden_tensor *t, int64_t i, double got)
{
    const golden_tolerance tol = golden_find_tolerance(g->state->c, t->name);
    const double want = t->values[i], room = tol.absolute + tol.relative * fabs(want);
    char where[100];
    digest(g->state, got);
    if (!within(got, want, tol.absolute, tol.relative))
        fail(g, "%s%s got %.9g want %.9g within %g %g", t->name + strlen("expect."),
             position(t, i, where), got, want, tol.absolute, tol.relative);
    if (isfinite(want) && room > 0)
        g->state->out->margin = fmax(g->state->out->margin, fabs(got - want) / room);
}

void expect(run *g, const char *name, const slg_tensor *got)
{
    const golden_tensor *t = expectation(g, name);
    if (!t || !got) return;
    if (tensor_size(got) != t->size)
        fail(g, "%s has %" PRId64 " elements, the case expects %" PRId64, name,
             tensor_size(got), t->size);
    for (int64_t i = 0; i < t->size; i++) compare(g, t, i, tensor_get(got, i));
    mark(g, t);
}

void expect_number(run *g, const char *name, double got)
{
    const golden_tensor *t = expectation(g, name);
    if (!t) return;
    if (t->size != 1) fail(g, "%s is one number, the case expects %" PRId64, name, t->size);
    compare(g, t, 0, got);
    mark(g, t);
}

void expect_same(run *g, const slg_tensor *got, const slg_tensor *want)
{
    if (tensor_size(got) != tensor_size(want)) fail(g, "two results differ in shape");
    for (int64_t i = 0; i < tensor_size(got); i++) {
        double a = tensor_get(got, i), b = tensor_get(want, i);
        if (!(a == b || (isnan(a) && isnan(b))))
            fail(g, "two results differ: element %" PRId64 " is %.9g and %.9g", i, a, b);
    }
}

static void check_all_compared(run *g)
{
    const golden_case *c = g->state->c;
    for (size_t i = 0; i < c->tensor_count; i++)
        if (strncmp(c->tensors[i].name, "expect.", 7) == 0 && !g->state->compared[i])
            fail(g, "%s not compared", c->tensors[i].name);
}

/* ---- Runs ------------------------------------------------------------------------------ */

/* False where it failed, with the reason in s->out. */
static bool one_run(run *g, const adapter *a)
{
    if (setjmp(g->state->end) == 0) {
        a->fn(g);
        g->state->label = NULL;
        for (buffer *b = g->state->buffers; b; b = b->next) check_buffer(g, b);
        check_all_compared(g);
    }
    free_buffers(g->state);
    return g->state->out->passed;
}

outcome run_case(slg_ctx *const ctx[RUN_CONTEXTS], const golden_case *c, const adapter *a)
{
    outcome out = { true, "", 0 };
    bool *compared = malloc(c->tensor_count + 1);
    if (!compared) return (outcome){ false, "out of memory", 0 };
    for (int layout = 0; layout < LAYOUTS && out.passed; layout++) {
        uint64_t first = 0;
        for (int i = 0; i < RUN_CONTEXTS && out.passed; i++) {
            struct run_state s = { .c = c,
                                   .layout = (enum layout)layout,
                                   .threads = i + 1,
                                   .compared = compared,
                                   .digest = 0xCBF29CE484222325u,
                                   .out = &out };
            run g = { ctx[i], &s };
            memset(compared, 0, c->tensor_count);
            if (one_run(&g, a) && i > 0 && s.digest != first) {
                snprintf(out.text, sizeof out.text,
                         "results depend on the number of threads (%s)", layout_names[layout]);
                out.passed = false;
            }
            if (i == 0) first = s.digest;
        }
    }
    free(compared);
    return out;
}
