/*
 * kernels.h - the list of kernels. From it come the table in a context, the prototypes of every
 * ISA's functions, the three tables, the tests' loop and the benchmarks.
 *
 * Every kernel: any n >= 0 unless it says otherwise, any alignment of its element type, no
 * allocation, no checks. In place (y == x) is allowed; other overlap is not. Runs in the mode
 * of fpenv.h. What -inf and NaN do is said at each.
 */
#ifndef SLG_KERNELS_KERNELS_H
#define SLG_KERNELS_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kernels sum blocks of this many floats in float32, and blocks in double. Also the size of the
   blocks that modules fetch and stage. */
enum { KERNEL_BLOCK = 2048 };

/* Rows are added up in segments of this many floats, each from nothing: what threads share. */
enum { ROW_SEGMENT = 1 << 15 };

/* softmax_row up to here: in any floating-point mode that rounds to nearest and traps
   nothing. */
enum { SHORT_ROW = 1024 };

/*
 * The argument of the exponential: (x - pre) / T. n = round(x log2(e) / T) whole steps of T
 * log(2) are taken off; what is left is multiplied by 1 / T. pre is 0 except for rows beyond
 * EXP_LIMIT. Filled in by exp_arg_of (softmax/parts.h).
 */
typedef struct exp_arg {
    float log2e_t;          /* log2(e) / T */
    float step_hi, step_lo; /* T log(2) in two parts. The low part is left out where plain: n of
                               two classes differ by some 100, and the error of step_hi
                               is 2e-9. */
    float inv_t;            /* 1 / T */
    float pre;
    int32_t plain;      /* T is 1 and pre is 0 */
    double unit;        /* log(2) as the kernels take it: what 1 of a reference is worth */
    double temperature; /* T */
} exp_arg;

/* |x| log2(e) / T up to here is handled without `pre`. */
#define EXP_LIMIT 0x1p+17f

/* A partial log-sum-exp:  log(sum) + ref * unit  is that of (x - pre) / T. */
typedef struct lse_part {
    double sum; /* 0 for nothing, or everything masked */
    float ref;  /* a whole number; -inf where nothing was seen */
    float max;  /* of x; -inf where nothing was seen. Not meaningful if sum is NaN. */
} lse_part;

#define LSE_EMPTY ((lse_part){ 0.0, -INFINITY, -INFINITY })

/* Pass 2:  y = a * exp((x - pre) / T) * 2^-ref + c;  0 where x is -inf. */
typedef struct exp_out {
    exp_arg arg;
    float ref; /* lse_part.ref of the row, finite */
    float a;   /* as weight / sum */
    float c;
} exp_out;

/* StableMax's s(z), z = x / T, summed: of s / STABLE_SCALE over z >= 0, of s STABLE_SCALE below
   0. */
#define STABLE_SCALE 0x1p32f
typedef struct stable_part {
    double up, down;
    float max; /* of x */
} stable_part;

#define STABLE_EMPTY ((stable_part){ 0.0, 0.0, -INFINITY })

/* Pass 2: a s(z), its logarithm, or a s(z) / (1 + |z|), with a such that none overflows. num
   is 1, or STABLE_SCALE where a row has z < 0 alone and a may be large. */
typedef struct stable_out {
    float inv_t;
    float up, up_scaled;  /* a; a STABLE_SCALE */
    float num, down;      /* a = down num */
    float log_hi, log_lo; /* log of the sum, in two parts */
} stable_out;

/* Sums of h and h^2, number of h > 0, maximum of x. */
typedef struct hinge_part {
    double sum, square, count;
    float max;
} hinge_part;

#define HINGE_EMPTY ((hinge_part){ 0.0, 0.0, 0.0, -INFINITY })
/* Two rows of logits that are compared class by class: a = x inv_x, b = y inv_y, and a - b =
   (x ratio - y) inv_y with ratio = inv_x / inv_y. */
typedef struct logit_pair {
    float inv_x, inv_y, ratio;
} logit_pair;

/* What lse_pair adds up beside the two sums. */
enum { PAIR_SUMS = 0, PAIR_DIFFERENCE = 1, PAIR_CROSS = 2 };

/* Where the terms of classes go, each [n] or NULL: see the kernel ordinal. */
typedef struct ordinal_terms {
    float *log_p, *p, *up, *down, *slope;
} ordinal_terms;

/* A class's score: w weight + ((x - base) slope + offset), -inf where x is. In double, so that
   scores are told apart as the logits are. */
typedef struct rank_arg {
    double weight, slope, base, offset;
} rank_arg;

static inline double rank_score(const rank_arg *a, float x, float w)
{
    double s = (double)w * a->weight + (((double)x - a->base) * a->slope + a->offset);
    return x == -INFINITY ? -INFINITY : s;
}

/* How margins change between two rows of scores: e = (a' a_unit - h' h_unit) - (a[k] a_unit -
   h[k] h_unit), a' and h' the target's scores; 0 where a[k] or h[k] is -inf. In double:
   differences of differences. */
typedef struct margin_arg {
    double a_unit, h_unit;
    float a, h; /* the target's, finite */
} margin_arg;

/* How an output is written. */
enum { STORE_CACHED = 0, STORE_STREAM = 1 /* past the caches; sfence is the caller's */ };

/* Coefficients of log-softmax: y = (x unit - pre) * s - lse, with s and lse in two parts. unit
   is 1, or 1/2 where pre is not 0, and x - pre could overflow. */
typedef struct log_arg {
    float s_hi, s_lo, lse_hi, lse_lo, pre, unit;
} log_arg;

