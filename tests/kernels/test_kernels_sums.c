/*
 * Sums and searches.
 */
#include "kernel_spec.h"

static void run_max(const kernel_table *k, call *c)
{
    c->got[0] = (double)k->max(c->n, in(c, 0));
}

static void check_max(const call *c, worst_t *w)
{
    if (has_nan(in(c, 0), c->n)) return;
    note(w, 0, c->got[0], (double)max_of(in(c, 0), c->n), 0);
}

SPEC(max, .variants = 1, .in = { F4 }, .special = { ANY_VALUE });

/* What is looked for: something of the row, at several places; or of no row. */
static float sought(const call *c)
{
    const float *x = pristine[0];
    if (c->variant == 3 || c->n == 0) return 1e30f;
    return x[c->variant == 0 ? 0 : c->variant == 1 ? c->n - 1 : c->n / 2];
}

static void run_find(const kernel_table *k, call *c)
{
    c->got[0] = (double)k->find(c->n, in(c, 0), sought(c));
}

static void check_find(const call *c, worst_t *w)
{
    const float value = sought(c);
    size_t i = 0;
    while (i < c->n && in(c, 0)[i] != value) i++;
    note(w, 0, c->got[0], (double)i, 0);
}

static void few_values(const call *c) /* so that the first of several is asked for */
{
    float *x = c->in[0];
    for (size_t i = 0; i < c->n; i++) x[i] = rintf(x[i] * 20) + 1000;
}

SPEC(find, .variants = 4, .in = { F4 }, .special = { ANY_VALUE & ~TINY },
     .prepare = few_values);

static const float shifts[] = { 0.0f, 1.5f };

static void run_dot(const kernel_table *k, call *c)
{
    c->got[0] = k->dot(c->n, in(c, 0), in(c, 1), shifts[c->variant]);
}

static void check_dot(const call *c, worst_t *w)
{
    double sum = 0, scale = 0;
    for (size_t i = 0; i < c->n; i++) {
        double x = (double)in(c, 0)[i], y = (double)in(c, 1)[i], s = (double)shifts[c->variant];
        if (fabs(x) < (double)FLT_MIN) continue; /* read as 0 */
        sum += x * (y - s), scale += fabs(x) * (fabs(y) + fabs(s));
    }
    if (scale > 3e38 && !isnan(sum)) return; /* overflows within a block */
    note(w, 0, c->got[0], sum, scale + (double)c->n * FLUSHED);
}

SPEC(dot, .variants = 2, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .prepare = probabilities);

/* Above one of them, or infinity of either sign. */
static float bar_of(const call *c)
{
    const float bars[] = { c->n ? pristine[0][c->n / 2] : 0, -INFINITY, INFINITY, 0 };
    return bars[c->variant];
}

static void run_count(const kernel_table *k, call *c)
{
    c->got[0] = (double)k->count(c->n, in(c, 0), bar_of(c));
}

static void run_above(const kernel_table *k, call *c)
{
    c->got[0] = (double)k->above(c->n, in(c, 0), bar_of(c), out(c, 0));
}

static void check_count(const call *c, worst_t *w)
{
    double count = 0;
    for (size_t i = 0; i < c->n; i++) count += flushed(in(c, 0)[i]) > flushed(bar_of(c));
    note(w, 0, c->got[0], count, 0);
}

static void check_above(const call *c, worst_t *w)
{
    size_t count = 0;
    for (size_t i = 0; i < c->n; i++)
        if (flushed(in(c, 0)[i]) > flushed(bar_of(c)))
            note(w, i, (double)out(c, 0)[count++], (double)in(c, 0)[i], 0);
    note(w, c->n, c->got[0], (double)count, 0);
}

SPEC(count, .variants = 4, .in = { F4 }, .special = { ANY_VALUE });
SPEC(above, .variants = 4, .in = { F4 }, .out = { F4 }, .special = { ANY_VALUE },
     .alias = { 1 });

static float limit_of(const call *c) { return c->variant ? INFINITY : 1.0f; }

static void run_within(const kernel_table *k, call *c)
{
    c->got[1] = k->within(c->n, in(c, 0), limit_of(c), &c->got[0]);
}

