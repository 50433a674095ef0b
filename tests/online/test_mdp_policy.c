/* The policy of an adversarial MDP and its loop: slg_mdp_policy_*, slg_mdp_run. */
#include "mdp_forms.h"

static void costs_play(slg_ctx *ctx, const slg_mdp_policy_opts *o, const double *costs,
                       double *pi)
{
    slg_ftrl_policy_opts f;
    slg_ftrl_policy_opts_init(&f, sizeof f);
    f.rule = o->rule, f.eta = o->eta;
    slg_tensor c = F64_2(costs, H * S, A), p = F64_2(pi, H * S, A);
    OK(ctx, slg_ftrl_policy(ctx, &c, &f, &p, NULL));
}

/* ---- What a step adds -------------------------------------------------------------------- */

/* Features of a layer of a table. */
static void layer_features(int form_, int64_t h, int64_t d, double *phi)
{
    for (int64_t i = 0; i < S * A; i++)
        for (int64_t k = 0; k < d; k++)
            phi[i * d + k] = form_ % KINDS == ONE_HOT    ? k == i
                             : form_ % KINDS == FEATURES ? features[i * D + k]
                                                         : features[(h * S * A + i) * D + k];
}

/* The estimates and bonus of one layer by the public functions; visited and samples [d]. */
static void layer_costs(slg_ctx *ctx, const slg_mdp_policy_opts *o, int64_t d,
                        const double *phi, const double *visited, int64_t m,
                        const double *samples, const double *weight, double loss,
                        const double *pi, double *costs, double *bonus)
{
    static double inverse[S * A * S * A];
    slg_inverse_covariance_opts c;
    slg_linear_q_opts q;
    slg_linear_q_out out;
    slg_inverse_covariance_opts_init(&c, sizeof c);
    slg_linear_q_opts_init(&q, sizeof q), slg_linear_q_out_init(&out, sizeof out);
    c.gamma = o->gamma, q.horizon = H, q.loss_to_go = loss, q.beta = o->beta;
    slg_tensor x = F64_2(samples, m, d), w = F64_1(weight, m), i = F64_2(inverse, d, d);
    slg_tensor f = F64_3(phi, S, A, d), v = F64_1(visited, d), pt = F64_2(pi, S, A);
    slg_tensor ct = F64_2(costs, S, A), bt = F64_2(bonus, S, A);
    OK(ctx, slg_inverse_covariance(ctx, &x, &w, &c, NULL, &i));
    if (o->estimator == SLG_Q_REDUCED)
        out.reduced = &ct;
    else
        out.plain = &ct;
    out.bonus = &bt;
    OK(ctx, slg_linear_q(ctx, &f, &v, &i, &x, &w, &pt, &q, &out));
}

static void add_episode(slg_ctx *ctx, const slg_mdp_policy_opts *o, int form_, const episode *x,
                        const double *pi, double *total)
{
    static double phi[S * A * S * A];
    const int64_t d = form_ % KINDS == ONE_HOT ? S * A : D;
    double costs[N], bonus[N], to_go = 0;
    for (int64_t h = H - 1; h >= 0; h--) {
        const int64_t at = x->pair[2 * h] * A + x->pair[2 * h + 1];
        to_go += x->losses[h];
        layer_features(linear(form_) ? BY_LAYER : form_, h, d, phi);
        if (linear(form_))
            layer_costs(ctx, o, d, phi, x->visited + h * D, M, x->samples + h * M * D,
                        x->weight + h * M, to_go, pi + h * S * A, costs + h * S * A,
                        bonus + h * S * A);
        else
            layer_costs(ctx, o, d, phi, phi + at * d, S * A, phi, x->occupancy + h * S * A,
                        to_go, pi + h * S * A, costs + h * S * A, bonus + h * S * A);
    }
    if (!linear(form_)) {
        slg_tensor b = F64_3(bonus, H, S, A), p = F64_3(pi, H, S, A);
        slg_tensor t = F64_4(transition, H, S, A, S);
        OK(ctx, slg_dilated_bonus(ctx, &b, &t, &p, NULL, &b, NULL));
    }
    for (int i = 0; i < N; i++) total[i] += costs[i] - bonus[i];
}

/* So that what the actions of a state share is 0. */
static void about_first(double *costs)
{
    for (int i = 0; i < N; i += A)
        for (int k = A - 1; k >= 0; k--) costs[i + k] -= costs[i];
}

