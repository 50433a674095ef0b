/*
 * rows.c - rows of any tensor as the kernels see them, float32 and contiguous. Narrow rows that
 * lie contiguous go straight through a widening kernel; strided ones are gathered first.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "tensor.h"

enum { PIECE = 512 }; /* 16-bit elements gathered on the stack at a time */

/* ---- Layout ---------------------------------------------------------------------------- */

/* Takes the first `axes` axes of t as the rows' outer ones. Where there are no elements,
   strides may be anything, and are not computed with. */
static void set_outer(rows *m, const slg_tensor *t, int32_t axes)
{
    int32_t n = 0;
    m->count = 1;
    m->outer = 0;
    for (int32_t i = 0; i < axes; i++) m->count *= t->shape[i];
    if (m->count == 0 || m->cols == 0) return;
    for (int32_t i = 0; i < axes; i++) {
        int64_t extent = t->shape[i], stride = t->stride[i], step;
        if (extent == 1) continue;
        if (n > 0 && !__builtin_mul_overflow(stride, extent, &step) &&
            m->stride[n - 1] == step) {
            m->shape[n - 1] *= extent;
            m->stride[n - 1] = stride;
            continue;
        }
        assert(n < 3);
        m->shape[n] = extent;
        m->stride[n] = stride;
        n++;
    }
    m->outer = n;
}

rows rows_of(const slg_tensor *t)
{
    rows m = { .data = t->data, .dtype = t->dtype, .item = dtype_size(t->dtype) };
    int32_t last = t->ndim - 1;
    m.cols = t->shape[last];
    m.col_stride = m.cols > 1 ? t->stride[last] : 1;
    m.plain = m.dtype == SLG_F32 && m.col_stride == 1;
    set_outer(&m, t, last);
    return m;
}

rows rows_per_row(const slg_tensor *t)
{
    rows m = { .data = t->data, .dtype = t->dtype, .item = dtype_size(t->dtype) };
    m.cols = 1;
    m.col_stride = 1;
    m.plain = m.dtype == SLG_F32;
    set_outer(&m, t, t->ndim);
    return m;
}

/* Offsets fit in int64, as tensor_in has seen; of bytes too. */
char *rows_at(const rows *m, int64_t r)
{
    int64_t offset = 0;
    for (int32_t i = m->outer - 1; i > 0; i--) {
        offset += r % m->shape[i] * m->stride[i];
        r /= m->shape[i];
    }
    if (m->outer) offset += r * m->stride[0];
    return m->data + offset * (int64_t)m->item;
}

static char *address(const rows *m, int64_t r, int64_t c)
{
    return rows_at(m, r) + c * m->col_stride * (int64_t)m->item;
}

/* ---- One element ----------------------------------------------------------------------- */

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static double from_f16(uint16_t h)
{
    uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
    double x;
    if (exponent == 31)
        x = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        x = fraction * 0x1p-24;
    else
        x = ldexp(fraction | 1024, (int)exponent - 25);
    return h >> 15 ? -x : x;
}

/* To float by rounding to odd: what is lost leaves its mark in the last bit, so that a second
   rounding, to at least two bits less, gives what a single one would. */
static uint32_t odd_float(double x)
{
    float f = (float)x;
    uint32_t bits = bits_of_float(f);
    if (isnan(x) || (double)f == x) return bits;
    if (fabs((double)f) > fabs(x)) bits--;
    return bits | 1;
}

