/*
 * Tiles: the n elements of an array are a matrix of as many rows as they make. What is past it
 * must stay as it was.
 */
#include "kernel_spec.h"

#include "core/rng.h"

static size_t root(size_t n) { return (size_t)sqrt((double)n); }

/* Elements from `used` on are those that output 0 started with. */
static void note_rest(const call *c, worst_t *w, int j, size_t used)
{
    for (size_t i = used; i < c->n; i++)
        note(w, i, (double)out(c, j)[i], (double)in(c, j)[i], 0);
}

/* ---- Products ---------------------------------------------------------------------------- */

/* Variants: A turned, C added to, zeros kept; and three shapes. */
static tile_product product_of(const call *c)
{
    const size_t r = root(c->n), shape = (size_t)c->variant / 8;
    tile_product t = { .m = r, .n = r, .k = r };
    if (shape == 1) t.n = r - r % 16, t.m = r / 2;
    if (shape == 2)
        t.n = c->n < 48 ? c->n : 48, t.m = t.n ? c->n / t.n : 0, t.k = t.m < 7 ? t.m : 7;
    const bool turned = c->variant & 1;
    t.a = in(c, 1), t.b = in(c, 2), t.c = out(c, 0);
    t.row = turned ? 1 : (ptrdiff_t)t.k, t.col = turned ? (ptrdiff_t)t.m : 1;
    t.ldb = t.ldc = (ptrdiff_t)t.n;
    t.add = c->variant & 2, t.keep_zeros = c->variant & 4;
    return t;
}

static void some_zeros(const call *c)
{
    for (size_t i = 0; i < c->n; i++)
        for (int j = 1; j < 3; j++)
            if (uniform() < 0.1) ((float *)c->in[j])[i] = 0;
}

static void run_tile_gemm(const kernel_table *k, call *c)
{
    const tile_product t = product_of(c);
    k->tile_gemm(&t);
}

static void check_tile_gemm(const call *c, worst_t *w)
{
    const tile_product t = product_of(c);
    for (size_t i = 0; i < t.m; i++)
        for (size_t j = 0; j < t.n; j++) {
            double sum = t.add ? (double)in(c, 0)[i * t.n + j] : 0, size = fabs(sum);
            for (size_t p = 0; p < t.k; p++) {
                const double a = (double)t.a[(ptrdiff_t)i * t.row + (ptrdiff_t)p * t.col];
                const double b = (double)t.b[p * t.n + j];
                if (t.keep_zeros && (a == 0 || b == 0)) continue;
                sum += a * b, size += fabs(a * b);
            }
            note(w, i * t.n + j, (double)t.c[i * t.n + j], sum, size);
        }
    note_rest(c, w, 0, t.m * t.n);
}

SPEC(tile_gemm, .variants = 24, .in = { F4, F4, F4 }, .out = { F4 }, .update = 1,
     .special = { A_NAN, A_NAN | ZEROS | PLUS_INF, A_NAN | ZEROS | MINUS_INF },
     .prepare = some_zeros);

static void run_finite(const kernel_table *k, call *c)
{
    c->got[0] = k->finite(c->n, in(c, 0));
}

static void check_finite(const call *c, worst_t *w)
{
    bool finite = true;
    for (size_t i = 0; i < c->n; i++) finite &= isfinite(in(c, 0)[i]) != 0;
    note(w, 0, c->got[0], finite, 0);
}

SPEC(finite, .variants = 1, .in = { F4 }, .special = { ANY_VALUE });

/* Rows by variant: 1, the root, all but one column. */
static size_t turned_rows(const call *c)
{
    const size_t r = c->variant == 0 ? 1 : c->variant == 1 ? root(c->n) : c->n / 3;
    return r ? r : 1;
}

static void run_transpose(const kernel_table *k, call *c)
{
    const size_t m = turned_rows(c), n = c->n / m;
    k->transpose(m, n, in(c, 0), (ptrdiff_t)n, -0.75f, out(c, 0), (ptrdiff_t)m);
}

