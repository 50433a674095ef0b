/*
 * ours.c - the library's candidates.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"

void stop(race *r, slg_status status, const char *what)
{
    if (status == SLG_OK) return;
    fprintf(stderr, "peers: %s: %s: %s: %s\n", r->w->name, what, slg_status_string(status),
            r->ctx ? slg_ctx_message(r->ctx) : "");
    exit(1);
}

/* ---- Softmax and its kin ---------------------------------------------------------------- */

typedef struct softmax_state {
    slg_tensor x, y, lse;
    slg_softmax_opts opts;
    const slg_softmax_opts *given;
} softmax_state;

static void *softmax_prepare(race *r, const char *algorithm)
{
    softmax_state *s = calloc(1, sizeof *s);
    s->x = slg_tensor_2d(r->x, SLG_F32, r->rows, r->cols);
    s->y = slg_tensor_2d(r->y, SLG_F32, r->rows, r->cols);
    s->lse = slg_tensor_1d(r->row_out, SLG_F32, r->rows);
    slg_softmax_opts_init(&s->opts, sizeof s->opts);
    if (algorithm) {
        s->opts.algorithm = atoi(algorithm);
        s->given = &s->opts;
    }
    return s;
}

/* On logits of sd 3, beside a race over others. */
static void *softmax_prepare_normal(race *r, const char *arg)
{
    (void)arg;
    if (!r->x_normal) return NULL;
    softmax_state *s = softmax_prepare(r, NULL);
    s->x.data = r->x_normal;
    return s;
}

static void *classic_prepare(race *r, const char *algorithm)
{
    return r->cols < 64 ? NULL : softmax_prepare(r, algorithm);
}

static void softmax_run(race *r, void *state, int64_t times)
{
    softmax_state *s = state;
    while (times--) stop(r, slg_softmax(r->ctx, &s->x, s->given, &s->y, NULL), "softmax");
}

static void log_softmax_run(race *r, void *state, int64_t times)
{
    softmax_state *s = state;
    while (times--) stop(r, slg_log_softmax(r->ctx, &s->x, NULL, &s->y, NULL), "log_softmax");
}

static void logsumexp_run(race *r, void *state, int64_t times)
{
    softmax_state *s = state;
    while (times--) stop(r, slg_logsumexp(r->ctx, &s->x, NULL, &s->lse), "logsumexp");
}

static void free_state(race *r, void *state) { (void)r, free(state); }

/* Puts the result for x in y, so that its check is that of x. */
static void softmax_fetch_normal(race *r, void *state)
{
    softmax_state s = *(softmax_state *)state;
    s.x.data = r->x;
    softmax_run(r, &s, 1);
}

const candidate ours_softmax = { "ours",      OURS, NULL,       softmax_prepare,
                                 softmax_run, NULL, free_state, NULL };
const candidate ours_softmax_normal = { "ours-sd3",  OURS,
                                        NULL,        softmax_prepare_normal,
                                        softmax_run, softmax_fetch_normal,
                                        free_state,  NULL };
/* slg_algorithm: the textbook forms, on the library's vectors. They stand in for the peers that
   are not packaged. */
const candidate ours_two_pass = { "two-pass",  FORM, "1",        classic_prepare,
                                  softmax_run, NULL, free_state, NULL };
const candidate ours_recompute = { "recompute", FORM, "2",        classic_prepare,
                                   softmax_run, NULL, free_state, NULL };
const candidate ours_reload = { "reload",    FORM, "3",        classic_prepare,
                                softmax_run, NULL, free_state, NULL };
const candidate ours_log_softmax = { "ours",          OURS, NULL,       softmax_prepare,
                                     log_softmax_run, NULL, free_state, NULL };
const candidate ours_logsumexp = { "ours",        OURS, NULL,       softmax_prepare,
                                   logsumexp_run, NULL, free_state, NULL };

/* ---- Cross-entropy ---------------------------------------------------------------------- */

typedef struct loss_state {
    slg_tensor x, hidden, weight, index, dx, dhidden, dweight;
    slg_logits logits;
    slg_targets targets;
    slg_loss_out out;
    slg_logits_grad grad;
    bool copied;
} loss_state;

static loss_state *loss_prepare(race *r)
{
    loss_state *s = calloc(1, sizeof *s);
    slg_logits_init(&s->logits, sizeof s->logits);
    slg_targets_init(&s->targets, sizeof s->targets);
    slg_loss_out_init(&s->out, sizeof s->out);
    slg_logits_grad_init(&s->grad, sizeof s->grad);
    s->index = slg_tensor_1d(r->target, SLG_I64, r->rows);
    s->targets.index = &s->index;
    return s;
}

static loss_state *dense_prepare(race *r, const float *x)
{
    loss_state *s = loss_prepare(r);
    s->x = slg_tensor_2d(x, SLG_F32, r->rows, r->cols);
    s->dx = slg_tensor_2d(r->y, SLG_F32, r->rows, r->cols);
    s->logits.dense = &s->x;
    s->grad.dlogits = &s->dx;
    return s;
}

static void *cross_entropy_prepare(race *r, const char *arg)
{
    (void)arg;
    return dense_prepare(r, r->x);
}

static void *cross_entropy_prepare_normal(race *r, const char *arg)
{
    (void)arg;
    return r->x_normal ? dense_prepare(r, r->x_normal) : NULL;
}