/* A block of rows of float32, or of double where `wide`, that are ld elements apart. */
typedef struct wide_rows {
    size_t rows, cols;
    const void *a;
    ptrdiff_t ld;
    bool wide;
} wide_rows;

enum { CACHE_GROUP = 32 };

/* Logits of a tile of kept keys: s [rows, groups * CACHE_GROUP] = q k'. Those of the last group
   that no key fills are computed too. */
typedef struct cache_scores {
    size_t rows, groups, dim;
    const float *q; /* [rows, dim], rows ldq apart */
    size_t ldq;
    const void *k; /* [groups, dim, CACHE_GROUP] */
    float *s;
    size_t lds;
} cache_scores;

/* o = o + p v. Rows of o are whole multiples of 16; v is read up to 15 elements past its last
   row. */
typedef struct cache_values {
    size_t rows, keys, dim;
    const float *p; /* [rows, keys], rows ldp apart */
    size_t ldp;
    const void *v; /* [keys, dim], rows ldv apart */
    size_t ldv;
    float *o;
    size_t ldo;
    bool skip_zeros; /* p = 0 makes 0 of a NaN too: slow */
} cache_values;

/* Arrays [rows]: sum = sum of exp(s - ref). */
typedef struct cache_state {
    float *ref, *factor;
    double *sum;
    float *top; /* the largest |s| but for -inf; NULL: not wanted */
} cache_state;

/* C [m, n] = A [m, k] B [k, n]. Element (i, p) of A is a[i row + p col]; rows of B and C are
   contiguous. */
typedef struct tile_product {
    size_t m, n, k;
    const float *a;
    ptrdiff_t row, col;
    const float *b;
    ptrdiff_t ldb;
    float *c;
    ptrdiff_t ldc;
    bool add;        /* to C, after the sum over k */
    bool keep_zeros; /* a factor of 0 makes 0, whatever the other is: slow, for tiles that hold
                        a NaN or an infinity */
} tile_product;

/* Rows of x [rows, dim] and k vectors, ld: from one row to the next. No overlap. */
typedef struct row_products {
    size_t rows, k, dim;
    const void *x;
    ptrdiff_t ldx;
    const void *w; /* row_dots: [k, dim]; row_sums: [k, rows] */
    ptrdiff_t ldw;
    void *out; /* row_dots: [k, rows]; row_sums: [k, dim] */
    ptrdiff_t ldo;
    ptrdiff_t ahead; /* x + ahead is fetched on the way, where not 0 */
} row_products;

/* State of a softmax over keys, a lane a query. All start at 0, but ref and top at -inf. */
typedef struct tile_lanes {
    float *ref; /* what exponents are relative to: near the maximum so far; -inf: none yet */
    float *sum; /* of exp(a - ref); and what its rounding lost */
    float *lost;
    float *factor; /* out: what earlier sums are to be multiplied by */
    float *top;    /* max |a| over a > -inf, NaN left out; NULL: not wanted */
} tile_lanes;

/*
 * What a chain of transformations (gradient.h) makes of the gradient dw of a tensor w:
 *
 *     u = post (clamp(scale (dw + along w), -clip, clip) + after w)
 */
typedef struct gradient_map {
    double scale, along, clip; /* clip INFINITY: nothing is clamped, scale 1 and along 0 */
    double post, after;
} gradient_map;

/* The same for an update, in float32: the tail is decay that enters the gradient. */
typedef struct update_grad {
    bool plain; /* u = post dw + decay w: the other fields are idle */
    float scale, along, clip;
    float post, after, after_low; /* `after` in two parts: u may be far smaller than dw */
    float decay;
} update_grad;

/* The weights that an update is called for. bf16 state is rounded at random, by a hash of the
   weight's number and key. */
typedef struct update_part {
    void *state[3]; /* n floats each, or n bf16; NULL: not kept */
    bool half;      /* bf16 */
    uint32_t first; /* number of the first weight */
    uint32_t key;
    update_grad grad;
} update_part;

/* See optimizer.h. Scalars of one step, folded. shrink: lr * decay where decoupled, else 0. */
typedef struct adam_arg {
    float shrink;
    float beta1, one_beta1, beta2, one_beta2;
    float step;  /* on the first moment: lr / (1 - beta1^t) */
    float fresh; /* on the gradient itself: Nesterov's */
    float root;  /* 1 / sqrt(1 - beta2^t) */
    float eps;
} adam_arg;

typedef struct sgd_arg {
    float shrink, lr, momentum, one_dampening;
    int32_t nesterov;
} sgd_arg;

typedef struct optimistic_arg {
    float shrink;
    float step; /* lr (1 + optimism), down the gradient */
    float back; /* lr optimism, up the last */
} optimistic_arg;

typedef struct rmsprop_arg {
    float shrink, lr, alpha, one_alpha, eps, momentum;
} rmsprop_arg;

typedef struct lion_arg {
    float shrink, lr, beta1, one_beta1, beta2, one_beta2;
} lion_arg;

typedef struct egd_arg {
    float shrink, lr, momentum;
    float floor, cap; /* of |w|, where w is not 0 */
} egd_arg;

/* Adafactor: v is the second moment over `row`^2, by columns. */
typedef struct factor_arg {
    float shrink, step;
    float row; /* of this row: sqrt(mean of R / R), over what clips the update */
    float beta1, one_beta1;
} factor_arg;