static void check_within(const call *c, worst_t *w)
{
    double sum = 0, scale = 0;
    bool inside = true;
    for (size_t i = 0; i < c->n; i++) {
        double x = flushed(in(c, 0)[i]);
        sum += x, scale += fabs(x);
        if (!(x >= 0 && x <= (double)limit_of(c))) inside = false;
    }
    if (!(scale > 3e38) || isnan(sum)) note(w, 0, c->got[0], sum, scale);
    note(w, 1, c->got[1], inside, 0);
}

SPEC(within, .variants = 2, .in = { F4 }, .special = { ANY_VALUE }, .prepare = probabilities);

static void run_live_sums(const kernel_table *k, call *c)
{
    const float *w = c->variant & 1 ? in(c, 1) : NULL;
    k->live_sums(c->n, in(c, 0), w, shifts[c->variant / 2], c->got);
}

static void check_live_sums(const call *c, worst_t *w)
{
    double sum[3] = { 0 }, scale[2] = { 0 };
    for (size_t i = 0; i < c->n; i++) {
        double x = (double)in(c, 0)[i], u = c->variant & 1 ? (double)in(c, 1)[i] : 1;
        double s = (double)shifts[c->variant / 2];
        if (x == -INFINITY) continue;
        if (fabs(u) < (double)FLT_MIN) u = 0;
        sum[0] += u == 0 ? 0 : u * (x - s),
            scale[0] += u == 0 ? 0 : fabs(u) * (fabs(x) + fabs(s));
        sum[1] += u, scale[1] += fabs(u);
        sum[2]++;
    }
    for (size_t i = 0; i < 2; i++)
        if (!(scale[i] > 3e38) || isnan(sum[i]))
            note(w, i, c->got[i], sum[i], scale[i] + (double)c->n * FLUSHED);
    note(w, 2, c->got[2], sum[2], 0);
}

SPEC(live_sums, .variants = 4, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE },
     .prepare = log_probabilities);

static void run_moments(const kernel_table *k, call *c) { k->moments(c->n, in(c, 0), c->got); }

/* Entries near each other, with an offset, an outlier; tiny or huge. */
static void offsets(const call *c)
{
    static const double scale[] = { 1, 1e-3, 1e-25, 1e30, 1 }, offset[] = { 0, 1000, 0, 0, 1 };
    float *x = c->in[0];
    for (size_t i = 0; i < c->n; i++)
        x[i] = (float)(offset[c->variant] + scale[c->variant] * (double)x[i]);
    if (c->variant == 4 && c->n > 2) x[0] = 1e4f;
}

static void check_moments(const call *c, worst_t *w)
{
    static long double x[MAX_N];
    long double mean = 0, spread = 0, most = 0;
    for (size_t i = 0; i < c->n; i++) {
        x[i] = (long double)in(c, 0)[i];
        if (fabsl(x[i]) < (long double)FLT_MIN) x[i] = 0; /* read as 0 */
        mean += x[i] - x[0];
        if (fabsl(x[i]) > most) most = fabsl(x[i]);
    }
    if (c->n) mean = x[0] + mean / (long double)c->n;
    for (size_t i = 0; i < c->n; i++) spread += (x[i] - mean) * (x[i] - mean);
    if (!(fabsl(spread) <= 1e300L)) spread = NAN; /* an infinity */
    note(w, 1, c->got[1], (double)spread, (double)spread + 1e-30 * (double)(most * most));
    if (isfinite(c->got[1])) note(w, 0, c->got[0], (double)mean, (double)most + 1e-300);
}

SPEC(moments, .variants = 5, .in = { F4 }, .special = { ANY_VALUE }, .prepare = offsets);

static void run_dots(const kernel_table *k, call *c)
{
    k->dots(c->n, in(c, 0), in(c, 1), c->got);
}

static void check_dots(const call *c, worst_t *w)
{
    long double s[3] = { 0 }, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        double x = flushed(in(c, 0)[i]), y = flushed(in(c, 1)[i]);
        s[0] += x * y, s[1] += x * x, s[2] += y * y;
        size += fabs(x * y);
    }
    note(w, 0, c->got[0], (double)s[0], (double)size + 1e-60);
    note(w, 1, c->got[1], (double)s[1], (double)s[1] + 1e-60);
    note(w, 2, c->got[2], (double)s[2], (double)s[2] + 1e-60);
}

