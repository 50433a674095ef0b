/*
 * Kept keys and values: the n elements of an array are a matrix of as many rows as they make.
 */
#include "kernel_spec.h"

enum { GROUP = CACHE_GROUP, PAD = 16, TYPE_F32, TYPE_BF16, TYPE_F16 };

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t padded(size_t n) { return (n + PAD - 1) / PAD * PAD; }

/* ---- 16 bits ----------------------------------------------------------------------------- */

static double element(const void *x, int type, size_t i)
{
    if (type == TYPE_F32) return (double)((const float *)x)[i];
    const uint16_t h = ((const uint16_t *)x)[i];
    const int bits = type == TYPE_F16 ? 10 : 7, bias = type == TYPE_F16 ? 15 : 127;
    const int fraction = h & ((1 << bits) - 1), exponent = (h & 0x7FFF) >> bits;
    if (exponent == 2 * bias + 1) return fraction ? NAN : h & 0x8000 ? -INFINITY : INFINITY;
    return ldexp((h & 0x8000 ? -1.0 : 1.0) * (fraction + (1 << bits)), exponent - bias - bits);
}

/* Numbers of magnitude 1 to 4, and sometimes a NaN. */
static void halves(const call *c, int i, int type)
{
    uint16_t *x = c->in[i];
    for (size_t j = 0; j < c->n; j++)
        x[j] = type == TYPE_F16 ? (uint16_t)((x[j] & 0x87FF) + 0x3C00)
                                : (uint16_t)((x[j] & 0x80FF) + 0x3F80);
    if (c->n % 7 == 6) x[c->n / 2] = type == TYPE_F16 ? 0x7E01 : 0x7FC1;
}

static void halves_bf16(const call *c) { halves(c, 2, TYPE_BF16); }
static void halves_f16(const call *c) { halves(c, 2, TYPE_F16); }

static void rest_is_same(const call *c, worst_t *w, size_t used)
{
    for (size_t i = used; i < c->n; i++)
        note(w, i, (double)out(c, 0)[i], (double)in(c, 0)[i], 0);
}

/* ---- Logits ------------------------------------------------------------------------------ */

static const size_t score_shapes[][2] = { /* rows, dim */
                                          { 1, 64 }, { 1, 5 }, { 2, 3 },  { 3, 7 }, { 4, 2 },
                                          { 7, 1 },  { 8, 9 }, { 17, 6 }, { 5, 33 }
};
enum { SCORE_VARIANTS = COUNT(score_shapes) };

static cache_scores scores_of(const call *c)
{
    const size_t rows = score_shapes[c->variant][0], dim = score_shapes[c->variant][1];
    size_t groups = least(c->n / dim / GROUP, c->n / rows / GROUP);
    if (rows * dim > c->n) groups = 0;
    return (cache_scores){ rows,      groups,         dim,     in(c, 1), dim, c->in[2],
                           out(c, 0), groups * GROUP };
}

static void check_scores(const call *c, worst_t *w, int type)
{
    const cache_scores a = scores_of(c);
    for (size_t r = 0; r < a.rows; r++)
        for (size_t j = 0; j < a.lds; j++) {
            double sum = 0, size = 0;
            for (size_t d = 0; d < a.dim; d++) {
                const size_t at = (j / GROUP * a.dim + d) * GROUP + j % GROUP;
                const double x = (double)a.q[r * a.dim + d] * element(a.k, type, at);
                sum += x, size += fabs(x);
            }
            note(w, r * a.lds + j, (double)a.s[r * a.lds + j], sum, size);
        }
    rest_is_same(c, w, a.rows * a.lds);
}

#define SCORES(name, type, bytes, ...)                                                         \
    static void run_##name(const kernel_table *k, call *c)                                     \
    {                                                                                          \
        const cache_scores a = scores_of(c);                                                   \
        k->name(&a);                                                                           \
    }                                                                                          \
    static void check_##name(const call *c, worst_t *w) { check_scores(c, w, type); }          \
    SPEC(name, .variants = SCORE_VARIANTS, .in = { F4, F4, bytes }, .out = { F4 },             \
         .update = 1, __VA_ARGS__)

SCORES(cache_scores_f32, TYPE_F32, F4, .special = { A_NAN, A_NAN | ZEROS, A_NAN | ZEROS });
SCORES(cache_scores_bf16, TYPE_BF16, F2, .special = { A_NAN, A_NAN | ZEROS },
       .prepare = halves_bf16);
SCORES(cache_scores_f16, TYPE_F16, F2, .special = { A_NAN, A_NAN | ZEROS },
       .prepare = halves_f16);

/* ---- Softmax ----------------------------------------------------------------------------- */

enum { MOST = MAX_N / PAD + 1 };
static struct row_arrays {
    float ref[MOST], factor[MOST], top[MOST];
    double sum[MOST];
    bool rose;
} before, after;

static size_t width_of(const call *c) { return c->variant % 2 ? 64 : 16; }

static void run_cache_softmax(const kernel_table *k, call *c)
{
    const size_t n = width_of(c);
    for (size_t i = 0; i < MOST; i++) {
        before.ref[i] = c->variant < 2 ? -INFINITY : c->variant < 4 ? (float)(i % 60) - 30 : 40;
        before.sum[i] = c->variant < 2 ? 0 : 2.5;
        before.top[i] = -INFINITY;
    }
    after = before;
    const cache_state state = { after.ref, after.factor, after.sum,
                                c->variant % 3 ? after.top : NULL };
    after.rose = k->cache_softmax(c->n / n, n, out(c, 0), n, &state);
}