static void check_transpose(const call *c, worst_t *w)
{
    const size_t m = turned_rows(c), n = c->n / m;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const double want = -0.75 * (double)in(c, 0)[i * n + j];
            note(w, j * m + i, (double)out(c, 0)[j * m + i], want, fabs(want));
        }
    note_rest(c, w, 0, m * n);
}

SPEC(transpose, .variants = 3, .in = { F4 }, .out = { F4 }, .update = 1,
     .special = { ANY_VALUE });

/* ---- Tiles of logits --------------------------------------------------------------------- */

/* 16, 48 or 64 lanes. */
static size_t lanes_of(const call *c)
{
    static const size_t lanes[] = { 16, 48, 64 };
    return lanes[c->variant % 3];
}

static const int64_t bands[][3] = { /* first, low, high */
                                    { 0, 0, (int64_t)1 << 60 },
                                    { -5, 0, 3 },
                                    { 7, -2, 2 },
                                    { -100, -((int64_t)1 << 60), 90 },
                                    { 40, 0, 0 }
};

static void run_tile_band(const kernel_table *k, call *c)
{
    const size_t n = lanes_of(c);
    const int64_t *b = bands[(size_t)c->variant % COUNT(bands)];
    k->tile_band(c->n / n, n, out(c, 0), n, b[0], b[1], b[2]);
}

static void check_tile_band(const call *c, worst_t *w)
{
    const size_t n = lanes_of(c), used = c->n / n * n;
    const int64_t *b = bands[(size_t)c->variant % COUNT(bands)];
    for (size_t i = 0; i < used; i++) {
        const int64_t apart = (int64_t)(i % n) - b[0] - (int64_t)(i / n);
        const bool seen = b[1] <= apart && apart <= b[2];
        note(w, i, (double)out(c, 0)[i], seen ? (double)in(c, 0)[i] : -INFINITY, 0);
    }
    note_rest(c, w, 0, used);
}

SPEC(tile_band, .variants = 15, .in = { F4 }, .out = { F4 }, .update = 1, .special = { A_NAN });

static void run_tile_alibi(const kernel_table *k, call *c)
{
    const size_t n = lanes_of(c);
    k->tile_alibi(c->n / n, n, out(c, 0), n, 20, 0.3f);
}

static void check_tile_alibi(const call *c, worst_t *w)
{
    const size_t n = lanes_of(c), used = c->n / n * n;
    for (size_t i = 0; i < used; i++) {
        const double apart = fabs((double)(i % n) - 20 - (double)(i / n));
        const double s = (double)in(c, 0)[i], down = (double)0.3f * apart;
        note(w, i, (double)out(c, 0)[i], s - down, fabs(s) + down);
    }
    note_rest(c, w, 0, used);
}

SPEC(tile_alibi, .variants = 3, .in = { F4 }, .out = { F4 }, .update = 1,
     .special = { A_NAN | MINUS_INF });

/* What the lanes held before the call, and after it. */
static struct lane_arrays {
    _Alignas(64) float ref[64], sum[64], lost[64], factor[64], top[64];
    bool rose;
} lanes_before, lanes_after;

static void run_tile_softmax(const kernel_table *k, call *c)
{
    const size_t n = lanes_of(c);
    for (size_t i = 0; i < n; i++) {
        const bool fresh = c->variant < 3;
        lanes_before.ref[i] = fresh ? -INFINITY : c->variant < 6 ? (float)i - 30 : 40.0f;
        lanes_before.sum[i] = fresh ? 0 : 2.5f;
        lanes_before.lost[i] = 0, lanes_before.top[i] = -INFINITY;
    }
    lanes_after = lanes_before;
    const tile_lanes state = { lanes_after.ref, lanes_after.sum, lanes_after.lost,
                               lanes_after.factor, c->variant % 2 ? lanes_after.top : NULL };
    lanes_after.rose = k->tile_softmax(c->n / n, n, out(c, 0), n, &state);
}

