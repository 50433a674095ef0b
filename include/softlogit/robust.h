/*
 * robust.h - training against perturbed inputs: the smooth adversarial comp-sum loss, what an
 * attack ascends, and the bounds between comp-sum losses and the zero-one loss.
 *
 * Mao, Mohri, Zhong, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
 * 2023.
 */
#ifndef SOFTLOGIT_ROBUST_H
#define SOFTLOGIT_ROBUST_H

#include "softlogit/loss.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Options of slg_adversarial_comp_sum. */
typedef struct slg_adversarial_comp_sum_opts {
    uint32_t size;             /* sizeof(slg_adversarial_comp_sum_opts), set by its _init */
    int32_t reduction;         /* slg_reduction; default SLG_MEAN */
    slg_tensor *margin_change; /* out: NULL, or [rows] f32, f64: r, without weights; 0 if
                                  ignored */
    double tau;                /* from 0 to 1e6; default 1: see slg_comp_sum */
    double rho;                /* scale of margins, from 1e-6 to 1e6; default 1 */
    double nu;                 /* weight of r, from 0 to 1e6; default 1 */
} slg_adversarial_comp_sum_opts;

SLG_API void slg_adversarial_comp_sum_opts_init(slg_adversarial_comp_sum_opts *opts,
                                                size_t size);

/*
 * The smooth adversarial comp-sum loss of clean scores H and scores A of perturbed inputs. With
 * margins D(Z)[k] = Z[t] - Z[k] over k != t, e = D(A) - D(H), r = ||e||, g = e / r (0 where r
 * is 0):
 *
 *     loss = w * (Phi_tau(sum over k != t of exp(-D(H)[k] / rho)) + nu r)
 *     dA[t] = w nu sum g,  dA[k] = -w nu g[k]
 *     dH = (comp-sum's gradient at H / rho) / rho - dA
 *
 * H and A are logits as slg_logits makes them, divided by their own temperatures.
 *
 *   clean       in   H: [rows, cols] or an output layer
 *   targets     in   index; teacher: the source of A; row_weight; the rest NULL
 *   opts        in   NULL: the defaults. What opts->margin_change points to is written.
 *   out         out  see slg_loss_out; not NULL. lse is of H / rho; correct counts the clean
 *                    rows.
 *   dclean      out  as the gradient of any loss, of clean; NULL: not wanted
 *   dperturbed  out  of targets->teacher, in place allowed there too; NULL: not wanted.
 *                    Overlaps nothing else.
 *
 * A class that is masked in H or in A is left out of r, with gradient 0 in the one that is
 * masked; if the target is, r is 0. What the comp-sum part then gives is said in slg_comp_sum.
 * NaN or +inf in either row: loss, r and both gradients NaN. All of H masked: loss +inf, r and
 * gradients 0. A = H + a constant: r = 0 (up to the rounding of A). nu too large collapses
 * training to constant scores: ramp it up, and keep nu * rho <= 0.8 (ours).
 *
 * Cost: one read of H and A, one write of each gradient; scratch of some rows a thread.
 * Errors: as slg_cross_entropy; SLG_ERR_RANGE for an option outside of its domain. Since 0.1.
 */
SLG_API slg_status slg_adversarial_comp_sum(slg_ctx *ctx, const slg_logits *clean,
                                            const slg_targets *targets,
                                            const slg_adversarial_comp_sum_opts *opts,
                                            slg_loss_out *out, slg_logits_grad *dclean,
                                            slg_logits_grad *dperturbed);

/* Options of slg_margin_change. */
typedef struct slg_margin_change_opts {
    uint32_t size;     /* sizeof(slg_margin_change_opts), set by its _init */
    int32_t reduction; /* slg_reduction; default SLG_SUM */
} slg_margin_change_opts;

SLG_API void slg_margin_change_opts_init(slg_margin_change_opts *opts, size_t size);

