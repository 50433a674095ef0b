/*
 * loss_world.h - for tests of errors: a world is a call of slg_cross_entropy that works, of one
 * of three kinds; each case spoils one thing of it, and nothing may have been written.
 */
#ifndef TESTS_LOSS_LOSS_WORLD_H
#define TESTS_LOSS_LOSS_WORLD_H

#include "loss_test.h"

enum { ROWS = 4, COLS = 6, DIM = 3 };

enum kind { DENSE, PROB, FUSED };

typedef struct world {
    /* Memory of everything; outputs come after. */
    float x[ROWS * COLS], q[ROWS * COLS], row_w[ROWS], class_w[COLS], mask_w[COLS];
    float tau_w[ROWS];
    float hidden_w[ROWS * DIM], weight_w[COLS * DIM], bias_w[COLS];
    int64_t index_w[ROWS];
    struct outputs {
        float dx[ROWS * COLS], loss[ROWS], lse[ROWS], dhidden[ROWS * DIM], dweight[COLS * DIM];
        float dbias[COLS];
    } y;
    slg_tensor dense, prob, index, row_weight, class_weight, mask, hidden, weight, bias;
    slg_tensor row_temperature, dlogits, loss, lse, dhidden, dweight, dbias;
    slg_logits logits;
    slg_targets targets;
    slg_cross_entropy_opts opts;
    slg_loss_out out;
    slg_logits_grad grad;
} world;

static slg_ctx *ctx;
static int cases;

static inline void world_init(world *w, enum kind kind)
{
    memset(w, 0, sizeof *w);
    for (int i = 0; i < ROWS * COLS; i++)
        w->x[i] = (float)i / 7, w->q[i] = i % COLS == 2 ? 1 : 0;
    for (int i = 0; i < ROWS; i++) w->row_w[i] = w->tau_w[i] = 1, w->index_w[i] = i;
    for (int i = 0; i < COLS; i++) w->class_w[i] = w->mask_w[i] = 1, w->bias_w[i] = 0.5f;
    for (int i = 0; i < ROWS * DIM; i++) w->hidden_w[i] = (float)i / 5;
    for (int i = 0; i < COLS * DIM; i++) w->weight_w[i] = (float)(i % 4);
    memset(&w->y, 0x5A, sizeof w->y);
    w->dense = slg_tensor_2d(w->x, SLG_F32, ROWS, COLS);
    w->prob = slg_tensor_2d(w->q, SLG_F32, ROWS, COLS);
    w->index = slg_tensor_1d(w->index_w, SLG_I64, ROWS);
    w->row_weight = slg_tensor_1d(w->row_w, SLG_F32, ROWS);
    w->class_weight = slg_tensor_1d(w->class_w, SLG_F32, COLS);
    w->mask = slg_tensor_1d(w->mask_w, SLG_F32, COLS);
    w->row_temperature = slg_tensor_1d(w->tau_w, SLG_F32, ROWS);
    w->hidden = slg_tensor_2d(w->hidden_w, SLG_F32, ROWS, DIM);
    w->weight = slg_tensor_2d(w->weight_w, SLG_F32, COLS, DIM);
    w->bias = slg_tensor_1d(w->bias_w, SLG_F32, COLS);
    w->dlogits = slg_tensor_2d(w->y.dx, SLG_F32, ROWS, COLS);
    w->loss = slg_tensor_1d(w->y.loss, SLG_F32, ROWS);
    w->lse = slg_tensor_1d(w->y.lse, SLG_F32, ROWS);
    w->dhidden = slg_tensor_2d(w->y.dhidden, SLG_F32, ROWS, DIM);
    w->dweight = slg_tensor_2d(w->y.dweight, SLG_F32, COLS, DIM);
    w->dbias = slg_tensor_1d(w->y.dbias, SLG_F32, COLS);
    slg_logits_init(&w->logits, sizeof w->logits);
    slg_targets_init(&w->targets, sizeof w->targets);
    slg_cross_entropy_opts_init(&w->opts, sizeof w->opts);
    slg_loss_out_init(&w->out, sizeof w->out);
    slg_logits_grad_init(&w->grad, sizeof w->grad);
    w->logits.mask = &w->mask;
    w->logits.row_temperature = &w->row_temperature;
    w->targets.row_weight = &w->row_weight;
    w->targets.class_weight = &w->class_weight;
    w->out.loss = &w->loss, w->out.lse = &w->lse;
    w->out.value = w->out.sum = w->out.weight = 77, w->out.count = w->out.correct = 77;
    if (kind == PROB)
        w->targets.prob = &w->prob;
    else
        w->targets.index = &w->index;
    if (kind == FUSED) {
        w->logits.hidden = &w->hidden, w->logits.weight = &w->weight, w->logits.bias = &w->bias;
        w->grad.dhidden = &w->dhidden, w->grad.dweight = &w->dweight, w->grad.dbias = &w->dbias;
    } else {
        w->logits.dense = &w->dense;
        w->grad.dlogits = &w->dlogits;
    }
}

/* The call must give `status` and a message that begins with the function's name and holds all
   of the parts, separated by |; and must have written nothing. */
static inline void refused_call(int line, slg_status want, const char *parts, world *w,
                                const slg_logits *l, const slg_targets *t,
                                const slg_cross_entropy_opts *o, slg_loss_out *out,
                                slg_logits_grad *g)
{
    world before;
    memcpy(&before, w, sizeof before);
    slg_status status = slg_cross_entropy(ctx, l, t, o, out, g);
    const char *message = slg_ctx_message(ctx);
    if (status != want)
        fail_msg("line %d: status %d, should be %d; %s", line, status, want, message);
    if (strncmp(message, "slg_cross_entropy: ", 19) != 0)
        fail_msg("line %d: %s", line, message);
    for (const char *p = parts; *p;) {
        char part[80];
        size_t n = strcspn(p, "|");
        assert_true(n < sizeof part);
        memcpy(part, p, n);
        part[n] = '\0';
        if (!strstr(message, part)) fail_msg("line %d: no '%s' in '%s'", line, part, message);
        p += n + (p[n] == '|');
    }
    if (memcmp(&before, w, sizeof before) != 0)
        fail_msg("line %d: something was written", line);
    cases++;
}

static inline void accepted_call(int line, world *w)
{
    slg_status status =
        slg_cross_entropy(ctx, &w->logits, &w->targets, &w->opts, &w->out, &w->grad);
    if (status) fail_msg("line %d: %d, %s", line, status, slg_ctx_message(ctx));
    if (w->out.count == 77) fail_msg("line %d: out was not written", line);
}

/* The change is made to a new world w. */
#define REFUSED(kind, status, parts, ...)                                                      \
    do {                                                                                       \
        world w;                                                                               \
        world_init(&w, kind);                                                                  \
        __VA_ARGS__;                                                                           \
        refused_call(__LINE__, status, parts, &w, &w.logits, &w.targets, &w.opts, &w.out,      \
                     &w.grad);                                                                 \
    } while (0)

#define ACCEPTED(kind, ...)                                                                    \
    do {                                                                                       \
        world w;                                                                               \
        world_init(&w, kind);                                                                  \
        __VA_ARGS__;                                                                           \
        accepted_call(__LINE__, &w);                                                           \
    } while (0)

static inline int set_up(void **state)
{
    (void)state;
    ctx = context(SLG_ISA_AUTO, 1);
    return ctx ? 0 : -1;
}

static inline int tear_down(void **state)
{
    (void)state;
    print_message("%d calls refused\n", cases);
    slg_ctx_free(ctx);
    return 0;
}

#endif
