/*
 * learner.h - a kind of learner: how many numbers of state it keeps, how it decides and how it
 * moves. The handle (learner.c) owns the state, reads the caller's vectors and counts rounds.
 *
 * A new kind is a file, its options in the union, and a line in kind_of's table.
 */
#ifndef SLG_ONLINE_LEARNER_H
#define SLG_ONLINE_LEARNER_H

#include "core/ctx.h"
#include "softlogit/online.h"

/* Bounds of positive options: what is made of them and of float32 vectors, squares too, is
   finite in double. */
#define ONLINE_LEAST 1e-18
#define ONLINE_MOST 1e18

typedef union learner_opts {
    slg_omd_opts omd;
    slg_hedge_opts hedge;
    slg_ftrl_opts ftrl;
    slg_omd_ensemble_opts ensemble;
} learner_opts;

typedef struct learner_kind learner_kind;

struct slg_learner {
    slg_ctx *ctx;
    const learner_kind *kind;
    learner_opts opts;
    int64_t d, rounds, count;
    int32_t experts; /* N of an ensemble */
    int32_t hint;    /* slg_hint */
    double *state;   /* [count]; the first d: what was observed last */
};

struct learner_kind {
    int32_t kind;

    /* Reads and checks opts (NULL: the defaults); fills l->opts, experts, hint and count. */
    slg_status (*open)(slg_learner *l, const void *opts);
    /* The state of round 1; it is zero on entry. */
    void (*start)(slg_learner *l);
    /* Checks a vector of the caller (name: "hint" or "g"), which may change it. */
    slg_status (*accept)(const slg_learner *l, const char *name, double *v);
    /* x[d] from the hint m[d]. */
    slg_status (*decide)(const slg_learner *l, const double *m, double *x);
    /* Moves the state but for what was observed last; what fails, fails before it writes. */
    slg_status (*observe)(slg_learner *l, const double *m, const double *g);
    void (*info)(const slg_learner *l, slg_learner_info_t *info);
    /* Extents of a part (ndim 0: there is none), and its values. */
    int32_t (*shape)(const slg_learner *l, int32_t part, int64_t shape[2]);
    slg_status (*read)(const slg_learner *l, int32_t part, double *out);
};

extern const learner_kind learner_omd, learner_hedge, learner_ensemble, learner_ftrl;

/* The hint where the caller gives none. */
const double *learner_hint(const slg_learner *l);

/* SLG_ERR_RANGE with name, place and value unless all of v is finite. */
slg_status finite_vector(const slg_learner *l, const char *name, double *v);

/* SLG_ERR_RANGE unless the value is from ONLINE_LEAST, or from 0, to ONLINE_MOST. */
slg_status option_positive(slg_ctx *ctx, const char *name, double value);
slg_status option_not_negative(slg_ctx *ctx, const char *name, double value);

/* ---- hedge.c: also the ensemble's and FTRL's -------------------------------------------- */

/* eps_t, 0 for one expert. */
double hedge_rate(int64_t n, double bound, double variation);

/* p = softmax(-eps (total + m)); +inf in total: p is 0. */
void hedge_weights(int64_t n, double eps, const double *total, const double *m, double *p);

/* max |l - m|^2 over experts that are left. */
double hedge_surprise(int64_t n, const double *total, const double *m, const double *l);

/*
 * What Hedge and FTRL share: losses of experts are summed, +inf takes one out. State: last
 * losses [d], sums of losses [d], V.
 */
static inline int64_t experts_count(int64_t d) { return 2 * d + 1; }
double *experts_totals(const slg_learner *l);
double *experts_variation(const slg_learner *l);

/* Of a learner_kind. accept: what is given for an expert that is out becomes 0. */
void experts_start(slg_learner *l);
slg_status experts_accept(const slg_learner *l, const char *name, double *v);
slg_status experts_observe(slg_learner *l, const double *m, const double *g);
int32_t experts_shape(const slg_learner *l, int32_t part, int64_t extents[2]);
slg_status experts_read(const slg_learner *l, int32_t part, double *out);

#endif