/*
 * What the attack ascends: loss = w r as above, with the gradient by A alone. Here A
 * is `logits`, H the teacher, whose scores are constants. Edge cases, cost and errors as above.
 * Where r is 0 so is the gradient: start from a random point. Since 0.1.
 */
SLG_API slg_status slg_margin_change(slg_ctx *ctx, const slg_logits *logits,
                                     const slg_targets *targets,
                                     const slg_margin_change_opts *opts, slg_loss_out *out,
                                     slg_logits_grad *grad);

/* ---- Attack steps ------------------------------------------------------------------------ */

enum slg_ball { SLG_BALL_LINF = 0, SLG_BALL_L2 = 1 };

/* Options of slg_attack_step and slg_attack_start. */
typedef struct slg_attack_opts {
    uint32_t size; /* sizeof(slg_attack_opts), set by its _init */
    int32_t ball;  /* slg_ball; default SLG_BALL_LINF */
    double radius; /* of the ball around x0, >= 0, finite; default 8 / 255 */
    double step;   /* finite; default 2 / 255; below 0: descent */
    double low;    /* inputs stay within [low, high]; default 0 and 1; low <= high, -inf and
                      inf */
    double high;   /*   are allowed */
} slg_attack_opts;

SLG_API void slg_attack_opts_init(slg_attack_opts *opts, size_t size);

/*
 * One step of projected gradient ascent on inputs, a row each:
 *
 *     L-infinity:  y = clip(x + step sign(dx), x0 - radius, x0 + radius), into [low, high]
 *     L2:          y = x0 + project(x + step dx / ||dx|| - x0), into [low, high];
 *                  no step where ||dx|| is 0
 *
 *   x, dx, x0  in   [rows, dim] f32
 *   opts       in   NULL: the defaults
 *   y          out  [rows, dim] f32; may be x or dx itself
 *
 * x0 outside of [low, high] is clipped all the same. A NaN of dx: no step of that element
 * (L-infinity), a row of NaN (L2). Sums in double. Errors: SLG_ERR_NULL, SLG_ERR_SHAPE,
 * SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_OPTIONS, SLG_ERR_RANGE. Since 0.1.
 */
SLG_API slg_status slg_attack_step(slg_ctx *ctx, const slg_tensor *x, const slg_tensor *dx,
                                   const slg_tensor *x0, const slg_attack_opts *opts,
                                   slg_tensor *y);

/*
 * A random start: each element of x0 moved by a uniform number in (-radius, radius), into
 * the ball (L2: projected) and [low, high]. Draws rows * dim numbers of rng. Operands and
 * errors as above.
 */
SLG_API slg_status slg_attack_start(slg_ctx *ctx, const slg_tensor *x0, slg_rng *rng,
                                    const slg_attack_opts *opts, slg_tensor *y);

/* ---- Consistency bounds ------------------------------------------------------------------ */

/*
 * T_tau(b) for n classes, b in [0, 1]: the excess zero-one loss b costs at least T_tau(b)
 * of excess comp-sum loss (minimizability gaps added to both):
 *
 *     S = (((1+b)^(1/(2-tau)) + (1-b)^(1/(2-tau))) / 2)^(2-tau)
 *     tau < 1: 2^(1-tau) / (1-tau) (1 - S)      tau = 1: ((1+b) log(1+b) + (1-b) log(1-b)) / 2
 *     1 < tau < 2: (S - 1) / ((tau-1) n^(tau-1))     tau >= 2: b / ((tau-1) n^(tau-1))
 *
 * NaN for tau < 0, b outside of [0, 1], n < 1 or a NaN. Since 0.1.
 */
SLG_API double slg_comp_sum_transform(double tau, int64_t classes, double b);

/* Gamma_tau(t): its inverse on [0, 1], 1 beyond T_tau(1): the excess zero-one loss is at most
   Gamma of the excess comp-sum loss. By bisection. NaN for t < 0 as well. Since 0.1. */
SLG_API double slg_comp_sum_bound(double tau, int64_t classes, double t);

#ifdef __cplusplus
}
#endif

#endif
