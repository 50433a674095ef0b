/*
 * online.h - learners that play rounds: decide on a point (or a distribution), see the loss's
 * gradient (or each expert's loss), and move. All kinds have one handle.
 *
 *     for each round
 *         slg_learner_decide(l, NULL, &x);     x_t; as often as wanted, nothing changes
 *         ... the loss at x_t, its gradient g_t
 *         slg_learner_observe(l, NULL, &g);    the next round
 *
 * A learner is optimistic: it plays as if it knew a hint m_t of the gradient to come, and what
 * it loses by playing grows with |g_t - m_t| alone. The hint is the last gradient (0 in round
 * 1), or the caller's, given to decide and to observe of the same round. The hint 0 makes plain
 * mirror descent and plain Hedge.
 *
 * State and sums are in double, so results have the same bits on every ISA and for any number
 * of threads. There is no randomness.
 *
 * Papers: "Optimistic Online Mirror Descent for Bridging Stochastic and Adversarial Online
 * Convex Optimization" (2023); of SLG_FTRL "Refined Regret for Adversarial MDPs with Linear
 * Function Approximation" (2023).
 */
#ifndef SOFTLOGIT_ONLINE_H
#define SOFTLOGIT_ONLINE_H

#include "softlogit/core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct slg_learner slg_learner;

/* Kinds of learners, each with its options struct. */
enum slg_learner_kind {
    SLG_OMD = 1,          /* slg_omd_opts: optimistic mirror descent */
    SLG_HEDGE = 2,        /* slg_hedge_opts: optimistic Hedge over experts */
    SLG_OMD_ENSEMBLE = 3, /* slg_omd_ensemble_opts: descents of many steps, combined by
                             Hedge */
    SLG_FTRL = 4          /* slg_ftrl_opts: follow the regularised leader over actions */
};

/* The set X that is played in. */
enum slg_domain {
    SLG_DOMAIN_FREE = 0,           /* all of R^d */
    SLG_DOMAIN_BALL = 1,           /* |x| <= radius */
    SLG_DOMAIN_BOX = 2,            /* lo <= x[i] <= hi */
    SLG_DOMAIN_SIMPLEX = 3,        /* x >= 0, sum 1; Euclidean distance */
    SLG_DOMAIN_SIMPLEX_ENTROPY = 4 /* the same; Kullback-Leibler divergence */
};

/* How a descent chooses its step eta_t. */
enum slg_omd_mode {
    SLG_OMD_CONVEX = 0,          /* numerator / sqrt(offset + 4 grad_bound^2 + V_{t-1}) */
    SLG_OMD_STRONGLY_CONVEX = 1, /* 2 / (lambda t) */
    SLG_OMD_EXP_CONCAVE = 2,     /* 1, in a metric that the gradients make */
    SLG_OMD_CONSTANT = 3         /* eta */
};

/* The hint of a round in which the caller gives none. */
enum slg_hint {
    SLG_HINT_LAST = 0, /* what was observed last; 0 in round 1 */
    SLG_HINT_ZERO = 1
};

/*
 * Optimistic online mirror descent. With D_psi the domain's divergence and xhat_1 = 0 (or the
 * uniform distribution), in round t:
 *
 *     x_t        = argmin over X of eta_t <m_t, x> + D_psi(x, xhat_t)
 *     xhat_{t+1} = argmin over X of eta_t <g_t, x> + D_psi(x, xhat_t)
 *
 * Free, ball, box, Euclidean simplex: psi = |x|^2 / 2, so both are projections of
 * xhat_t - eta_t m_t (or g_t). Entropic simplex: softmax(log xhat_t - eta_t m_t); the state is
 * log xhat_t, which may be -2000 and come back. V_t sums |g_s - m_s|^2 over s <= t, there with
 * the maximum norm.
 *
 * SLG_OMD_EXP_CONCAVE (free and ball): psi = x'H_t x / 2 and eta = 1, with
 *
 *     H_1 = (1 + beta grad_bound^2 / 2) I,    H_{t+1} = H_t + (beta / 2) g_t g_t'
 *     beta = min(1 / (4 grad_bound diameter), alpha) / 2    where alpha is given
 *
 * the projection being that of the metric H_t. H_t^-1 is what is kept: eigenvalues of H_t more
 * than 1e15 apart have no digits, and plays are then merely in the ball.
 *
 * Cost: O(d) a call; O(d log d) at most on the Euclidean simplex; exp-concave O(d^2), and a few
 * d^3 / 3 where the ball holds the point back. State: 2 d doubles, and d^2 if exp-concave.
 */