static void test_steps(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int form_ = 0; form_ < FORMS; form_++) {
        random_world();
        const slg_mdp_policy_opts o = opts_of(form_);
        slg_mdp_policy *p = policy_new(ctx, &o, form_);
        double total[N] = { 0 }, pi[N], costs[N], want[N];
        for (int k = 0; k < 6; k++) {
            episode x;
            both(ctx, p, form_, pi, costs);
            costs_play(ctx, &o, costs, want);
            close_to(N, pi, want, 1e-13);
            if (linear(form_)) {
                memcpy(want, total, sizeof want);
                about_first(want), about_first(costs);
                close_to(N, costs, want, 1e-9);
            } else {
                close_to(N, costs, total, 1e-9);
            }
            random_episode(&x, form_);
            add_episode(ctx, &o, form_, &x, pi, total);
            OK(ctx, slg_mdp_policy_step(p, &x.e));
            assert_int_equal(slg_mdp_policy_episodes(p), k + 1);
        }
        OK(ctx, slg_mdp_policy_reset(p));
        both(ctx, p, form_, pi, costs);
        assert_int_equal(slg_mdp_policy_episodes(p), 0);
        for (int i = 0; i < N; i++)
            assert_true(costs[i] == 0 && fabs(pi[i] - 1.0 / A) <= 1e-15);
        slg_mdp_policy_free(p);
    }
}

/* Many states: the same bits on every ISA and for any number of threads. */
static void test_threads(void **state)
{
    (void)state;
    enum { STATES = 500, PAIRS = 2 * STATES * A };
    double *p = zeros(PAIRS * STATES, 8), *occupancy = zeros(PAIRS, 8);
    double *pi = zeros(PAIRS, 8), *first = zeros(PAIRS, 8), losses[2] = { 0.25, 1 };
    const int32_t pair[4] = { 3, 1, 490, 2 };
    const slg_tensor lt = F64_1(losses, 2), vt = slg_tensor_2d(pair, SLG_I32, 2, 2);
    const slg_tensor ot = F64_3(occupancy, 2, STATES, A), tt = F64_4(p, 2, STATES, A, STATES);
    slg_tensor out = F64_3(pi, 2, STATES, A);
    slg_mdp_episode e;
    slg_mdp_episode_init(&e, sizeof e);
    e.losses = &lt, e.visited = &vt, e.occupancy = &ot, e.transition = &tt;
    distributions(PAIRS, STATES, p), uniforms(PAIRS, occupancy);
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= SLG_ISA_AVX512; isa++)
        for (int32_t threads = 1; threads <= 8; threads += threads > 2 ? 5 : 1) {
            slg_ctx *ctx = context(isa, threads);
            slg_mdp_policy *policy;
            if (!ctx) continue;
            slg_mdp_policy_opts o = opts_of(ONE_HOT);
            o.horizon = 2, o.states = STATES, o.beta = 0.1;
            OK(ctx, slg_mdp_policy_create(ctx, &o, NULL, &policy));
            for (int k = 0; k < 2; k++) OK(ctx, slg_mdp_policy_step(policy, &e));
            OK(ctx, slg_mdp_policy_table(policy, &out, NULL));
            if (isa + threads == 2) memcpy(first, pi, PAIRS * sizeof *pi);
            assert_memory_equal(first, pi, PAIRS * sizeof *pi);
            slg_mdp_policy_free(policy), slg_ctx_free(ctx);
        }
    free(p), free(occupancy), free(pi), free(first);
}