static void *cross_entropy_prepare_in_place(race *r, const char *arg)
{
    (void)arg;
    return dense_prepare(r, r->y);
}

static void cross_entropy_run(race *r, void *state, int64_t times)
{
    loss_state *s = state;
    while (times--)
        stop(r, slg_cross_entropy(r->ctx, &s->logits, &s->targets, NULL, &s->out, &s->grad),
             "cross_entropy");
    r->loss = s->out.value;
}

/* The first run has the logits; later ones go over what lies there, which takes as long. */
static void cross_entropy_run_in_place(race *r, void *state, int64_t times)
{
    loss_state *s = state;
    if (!s->copied) memcpy(r->y, r->x, (size_t)(r->rows * r->cols) * sizeof(float));
    s->copied = true;
    cross_entropy_run(r, state, times);
}

static void cross_entropy_fetch_normal(race *r, void *state)
{
    loss_state *s = state;
    s->x.data = r->x;
    cross_entropy_run(r, s, 1);
    s->x.data = r->x_normal;
}

const candidate ours_cross_entropy = {
    "ours", OURS, NULL, cross_entropy_prepare, cross_entropy_run, NULL, free_state, NULL
};
const candidate ours_cross_entropy_normal = { "ours-sd3",
                                              OURS,
                                              NULL,
                                              cross_entropy_prepare_normal,
                                              cross_entropy_run,
                                              cross_entropy_fetch_normal,
                                              free_state,
                                              NULL };
const candidate ours_cross_entropy_in_place = {
    "in-place", OURS,       NULL, cross_entropy_prepare_in_place, cross_entropy_run_in_place,
    NULL,       free_state, NULL
};

/* ---- Output layer and cross-entropy ----------------------------------------------------- */

static void *linear_prepare(race *r, const char *arg)
{
    (void)arg;
    loss_state *s = loss_prepare(r);
    s->hidden = slg_tensor_2d(r->hidden, SLG_F32, r->rows, r->dim);
    s->weight = slg_tensor_2d(r->weight, SLG_F32, r->cols, r->dim);
    s->dhidden = slg_tensor_2d(r->dhidden, SLG_F32, r->rows, r->dim);
    s->dweight = slg_tensor_2d(r->dweight, SLG_F32, r->cols, r->dim);
    s->logits.hidden = &s->hidden;
    s->logits.weight = &s->weight;
    s->grad.dhidden = &s->dhidden;
    s->grad.dweight = &s->dweight;
    return s;
}

void scratch_memory(race *r, void *state)
{
    slg_ctx_info_t info = { .size = sizeof info };
    (void)state;
    stop(r, slg_ctx_info(r->ctx, &info), "ctx_info");
    r->memory = (double)info.scratch_peak_bytes;
}

const candidate ours_linear = {
    "ours", OURS, NULL, linear_prepare, cross_entropy_run, scratch_memory, free_state, NULL
};

/* ---- AdamW ------------------------------------------------------------------------------ */

typedef struct adamw_state {
    slg_optimizer *o;
    int64_t count;
    slg_tensor w[MAX_TENSORS], g[MAX_TENSORS], *ws[MAX_TENSORS];
    const slg_tensor *gs[MAX_TENSORS];
} adamw_state;

static void *adamw_prepare(race *r, const char *arg)
{
    int64_t size[MAX_TENSORS], at = 0;
    adamw_state *s = calloc(1, sizeof *s);
    slg_optimizer_setup setup;
    slg_optimizer_setup_init(&setup, sizeof setup);
    if (arg) setup.state_dtype = SLG_BF16;
    s->count = tensor_sizes(r, size, MAX_TENSORS);
    for (int64_t i = 0; i < s->count; at += size[i++]) {
        s->w[i] = slg_tensor_1d(r->x + at, SLG_F32, size[i]);
        s->g[i] = slg_tensor_1d(r->grad + at, SLG_F32, size[i]);
        s->ws[i] = &s->w[i];
        s->gs[i] = &s->g[i];
    }
    stop(r, slg_optimizer_create_with(r->ctx, SLG_ADAMW, r->cols, NULL, &setup, &s->o),
         "optimizer_create");
    return s;
}

/* The same with a chain: clipped to norm 1, then perpendicular to each tensor. */
static void *chain_prepare(race *r, const char *arg)
{
    adamw_state *s = adamw_prepare(r, arg);
    const slg_transform links[] = { slg_transform_of(SLG_CLIP_NORM, 1),
                                    slg_transform_of(SLG_PERPENDICULAR, 1e-6) };
    stop(r, slg_optimizer_set_chain(s->o, 2, links), "optimizer_set_chain");
    return s;
}

static void adamw_run(race *r, void *state, int64_t times)
{
    adamw_state *s = state;
    while (times--) stop(r, slg_optimizer_step_list(s->o, s->count, s->ws, s->gs), "step_list");
}

static void adamw_release(race *r, void *state)
{
    (void)r;
    slg_optimizer_free(((adamw_state *)state)->o);
    free(state);
}

const candidate ours_adamw = { "ours",    OURS, NULL,          adamw_prepare,
                               adamw_run, NULL, adamw_release, NULL };
const candidate ours_adamw_half = { "bf16-state", OURS, "bf16",        adamw_prepare,
                                    adamw_run,    NULL, adamw_release, NULL };
const candidate ours_update_chain = { "ours",    OURS, NULL,          chain_prepare,
                                      adamw_run, NULL, adamw_release, NULL };