static void check_lane(const call *c, worst_t *w, size_t i)
{
    const size_t n = lanes_of(c), m = c->n / n;
    const double old = (double)lanes_before.ref[i], ref = (double)lanes_after.ref[i];
    double max = -INFINITY, top = -INFINITY, sum = 0, size = 0;
    bool bad = false;
    for (size_t j = 0; j < m; j++) {
        const double x = (double)in(c, 0)[j * n + i];
        bad |= isnan(x) || x == INFINITY;
        if (x > max) max = x;
        if (x > -INFINITY && fabs(x) > top) top = fabs(x);
    }
    if (c->variant % 2) note(w, i, (double)lanes_after.top[i], top, 0);
    if (bad) {
        note(w, i, (double)lanes_after.sum[i], NAN, 1);
        return;
    }
    note(w, i, ref, max > old + 20 ? max : old, 0);
    /* Differences are rounded before their exponentials are taken. */
    const double factor = ref == old ? 1 : exp(old - ref);
    const double unsure = ref == old ? 1 : 1 + (ref - old) / 4;
    if (lanes_after.rose)
        note(w, i, (double)lanes_after.factor[i], factor, factor > 0 ? factor * unsure : 0);
    else
        note(w, i, ref, old, 0);
    for (size_t j = 0; j < m; j++) {
        const double x = (double)in(c, 0)[j * n + i], p = x == -INFINITY ? 0 : exp(x - ref);
        const double error = x == -INFINITY ? 0 : p * (1 + fabs(x - ref) / 4);
        note(w, j * n + i, (double)out(c, 0)[j * n + i], p, error);
        sum += p, size += error;
    }
    const double before = factor > 0 ? (double)lanes_before.sum[i] * factor : 0;
    sum += before, size += before > 0 ? before * unsure : 0;
    note(w, i, (double)lanes_after.sum[i] - (double)lanes_after.lost[i], sum, size + 1e-30);
}

static void check_tile_softmax(const call *c, worst_t *w)
{
    const size_t n = lanes_of(c);
    for (size_t i = 0; i < n; i++) check_lane(c, w, i);
    note_rest(c, w, 0, c->n / n * n);
}

static void wide_logits(const call *c)
{
    static const float spread[] = { 1, 10, 3000 };
    for (size_t i = 0; i < c->n; i++) {
        ((float *)c->in[0])[i] *= spread[c->n % 3];
        if (c->n % 5 == 4 && i % 3 == 1) ((float *)c->in[0])[i] = -INFINITY;
    }
}

SPEC(tile_softmax, .variants = 9, .in = { F4 }, .out = { F4 }, .update = 1,
     .special = { MINUS_INF | A_NAN | PLUS_INF | ZEROS }, .prepare = wide_logits);

static void run_tile_finish(const kernel_table *k, call *c)
{
    const tile_lanes state = { .ref = c->in[1], .sum = c->in[0] };
    k->tile_finish(c->n / 16 * 16, &state, out(c, 0), out(c, 1));
}

static void check_tile_finish(const call *c, worst_t *w)
{
    for (size_t i = 0; i < c->n / 16 * 16; i++) {
        const double sum = (double)in(c, 0)[i], ref = (double)in(c, 1)[i];
        const double lse = sum == 0 ? -INFINITY : ref + log(sum);
        note(w, i, (double)out(c, 0)[i], sum == 0 ? 0 : 1 / sum, 1 / sum);
        note(w, i, (double)out(c, 1)[i], lse, fabs(ref) + fabs(log(sum)) + 1e-7);
    }
}

static void sums_of_exp(const call *c)
{
    for (size_t i = 0; i < c->n; i++) ((float *)c->in[0])[i] = expf(((float *)c->in[0])[i]);
}