SPEC(dots, .variants = 1, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE });

/* Signs that differ from word to word. */
static double sign_at(size_t i)
{
    const uint64_t word = 0x9E3779B97F4A7C15u * (i / 64 + 1);
    return word >> (i % 64) & 1 ? 1 : -1;
}

static void run_sign_dot(const kernel_table *k, call *c)
{
    const size_t words = (c->n + 63) / 64;
    uint64_t *signs = malloc((words + 1) * sizeof *signs);
    assert_non_null(signs);
    for (size_t i = 0; i < words; i++) signs[i] = 0x9E3779B97F4A7C15u * (i + 1);
    c->got[0] = k->sign_dot(c->n, signs, in(c, 0), in(c, 1));
    free(signs);
}

static void check_sign_dot(const call *c, worst_t *w)
{
    long double sum = 0, size = 0;
    for (size_t i = 0; i < c->n; i++) {
        const double x = flushed(in(c, 0)[i]), y = flushed(in(c, 1)[i]);
        sum += sign_at(i) * (x - y), size += fabs(x) + fabs(y);
    }
    note(w, 0, c->got[0], (double)sum, (double)size + 1e-60);
}

SPEC(sign_dot, .variants = 1, .in = { F4, F4 }, .special = { ANY_VALUE, ANY_VALUE });

/* n floats as rows: so many of them, so many chosen. */
static const struct {
    size_t rows;
    int k;
} selections[] = { { 1, 1 }, { 1, 3 }, { 2, 2 }, { 17, 4 }, { 5, 8 }, { 3, 16 }, { 19, 2 } };

static bool selection(const call *c, size_t *rows, size_t *cols, int *k)
{
    *rows = selections[c->variant].rows, *k = selections[c->variant].k;
    *cols = c->n / *rows;
    if (*cols < (size_t)*k) *k = (int)*cols;
    return *k > 0;
}

static void run_select_top(const kernel_table *k, call *c)
{
    size_t rows, cols;
    int most;
    if (!selection(c, &rows, &cols, &most)) return;
    k->select_top(rows, cols, in(c, 0), cols, most, out(c, 0), c->out[1]);
}

static void check_select_top(const call *c, worst_t *w)
{
    size_t rows, cols;
    int most;
    if (!selection(c, &rows, &cols, &most)) return;
    for (size_t r = 0; r < rows; r++) {
        const float *x = in(c, 0) + r * cols, *value = out(c, 0) + r * (size_t)most;
        const int32_t *index = (const int32_t *)c->out[1] + r * (size_t)most;
        const bool nan = has_nan(x, cols);
        bool taken[MAX_N] = { false };
        for (int j = 0; j < most; j++) {
            size_t best = cols;
            for (size_t i = 0; i < cols; i++)
                if (!taken[i] && (best == cols || x[i] > x[best])) best = i;
            if (nan) best = (size_t)j;
            taken[best] = true;
            note(w, (size_t)j, index[j], (double)best, 0);
            note(w, (size_t)j, (double)value[j], nan ? NAN : (double)x[best], 0);
        }
    }
}

SPEC(select_top, .variants = 7, .in = { F4 }, .out = { F4, F4 },
     .special = { ANY_VALUE & ~TINY }, .prepare = few_values);

/* Some scores far apart, some near each other, some 0. */
static const rank_arg rank_args[] = { { 0.9, 0.07, 0, -0.5 },
                                      { 1e5, 1e-9, 1000, 0 },
                                      { 0, 0, 0, 0 } };

static void run_rank_keys(const kernel_table *k, call *c)
{
    uint32_t range[2] = { UINT32_MAX, 0 };
    k->rank_keys(c->n, in(c, 0), in(c, 1), &rank_args[c->variant], c->out[0], range);
    c->got[0] = range[0], c->got[1] = range[1];
}