/* a[i] = a av[i], b and c alike, av NULL: ones; and what it stands for: a h + b + c z. */
typedef struct line_arg {
    float a, b, c;
    const float *av, *bv, *cv;
} line_arg;

/* A row about its mean, which is mean + mean_low: h = (x - mean - mean_low) rstd. */
typedef struct norm_arg {
    float mean, mean_low, rstd;
    float mean_g, mean_gh; /* means over the row of g = dy w, and of g h */
} norm_arg;

/*
 * The kernels, family by family: each has its tests, tests/kernels/test_kernels_<family>.c.
 */

/*
 * Exponentials of one row.
 *
 * lse                add a piece of a row to *part (see LSE_EMPTY). -inf adds nothing. NaN,
 *                    +inf, and values past EXP_LIMIT make sum or max say so: see lse_kind.
 * exp_emit           pass 2, see exp_out
 * exp_emit_q         y = a exp(..) 2^-ref + b q, 0 where x = -inf
 * emit_lse           exp_emit, streaming, of n_out floats of x (c 0, T 1, pre 0; y aligned
 *                    to 64 bytes), and lse of n_in floats of next (1 to KERNEL_BLOCK; T 1, pre
 *                    0), at once
 * exp_store          y = exp(..) 2^-ref, for x <= ref's place + 2^30; their sum. With max and
 *                    scale: softmax_row in pieces of ROW_SEGMENT. x + ahead is fetched on the
 *                    way: the next row, or 0
 * exp_split          y = exp_store's; adds { sum y, sum y (x - shift) } over the tail to sums:
 *                    x <= least, or x < least where `equal`; 0 where y is. x + ahead as there
 * split_emit         d = a p, or b p where x is of the tail
 */
#define SLG_KERNELS_EXP(K)                                                                     \
    K(void, lse, (size_t n, const float *x, const exp_arg *arg, lse_part *part))               \
    K(void, exp_emit, (size_t n, const float *x, const exp_out *e, float *y, int store))       \
    K(void, exp_emit_q,                                                                        \
      (size_t n, const float *x, const exp_out *e, float b, const float *q, float *y,          \
       int store))                                                                             \
    K(void, emit_lse,                                                                          \
      (size_t n_out, const float *x, const exp_out *e, float *y, size_t n_in,                  \
       const float *next, const exp_arg *arg, lse_part *part))                                 \
    K(double, exp_store,                                                                       \
      (size_t n, const float *x, const exp_arg *arg, float ref, float *y, size_t ahead))       \
    K(void, exp_split,                                                                         \
      (size_t n, const float *x, const exp_arg *arg, float ref, float shift, float least,      \
       bool equal, float *y, double sums[2], size_t ahead))                                    \
    K(void, split_emit,                                                                        \
      (size_t n, const float *p, const float *x, float least, bool equal, float a, float b,    \
       float *d, int store))

/*
 * Exponentials of a row beside another row. p = a exp(x ..) 2^-ref, q of y alike.
 *
 * lse_target         lse of x; adds { sum q (x - shift), sum q } over q != 0, whatever x is
 *                    there
 * lse_dot            lse of x, with sums of p v and p v^2 in the same scale: a = 1, v = x - y,
 *                    or x - shift where y is NULL; nothing is added where p is 0
 * lse_pair           lse of x and lse of y in one loop; with PAIR_DIFFERENCE or PAIR_CROSS also
 *                    adds sum q v to *dot, q = exp(y ..) at the scale of part_y: v = y - x, or
 *                    x - shift; nothing is added where q is 0. Past FLT_MAX it is inf.
 * js_sums            adds to sums { sum p log(p / m), sum q log(q / m) }, m = share q +
 *                    (1 - share) p; share in (0, 1), p and q at most about 1
 * js_emit            d = p (b log(p / m) + c), 0 where p is (or is below 2^-100)
 * margin_sums        { sum e, sum e^2 }, see margin_arg; both NaN where a or h has a NaN or
 *                    +inf; the same bits on every ISA
 * margin_emit        d = factor e, rounded once
 * weigh_sums         { sum u^2, sum p u }, u = c p + b q, for probabilities p; q NULL: zeros;
 *                    in the second sum nothing is added where p is 0
 * weigh_emit         d = f p (u - s), 0 where p is
 * exp_emit2          d = p + q; 0 where x is -inf; no c
 * exp_emit_linear    d = p (c + b (x - y)), or of x - shift where y is NULL; 0 where p is
 */
#define SLG_KERNELS_PAIR(K)                                                                    \
    K(void, lse_target,                                                                        \
      (size_t n, const float *x, const float *q, float shift, const exp_arg *arg,              \
       lse_part *part, double dot[2]))                                                         \
    K(void, lse_dot,                                                                           \
      (size_t n, const float *x, const float *y, float shift, const exp_arg *arg,              \
       lse_part *part, double dot[2]))                                                         \
    K(void, lse_pair,                                                                          \
      (size_t n, const float *x, const exp_arg *arg_x, lse_part *part_x, const float *y,       \
       const exp_arg *arg_y, lse_part *part_y, int beside, float shift, double *dot))          \
    K(void, js_sums,                                                                           \
      (size_t n, const float *x, const exp_out *ex, const float *y, const exp_out *ey,         \
       float share, double sums[2]))                                                           \
    K(void, js_emit,                                                                           \
      (size_t n, const float *x, const exp_out *ex, const float *y, const exp_out *ey,         \
       float share, float b, float c, float *d, int store))                                    \
    K(void, exp_emit2,                                                                         \
      (size_t n, const float *x, const exp_out *ex, const float *y, const exp_out *ey,         \
       float *d, int store))                                                                   \
    K(void, margin_sums,                                                                       \
      (size_t n, const float *a, const float *h, const margin_arg *m, double out[2]))          \
    K(void, margin_emit,                                                                       \
      (size_t n, const float *a, const float *h, const margin_arg *m, double factor, float *d, \
       int store))                                                                             \
    K(void, weigh_sums,                                                                        \
      (size_t n, const float *p, float c, float b, const float *q, double out[2]))             \
    K(void, weigh_emit,                                                                        \
      (size_t n, const float *p, float c, float b, const float *q, float f, float s, float *d, \
       int store))                                                                             \
    K(void, exp_emit_linear,                                                                   \
      (size_t n, const float *x, const exp_out *e, float b, const float *y, float shift,       \
       float *d, int store))