typedef struct slg_omd_opts {
    uint32_t size;     /* sizeof(slg_omd_opts), set by slg_omd_opts_init */
    int32_t domain;    /* slg_domain; default SLG_DOMAIN_BALL */
    int32_t mode;      /* slg_omd_mode; default SLG_OMD_CONVEX */
    int32_t hint;      /* slg_hint; default SLG_HINT_LAST */
    double radius;     /* of the ball: 0, a point, or from 1e-18; default 1 */
    double lo, hi;     /* of the box, lo <= hi; default 0, 1 */
    double numerator;  /* > 0; default NAN: the diameter, 2 radius, (hi - lo) sqrt(d), sqrt(2),
                          or sqrt(log d) on the entropic simplex; must be given if free */
    double offset;     /* > 0; default 1: 10 diameter^2 L^2 in theory, for L-smooth losses */
    double grad_bound; /* G >= 0, a bound on |g_t|; default 0. Needed with alpha. */
    double lambda;     /* > 0; default 1: strong convexity */
    double eta;        /* > 0; default 0.1: the constant step */
    double alpha;      /* >= 0; default 0: exp-concavity, which sets beta (ball alone) */
    double beta;       /* >= 0; default 0: itself, where alpha is 0 */
} slg_omd_opts;

SLG_API void slg_omd_opts_init(slg_omd_opts *opts, size_t size);

/*
 * Optimistic Hedge over d experts, with losses l_t (observed) and hints M_t of them:
 *
 *     p_t   = softmax(-eps_t (l_1 + ... + l_{t-1} + M_t))
 *     eps_t = sqrt(log d / (bound + sum over s < t of max_i |l_s[i] - M_s[i]|^2))
 *
 * A loss of +inf takes its expert out for good: weight 0, whatever comes, and what is given for
 * it is not read. The last expert cannot be taken out. d = 1: p = 1, eps = 0.
 */
typedef struct slg_hedge_opts {
    uint32_t size; /* sizeof(slg_hedge_opts), set by slg_hedge_opts_init */
    int32_t hint;  /* slg_hint; default SLG_HINT_LAST */
    double bound;  /* > 0; default 1 */
} slg_hedge_opts;

SLG_API void slg_hedge_opts_init(slg_hedge_opts *opts, size_t size);

/*
 * Dynamic regret, against comparators that move: N optimistic descents with constant steps
 *
 *     eta_i = eta_0 2^i while at most cap,    eta_0 = diameter / sqrt(8 grad_bound^2 rounds)
 *
 * (one of step min(eta_0, cap) at least), combined by optimistic Hedge with bound =
 * diameter^2 grad_bound^2, losses <g_t, x_{t,i}> and hints <m_t, x_{t,i}>. Plays
 * sum_i p_t[i] x_{t,i}. All see the gradient at the combined point: one a round. movement adds
 * movement |x_{t,i} - x_{t-1,i}|^2 to losses and hints (2 L in the paper's proof).
 *
 * Going on past `rounds` is allowed: the steps stay. Cost and state: N descents.
 */
typedef struct slg_omd_ensemble_opts {
    uint32_t size;     /* sizeof(slg_omd_ensemble_opts), set by its _init */
    int32_t domain;    /* slg_domain; default SLG_DOMAIN_BALL */
    int32_t hint;      /* slg_hint; default SLG_HINT_LAST */
    int32_t rounds;    /* T >= 1 that are expected; default 1000 */
    double radius;     /* as in slg_omd_opts */
    double lo, hi;     /* as in slg_omd_opts */
    double diameter;   /* > 0; default NAN: as numerator of slg_omd_opts, but sqrt(2) for both
                          simplexes */
    double grad_bound; /* > 0; default 1 */
    double cap;        /* > 0; default 1: 1 / (8 L) in theory */
    double movement;   /* >= 0; default 0 */
} slg_omd_ensemble_opts;

SLG_API void slg_omd_ensemble_opts_init(slg_omd_ensemble_opts *opts, size_t size);

/* What FTRL adds to the losses, so that it plays distributions. */
enum slg_ftrl_rule {
    SLG_FTRL_LOG_BARRIER = 0, /* sum log(1 / p[i]) */
    SLG_FTRL_ENTROPY = 1      /* sum p[i] log p[i]: Hedge */
};

/*
 * Follow the regularised leader over d actions, with losses l_t and hints M_t of them:
 *
 *     p_t = argmin over the simplex of eta_t <l_1 + ... + l_{t-1} + M_t, p> + R(p)
 *
 * With the log barrier p_t[i] = 1 / (eta_t (sum - its least) + nu): see slg_ftrl_policy of
 * mdp.h. Its regret is at most d log T / eta + eta sum_t sum_i p_t[i] l_t[i]^2, up to lower
 * orders, whatever the losses' signs; Hedge's needs eta l >= -1. SLG_HEDGE has a rate of its
 * own. A loss of +inf takes its action out for good, as in Hedge.
 */
typedef struct slg_ftrl_opts {
    uint32_t size;      /* sizeof(slg_ftrl_opts), set by slg_ftrl_opts_init */
    int32_t rule;       /* slg_ftrl_rule; default SLG_FTRL_LOG_BARRIER */
    int32_t hint;       /* slg_hint; default SLG_HINT_ZERO */
    int32_t decreasing; /* default 0: eta_t = eta; 1: eta / sqrt(t) */
    double eta;         /* > 0; default 0.1 */
} slg_ftrl_opts;