/* The caller's own bonus comes off; a single state; types. */
static void test_at(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int form_ = LINEAR; form_ < FORMS; form_ += KINDS) {
        random_world();
        const slg_mdp_policy_opts o = opts_of(form_);
        slg_mdp_policy *p = policy_new(ctx, &o, form_);
        episode x;
        double pi[N], costs[N], bonus[N], with[N], want[N];
        random_episode(&x, form_);
        x.e.weight = NULL;
        OK(ctx, slg_mdp_policy_step(p, &x.e));
        x.e.samples = NULL; /* none: S = I / gamma */
        OK(ctx, slg_mdp_policy_step(p, &x.e));
        at_all(ctx, p, NULL, pi, costs);
        uniforms(N, bonus);
        at_all(ctx, p, bonus, pi, with);
        for (int i = 0; i < N; i++) assert_true(with[i] == costs[i] - bonus[i]);
        costs_play(ctx, &o, with, want);
        close_to(N, pi, want, 1e-13);
        float one[A * D], row[A];
        tensor half = matrix(SLG_F16, A, D, COL_GAPS);
        for (int i = 0; i < A * D; i++) {
            put(&half, i / D, i % D, features[i]);
            one[i] = (float)get(&half, i / D, i % D);
        }
        slg_tensor ft = slg_tensor_2d(one, SLG_F32, A, D), rt = slg_tensor_1d(row, SLG_F32, A);
        slg_tensor ht = F64_1(want, A);
        OK(ctx, slg_mdp_policy_at(p, 1, &ft, NULL, &rt, NULL));
        OK(ctx, slg_mdp_policy_at(p, 1, &half.t, NULL, &ht, NULL));
        for (int i = 0; i < A; i++) assert_true(row[i] == (float)want[i]);
        release(&half);
        slg_mdp_policy_free(p);
    }
    slg_ctx_free(ctx);
}

/* ---- As bytes ---------------------------------------------------------------------------- */

static void test_bytes(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    random_world();
    for (int form_ = 0; form_ < FORMS; form_++) {
        slg_mdp_policy *p = make(ctx, form_), *q = make(ctx, form_);
        slg_mdp_policy *other = make(ctx, (form_ + KINDS) % FORMS);
        double a[N], b[N], c[N], d[N];
        episode x;
        int64_t bytes, same, told;
        for (int k = 0; k < 5; k++) {
            random_episode(&x, form_);
            OK(ctx, slg_mdp_policy_step(p, &x.e));
            if (k > 1) OK(ctx, slg_mdp_policy_step(q, &x.e));
        }
        unsigned char *s = exported(ctx, p, &bytes), *before = exported(ctx, q, &same);
        for (int64_t i = 0; i < bytes; i += i < 96 ? 1 : 13) {
            s[i] ^= 0x10;
            assert_int_equal(slg_mdp_policy_import(q, s, bytes), SLG_ERR_STATE);
            s[i] ^= 0x10;
            assert_int_equal(slg_mdp_policy_import(q, s, i), SLG_ERR_STATE);
        }
        assert_int_equal(slg_mdp_policy_import(q, s, -1), SLG_ERR_STATE);
        assert_int_equal(slg_mdp_policy_import(q, NULL, bytes), SLG_ERR_NULL);
        assert_int_equal(slg_mdp_policy_import(other, s, bytes), SLG_ERR_STATE);
        assert_int_equal(slg_mdp_policy_export(p, s, bytes - 1, &told), SLG_ERR_RANGE);
        assert_int_equal(told, bytes);
        unsigned char *after = exported(ctx, q, &told);
        assert_true(told == same && memcmp(before, after, (size_t)same) == 0);
        OK(ctx, slg_mdp_policy_import(q, s, bytes));
        assert_int_equal(slg_mdp_policy_episodes(q), 5);
        for (int k = 0; k < 2; k++) {
            both(ctx, p, form_, a, b), both(ctx, q, form_, c, d);
            assert_memory_equal(a, c, sizeof a);
            assert_memory_equal(b, d, sizeof b);
            random_episode(&x, form_);
            OK(ctx, slg_mdp_policy_step(p, &x.e));
            OK(ctx, slg_mdp_policy_step(q, &x.e));
        }
        free(s), free(before), free(after);
        slg_mdp_policy_free(p), slg_mdp_policy_free(q), slg_mdp_policy_free(other);
    }
    slg_ctx_free(ctx);
}

/* ---- The loop ---------------------------------------------------------------------------- */

typedef struct player {
    slg_ctx *ctx;
    slg_mdp_policy *p;
    int form_;
    int64_t first, stop_at; /* episodes played before; episode and trajectory that fail */
    int64_t wrong;          /* from this episode on states are no numbers of states */
} player;

static int64_t choose(slg_rng *rng, slg_ctx *ctx, int64_t n, const double *p)
{
    double u = 0, sum = 0;
    slg_tensor t = F64_1(&u, 1);
    OK(ctx, slg_random(ctx, rng, SLG_UNIFORM, &t));
    for (int64_t i = 0; i < n - 1; i++)
        if ((sum += p[i]) > u) return i;
    return n - 1;
}