static void check_rank_keys(const call *c, worst_t *w)
{
    const uint32_t *keys = c->out[0];
    uint32_t least = UINT32_MAX, most = 0;
    for (size_t i = 0; i < c->n; i++) {
        double x = flushed(in(c, 0)[i]), v = flushed(in(c, 1)[i]), s;
        const rank_arg *a = &rank_args[c->variant];
        s = v * a->weight + ((x - a->base) * a->slope + a->offset);
        if (x == -(double)INFINITY) s = -(double)INFINITY;
        int64_t bits = 0;
        float f = (float)s;
        if (fabsf(f) >= FLT_MIN) memcpy(&bits, &f, sizeof f);
        bool below = bits >> 31 & 1;
        note(w, i, keys[i], below ? (double)bits : (double)(INT32_MAX - bits), 0);
        if (keys[i] < least) least = keys[i];
        if (keys[i] > most) most = keys[i];
    }
    note(w, 0, c->got[0], least, 0);
    note(w, 1, c->got[1], most, 0);
}

SPEC(rank_keys, .variants = 3, .in = { F4, F4 }, .out = { F4 },
     .special = { MINUS_INF | ZEROS | TINY, ZEROS | TINY }, .prepare = probabilities);

/* n numbers as rows; odd variants have them as double, ends past the last row unread. Results
   are doubles, kept here from the run to the check. */
static const size_t row_counts[] = { 1, 2, 3, 5, 19 };
static double rows_result[MAX_N], rows_double[MAX_N], rows_factor[MAX_N];

static wide_rows rows_of_call(const call *c)
{
    const size_t rows = row_counts[c->variant / 2], cols = c->n / rows;
    wide_rows a = { rows, cols, in(c, 0), (ptrdiff_t)cols, c->variant % 2 };
    for (size_t i = 0; i < c->n; i++) {
        rows_double[i] = (double)in(c, 0)[i] * (1 + 0x1p-40);
        rows_factor[i] = (double)in(c, 1)[i];
        rows_result[i] = (double)in(c, 1)[c->n - 1 - i];
    }
    if (a.wide) a.a = rows_double;
    return a;
}

static double rows_entry(const call *c, size_t i)
{
    const double x = flushed(in(c, 0)[i]);
    return c->variant % 2 ? x * (1 + 0x1p-40) : x;
}

static void run_rows_dot(const kernel_table *k, call *c)
{
    const wide_rows a = rows_of_call(c);
    if (c->n >= a.rows) k->rows_dot(&a, rows_factor, rows_result);
}

static void check_rows_dot(const call *c, worst_t *w)
{
    const size_t rows = row_counts[c->variant / 2], cols = c->n / rows;
    for (size_t r = 0; r < rows && c->n >= rows; r++) {
        long double sum = 0, size = 1e-60L;
        for (size_t j = 0; j < cols; j++) {
            const double v = rows_entry(c, r * cols + j) * flushed(in(c, 1)[j]);
            sum += v, size += fabs(v);
        }
        note(w, r, rows_result[r], (double)sum, (double)size);
    }
}

SPEC(rows_dot, .variants = 2 * COUNT(row_counts), .in = { F4, F4 },
     .special = { ANY_VALUE, ANY_VALUE });

static void run_rows_sum(const kernel_table *k, call *c)
{
    const wide_rows a = rows_of_call(c);
    k->rows_sum(&a, rows_factor, rows_result);
}

/* y starts as input 1 backwards. */
static void check_rows_sum(const call *c, worst_t *w)
{
    const size_t rows = row_counts[c->variant / 2], cols = c->n / rows;
    for (size_t j = 0; j < cols; j++) {
        long double sum = flushed(in(c, 1)[c->n - 1 - j]), size = 1e-60L + fabsl(sum);
        for (size_t r = 0; r < rows; r++) {
            const double f = flushed(in(c, 1)[r]), v = f * rows_entry(c, r * cols + j);
            if (f != 0) sum += v, size += fabs(v);
        }
        note(w, j, rows_result[j], (double)sum, (double)size);
    }
    for (size_t j = cols; j < c->n; j++)
        note(w, j, rows_result[j], flushed(in(c, 1)[c->n - 1 - j]), 1);
}

/* Some weights are 0. */
static void some_zeros(const call *c)
{
    for (size_t i = 1; i < c->n; i += 3) ((float *)c->in[1])[i] = 0;
}

SPEC(rows_sum, .variants = 2 * COUNT(row_counts), .in = { F4, F4 },
     .special = { ANY_VALUE, ANY_VALUE }, .prepare = some_zeros);

KERNEL_TESTS(SUMS)
