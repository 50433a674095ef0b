/*
 * tensor.c - checks. What is right passes through one short loop, since a whole call on a short
 * row takes some ten nanoseconds; what is wrong goes to a function that finds out and says why.
 */
#include "tensor.h"

#include <assert.h>
#include <stdio.h>

static const uint8_t sizes[] = {
    [SLG_F32] = 4, [SLG_BF16] = 2, [SLG_F16] = 2, [SLG_F64] = 8, [SLG_I32] = 4, [SLG_I64] = 8
};
static const char *const names[] = {
    [SLG_F32] = "f32", [SLG_BF16] = "bf16", [SLG_F16] = "f16",
    [SLG_F64] = "f64", [SLG_I32] = "i32",   [SLG_I64] = "i64"
};
enum { DTYPES = sizeof sizes, TEXT = 96 };

size_t dtype_size(int32_t dtype) { return (uint32_t)dtype < DTYPES ? sizes[dtype] : 0; }

const char *dtype_name(int32_t dtype)
{
    return (uint32_t)dtype < DTYPES ? names[dtype] : "unknown";
}

static const char *shape_text(char *text, int32_t ndim, const int64_t *shape)
{
    size_t n = 0;
    for (int32_t i = 0; i < ndim && n < TEXT; i++)
        n += (size_t)snprintf(text + n, TEXT - n, i ? ", %lld" : "[%lld", (long long)shape[i]);
    if (n < TEXT) snprintf(text + n, TEXT - n, "]");
    return text;
}

/* ---- Layout ---------------------------------------------------------------------------- */

/* Offsets of the least and the greatest element, in elements; of a tensor that was checked. */
typedef struct range_t {
    int64_t low, high;
} range_t;

static range_t range_of(const slg_tensor *t)
{
    range_t r = { 0, 0 };
    for (int32_t i = 0; i < t->ndim; i++) {
        int64_t reach = t->stride[i] * (t->shape[i] - 1);
        if (reach < 0)
            r.low += reach;
        else
            r.high += reach;
    }
    return r;
}

static int64_t magnitude(int64_t stride) { return stride < 0 ? -stride : stride; }

/* Elements share no memory if, axes sorted, each stride steps over all that the smaller ones
   reach. The sizes are known not to overflow. */
