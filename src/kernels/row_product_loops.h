/*
 * row_product_loops.h - the two products of row_products.c for one pair of types, which the
 * includer names: SUFFIX of the functions, X of x, and T of w and of sums in a call. What is
 * done with vectors of T ends in _float or _double there.
 */
#define PASTE2(a, b) a##_##b
#define PASTE(a, b) PASTE2(a, b)
#define NAME(a) PASTE(a, SUFFIX)
#define V PASTE(v, T)
#define LEN PASTE(LEN, T)
#define SET PASTE(set, T)
#define MAD PASTE(mad, T)
#define HSUM PASTE(hsum, T)
#define ADD_TO PASTE(add_to, T)
#define W_LOAD PASTE(PASTE(load, T), T)
#define W_LOAD_N PASTE(PASTE(load_n, T), T)
#define X_LOAD PASTE(PASTE(load, X), T)
#define X_LOAD_N PASTE(PASTE(load_n, X), T)

/* sum[r][s] += <w row c + s, x row i + r> over elements [from, to), for mr rows of x and nc of
   w. */
INLINE void NAME(dots_piece)(const row_products *t, size_t i, size_t c, size_t from, size_t to,
                             const size_t mr, const size_t nc,
                             double sum[2 * DOT_ROWS][DOT_COLS])
{
    const X *x = (const X *)t->x + (ptrdiff_t)i * t->ldx;
    const T *w = (const T *)t->w + (ptrdiff_t)c * t->ldw;
    /* Floats alone are read faster than memory gives them. */
    const ptrdiff_t ahead = c == 0 && sizeof(T) == sizeof(float) ? t->ahead : 0;
    V acc[2 * DOT_ROWS][DOT_COLS];
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 8
        for (size_t s = 0; s < nc; s++) acc[r][s] = SET(0);
    size_t p = from;
    for (; p + LEN <= to; p += LEN) {
        V wv[DOT_COLS];
#pragma GCC unroll 8
        for (size_t s = 0; s < nc; s++) wv[s] = W_LOAD(w + (ptrdiff_t)s * t->ldw + p);
#pragma GCC unroll 8
        for (size_t r = 0; r < mr; r++) {
            const V xv = X_LOAD(x + (ptrdiff_t)r * t->ldx + p);
            if (ahead && p % (64 / sizeof(X)) == 0)
                __builtin_prefetch(x + ahead + (ptrdiff_t)r * t->ldx + p, 0, 2);
#pragma GCC unroll 8
            for (size_t s = 0; s < nc; s++) acc[r][s] = MAD(xv, wv[s], acc[r][s]);
        }
    }
    for (size_t s = 0; p < to && s < nc; s++) {
        const V wv = W_LOAD_N(w + (ptrdiff_t)s * t->ldw + p, to - p);
        for (size_t r = 0; r < mr; r++)
            acc[r][s] = MAD(X_LOAD_N(x + (ptrdiff_t)r * t->ldx + p, to - p), wv, acc[r][s]);
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < mr; r++)
#pragma GCC unroll 8
        for (size_t s = 0; s < nc; s++) sum[r][s] += HSUM(acc[r][s]);
}

INLINE void NAME(dots_block)(const row_products *t, size_t i, size_t c, const size_t mr,
                             const size_t nc)
{
    double sum[2 * DOT_ROWS][DOT_COLS] = { { 0 } };
    for (size_t p = 0, end; p < t->dim; p = end) {
        end = t->dim - p < DOT_PIECE ? t->dim : p + DOT_PIECE;
        NAME(dots_piece)(t, i, c, p, end, mr, nc, sum);
    }
    T *out = (T *)t->out + (ptrdiff_t)c * t->ldo + i;
    for (size_t s = 0; s < nc; s++)
        for (size_t r = 0; r < mr; r++)
            out[(ptrdiff_t)s * t->ldo + (ptrdiff_t)r] = (T)sum[r][s];
}

INLINE void NAME(dots_rows)(const row_products *t, size_t i, const size_t mr)
{
    size_t c = 0;
    for (; mr <= DOT_ROWS && c + DOT_COLS <= t->k; c += DOT_COLS)
        NAME(dots_block)(t, i, c, mr, DOT_COLS);
    if ((DOT_COLS > 2 || mr > DOT_ROWS) && c + 2 <= t->k)
        NAME(dots_block)(t, i, c, mr, 2), c += 2;
    for (; c < t->k; c++) NAME(dots_block)(t, i, c, mr, 1);
}