/*
 * Class by class, with a sigmoid: the sum of values, and d = factor times their slopes; d NULL:
 * the sum alone, of the same bits. Sums past FLT_MAX in a block are inf.
 *
 * bce                w (pos q softplus(-z) + (1 - q) softplus(z)), z = x inv_t, slope in z;
 *                    pos, w NULL: ones. A class with w = 0 adds 0.
 * log_cosh           log cosh((a - b) / 2), see logit_pair; slope tanh((a - b) / 2)
 * binary_kl          KL(Bernoulli(sigmoid(b)) || Bernoulli(sigmoid(a))), 0 where a is b,
 *                    infinite too; slope sigmoid(a) - sigmoid(b)
 * ordinal            p = sigmoid(b) - sigmoid(a), negative where b < a; log p, -inf where
 *                    b <= a; up and down, d log p / d b and minus d log p / d a, 0 where b <=
 *                    a; slope, that of sigmoid at b. a = -inf, b = +inf: ends. NaN gives NaN,
 *                    in slope that of b alone. a and b may overlap each other, nothing else
 */
#define SLG_KERNELS_BINARY(K)                                                                  \
    K(double, bce,                                                                             \
      (size_t n, const float *x, float inv_t, const float *q, const float *pos,                \
       const float *w, float factor, float *d, int store))                                     \
    K(double, log_cosh,                                                                        \
      (size_t n, const float *x, const float *y, const logit_pair *p, float factor, float *d,  \
       int store))                                                                             \
    K(double, binary_kl,                                                                       \
      (size_t n, const float *x, const float *y, const logit_pair *p, float factor, float *d,  \
       int store))                                                                             \
    K(void, ordinal, (size_t n, const float *a, const float *b, const ordinal_terms *to))

/*
 * Softmax and log-softmax, forward and backward.
 *
 * softmax_row        whole row in cache, y = softmax: one exp an element. False, y undefined,
 *                    where the row is not ordinary (see lse_kind): the caller then does as
 *                    usual. n <= SHORT_ROW: subnormal results are 0 in the caller's own mode
 *                    too.
 * log_emit           y = log-softmax, see log_arg; -inf where x is
 * softmax_bwd        dx = y != 0 ? s y (dy - dot) : 0
 * log_softmax_bwd    dx = y > -inf ? s (dy - exp(y) sum) : 0; NaN where y is
 * ext_exp            exp(x) = m 2^e; x clamped to +-2^21
 * softmax_two_pass, softmax_recompute, softmax_reload: of x * scale, a row at once. False,
 *                    and y untouched, for n = 0, an infinite maximum and, in the first, a NaN
 *                    or a maximum past +-2^21. The others make a NaN row of a NaN.
 */
#define SLG_KERNELS_SOFTMAX(K)                                                                 \
    K(bool, softmax_row,                                                                       \
      (size_t n, const float *x, const exp_arg *arg, float *y, lse_part *part))                \
    K(void, log_emit, (size_t n, const float *x, const log_arg *arg, float *y, int store))     \
    K(void, softmax_bwd,                                                                       \
      (size_t n, const float *y, const float *dy, float dot, float s, float *dx))              \
    K(void, log_softmax_bwd,                                                                   \
      (size_t n, const float *y, const float *dy, float sum, float s, float *dx))              \
    K(void, ext_exp, (size_t n, const float *x, float *m, float *e))                           \
    K(bool, softmax_two_pass, (size_t n, const float *x, double scale, float *y, double *lse)) \
    K(bool, softmax_recompute,                                                                 \
      (size_t n, const float *x, double scale, float *y, double *lse))                         \
    K(bool, softmax_reload, (size_t n, const float *x, double scale, float *y, double *lse))

/*
 * Sums and searches.
 *
 * max                -inf for n = 0; NaN may be forgotten
 * find               first i with x[i] == value; n if there is none
 * dot                sum x (y - shift) over x != 0 (whatever y is there)
 * count              how many of x are above limit
 * above              those, in their order, to y, of n floats (what follows them is undefined);
 *                    how many
 * within             whether all of x is in [0, limit]; *sum: of x, NaN with a NaN
 * live_sums          over x > -inf or NaN: { sum w (x - shift), sum w, number }; w NULL: ones
 * moments            out = { mean of x, sum (x - mean)^2 }, to their own relative precision
 *                    wherever x lies and however large; sum NaN with a NaN or an infinity;
 *                    zeros for n = 0
 * select_top         of each row (ld floats from one to the next) the k largest in decreasing
 *                    order and their columns, [rows, k]; of equal ones the first, -inf last
 *                    of all. A row with a NaN: NaN, and the first k. 1 <= k <= 16, k <= cols
 *                    <= 2^24
 * dots               { sum x y, sum x x, sum y y } in double; the same bits on every ISA
 * rows_dot           y_i = sum a_ij x_j in double; the same bits on every ISA, as the next
 * rows_sum           y = y + sum w_i a_i in double, over w_i != 0 (whatever a_i is there)
 * sign_dot           sum of (x - y) with the signs of bits, see sign_sums.c, in double; the
 *                    same bits on every ISA
 * rank_keys          whole numbers that rise as the scores fall, equal where these are in
 *                    float32; range = { least, most } is widened to hold them; the same bits on
 *                    every ISA. No NaN
 */