static bool is_disjoint(const slg_tensor *t)
{
    int32_t order[4], n = 0;
    int64_t reach = 0;
    for (int32_t i = 0; i < t->ndim; i++) {
        if (t->shape[i] <= 1) continue;
        int32_t j = n++;
        for (; j > 0 && magnitude(t->stride[order[j - 1]]) > magnitude(t->stride[i]); j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
    for (int32_t i = 0; i < n; i++) {
        int64_t stride = magnitude(t->stride[order[i]]);
        if (stride <= reach) return false;
        reach += stride * (t->shape[order[i]] - 1);
    }
    return true;
}

/* What the checks are about, once dtype and ndim are known to be good. */
typedef struct layout_t {
    bool bad;    /* a negative extent, or numbers that overflow */
    bool nested; /* each stride steps over all that later axes reach: elements are apart */
    bool empty;
    bool no_data; /* NULL or misaligned */
} layout_t;

static inline layout_t layout_of(const slg_tensor *t, size_t item)
{
    layout_t l = { false, true, false, !t->data || ((uintptr_t)t->data & (item - 1)) };
    int64_t count = 1, reach = 0, bytes;
    for (int32_t i = t->ndim - 1; i >= 0; i--) {
        int64_t extent = t->shape[i], stride = t->stride[i], step;
        if (extent <= 1) {
            l.bad |= extent < 0;
            l.empty |= extent == 0;
            continue;
        }
        l.bad |= __builtin_mul_overflow(count, extent, &count);
        l.bad |= __builtin_mul_overflow(stride, extent - 1, &step);
        l.bad |= step == INT64_MIN;
        step = magnitude(l.bad ? 0 : step);
        l.nested &= (stride < 0 ? -(uint64_t)stride : (uint64_t)stride) > (uint64_t)reach;
        l.bad |= __builtin_add_overflow(reach, step, &reach);
    }
    /* The reach is what lies between the first byte and the last element, all strides positive.
     */
    l.bad |= __builtin_mul_overflow(count, (int64_t)item, &bytes);
    l.bad |= __builtin_mul_overflow(reach, (int64_t)item, &bytes);
    l.bad |= __builtin_add_overflow(bytes, (int64_t)item, &bytes);
    return l;
}

/* ---- Checks ---------------------------------------------------------------------------- */

static slg_status __attribute__((noinline, cold))
why_not(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes, int32_t min_dim,
        int32_t max_dim)
{
    char text[TEXT];
    if (!t) return slg_fail(ctx, SLG_ERR_NULL, "%s is NULL", name);
    size_t item = dtype_size(t->dtype);
    if (!item)
        return slg_fail(ctx, SLG_ERR_DTYPE, "%s has unknown dtype %d", name, (int)t->dtype);
    if (!(dtypes >> t->dtype & 1)) {
        int n = 0;
        text[0] = 0;
        for (int32_t i = 0; i < DTYPES; i++) {
            if (!(dtypes >> i & 1)) continue;
            n += snprintf(text + n, TEXT - (size_t)n, n ? ", %s" : "%s", names[i]);
        }
        return slg_fail(ctx, SLG_ERR_DTYPE, "%s has dtype %s, must be one of: %s", name,
                        dtype_name(t->dtype), text);
    }
    if (t->ndim < min_dim || t->ndim > max_dim) {
        if (min_dim == max_dim)
            return slg_fail(ctx, SLG_ERR_SHAPE, "%s has %d dimensions, must have %d", name,
                            (int)t->ndim, (int)min_dim);
        return slg_fail(ctx, SLG_ERR_SHAPE, "%s has %d dimensions, must have %d to %d", name,
                        (int)t->ndim, (int)min_dim, (int)max_dim);
    }
    shape_text(text, t->ndim, t->shape);
    for (int32_t i = 0; i < t->ndim; i++)
        if (t->shape[i] < 0)
            return slg_fail(ctx, SLG_ERR_SHAPE, "%s has shape %s: %lld is negative", name, text,
                            (long long)t->shape[i]);
    layout_t l = layout_of(t, item);
    if (l.bad) {
        char strides[TEXT];
        return slg_fail(ctx, SLG_ERR_SHAPE, "%s has shape %s, strides %s: its size overflows",
                        name, text, shape_text(strides, t->ndim, t->stride));
    }
    if (!t->data)
        return slg_fail(ctx, SLG_ERR_NULL, "%s has shape %s, but its data is NULL", name, text);
    return slg_fail(ctx, SLG_ERR_RANGE, "%s has data at %p, not aligned to the %zu bytes of %s",
                    name, t->data, item, dtype_name(t->dtype));
}

/* What is common to both directions; *nested as in layout_t, true if there are no elements. */
static inline slg_status check(slg_ctx *ctx, const char *name, const slg_tensor *t,
                               unsigned dtypes, int32_t min_dim, int32_t max_dim, bool *nested)
{
    assert(min_dim >= 1 && max_dim <= 4);
    if (!t || (uint32_t)t->dtype >= DTYPES || !(dtypes >> t->dtype & 1) || t->ndim < min_dim ||
        t->ndim > max_dim)
        return why_not(ctx, name, t, dtypes, min_dim, max_dim);
    layout_t l = layout_of(t, sizes[t->dtype]);
    if (l.bad || (l.no_data && !l.empty))
        return why_not(ctx, name, t, dtypes, min_dim, max_dim);
    *nested = l.nested || l.empty;
    return SLG_OK;
}

slg_status tensor_in(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                     int32_t min_dim, int32_t max_dim)
{
    bool nested = false;
    return check(ctx, name, t, dtypes, min_dim, max_dim, &nested);
}

slg_status tensor_out(slg_ctx *ctx, const char *name, const slg_tensor *t, unsigned dtypes,
                      int32_t min_dim, int32_t max_dim)
{
    bool nested = false;
    char shape[TEXT], strides[TEXT];
    slg_status status = check(ctx, name, t, dtypes, min_dim, max_dim, &nested);
    if (status || nested || is_disjoint(t)) return status;
    return slg_fail(
        ctx, SLG_ERR_STRIDE, "%s has shape %s, strides %s: its elements may share memory", name,
        shape_text(shape, t->ndim, t->shape), shape_text(strides, t->ndim, t->stride));
}

static bool shape_equal(const slg_tensor *t, int32_t ndim, const int64_t *shape)
{
    if (t->ndim != ndim) return false;
    for (int32_t i = 0; i < ndim; i++)
        if (t->shape[i] != shape[i]) return false;
    return true;
}

slg_status tensor_same_shape(slg_ctx *ctx, const char *name_a, const slg_tensor *a,
                             const char *name_b, const slg_tensor *b)
{
    char text_a[TEXT], text_b[TEXT];
    if (shape_equal(a, b->ndim, b->shape)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE, "%s has shape %s, %s has %s", name_a,
                    shape_text(text_a, a->ndim, a->shape), name_b,
                    shape_text(text_b, b->ndim, b->shape));
}

slg_status tensor_shape_is(slg_ctx *ctx, const char *name, const slg_tensor *t, int32_t ndim,
                           const int64_t *shape)
{
    char has[TEXT], wanted[TEXT];
    assert(ndim >= 1 && ndim <= 4);
    if (shape_equal(t, ndim, shape)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE, "%s has shape %s, must have %s", name,
                    shape_text(has, t->ndim, t->shape), shape_text(wanted, ndim, shape));
}

slg_status tensor_is_per_row(slg_ctx *ctx, const char *name, const slg_tensor *t,
                             const char *name_x, const slg_tensor *x)
{
    static const int64_t one[1] = { 1 };
    char has[TEXT], wanted[TEXT], text[TEXT];
    int32_t ndim = x->ndim > 1 ? x->ndim - 1 : 1;
    const int64_t *shape = x->ndim > 1 ? x->shape : one;
    if (shape_equal(t, ndim, shape)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_SHAPE,
                    "%s has shape %s, must have %s: one for each row of %s %s", name,
                    shape_text(has, t->ndim, t->shape), shape_text(wanted, ndim, shape), name_x,
                    shape_text(text, x->ndim, x->shape));
}

/* ---- Questions ------------------------------------------------------------------------- */

int64_t tensor_size(const slg_tensor *t)
{
    int64_t size = 1;
    for (int32_t i = 0; i < t->ndim; i++) size *= t->shape[i];
    return size;
}

bool tensor_contiguous(const slg_tensor *t)
{
    int64_t step = 1;
    if (tensor_size(t) == 0) return true;
    for (int32_t i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && t->stride[i] != step) return false;
        step *= t->shape[i];
    }
    return true;
}

static bool same_view(const slg_tensor *a, const slg_tensor *b)
{
    if (a->data != b->data || a->dtype != b->dtype || !shape_equal(a, b->ndim, b->shape))
        return false;
    for (int32_t i = 0; i < a->ndim; i++)
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}

/* Bytes that t spans within one period, steps of whole periods left out; 0: more than a period.
   */
static uint64_t span_within(const slg_tensor *t, uint64_t period)
{
    const uint64_t size = dtype_size(t->dtype);
    uint64_t span = size;
    for (int32_t i = 0; i < t->ndim; i++) {
        const int64_t stride = t->stride[i];
        const uint64_t step = size * (uint64_t)(stride < 0 ? -stride : stride);
        if (t->shape[i] == 1 || step % period == 0) continue;
        span += step * (uint64_t)(t->shape[i] - 1); /* within size_t, as tensor_in has seen */
    }
    return span <= period ? span : 0;
}

/* Views of one packed array, as the queries and the keys of [tokens, 3, heads, dim]: with
   respect to the period, a stride of t, each keeps to a lane of its own. a0 and b0: lowest
   addresses. */
static bool lanes_apart(const slg_tensor *t, const slg_tensor *a, uintptr_t a0,
                        const slg_tensor *b, uintptr_t b0)
{
    for (int32_t i = 0; i < t->ndim; i++) {
        const int64_t stride = t->stride[i];
        const uint64_t period =
            dtype_size(t->dtype) * (uint64_t)(stride < 0 ? -stride : stride);
        if (t->shape[i] == 1 || period == 0) continue;
        const uint64_t span_a = span_within(a, period), span_b = span_within(b, period);
        const uint64_t ahead =
            b0 >= a0 ? (b0 - a0) % period : (period - (a0 - b0) % period) % period;
        if (span_a && span_b && ahead >= span_a && ahead + span_b <= period) return true;
    }
    return false;
}

bool tensor_clash(const slg_tensor *out, const slg_tensor *in)
{
    if (!out || !in || tensor_size(out) == 0 || tensor_size(in) == 0 || same_view(out, in))
        return false;
    /* As whole numbers: pointers into different objects may not be compared. */
    range_t a = range_of(out), b = range_of(in);
    uintptr_t size_a = dtype_size(out->dtype), size_b = dtype_size(in->dtype);
    uintptr_t a0 = (uintptr_t)out->data + (uintptr_t)a.low * size_a;
    uintptr_t a1 = (uintptr_t)out->data + (uintptr_t)a.high * size_a + size_a;
    uintptr_t b0 = (uintptr_t)in->data + (uintptr_t)b.low * size_b;
    uintptr_t b1 = (uintptr_t)in->data + (uintptr_t)b.high * size_b + size_b;
    return a0 < b1 && b0 < a1 && !lanes_apart(out, out, a0, in, b0) &&
           !lanes_apart(in, out, a0, in, b0);
}