static slg_status play(void *user, int64_t episode_, int64_t m, slg_rng *rng, double *visited,
                       double *losses)
{
    const player *w = user;
    double pi[N], costs[N];
    int64_t s = choose(rng, w->ctx, S, start);
    assert_true((losses != NULL) == (m == -1));
    if (w->first + episode_ == w->stop_at && m == 1) return SLG_ERR_STOPPED;
    both(w->ctx, w->p, w->form_, pi, costs);
    for (int64_t h = 0; h < H; h++) {
        const int64_t a = choose(rng, w->ctx, A, pi + (h * S + s) * A);
        const int64_t at = (h * S + s) * A + a;
        if (linear(w->form_))
            memcpy(visited + h * D, features + at * D, D * sizeof(double));
        else
            visited[2 * h] = (double)s, visited[2 * h + 1] = (double)a;
        if (w->first + episode_ >= w->wrong) visited[0] = linear(w->form_) ? NAN : 0.5;
        if (losses) losses[h] = 0.5 + 0.5 * sin((double)(at + w->first + episode_));
        s = choose(rng, w->ctx, S, transition + at * S);
    }
    return SLG_OK;
}

static slg_mdp_world world_of(const player *w, const slg_tensor *p, const slg_tensor *s,
                              int64_t simulations)
{
    slg_mdp_world world;
    slg_mdp_world_init(&world, sizeof world);
    world.fn = play, world.user = (void *)(uintptr_t)w, world.simulations = simulations;
    world.draws = 1000;
    if (!linear(w->form_)) world.transition = p, world.start = s;
    return world;
}

/* The loop by hand. */
static void loop(slg_ctx *ctx, slg_mdp_policy *p, player *w, int64_t simulations, int64_t k,
                 slg_rng *rng, double *sum)
{
    const slg_tensor t = F64_4(transition, H, S, A, S), st = F64_1(start, S);
    double visited[H * D], losses[H], occupancy[N] = { 0 }, samples[H * M * D], pi[N], costs[N];
    int64_t pair[H * 2];
    slg_rng own = *rng;
    slg_mdp_episode e;
    slg_mdp_episode_init(&e, sizeof e);
    assert_int_equal(play(w, k, -1, &own, visited, losses), SLG_OK);
    rng->offset += 1000;
    const int64_t width = linear(w->form_) ? D : 2;
    slg_tensor seen = F64_3(samples, H, simulations, width), ot = F64_3(occupancy, H, S, A);
    seen.shape[1] = simulations, seen.ndim = 3, seen.shape[2] = width;
    seen.stride[0] = simulations * width, seen.stride[1] = width, seen.stride[2] = 1;
    OK(ctx, slg_simulate(ctx, play, w, k, 1000, rng, &seen, NULL));
    slg_tensor lt = F64_1(losses, H), vt = F64_2(visited, H, width);
    e.losses = &lt, e.visited = &vt;
    if (linear(w->form_)) {
        if (simulations) e.samples = &seen;
    } else {
        for (int i = 0; i < 2 * H; i++) pair[i] = (int64_t)visited[i];
        vt = slg_tensor_2d(pair, SLG_I64, H, 2);
        table_of(ctx, p, pi, costs);
        slg_tensor pt = F64_3(pi, H, S, A);
        if (!simulations) OK(ctx, slg_occupancy(ctx, &t, &pt, &st, &ot));
        for (int64_t i = 0; i < H * simulations; i++)
            occupancy[i / simulations * S * A + (int64_t)samples[2 * i] * A +
                      (int64_t)samples[2 * i + 1]] += 1;
        e.occupancy = &ot, e.transition = &t;
    }
    OK(ctx, slg_mdp_policy_step(p, &e));
    *sum = 0;
    for (int h = 0; h < H; h++) *sum += losses[h];
}