#define SLG_KERNELS_SUMS(K)                                                                    \
    K(float, max, (size_t n, const float *x))                                                  \
    K(int64_t, find, (size_t n, const float *x, float value))                                  \
    K(double, dot, (size_t n, const float *x, const float *y, float shift))                    \
    K(int64_t, count, (size_t n, const float *x, float limit))                                 \
    K(int64_t, above, (size_t n, const float *x, float limit, float *y))                       \
    K(bool, within, (size_t n, const float *x, float limit, double *sum))                      \
    K(void, live_sums, (size_t n, const float *x, const float *w, float shift, double out[3])) \
    K(void, moments, (size_t n, const float *x, double out[2]))                                \
    K(void, select_top,                                                                        \
      (size_t rows, size_t cols, const float *x, size_t ld, int k, float *value,               \
       int32_t *index))                                                                        \
    K(void, dots, (size_t n, const float *x, const float *y, double out[3]))                   \
    K(void, rows_dot, (const wide_rows *a, const double *x, double *y))                        \
    K(void, rows_sum, (const wide_rows *a, const double *w, double *y))                        \
    K(double, sign_dot, (size_t n, const uint64_t *signs, const float *x, const float *y))     \
    K(void, rank_keys,                                                                         \
      (size_t n, const float *x, const float *w, const rank_arg *a, uint32_t *keys,            \
       uint32_t range[2]))

/*
 * Element by element.
 *
 * target_mix         out = w (p q + u [x > -inf]); q NULL: zeros; w NULL: ones
 * softcap            y = cap tanh(x / cap), -inf where x is; slope: dy/dx, 0 there; NULL: not
 *                    wanted
 * mul                y = y * x; 0 where x is 0, whatever y is
 * mask               y = m != 0 ? x : -inf
 * scale              y = a x
 * add                y = y + x
 * affine_emit        y = a (x unit - pivot) + c, the bracket rounded once
 * lincomb            y = a x + b y in double, rounded once
 * accumulate         sum = sum + x in double, y = sum rounded
 * sign_add           y = y + a with the signs of bits, in double
 * stream             y = a x past the caches: x and y aligned to 64 bytes, n a multiple of 16,
 *                    and no overlap; sfence is the caller's
 */
#define SLG_KERNELS_MAP(K)                                                                     \
    K(void, target_mix,                                                                        \
      (size_t n, const float *x, const float *q, float p, float u, const float *w,             \
       float *out))                                                                            \
    K(void, softcap, (size_t n, const float *x, float cap, float *y, float *slope))            \
    K(void, mul, (size_t n, const float *x, float *y))                                         \
    K(void, mask, (size_t n, const float *x, const float *m, float *y))                        \
    K(void, scale, (size_t n, const float *x, float a, float *y))                              \
    K(void, add, (size_t n, const float *x, float *y))                                         \
    K(void, affine_emit,                                                                       \
      (size_t n, const float *x, float unit, float pivot, float a, float c, float *y,          \
       int store))                                                                             \
    K(void, lincomb, (size_t n, double a, const float *x, double b, float *y))                 \
    K(void, sign_add, (size_t n, const uint64_t *signs, double a, double *y))                  \
    K(void, accumulate, (size_t n, const float *x, double *sum, float *y))                     \
    K(void, stream, (size_t n, const float *x, float a, float *y))

/*
 * StableMax: see stable_part and stable_out.
 *
 * stable_sum         adds a piece to *part: -inf adds nothing; NaN and z = +inf make `up` so
 * stable_dot         { sum q log s(z), sum q }; nothing is added where q is 0; z < +inf
 *                    elsewhere
 * stable_prob        y = a s(z)
 * stable_log         log s(z) less the log of the sum, -inf where x is
 * stable_grad        y = (a s(z) + b q) / (1 + |z|), 0 where x = -inf; q NULL: zeros. A NaN
 *                    of a: NaN
 */
#define SLG_KERNELS_STABLE(K)                                                                  \
    K(void, stable_sum, (size_t n, const float *x, float inv_t, stable_part *part))            \
    K(void, stable_dot,                                                                        \
      (size_t n, const float *x, float inv_t, const float *q, double out[2]))                  \
    K(void, stable_prob, (size_t n, const float *x, const stable_out *e, float *y, int store)) \
    K(void, stable_log, (size_t n, const float *x, const stable_out *e, float *y, int store))  \
    K(void, stable_grad,                                                                       \
      (size_t n, const float *x, const stable_out *e, float b, const float *q, float *y,       \
       int store))

/*
 * Hinges h = max(0, (x - ref) + margin), 0 where x is -inf.
 *
 * hinge_sum          adds a piece to *part
 * hinge_grad         y = a h, or with power 1 a [h > 0]
 */
#define SLG_KERNELS_HINGE(K)                                                                   \
    K(void, hinge_sum, (size_t n, const float *x, float ref, float margin, hinge_part *part))  \
    K(void, hinge_grad,                                                                        \
      (size_t n, const float *x, float ref, float margin, float a, int power, float *y,        \
       int store))