static void check_row(const call *c, worst_t *w, size_t r)
{
    const size_t n = width_of(c);
    const float *s = in(c, 0) + r * n, *got = out(c, 0) + r * n;
    const double old = (double)before.ref[r], ref = (double)after.ref[r];
    double max = -INFINITY, top = -INFINITY, sum = 0, size = 1e-30;
    bool bad = false;
    for (size_t j = 0; j < n; j++) {
        bad |= isnan(s[j]) || s[j] == INFINITY;
        if (s[j] > (float)max) max = (double)s[j];
        if (s[j] > -INFINITY && fabs((double)s[j]) > top) top = fabs((double)s[j]);
    }
    if (c->variant % 3) note(w, r, (double)after.top[r], top, 0);
    if (bad) {
        note(w, r, after.sum[r], NAN, 1);
        return;
    }
    note(w, r, ref, max > old + 20 ? max : old, 0);
    const double factor = ref == old ? 1 : exp(old - ref);
    const double unsure = ref == old ? 1 : 1 + (ref - old) / 4;
    note(w, r, (double)after.factor[r], factor, factor * unsure);
    if (!after.rose) note(w, r, ref, old, 0);
    for (size_t j = 0; j < n; j++) {
        const double x = (double)s[j], p = x == -INFINITY ? 0 : exp(x - ref);
        const double error = x == -INFINITY ? 0 : p * (1 + fabs(x - ref) / 4);
        note(w, r * n + j, (double)got[j], p, error);
        sum += p, size += error;
    }
    const double kept = factor > 0 ? before.sum[r] * factor : 0;
    note(w, r, after.sum[r], sum + kept, size + (kept > 0 ? kept * unsure : 0));
}

static void check_cache_softmax(const call *c, worst_t *w)
{
    const size_t n = width_of(c);
    for (size_t r = 0; r < c->n / n; r++) check_row(c, w, r);
    rest_is_same(c, w, c->n / n * n);
}

static void wide_logits(const call *c)
{
    static const float spread[] = { 1, 10, 3000 };
    for (size_t i = 0; i < c->n; i++) {
        ((float *)c->in[0])[i] *= spread[c->n % 3];
        if (c->n % 5 == 4 && i % 3 == 1) ((float *)c->in[0])[i] = -INFINITY;
    }
}

SPEC(cache_softmax, .variants = 6, .in = { F4 }, .out = { F4 }, .update = 1,
     .special = { MINUS_INF | A_NAN | PLUS_INF | ZEROS }, .prepare = wide_logits);

/* ---- Values ------------------------------------------------------------------------------ */

static const size_t value_shapes[][2] = { /* rows, dim */
                                          { 1, 64 },  { 1, 5 }, { 2, 17 }, { 3, 31 },
                                          { 4, 100 }, { 7, 1 }, { 8, 16 }, { 5, 80 }
};
enum { VALUE_VARIANTS = 2 * COUNT(value_shapes) }; /* odd: zeros are skipped */

static cache_values values_of(const call *c)
{
    const size_t *shape = value_shapes[c->variant / 2], rows = shape[0], dim = shape[1];
    size_t keys = c->n < 15 ? 0 : least((c->n - 15) / dim, c->n / rows);
    if (keys > 64) keys = 64; /* a tile: sums are of float32 */
    if (rows * padded(dim) > c->n) keys = 0;
    return (cache_values){ .rows = keys ? rows : 0,
                           .keys = keys,
                           .dim = dim,
                           .p = in(c, 1),
                           .ldp = keys,
                           .v = c->in[2],
                           .ldv = dim,
                           .o = out(c, 0),
                           .ldo = padded(dim),
                           .skip_zeros = c->variant % 2 };
}

static void check_values(const call *c, worst_t *w, int type)
{
    const cache_values a = values_of(c);
    for (size_t r = 0; r < a.rows; r++)
        for (size_t d = 0; d < a.dim; d++) {
            double sum = (double)in(c, 0)[r * a.ldo + d], size = fabs(sum);
            for (size_t j = 0; j < a.keys; j++) {
                const double p = (double)a.p[r * a.ldp + j];
                if (a.skip_zeros && p == 0) continue;
                const double x = p * element(a.v, type, j * a.dim + d);
                sum += x, size += fabs(x);
            }
            note(w, r * a.ldo + d, (double)a.o[r * a.ldo + d], sum, size);
        }
    rest_is_same(c, w, a.rows * a.ldo);
}

static void some_zeros(const call *c)
{
    float *p = c->in[1];
    for (size_t i = 0; i < c->n; i++)
        if (i % 5 == 3) p[i] = 0;
}
static void zeros_bf16(const call *c) { some_zeros(c), halves_bf16(c); }
static void zeros_f16(const call *c) { some_zeros(c), halves_f16(c); }

#define VALUES(name, type, bytes, ...)                                                         \
    static void run_##name(const kernel_table *k, call *c)                                     \
    {                                                                                          \
        const cache_values a = values_of(c);                                                   \
        k->name(&a);                                                                           \
    }                                                                                          \
    static void check_##name(const call *c, worst_t *w) { check_values(c, w, type); }          \
    SPEC(name, .variants = VALUE_VARIANTS, .in = { F4, F4, bytes }, .out = { F4 },             \
         .update = 1, __VA_ARGS__)

VALUES(cache_values_f32, TYPE_F32, F4, .special = { A_NAN, A_NAN | ZEROS, A_NAN | PLUS_INF },
       .prepare = some_zeros);
VALUES(cache_values_bf16, TYPE_BF16, F2, .special = { A_NAN, A_NAN | ZEROS },
       .prepare = zeros_bf16);
VALUES(cache_values_f16, TYPE_F16, F2, .special = { A_NAN, A_NAN | ZEROS },
       .prepare = zeros_f16);

KERNEL_TESTS(CACHE)
