/*
 * double.c - exponential and logarithm in double, element by element, for objectives that are
 * to be minimised to more digits than float32 has.
 *
 * exp: n = round(x log2(e)), r = x - n log(2) in two steps, 1 + r + r^2 q(r) with q of degree 9
 * (2^-55.8), then 2^n by its bits. log(1 + x): u = 1 + x = m 2^e, what u lost is added back,
 * and with f = m - 1, s = f / (2 + f): log(1 + f) = f - s (f - s^2 L(s^2)), L of degree 6.
 * Relative errors below 2^-51.
 */
#include "vec_double.h"

#define LN2_HIGH 0x1.62e42fef00000p-1 /* 33 bits: times a whole number it is exact */
#define LN2_LOW 0x1.473de6af278edp-34

static inline vd polynomial(vd x, const double *c, int degree)
{
    vd p = vd_set(c[degree]);
    for (int i = degree - 1; i >= 0; i--) p = vd_mad(p, x, vd_set(c[i]));
    return p;
}

static inline vd exp_of(vd x)
{
    static const double q[10] = { 0x1.0000000000001p-1,  0x1.5555555555556p-3,
                                  0x1.5555555553d63p-5,  0x1.11111111109b3p-7,
                                  0x1.6c16c1788bd90p-10, 0x1.a01a01a7c41d5p-13,
                                  0x1.a019b90d2ae7ap-16, 0x1.71de0dae63bb3p-19,
                                  0x1.289185613a3d6p-22, 0x1.af38a9b0ec855p-26 };
    x = vd_min(vd_set(709.5),
               vd_max(vd_set(-709.1), x)); /* to 2^-1023 and 2^1024; NaN passes */
    const vd n = vd_whole(x * vd_set(0x1.71547652b82fep+0));
    vd r = vd_mad(n, vd_set(-LN2_HIGH), x);
    r = vd_mad(n, vd_set(-LN2_LOW), r);
    return vd_mad(r * r, polynomial(r, q, 9), r + vd_set(1)) * vd_power2(n);
}

static inline vd log1p_of(vd x)
{
    static const double l[7] = { 0x1.5555555555558p-1, 0x1.9999999995273p-2,
                                 0x1.2492492dfd86cp-2, 0x1.c71c62d5e53e0p-3,
                                 0x1.7462b91b8df65p-3, 0x1.39fdcceb4bb45p-3,
                                 0x1.2b5f68a50d903p-3 };
    const vd one = vd_set(1), u = one + x, lost = x - (u - one);
    vd e;
    const vd m = vd_split(u, &e);
    const vd f = (m - one) + lost * vd_power2(-e), s = f / (vd_set(2) + f), z = s * s;
    const vd log_m = f - s * (f - z * polynomial(z, l, 6));
    return vd_mad(e, vd_set(LN2_HIGH), vd_mad(e, vd_set(LN2_LOW), log_m));
}

#define MAP(name, of)                                                                          \
    void KERNEL(name)(size_t n, const double *x, double *y)                                    \
    {                                                                                          \
        size_t i = 0;                                                                          \
        for (; i + VD_LEN <= n; i += VD_LEN) vd_store(y + i, of(vd_load(x + i)));              \
        if (i < n) vd_store_n(y + i, of(vd_load_n(x + i, n - i)), n - i);                      \
    }

MAP(exp_f64, exp_of)
MAP(log1p_f64, log1p_of)