/*
 * 16-bit types: widened exactly, narrowed to nearest, ties to even.
 */
#define SLG_KERNELS_CONVERT(K)                                                                 \
    K(void, widen_bf16, (size_t n, const uint16_t *x, float *y))                               \
    K(void, widen_f16, (size_t n, const uint16_t *x, float *y))                                \
    K(void, narrow_bf16, (size_t n, const float *x, uint16_t *y))                              \
    K(void, narrow_f16, (size_t n, const float *x, uint16_t *y))

/*
 * Steps of optimizers, in place: see optimizer.h. State, in this order:
 *
 * adam               m, v, and the largest v (AMSGrad; NULL: v itself)
 * sgd                momentum, or NULL
 * optimistic         the last gradient
 * rmsprop            mean of squares, mean of gradients (NULL: not centred), momentum or NULL
 * lion               momentum
 * egd                momentum of the exponents, or NULL
 * factor_step        v [n] (float32 always), momentum or NULL
 *
 * What Adafactor needs of a row, u the gradient as a rule sees it; w NULL where m is plain, its
 * decay 0 and w not wanted. Sums in double.
 *
 * factor_squares     columns += u^2, out = { sum u^2, sum w^2 }
 * factor_full        v = (1 - fresh) v + fresh (u^2 + eps), out = { sum u^2 / v, sum w^2 }
 * factor_norm        the sum of (row u)^2 / v
 *
 * update_dots        out = { w u, w w, u u } for u = gradient_map of g, in double
 * clip               y = clamp(y, -limit, limit), NaN stays
 */
#define SLG_KERNELS_UPDATE(K)                                                                  \
    K(void, adam,                                                                              \
      (size_t n, float *w, const float *g, const update_part *p, const adam_arg *a))           \
    K(void, sgd, (size_t n, float *w, const float *g, const update_part *p, const sgd_arg *a)) \
    K(void, optimistic,                                                                        \
      (size_t n, float *w, const float *g, const update_part *p, const optimistic_arg *a))     \
    K(void, rmsprop,                                                                           \
      (size_t n, float *w, const float *g, const update_part *p, const rmsprop_arg *a))        \
    K(void, lion,                                                                              \
      (size_t n, float *w, const float *g, const update_part *p, const lion_arg *a))           \
    K(void, egd, (size_t n, float *w, const float *g, const update_part *p, const egd_arg *a)) \
    K(void, factor_step,                                                                       \
      (size_t n, float *w, const float *g, const update_part *p, const factor_arg *a))         \
    K(void, factor_squares,                                                                    \
      (size_t n, const float *w, const float *g, const update_grad *m, double *columns,        \
       double out[2]))                                                                         \
    K(void, factor_full,                                                                       \
      (size_t n, const float *w, const float *g, const update_grad *m, float eps, float fresh, \
       float *v, double out[2]))                                                               \
    K(double, factor_norm,                                                                     \
      (size_t n, const float *w, const float *g, const update_grad *m, float row,              \
       const float *v))                                                                        \
    K(void, update_dots,                                                                       \
      (size_t n, const float *w, const float *g, const gradient_map *m, double out[3]))        \
    K(void, clip, (size_t n, float limit, float *y))

/*
 * Noise, and diffusion by a geometric Brownian motion: see diffusion.h. l = a h + b + c z, see
 * line_arg; h, z NULL: zeros. Subnormal numbers count as they are in a mode that has them.
 *
 * normals            z[i] = number first + i of the stream of SLG_NORMAL; the same bits on
 *                    every ISA
 * positive           0 < x < inf for all of x
 * line               y = x + l; x NULL: zeros
 * log_of             y = log(x), for such x
 * log_ratio          y = log(x / x0), for such x and x0
 * gbm_step           y = x exp(l), exact where l is 0, x NULL: ones; adds to *lost how many of
 *                    x, finite and not 0, became inf or 0
 * gbm_linear         y = x (1 + l); adds to lost { as that, changes of sign }
 * score_grad         d = s v x r, the sum of r^2; v, x NULL: ones, d NULL: not wanted
 * score_sum          sum of h + e + h^2 / 2, d = s (1 + h); d NULL: not wanted
 */
#define SLG_KERNELS_DIFFUSION(K)                                                               \
    K(void, normals, (size_t n, uint64_t seed, uint64_t first, float *z))                      \
    K(bool, positive, (size_t n, const float *x))                                              \
    K(void, line,                                                                              \
      (size_t n, const float *x, const float *h, const float *z, const line_arg *l, float *y)) \
    K(void, log_of, (size_t n, const float *x, float *y))                                      \
    K(void, log_ratio, (size_t n, const float *x, const float *x0, float *y))                  \
    K(void, gbm_step,                                                                          \
      (size_t n, const float *x, const float *h, const float *z, const line_arg *l, float *y,  \
       int64_t *lost))                                                                         \
    K(void, gbm_linear,                                                                        \
      (size_t n, const float *x, const float *h, const float *z, const line_arg *l, float *y,  \
       int64_t lost[2]))                                                                       \
    K(double, score_grad,                                                                      \
      (size_t n, const float *r, float s, const float *v, const float *x, float *d))           \
    K(double, score_sum, (size_t n, const float *h, const float *e, float s, float *d))