void KERNEL(NAME(row_dots))(const row_products *t)
{
    size_t i = 0;
    /* Of one or two vectors, twice the rows: enough sums that none waits for itself. */
    for (; t->k <= 2 && i + 2 * DOT_ROWS <= t->rows; i += 2 * DOT_ROWS)
        NAME(dots_rows)(t, i, 2 * DOT_ROWS);
    for (; i + DOT_ROWS <= t->rows; i += DOT_ROWS) NAME(dots_rows)(t, i, DOT_ROWS);
    for (; i < t->rows; i++) NAME(dots_rows)(t, i, 1);
}

/* out[c ldo + j ..] += sum over i of w[c ldw + i] x[i ldx + j ..], mc rows of w, nv vectors of
   columns; last: of a part of one. */
INLINE void NAME(sums_block)(const row_products *t, size_t c, size_t j, const size_t mc,
                             const size_t nv, const bool part, size_t last)
{
    const X *x = (const X *)t->x + j;
    const T *w = (const T *)t->w + (ptrdiff_t)c * t->ldw;
    V acc[SUM_ROWS][SUM_VECS];
#pragma GCC unroll 8
    for (size_t r = 0; r < mc; r++)
#pragma GCC unroll 8
        for (size_t v = 0; v < nv; v++) acc[r][v] = SET(0);
    const ptrdiff_t ahead = c == 0 ? t->ahead : 0;
    for (size_t i = 0; i < t->rows; i++, x += t->ldx) {
        V xv[SUM_VECS];
        for (size_t v = 0; ahead && v < nv * LEN; v += 64 / sizeof(X))
            __builtin_prefetch(x + ahead + v, 0, 2);
#pragma GCC unroll 8
        for (size_t v = 0; v < nv; v++)
            xv[v] = part ? X_LOAD_N(x + v * LEN, last) : X_LOAD(x + v * LEN);
#pragma GCC unroll 8
        for (size_t r = 0; r < mc; r++) {
            const V wv = SET(w[(ptrdiff_t)r * t->ldw + (ptrdiff_t)i]);
#pragma GCC unroll 8
            for (size_t v = 0; v < nv; v++) acc[r][v] = MAD(wv, xv[v], acc[r][v]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < mc; r++)
#pragma GCC unroll 8
        for (size_t v = 0; v < nv; v++) {
            double *to =
                (double *)t->out + (ptrdiff_t)(c + r) * t->ldo + (ptrdiff_t)(j + v * LEN);
            ADD_TO(to, acc[r][v], part ? last : LEN);
        }
}

INLINE void NAME(sums_stripe)(const row_products *t, size_t j, const size_t nv, const bool part,
                              size_t last)
{
    size_t c = 0;
    for (; c + SUM_ROWS <= t->k; c += SUM_ROWS)
        NAME(sums_block)(t, c, j, SUM_ROWS, nv, part, last);
    if (SUM_ROWS > 4 && c + 4 <= t->k) NAME(sums_block)(t, c, j, 4, nv, part, last), c += 4;
    if (c + 2 <= t->k) NAME(sums_block)(t, c, j, 2, nv, part, last), c += 2;
    for (; c < t->k; c++) NAME(sums_block)(t, c, j, 1, nv, part, last);
}

void KERNEL(NAME(row_sums))(const row_products *t)
{
    size_t j = 0;
    for (; j + SUM_VECS * LEN <= t->dim; j += SUM_VECS * LEN)
        NAME(sums_stripe)(t, j, SUM_VECS, false, 0);
    for (; j + LEN <= t->dim; j += LEN) NAME(sums_stripe)(t, j, 1, false, 0);
    if (j < t->dim) NAME(sums_stripe)(t, j, 1, true, t->dim - j);
}

#undef PASTE2
#undef PASTE
#undef NAME
#undef V
#undef LEN
#undef SET
#undef MAD
#undef HSUM
#undef ADD_TO
#undef W_LOAD
#undef W_LOAD_N
#undef X_LOAD
#undef X_LOAD_N
#undef SUFFIX
#undef X
#undef T
