/*
 * select_top.c - the few largest entries of each of many rows: a row a lane. A tile of VF_LEN
 * rows and columns is transposed, so that each vector holds one column of VF_LEN rows, and
 * takes its place in a ladder of k slots in registers: those that it exceeds move down by one.
 * No branch depends on the data, but one that passes over a column below all slots: with a row
 * at a time each of the k log(cols / k) changes is a branch that was not foreseen.
 *
 * Exact. Columns are counted in floats: up to 2^24 of them.
 */
#include "vec.h"

typedef struct ladder {
    vf value[16], place[16], bad; /* bad: 0 where a NaN was seen */
} ladder;

#define ALWAYS static inline __attribute__((always_inline))

/* x, a column, into slots that are in decreasing order. Of equal ones the earlier stays. */
ALWAYS void ladder_put(vf *value, vf *place, const int slots, vf x, vf at)
{
#pragma GCC unroll 16
    for (int j = slots - 1; j > 0; j--) {
        const vm here = vf_gt(x, value[j]), above = vf_gt(x, value[j - 1]);
        value[j] = vf_sel(here, vf_sel(above, value[j - 1], x), value[j]);
        place[j] = vf_sel(here, vf_sel(above, place[j - 1], at), place[j]);
    }
    const vm first = vf_gt(x, value[0]);
    value[0] = vf_sel(first, x, value[0]), place[0] = vf_sel(first, at, place[0]);
}

ALWAYS void climb(size_t cols, const float *const row[VF_LEN], const int slots, ladder *out)
{
    vf value[16], place[16], good = vf_set(1.0f);
#pragma GCC unroll 16
    for (int j = 0; j < slots; j++) value[j] = vf_set(-INFINITY), place[j] = vf_set(-1.0f);
    for (size_t c = 0; c < cols; c += VF_LEN) {
        vf tile[VF_LEN];
        const size_t n = cols - c < VF_LEN ? cols - c : VF_LEN;
        for (int r = 0; r < VF_LEN; r++) tile[r] = load_at(row[r], c, cols, -INFINITY);
        vf_transpose(tile);
        for (size_t q = 0; q < n; q++) {
            const vf x = tile[q];
            good = vf_sel(vf_eq(x, x), good, vf_set(0.0f));
            if (slots > 2 && !vm_any(vf_gt(x, value[slots - 1]))) continue;
            ladder_put(value, place, slots, x, vf_set((float)(c + q)));
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < slots; j++) out->value[j] = value[j], out->place[j] = place[j];
    out->bad = good;
}

/* The least columns that hold -inf: all others are chosen. */
static inline void fill_up(size_t cols, const float *x, int from, int k, float *value,
                           int32_t *index)
{
    for (size_t c = 0; c < cols && from < k; c++) {
        if (x[c] > -INFINITY) continue;
        value[from] = -INFINITY, index[from++] = (int32_t)c;
    }
}

void KERNEL(select_top)(size_t rows, size_t cols, const float *x, size_t ld, int k,
                        float *value, int32_t *index)
{
    for (size_t r = 0; r < rows; r += VF_LEN) {
        const float *row[VF_LEN];
        float v[VF_LEN], at[VF_LEN], good[VF_LEN];
        ladder l;
        const size_t n = rows - r < VF_LEN ? rows - r : VF_LEN;
        for (size_t i = 0; i < VF_LEN; i++) row[i] = x + (r + (i < n ? i : n - 1)) * ld;
        if (k == 1)
            climb(cols, row, 1, &l);
        else if (k == 2)
            climb(cols, row, 2, &l);
        else if (k <= 4)
            climb(cols, row, 4, &l);
        else if (k <= 8)
            climb(cols, row, 8, &l);
        else
            climb(cols, row, 16, &l);
        for (int j = 0; j < k; j++) {
            vf_store(v, l.value[j]), vf_store(at, l.place[j]);
            for (size_t i = 0; i < n; i++) {
                value[(r + i) * (size_t)k + (size_t)j] = v[i];
                index[(r + i) * (size_t)k + (size_t)j] = (int32_t)at[i];
            }
        }
        vf_store(good, l.bad);
        for (size_t i = 0; i < n; i++) {
            float *const to = value + (r + i) * (size_t)k;
            int32_t *const at_row = index + (r + i) * (size_t)k;
            int from = 0;
            if (!(good[i] > 0)) {
                for (int j = 0; j < k; j++) to[j] = NAN, at_row[j] = j;
                continue;
            }
            if (at_row[k - 1] >= 0) continue;
            while (at_row[from] >= 0) from++;
            fill_up(cols, row[i], from, k, to, at_row);
        }
    }
}