/*
 * The log-barrier's distribution, in double: see online/log_barrier.h. The same bits on every
 * ISA.
 *
 * least              *least = the smallest of x, +inf for n = 0; false, *least undefined, with
 *                    a NaN or -inf
 * barrier_gap        gap = rate (x - least), +inf where x is; returns their sum
 * barrier_sums       { sum p, sum p^2 }, p = 1 / (gap + nu), nu > 0
 * barrier_emit       y = scale / (gap + nu), rounded once
 * barrier_dots       { sum p^2 dp, sum p^2 }; nothing is added where p is 0
 * barrier_grad       dx = factor p^2 (dp - mean), rounded once; 0 where p is
 */
#define SLG_KERNELS_BARRIER(K)                                                                 \
    K(bool, least, (size_t n, const float *x, float *least))                                   \
    K(double, barrier_gap, (size_t n, const float *x, double least, double rate, double *gap)) \
    K(void, barrier_sums, (size_t n, const double *gap, double nu, double out[2]))             \
    K(void, barrier_emit, (size_t n, const double *gap, double nu, double scale, float *y))    \
    K(void, barrier_dots, (size_t n, const float *p, const float *dp, double out[2]))          \
    K(void, barrier_grad,                                                                      \
      (size_t n, const float *p, const float *dp, double factor, double mean, float *dx))

/*
 * Surrogates in a target space: see surrogate.h. The first two in double, rounded once.
 *
 * surrogate          e = z - from, 0 where they are equal, infinite too: adds { sum g e, sum
 *                    e^2, sum g^2 }, nothing to the first where g is 0; d = g + inv e. g NULL:
 *                    zeros; d NULL: not wanted; d may be any of the rows
 * shifted            y = z - s g
 * kl_beyond          sum of p (exp(e) - 1 - e), e = z - from - mean, p = exp(from ..): see
 *                    exp_out (T 1, pre 0, c 0); moved: that of z is p exp(e). Where p is 0,
 *                    and |e| >= 1, moved alone. No NaN or +inf
 */
#define SLG_KERNELS_SURROGATE(K)                                                               \
    K(void, surrogate,                                                                         \
      (size_t n, const float *g, const float *from, const float *z, double inv, float *d,      \
       double sums[3]))                                                                        \
    K(void, shifted, (size_t n, const float *z, const float *g, double s, float *y))           \
    K(double, kl_beyond,                                                                       \
      (size_t n, const float *from, const float *z, float mean, const exp_out *p,              \
       const exp_out *moved))

/*
 * Layers: see layer.h. w, b, add, dw, db, dx: NULL for ones, or zeros, or not wanted.
 *
 * act                y = f(x + b), kind: slg_activation_kind
 * act_bwd            dx = f'(x + b) dy
 * act_gate           y = f(x) up
 * act_gate_bwd       dx = f'(x) up dy, dup = f(x) dy
 * norm_emit          y = h w + b
 * norm_sums          out = { sum g, sum g h, sum h }, h about `mean` alone
 * norm_bwd           dw = dw + dy h, db = db + dy, dx = rstd (g - mean_g - h mean_gh) + add
 * rope               pairs (i, i + pairs), or (2 i, 2 i + 1), turned by angles: see slg_rope
 */
#define SLG_KERNELS_LAYER(K)                                                                   \
    K(void, act, (size_t n, const float *x, const float *b, int kind, float *y))               \
    K(void, act_bwd,                                                                           \
      (size_t n, const float *x, const float *b, const float *dy, int kind, float *dx))        \
    K(void, act_gate, (size_t n, const float *x, const float *up, int kind, float *y))         \
    K(void, act_gate_bwd,                                                                      \
      (size_t n, const float *x, const float *up, const float *dy, int kind, float *dx,        \
       float *dup))                                                                            \
    K(void, norm_emit,                                                                         \
      (size_t n, const float *x, const norm_arg *a, const float *w, const float *b, float *y)) \
    K(void, norm_sums,                                                                         \
      (size_t n, const float *x, const norm_arg *a, const float *w, const float *dy,           \
       double out[3]))                                                                         \
    K(void, norm_bwd,                                                                          \
      (size_t n, const float *x, const norm_arg *a, const float *w, const float *dy,           \
       const float *add, float *dw, float *db, float *dx))                                     \
    K(void, rope,                                                                              \
      (size_t pairs, const float *x, const float *cos, const float *sin, int interleaved,      \
       float *y))

/*
 * Tiles of matrices in cache, and of attention: s [m, n] is logits of m keys (rows, ld apart)
 * and n queries (lanes), n a multiple of 16. NaN stays in its lane.
 *
 * tile_gemm          see tile_product. NaN and infinities as in sums of products, unless
 *                    keep_zeros
 * finite             neither NaN nor infinity in x
 * transpose          y [n, m] = a x' for x [m, n]
 * tile_band          s = -inf but where low <= lane - (first + row) <= high
 * tile_alibi         s = s - slope |lane - (first + row)|
 * tile_softmax       adds rows to *state, s = exp(s - ref), 0 where s is -inf. False, every
 *                    factor 1, where no reference rose. A lane with NaN or +inf gets NaN. Where
 *                    no logit is above ref + 20 the reference stays
 * tile_finish        inverse = 1 / sum, lse = ref + log(sum); 0 and -inf where sum is 0
 * tile_scale         each row of y times x [n]
 * tile_grad          s = p = exp(s - lse), 0 where s or lse is -inf; d = p (d - delta), 0 where
 *                    p is
 * tile_keep          4 rows of n lanes: keep where word r of the Philox block first +
 *                    lane per_row is at least threshold, else 0; see core/rng.h
 */