SLG_API void slg_ftrl_opts_init(slg_ftrl_opts *opts, size_t size);

/*
 * Makes a learner.
 *
 *   kind  in   slg_learner_kind
 *   d     in   number of coordinates (or experts), >= 1
 *   opts  in   the kind's options struct; NULL: its defaults
 *   l     out  the handle; NULL on an error
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS, SLG_ERR_MEMORY; SLG_ERR_RANGE for kind, d, or an
 * option outside of its domain (numbers: from 1e-18 to 1e18 where > 0), whether the mode uses
 * it or not.
 */
SLG_API slg_status slg_learner_create(slg_ctx *ctx, int32_t kind, int64_t d, const void *opts,
                                      slg_learner **l);

/* Frees; NULL is allowed. The context must still be there. */
SLG_API void slg_learner_free(slg_learner *l);

/*
 * What the learner plays in this round. The learner is as it was.
 *
 *   hint  [d]  in   f32, bf16, f16: of the gradient (or losses) to come; NULL: see slg_hint
 *   x     [d]  out  f32, f64, bf16, f16: x_t, or p_t; rounded once, so in its set up to that
 *
 * Any strides; x may be hint itself.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY;
 * SLG_ERR_RANGE for a hint that is not finite. x is untouched then.
 */
SLG_API slg_status slg_learner_decide(slg_learner *l, const slg_tensor *hint, slg_tensor *x);

/*
 * Ends the round.
 *
 *   hint  [d]  in  as it was given to decide; NULL: see slg_hint
 *   g     [d]  in  f32, bf16, f16: the gradient of the round's loss at x_t; Hedge: the losses
 *
 * Errors: as of decide; SLG_ERR_RANGE for a gradient or loss that is not finite (Hedge and
 * FTRL: NaN, -inf, or +inf for all experts that are left). The learner is untouched then.
 */
SLG_API slg_status slg_learner_observe(slg_learner *l, const slg_tensor *hint,
                                       const slg_tensor *g);

/* Back to round 1. */
SLG_API slg_status slg_learner_reset(slg_learner *l);

/* Rounds observed; 0 for NULL. */
SLG_API int64_t slg_learner_rounds(const slg_learner *l);

/* What slg_learner_info tells. */
typedef struct slg_learner_info_t {
    uint32_t size;    /* sizeof(slg_learner_info_t), set by slg_learner_info_init */
    int32_t kind;     /* slg_learner_kind */
    int32_t experts;  /* of an ensemble: N; else 0 */
    int32_t reserved; /* 0 */
    double step;      /* eta_t (or eps_t of Hedge and ensemble) of the round to be played */
    double variation; /* V: what stands in eta_t, eps_t beside the constant */
} slg_learner_info_t;

SLG_API void slg_learner_info_init(slg_learner_info_t *info, size_t size);

/* Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS (info->size). */
SLG_API slg_status slg_learner_info(slg_learner *l, slg_learner_info_t *info);

/* Parts of a learner's state. */
enum slg_learner_part {
    SLG_LEARNER_CENTER = 1,     /* [d] xhat_t of SLG_OMD; a distribution where entropic */
    SLG_LEARNER_LOG_CENTER = 2, /* [d] log xhat_t, where entropic */
    SLG_LEARNER_INVERSE = 3,    /* [d, d] H_t^-1, where exp-concave */
    SLG_LEARNER_TOTALS = 4,     /* [d], or [N]: sums of losses of Hedge, FTRL, an ensemble */
    SLG_LEARNER_STEPS = 5,      /* [N] constant steps of an ensemble */
    SLG_LEARNER_WEIGHTS = 6     /* [d], or [N]: p_t of Hedge, FTRL, an ensemble, no hint given
                                   by the caller */
};

/*
 * Copies a part of the state.
 *
 *   part  in   slg_learner_part
 *   out   out  f32, f64, bf16, f16, of the part's shape
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE, SLG_ERR_MEMORY;
 * SLG_ERR_RANGE for a part that this learner has not.
 */
SLG_API slg_status slg_learner_read(slg_learner *l, int32_t part, slg_tensor *out);

/*
 * State as bytes, little-endian, with kind, d and rounds in front and a checksum: imported into
 * a learner of the same kind, d and options it continues bit for bit. Options are not stored.
 *
 *   bytes   out  needed, or written, number of bytes; buffer NULL: only tells
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_RANGE (capacity too small), SLG_ERR_STATE (import: not such a
 * state, of another kind, d or size, or damaged). The learner is untouched then.
 *
 * All of this header: since 0.1.
 */
SLG_API slg_status slg_learner_export(slg_learner *l, void *buffer, int64_t capacity,
                                      int64_t *bytes);
SLG_API slg_status slg_learner_import(slg_learner *l, const void *buffer, int64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