static uint16_t to_bf16(double x)
{
    uint32_t bits = odd_float(x);
    if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint16_t to_f16(double x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs(x);
    if (isnan(x)) return sign | 0x7E00;
    if (a >= 65520.0) return sign | 0x7C00; /* half way from the largest to the next */
    if (a < 0x1p-14) return (uint16_t)(sign | (uint16_t)(int)rint(a * 0x1p24));
    int exponent;
    double fraction = frexp(a, &exponent); /* in [1/2, 1) */
    int h = (int)rint(fraction * 2048.0) + (exponent + 13) * 1024;
    return (uint16_t)(sign | h);
}

static int64_t clamp(double x, double low, double high, int64_t min, int64_t max)
{
    if (isnan(x)) return 0;
    x = rint(x);
    if (x < low) return min;
    return x >= high ? max : (int64_t)x;
}

static double get(const rows *m, const char *p)
{
    switch (m->dtype) {
    case SLG_F32:
        return (double)*(const float *)(const void *)p;
    case SLG_F64:
        return *(const double *)(const void *)p;
    case SLG_I32:
        return (double)*(const int32_t *)(const void *)p;
    case SLG_I64:
        return (double)*(const int64_t *)(const void *)p;
    case SLG_BF16:
        return (double)float_of_bits((uint32_t) * (const uint16_t *)(const void *)p << 16);
    default:
        return from_f16(*(const uint16_t *)(const void *)p);
    }
}

static void put(const rows *m, char *p, double x)
{
    switch (m->dtype) {
    case SLG_F32:
        *(float *)(void *)p = (float)x;
        break;
    case SLG_F64:
        *(double *)(void *)p = x;
        break;
    case SLG_I32:
        *(int32_t *)(void *)p = (int32_t)clamp(x, -0x1p31, 0x1p31, INT32_MIN, INT32_MAX);
        break;
    case SLG_I64:
        *(int64_t *)(void *)p = clamp(x, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX);
        break;
    case SLG_BF16:
        *(uint16_t *)(void *)p = to_bf16(x);
        break;
    default:
        *(uint16_t *)(void *)p = to_f16(x);
        break;
    }
}

double rows_get(const rows *m, int64_t r, int64_t c) { return get(m, address(m, r, c)); }

int64_t rows_get_int(const rows *m, int64_t r, int64_t c)
{
    const char *p = address(m, r, c);
    if (m->dtype == SLG_I64) return *(const int64_t *)(const void *)p;
    if (m->dtype == SLG_I32) return *(const int32_t *)(const void *)p;
    return clamp(get(m, p), -0x1p63, 0x1p63, INT64_MIN, INT64_MAX);
}

void rows_put(const rows *m, int64_t r, int64_t c, double value)
{
    put(m, address(m, r, c), value);
}

void row_part_doubles(const rows *m, int64_t r, int64_t col, int64_t n, double *to)
{
    const char *at = address(m, r, col);
    if (m->dtype == SLG_F32) {
        const float *x = (const float *)at;
        for (int64_t j = 0; j < n; j++) to[j] = (double)x[j * m->col_stride];
    } else if (m->dtype == SLG_F64) {
        const double *x = (const double *)at;
        for (int64_t j = 0; j < n; j++) to[j] = x[j * m->col_stride];
    } else {
        for (int64_t j = 0; j < n; j++) to[j] = rows_get(m, r, col + j);
    }
}

void row_part_store(const rows *m, int64_t r, int64_t col, int64_t n, const double *from)
{
    char *at = address(m, r, col);
    if (m->dtype == SLG_F32) {
        float *x = (float *)at;
        for (int64_t j = 0; j < n; j++) x[j * m->col_stride] = (float)from[j];
    } else if (m->dtype == SLG_F64) {
        double *x = (double *)at;
        for (int64_t j = 0; j < n; j++) x[j * m->col_stride] = from[j];
    } else {
        for (int64_t j = 0; j < n; j++) rows_put(m, r, col + j, from[j]);
    }
}

void row_doubles(const rows *m, int64_t r, double *to)
{
    row_part_doubles(m, r, 0, m->cols, to);
}

void row_store(const rows *m, int64_t r, const double *from)
{
    row_part_store(m, r, 0, m->cols, from);
}

/* ---- Blocks of a row ------------------------------------------------------------------- */

static bool is_half(const rows *m) { return m->dtype == SLG_BF16 || m->dtype == SLG_F16; }

static void fetch_half(const kernel_table *k, const rows *m, const char *from, int64_t n,
                       float *to)
{
    void (*widen)(size_t, const uint16_t *, float *) =
        m->dtype == SLG_BF16 ? k->widen_bf16 : k->widen_f16;
    const uint16_t *x = (const void *)from;
    if (m->col_stride == 1) {
        widen((size_t)n, x, to);
        return;
    }
    uint16_t piece[PIECE];
    for (int64_t done = 0; done < n; done += PIECE) {
        int64_t part = n - done < PIECE ? n - done : PIECE;
        for (int64_t i = 0; i < part; i++) piece[i] = x[(done + i) * m->col_stride];
        widen((size_t)part, piece, to + done);
    }
}

const float *rows_fetch(const kernel_table *k, const rows *m, int64_t r, int64_t col, int64_t n,
                        float *scratch)
{
    const char *from = address(m, r, col);
    if (m->plain) return (const void *)from;
    if (is_half(m)) {
        fetch_half(k, m, from, n, scratch);
    } else if (m->dtype == SLG_F32) {
        const float *x = (const void *)from;
        for (int64_t i = 0; i < n; i++) scratch[i] = x[i * m->col_stride];
    } else {
        int64_t step = m->col_stride * (int64_t)m->item;
        for (int64_t i = 0; i < n; i++) scratch[i] = (float)get(m, from + i * step);
    }
    return scratch;
}

float *rows_stage(const rows *m, int64_t r, int64_t col, float *scratch)
{
    return m->plain ? (float *)(void *)address(m, r, col) : scratch;
}

static void commit_half(const kernel_table *k, const rows *m, char *to, int64_t n,
                        const float *x)
{
    void (*narrow)(size_t, const float *, uint16_t *) =
        m->dtype == SLG_BF16 ? k->narrow_bf16 : k->narrow_f16;
    uint16_t *y = (void *)to;
    if (m->col_stride == 1) {
        narrow((size_t)n, x, y);
        return;
    }
    uint16_t piece[PIECE];
    for (int64_t done = 0; done < n; done += PIECE) {
        int64_t part = n - done < PIECE ? n - done : PIECE;
        narrow((size_t)part, x + done, piece);
        for (int64_t i = 0; i < part; i++) y[(done + i) * m->col_stride] = piece[i];
    }
}

void rows_commit(const kernel_table *k, const rows *m, int64_t r, int64_t col, int64_t n,
                 const float *scratch)
{
    if (m->plain) return;
    char *to = address(m, r, col);
    if (is_half(m)) {
        commit_half(k, m, to, n, scratch);
    } else if (m->dtype == SLG_F32) {
        float *y = (void *)to;
        for (int64_t i = 0; i < n; i++) y[i * m->col_stride] = scratch[i];
    } else {
        int64_t step = m->col_stride * (int64_t)m->item;
        for (int64_t i = 0; i < n; i++) put(m, to + i * step, (double)scratch[i]);
    }
}

slg_status rows_check_finite(slg_ctx *ctx, const char *name, const rows *m)
{
    float scratch[PIECE];
    for (int64_t r = 0; r < m->count; r++)
        for (int64_t c = 0; c < m->cols; c += PIECE) {
            const int64_t n = m->cols - c < PIECE ? m->cols - c : PIECE;
            const float *x = rows_fetch(&ctx->k, m, r, c, n, scratch);
            if (ctx->k.finite((size_t)n, x)) continue;
            for (int64_t i = 0; i < n; i++)
                if (!isfinite(x[i]))
                    return slg_fail(ctx, SLG_ERR_RANGE, "%s[%lld] is %g, must be finite", name,
                                    (long long)(r * m->cols + c + i), (double)x[i]);
        }
    return SLG_OK;
}