static void test_run(void **state)
{
    (void)state;
    enum { K = 7 };
    slg_ctx *ctx = context(SLG_ISA_AUTO, 2);
    random_world();
    const slg_tensor t = F64_4(transition, H, S, A, S), st = F64_1(start, S);
    for (int form_ = 0; form_ < FORMS; form_++)
        for (int64_t simulations = 0; simulations <= M; simulations += M) {
            slg_mdp_policy *p = make(ctx, form_), *q = make(ctx, form_);
            player w = { ctx, p, form_, 0, -1, K }, by_hand = { ctx, q, form_, 0, -1, K };
            double got[K], want[K], a[N], b[N], c[N], d[N];
            slg_rng rng = { 11, 5 }, other = rng;
            slg_mdp_world world = world_of(&w, &t, &st, simulations);
            slg_tensor some = F64_1(got, 4), rest = F64_1(got + 4, K - 4);
            OK(ctx, slg_mdp_run(p, &world, 4, &rng, &some));
            w.first = 4;
            OK(ctx, slg_mdp_run(p, &world, K - 4, &rng, &rest));
            for (int64_t k = 0; k < K; k++)
                loop(ctx, q, &by_hand, simulations, k, &other, &want[k]);
            assert_true(rng.seed == 11 && rng.offset == other.offset);
            assert_memory_equal(got, want, sizeof got);
            both(ctx, p, form_, a, b), both(ctx, q, form_, c, d);
            assert_memory_equal(a, c, sizeof a);
            assert_memory_equal(b, d, sizeof b);
            slg_mdp_policy_free(p), slg_mdp_policy_free(q);
        }
    slg_ctx_free(ctx);
}

/* What ends a run leaves the episodes before. */
static void test_run_errors(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    random_world();
    const slg_tensor t = F64_4(transition, H, S, A, S), st = F64_1(start, S);
    for (int form_ = 0; form_ < FORMS; form_++)
        for (int way = 0; way < 2; way++) {
            slg_mdp_policy *p = make(ctx, form_);
            player w = { ctx, p, form_, 0, way ? -1 : 3, way ? 3 : 100 };
            double losses[5] = { -9, -9, -9, -9, -9 };
            slg_tensor lt = F64_1(losses, 5);
            slg_rng rng = { 11, 5 };
            slg_mdp_world world = world_of(&w, &t, &st, M);
            REFUSED_AS(ctx, slg_mdp_run(p, &world, 5, &rng, &lt),
                       way ? SLG_ERR_RANGE : SLG_ERR_STOPPED, way ? "" : "fn returned");
            assert_int_equal(slg_mdp_policy_episodes(p), 3);
            assert_true(rng.offset == 5 + 3 * (M + 1) * 1000);
            assert_true(losses[2] >= 0 && losses[3] == -9);
            slg_mdp_policy_free(p);
        }
    slg_mdp_policy *p = make(ctx, ONE_HOT), *q = make(ctx, LINEAR);
    player w = { ctx, p, ONE_HOT, 0, -1, 100 };
    slg_rng rng = { 0, 0 };
    double losses[2];
    slg_mdp_world world;
    slg_tensor lt, bad = st;
#define BAD(policy, status, text, ...)                                                         \
    do {                                                                                       \
        int64_t episodes = 2;                                                                  \
        world = world_of(&w, &t, &st, 0), lt = F64_1(losses, 2);                               \
        __VA_ARGS__;                                                                           \
        REFUSED_AS(ctx, slg_mdp_run(policy, &world, episodes, &rng, &lt), status, text);       \
    } while (0)
    BAD(p, SLG_ERR_NULL, "world.fn", world.fn = NULL);
    BAD(p, SLG_ERR_NULL, "transition", world.transition = NULL);
    BAD(p, SLG_ERR_RANGE, "simulations", world.simulations = -1);
    BAD(p, SLG_ERR_RANGE, "draws", world.draws = -1);
    BAD(p, SLG_ERR_RANGE, "drew", world.draws = 2);
    BAD(p, SLG_ERR_RANGE, "episodes", episodes = -1);
    BAD(p, SLG_ERR_OPTIONS, "reserved", world.reserved = 1);
    BAD(p, SLG_ERR_OPTIONS, "world", world.size = 3);
    BAD(p, SLG_ERR_SHAPE, "losses", lt.shape[0] = 3);
    BAD(p, SLG_ERR_SHAPE, "start", bad.shape[0] = S - 1; world.start = &bad);
    BAD(q, SLG_ERR_SHAPE, "there is no table", (void)0);
#undef BAD
    REFUSED_AS(ctx, slg_mdp_run(p, NULL, 1, &rng, NULL), SLG_ERR_NULL, "world");
    REFUSED_AS(ctx, slg_mdp_run(p, &world, 1, NULL, NULL), SLG_ERR_NULL, "rng");
    assert_int_equal(slg_mdp_run(NULL, &world, 1, &rng, NULL), SLG_ERR_NULL);
    assert_true(rng.offset == 0 && slg_mdp_policy_episodes(p) == 0);
    slg_mdp_policy_free(p), slg_mdp_policy_free(q);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_at),    cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_run),   cmocka_unit_test(test_run_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