SPEC(tile_finish, .variants = 1, .in = { F4, F4 }, .out = { F4, F4 },
     .special = { A_NAN | ZEROS }, .prepare = sums_of_exp);

static void run_tile_scale(const kernel_table *k, call *c)
{
    const size_t n = lanes_of(c);
    if (c->n >= n) k->tile_scale(c->n / n, n, in(c, 1), out(c, 0), n);
}

static void check_tile_scale(const call *c, worst_t *w)
{
    const size_t n = lanes_of(c), used = c->n / n * n;
    for (size_t i = 0; i < used; i++) {
        const double want = (double)in(c, 0)[i] * (double)in(c, 1)[i % n];
        note(w, i, (double)out(c, 0)[i], want, fabs(want));
    }
    note_rest(c, w, 0, used);
}

SPEC(tile_scale, .variants = 3, .in = { F4, F4 }, .out = { F4 }, .update = 1,
     .special = { A_NAN, A_NAN });

static void run_tile_grad(const kernel_table *k, call *c)
{
    const size_t n = lanes_of(c);
    if (c->n >= n) k->tile_grad(c->n / n, n, out(c, 0), out(c, 1), n, in(c, 2), in(c, 3));
}

static void check_tile_grad(const call *c, worst_t *w)
{
    const size_t n = lanes_of(c), used = c->n / n * n;
    for (size_t i = 0; i < used; i++) {
        const double s = (double)in(c, 0)[i], l = (double)in(c, 2)[i % n];
        const double d = (double)in(c, 1)[i], delta = (double)in(c, 3)[i % n];
        const double p = s == -INFINITY || l == -INFINITY ? 0 : exp(s - l);
        const double far = p == 0 ? 0 : 1 + fabs(s - l) / 4;
        const bool none = out(c, 0)[i] == 0;
        note(w, i, (double)out(c, 0)[i], p, p * far);
        note(w, i, (double)out(c, 1)[i], none ? 0 : p * (d - delta),
             p * (fabs(d) + fabs(delta)) * far);
    }
    note_rest(c, w, 0, used);
    note_rest(c, w, 1, used);
}

/* Logits are below the log-sum-exp. */
static void below_lse(const call *c)
{
    const size_t n = lanes_of(c);
    for (size_t i = 0; i < c->n; i++) {
        float *s = (float *)c->in[0] + i;
        *s = ((float *)c->in[2])[i % n] - fabsf(*s) * (c->n % 2 ? 1.0f : 10.0f);
        if (c->n % 5 == 4 && i % 3 == 1) *s = -INFINITY;
    }
}

SPEC(tile_grad, .variants = 3, .in = { F4, F4, F4, F4 }, .out = { F4, F4 }, .update = 2,
     .special = { MINUS_INF | A_NAN, A_NAN | ZEROS, A_NAN | MINUS_INF, A_NAN },
     .prepare = below_lse);

static const uint64_t keep_first[] = { 0, 0xFFFFFFFEu, 123456789012345u };

static void run_tile_keep(const kernel_table *k, call *c)
{
    const size_t n = c->n / 64 * 16;
    k->tile_keep(n, 77, keep_first[c->variant], 3, 0x40000000u, 1.25f, out(c, 0), n);
}

static void check_tile_keep(const call *c, worst_t *w)
{
    const size_t n = c->n / 64 * 16;
    for (size_t i = 0; i < 4 * n; i++) {
        const uint64_t block = keep_first[c->variant] + i % n * 3;
        const uint64_t number = rng_number(77, block * 2 + i / n / 2);
        const uint32_t word = (uint32_t)(i / n % 2 ? number >> 32 : number);
        note(w, i, (double)out(c, 0)[i], word < 0x40000000u ? 0 : 1.25, 0);
    }
    note_rest(c, w, 0, 4 * n);
}

SPEC(tile_keep, .variants = 3, .in = { F4 }, .out = { F4 }, .update = 1);

KERNEL_TESTS(TILE)