#define SLG_KERNELS_TILE(K)                                                                    \
    K(void, tile_gemm, (const tile_product *t))                                                \
    K(bool, finite, (size_t n, const float *x))                                                \
    K(void, transpose,                                                                         \
      (size_t m, size_t n, const float *x, ptrdiff_t ldx, float a, float *y, ptrdiff_t ldy))   \
    K(void, tile_band,                                                                         \
      (size_t m, size_t n, float *s, size_t ld, int64_t first, int64_t low, int64_t high))     \
    K(void, tile_alibi, (size_t m, size_t n, float *s, size_t ld, int64_t first, float slope)) \
    K(bool, tile_softmax, (size_t m, size_t n, float *s, size_t ld, const tile_lanes *state))  \
    K(void, tile_finish, (size_t n, const tile_lanes *state, float *inverse, float *lse))      \
    K(void, tile_scale, (size_t m, size_t n, const float *x, float *y, size_t ld))             \
    K(void, tile_grad,                                                                         \
      (size_t m, size_t n, float *s, float *d, size_t ld, const float *lse,                    \
       const float *delta))                                                                    \
    K(void, tile_keep,                                                                         \
      (size_t n, uint64_t seed, uint64_t first, uint64_t per_row, uint32_t threshold,          \
       float keep, float *out, size_t ld))

/*
 * Attention to keys that are kept, float32 or 16 bits: see cache_scores, cache_values.
 *
 * cache_softmax      adds rows of s [rows, n], n a multiple of 16, to *state: s = exp(s - ref),
 *                    0 where s is -inf. What was summed before is to be multiplied by factor;
 *                    false: all are 1. As tile_softmax
 */
#define SLG_KERNELS_CACHE(K)                                                                   \
    K(void, cache_scores_f32, (const cache_scores *a))                                         \
    K(void, cache_scores_bf16, (const cache_scores *a))                                        \
    K(void, cache_scores_f16, (const cache_scores *a))                                         \
    K(bool, cache_softmax,                                                                     \
      (size_t rows, size_t n, float *s, size_t ld, const cache_state *state))                  \
    K(void, cache_values_f32, (const cache_values *a))                                         \
    K(void, cache_values_bf16, (const cache_values *a))                                        \
    K(void, cache_values_f16, (const cache_values *a))

/*
 * Objectives: rows of data, and doubles. Suffix f32: x, w float32; wide: x float32, w
 * double; f64: both double. NaN and infinities as in sums of products.
 *
 * row_dots           out = w x', of the type of w: see row_products
 * row_sums           out = out + w x, out double; w x is summed in the type of w
 * exp_f64            y = exp(x); 0 below -708.4, inf above 709.4 or a little less
 * log1p_f64          y = log(1 + x), 0 <= x <= 2^1000
 */
#define SLG_KERNELS_ROWS(K)                                                                    \
    K(void, row_dots_f32, (const row_products *t))                                             \
    K(void, row_dots_wide, (const row_products *t))                                            \
    K(void, row_dots_f64, (const row_products *t))                                             \
    K(void, row_sums_f32, (const row_products *t))                                             \
    K(void, row_sums_wide, (const row_products *t))                                            \
    K(void, row_sums_f64, (const row_products *t))                                             \
    K(void, exp_f64, (size_t n, const double *x, double *y))                                   \
    K(void, log1p_f64, (size_t n, const double *x, double *y))

/* All of them. The build looks for the tests of the families that stand here. */
#define SLG_KERNELS(K)                                                                         \
    SLG_KERNELS_EXP(K)                                                                         \
    SLG_KERNELS_PAIR(K)                                                                        \
    SLG_KERNELS_BINARY(K)                                                                      \
    SLG_KERNELS_SOFTMAX(K)                                                                     \
    SLG_KERNELS_SUMS(K)                                                                        \
    SLG_KERNELS_MAP(K)                                                                         \
    SLG_KERNELS_STABLE(K)                                                                      \
    SLG_KERNELS_HINGE(K)                                                                       \
    SLG_KERNELS_CONVERT(K)                                                                     \
    SLG_KERNELS_UPDATE(K)                                                                      \
    SLG_KERNELS_DIFFUSION(K)                                                                   \
    SLG_KERNELS_BARRIER(K)                                                                     \
    SLG_KERNELS_SURROGATE(K)                                                                   \
    SLG_KERNELS_LAYER(K)                                                                       \
    SLG_KERNELS_TILE(K)                                                                        \
    SLG_KERNELS_CACHE(K)                                                                       \
    SLG_KERNELS_ROWS(K)

typedef struct kernel_table {
#define K(result, name, args) result(*name) args;
    SLG_KERNELS(K)
#undef K
} kernel_table;

/* slg_lse_avx2 and so on. */
#define K_PORTABLE(result, name, args) result slg_##name##_portable args;
#define K_AVX2(result, name, args) result slg_##name##_avx2 args;
#define K_AVX512(result, name, args) result slg_##name##_avx512 args;
SLG_KERNELS(K_PORTABLE)
SLG_KERNELS(K_AVX2)
SLG_KERNELS(K_AVX512)
#undef K_PORTABLE
#undef K_AVX2
#undef K_AVX512

/* Best slg_isa of this CPU and build (SLG_ISA_PORTABLE or better), through cpuinfo. */
int32_t kernels_cpu_isa(void);

/* Fills the table: portable, overwritten by each level up to isa. */
void kernels_fill(kernel_table *k, int32_t isa);

#endif
