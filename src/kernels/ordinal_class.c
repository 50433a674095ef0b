/*
 * ordinal_class.c - a class between two boundaries a < b of a cumulative logit model: p =
 * sigmoid(b) - sigmoid(a). With d = b - a and e(t) = exp(-|t|),
 *
 *     -log p = max(-b, 0) + max(a, 0) + log1p(u),  1 + u = (1 + e(a)) (1 + e(b)) / (1 - e(d))
 *
 * a sum of terms that are not negative: it keeps its relative precision far out, where one of
 * them is all there is, and for p near 1, where all are small; and it takes one logarithm. With
 * r = 1 / expm1(d) the slopes of log p are sigmoid(-b) + r in b and -(sigmoid(a) + r) in a.
 * 1 - e(d) is a polynomial below d = 1, where the subtraction would cancel.
 *
 * Paper: "Predicting Rare Events by Shrinking Towards Proportional Odds" (2023). Errors:
 * tests/kernels/bounds.h.
 */
#include "elementary.h"

/* Below this d, u could overflow: it is scaled. */
#define NARROW 0x1p-100f
#define NARROW_SCALE 0x1p-40f

/* 1 - exp(-d), d >= 0, with e = exp(-d). */
static inline vf one_less(vf d, vf e)
{
    const vf one = vf_set(1.0f);
    vf d2 = vf_mul(d, d), near = vf_sub(d, vf_mul(d2, exp_beyond(vf_neg(d), d2)));
    return vf_sel(vf_gt(one, d), near, vf_sub(one, e));
}

/* -log p, for 0 < d. */
static inline vf ordinal_loss(vf a, vf b, vf d, vf sum, vf rest)
{
    const vf zero = vf_set(0.0f);
    vm narrow = vf_gt(vf_set(NARROW), d);
    vf scale = vf_sel(narrow, vf_set(NARROW_SCALE), vf_set(1.0f));
    vf back = vf_sel(narrow, vf_set(40 * 0x1.62e430p-1f), zero);
    vf tail = vf_add(vf_log1p(vf_div(vf_mul(sum, scale), rest)), back);
    return vf_add(vf_add(vf_max(zero, vf_neg(b)), vf_max(zero, a)), tail);
}

void KERNEL(ordinal)(size_t n, const float *a, const float *b, const ordinal_terms *to)
{
    const exp_consts k = exp_setup_unit();
    const vf zero = vf_set(0.0f), one = vf_set(1.0f);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf lo = load_at(a, i, n, -1.0f), hi = load_at(b, i, n, 1.0f);
        vf d = vf_sel(vf_eq(lo, hi), zero, vf_sub(hi, lo)); /* NaN where one is */
        vf width = vf_abs(d), ed = exp_vec(vf_neg(width), &k, true), rest = one_less(width, ed);
        vf ea = exp_vec(vf_neg(vf_abs(lo)), &k, true), ra = vf_div(one, vf_add(one, ea));
        vf eb = exp_vec(vf_neg(vf_abs(hi)), &k, true), rb = vf_div(one, vf_add(one, eb));
        vf sa = vf_mul(ea, ra), sb = vf_mul(eb, rb); /* sigmoid(-|.|) */
        vm a_low = vf_gt(zero, lo), b_low = vf_gt(zero, hi), live = vf_gt(d, zero);
        vf up_a = vf_sel(a_low, sa, ra), down_a = vf_sel(a_low, ra, sa); /* of a, of -a */
        vf up_b = vf_sel(b_low, sb, rb), down_b = vf_sel(b_low, rb, sb);
        vf none = vf_sub(d, d), r = vf_div(ed, rest); /* 0; NaN of NaN */
        none = vf_sel(vf_eq(width, vf_set(INFINITY)), zero, none);
        if (to->log_p) {
            vf sum = vf_add(vf_add(ea, eb), vf_mad(ea, eb, ed));
            vf loss = ordinal_loss(lo, hi, d, sum, rest);
            store_at(to->log_p, i, n,
                     vf_sel(live, vf_sub(zero, loss), vf_sub(none, vf_set(INFINITY))));
        }
        if (to->p) {
            vf ends = vf_sel(vf_gt(zero, d), vf_mul(up_a, down_b), vf_mul(up_b, down_a));
            store_at(to->p, i, n, vf_flip(vf_mul(ends, rest), d));
        }
        if (to->up) store_at(to->up, i, n, vf_sel(live, vf_add(down_b, r), none));
        if (to->down) store_at(to->down, i, n, vf_sel(live, vf_add(up_a, r), none));
        if (to->slope) store_at(to->slope, i, n, vf_mul(sb, rb));
    }
}
