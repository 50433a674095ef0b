/*
 * Decoding against slg_attention's reference in double over all that was appended, whatever the
 * cache dropped meanwhile.
 */
#include "attention_test.h"

/* ---- A cache, and steps of it ------------------------------------------------------------ */

/* What is appended comes in pieces, each followed by its queries. */
typedef struct plan {
    setting s; /* queries == keys: one for each token */
    int32_t dtype;
    int64_t chunk[8]; /* repeated up to the end; 0 ends the list */
    int32_t capacity;
    double tolerance;
} plan;

typedef struct session {
    trial t;
    slg_ctx *ctx;
    slg_attention_cache *cache;
} session;

static double rounded(int32_t dtype, double x)
{
    uint32_t w;
    float f = (float)x;
    if (dtype == SLG_F32) return x;
    if (dtype == SLG_F16) return half_value(half_bits(x));
    memcpy(&w, &f, 4);
    w = (w + 0x7FFF + (w >> 16 & 1)) & 0xFFFF0000u;
    memcpy(&f, &w, 4);
    return (double)f;
}

static slg_attention_cache_opts opts_of(const plan *p, const call *c)
{
    slg_attention_cache_opts o;
    slg_attention_cache_opts_init(&o, sizeof o);
    o.dtype = p->dtype;
    o.batch = (int32_t)p->s.batch;
    o.heads = (int32_t)p->s.heads;
    o.key_heads = (int32_t)p->s.key_heads;
    o.dim = (int32_t)p->s.dim;
    o.value_dim = (int32_t)p->s.value_dim;
    o.capacity = p->capacity;
    o.window = c->in.window;
    return o;
}

/* Keys and values are rounded to what is kept before the reference sees them. */
static void session_open(session *x, slg_ctx *ctx, const plan *p)
{
    const setting *s = &p->s;
    x->ctx = ctx;
    trial_open(&x->t, s);
    call *c = &x->t.c;
    const int64_t rows = s->batch * s->key_heads * s->keys;
    for (int64_t i = 0; i < rows * s->dim; i++)
        c->k[i] = (float)rounded(p->dtype, (double)c->k[i]);
    for (int64_t i = 0; i < rows * s->value_dim; i++)
        c->v[i] = (float)rounded(p->dtype, (double)c->v[i]);
    const slg_attention_cache_opts o = opts_of(p, c);
    OK(ctx, slg_attention_cache_create(ctx, &o, &x->cache));
}

static void session_close(session *x)
{
    slg_attention_cache_free(x->cache);
    trial_close(&x->t);
}

/* Tokens [from, from + n) of a tensor [batch, heads, tokens, dim]. */
static slg_tensor tokens_of(const slg_tensor *t, int64_t from, int64_t n)
{
    slg_tensor v = *t;
    v.data = (char *)v.data + from * v.stride[2] * (int64_t)item_size(v.dtype);
    v.shape[2] = n;
    return v;
}

static void append(session *x, int64_t from, int64_t n)
{
    const slg_tensor k = tokens_of(&x->t.c.t[1], from, n), v = tokens_of(&x->t.c.t[2], from, n);
    OK(x->ctx, slg_attention_cache_append(x->cache, &k, &v));
    assert_int_equal(slg_attention_cache_length(x->cache), from + n);
}

/* Queries of tokens [from, from + n), the last ones; results where the whole pass has them. */
static slg_status decode(session *x, slg_attention_cache *cache, int64_t from, int64_t n,
                         float *top)
{
    call *c = &x->t.c;
    outputs *y = &x->t.y;
    const slg_tensor q = tokens_of(&c->t[0], from, n);
    slg_tensor o = tokens_of(&y->t[0], from, n), lse = tokens_of(&y->t[1], from, n), max, valid;
    slg_tensor bias = tokens_of(&c->t[10], from, n);
    slg_attention_inputs in = c->in;
    slg_attention_out out = y->out;
    max = slg_tensor_1d(top, SLG_F32, c->s.heads);
    in.q = &q, in.k = in.v = in.window = NULL;
    if (in.bias) bias.shape[3] = from + n, in.bias = &bias;
    if (in.key_valid) valid = *in.key_valid, valid.shape[1] = from + n, in.key_valid = &valid;
    out.o = &o, out.lse = &lse, out.max_logit = top ? &max : NULL;
    return slg_attention_decode(cache, &in, &c->opts, &out);
}

static int64_t chunk_of(const plan *p, int64_t step)
{
    int64_t n = 0;
    while (n < 8 && p->chunk[n]) n++;
    return n ? p->chunk[step % n] : 1;
}

/* All of it, in pieces. */
static void run_plan(session *x, const plan *p)
{
    float *most = x->t.y.x[2], top[16];
    for (int64_t h = 0; h < p->s.heads; h++) most[h] = 0;
    for (int64_t at = 0, step = 0, n; at < p->s.keys; at += n, step++) {
        n = chunk_of(p, step);
        if (n > p->s.keys - at) n = p->s.keys - at;
        append(x, at, n);
        OK(x->ctx, decode(x, x->cache, at, n, top));
        for (int64_t h = 0; h < p->s.heads; h++) most[h] = fmaxf(most[h], top[h]);
    }
}

#define SETTING(text, b, h, g, tokens, d, wide, ...)                                           \
    .s = { .name = text,                                                                       \
           .batch = b,                                                                         \
           .heads = h,                                                                         \
           .key_heads = g,                                                                     \
           .queries = tokens,                                                                  \
           .keys = tokens,                                                                     \
           .dim = d,                                                                           \
           .value_dim = wide,                                                                  \
           __VA_ARGS__ }
#define WINDOWS(...) .window = { __VA_ARGS__ }
#define CHUNKS(...) .chunk = { __VA_ARGS__ }

static const plan plans[] = {
    { SETTING("global", 2, 3, 3, 150, 8, 8, WINDOWS(0)), .dtype = SLG_F32, CHUNKS(1) },
    { SETTING("mixed", 1, 4, 4, 200, 7, 19, WINDOWS(0, 3, 40, 1)), .dtype = SLG_F32,
      CHUNKS(1) },
    { SETTING("all local", 2, 2, 2, 260, 5, 5, WINDOWS(17, 16)), .dtype = SLG_F32, CHUNKS(1) },
    { SETTING("grouped", 2, 6, 2, 180, 16, 33, WINDOWS(5, 0, 9, 2)), .dtype = SLG_F32,
      CHUNKS(3, 1, 8) },
    { SETTING("one key head", 1, 8, 1, 170, 33, 16, WINDOWS(20, 7, 33, 12)), .dtype = SLG_F32,
      CHUNKS(8, 1) },
    { SETTING("prefill beyond rings", 1, 4, 2, 700, 12, 12, WINDOWS(30, 8, 0, 0)),
      .dtype = SLG_F32, CHUNKS(333, 1, 1, 50, 2) },
    { SETTING("wrap by chunks", 1, 2, 2, 500, 4, 4, WINDOWS(20, 50)), .dtype = SLG_F32,
      CHUNKS(31, 47, 5) },
    { SETTING("reserved", 1, 2, 1, 300, 6, 6, WINDOWS(0, 4)), .dtype = SLG_F32, CHUNKS(7),
      .capacity = 400 },
    { SETTING("one dim", 1, 2, 2, 40, 1, 1, WINDOWS(0, 2)), .dtype = SLG_F32, CHUNKS(1) },
    { SETTING("wide", 1, 2, 2, 70, 130, 200, WINDOWS(0, 20)), .dtype = SLG_F32, CHUNKS(5) },
    { SETTING("pieces", 1, 2, 1, 1300, 8, 8, WINDOWS(0, 600)), .dtype = SLG_F32,
      CHUNKS(640, 1, 5) },
    { SETTING("bf16", 2, 4, 2, 200, 24, 20, WINDOWS(0, 33, 9, 9)), .dtype = SLG_BF16,
      CHUNKS(20, 1) },
    { SETTING("f16", 2, 4, 2, 200, 24, 20, WINDOWS(0, 33, 9, 9)), .dtype = SLG_F16,
      CHUNKS(20, 1) },
    { SETTING("f16, one dim", 1, 2, 2, 60, 1, 3, WINDOWS(0, 9)), .dtype = SLG_F16, CHUNKS(1) },
    { SETTING("sinks", 1, 4, 2, 100, 8, 8, WINDOWS(0, 9, 3, 3), .sinks = true),
      .dtype = SLG_F32, CHUNKS(2) },
    { SETTING("soft-cap", 1, 4, 2, 100, 8, 8, WINDOWS(0, 9), .softcap = 1.5), .dtype = SLG_F32,
      CHUNKS(1, 4) },
    { SETTING("slopes", 1, 4, 2, 140, 8, 8, WINDOWS(0, 9), .slopes = true), .dtype = SLG_F32,
      CHUNKS(1, 4) },
    { SETTING("scales", 2, 4, 2, 100, 8, 8, WINDOWS(0, 9), .scales = true), .dtype = SLG_F32,
      CHUNKS(3) },
    { SETTING("a scale", 1, 2, 2, 100, 8, 8, WINDOWS(0, 9), .scale = -0.3), .dtype = SLG_BF16,
      CHUNKS(3) },
    { SETTING("valid", 2, 4, 2, 130, 8, 8, WINDOWS(0, 3), .valid = true), .dtype = SLG_F32,
      CHUNKS(1, 6) },
    { SETTING("bias", 2, 4, 2, 130, 8, 8, WINDOWS(0, 11), .bias = BIAS_FULL), .dtype = SLG_F32,
      CHUNKS(4, 1) },
    { SETTING("bias of heads", 2, 4, 4, 90, 8, 8, WINDOWS(0, 11), .bias = BIAS_HEADS,
              .sinks = true, .slopes = true, .softcap = 2),
      .dtype = SLG_F16, CHUNKS(4, 1) },
    { SETTING("sharp", 1, 2, 2, 300, 8, 8, WINDOWS(0, 50), .spread = 60), .dtype = SLG_F32,
      CHUNKS(1, 9), .tolerance = 2e-4 },
};

static void check_outputs(const plan *p, session *x)
{
    const double tolerance = p->tolerance > 0 ? p->tolerance : 5e-6;
    for (int i = 0; i < 3; i++) compare_output(p->s.name, &x->t.r, &x->t.y, i, tolerance);
}

static void test_plans(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int64_t i = 0; i < COUNT(plans); i++) {
        session x;
        session_open(&x, ctx, &plans[i]);
        reference(&x.t.c, false, &x.t.r);
        run_plan(&x, &plans[i]);
        check_outputs(&plans[i], &x);
        session_close(&x);
    }
}

/* The whole at once: as slg_attention, where the cache keeps float32. */
static void test_against_forward(void **state)
{
    (void)state;
    FOR_EACH_ISA(ctx, 2)
    for (int64_t i = 0; i < COUNT(plans); i++) {
        session x;
        const int64_t n = plans[i].s.keys;
        float top[16];
        session_open(&x, ctx, &plans[i]);
        call *c = &x.t.c;
        trial_run(ctx, &x.t, false);
        for (int o = 0; o < 2; o++)
            for (int64_t j = 0; j < x.t.r.n[o]; j++)
                (o ? x.t.r.lse : x.t.r.o)[j] = (double)x.t.y.x[o][j];
        append(&x, 0, n);
        OK(ctx, decode(&x, x.cache, 0, n, top));
        for (int o = 0; o < 2; o++)
            compare_output(c->s.name, &x.t.r, &x.t.y, o, plans[i].s.spread > 0 ? 2e-4 : 1e-5);
        for (int64_t h = 0; h < c->s.heads; h++)
            assert_float_equal(top[h], x.t.y.x[2][h], 1e-5f * (1 + fabsf(top[h])));
        session_close(&x);
    }
}

/* Queries see all keys: a cache of an encoder. More queries than keys are allowed there. */
static void test_all_ways(void **state)
{
    static const plan p = { SETTING("all ways", 1, 4, 2, 90, 8, 8, WINDOWS(0, 6),
                                    .all_ways = true),
                            .dtype = SLG_F32, CHUNKS(90) };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        session x;
        session_open(&x, ctx, &p);
        reference(&x.t.c, false, &x.t.r);
        run_plan(&x, &p);
        check_outputs(&p, &x);
        session_close(&x);
    }
}

/* ---- The same bits ----------------------------------------------------------------------- */

static void test_threads(void **state)
{
    static const int32_t threads[] = { 2, 3, 8 };
    (void)state;
    for (int64_t i = 0; i < COUNT(plans); i++) {
        slg_ctx *one = context(SLG_ISA_AUTO, 1);
        session x;
        const uint64_t start = seed;
        session_open(&x, one, &plans[i]);
        run_plan(&x, &plans[i]);
        for (int64_t t = 0; t < COUNT(threads); t++) {
            slg_ctx *many = context(SLG_ISA_AUTO, threads[t]);
            session y;
            const uint64_t next = seed;
            seed = start;
            session_open(&y, many, &plans[i]);
            run_plan(&y, &plans[i]);
            for (int o = 0; o < 3; o++)
                assert_memory_equal(x.t.y.x[o], y.t.y.x[o], (size_t)x.t.r.n[o] * sizeof(float));
            seed = next;
            session_close(&y);
            slg_ctx_free(many);
        }
        session_close(&x);
        slg_ctx_free(one);
    }
}

/* ---- Types and layouts ------------------------------------------------------------------- */

/* Tokens first, heads inside, as a packed projection has them; and of 16 bits. */
static slg_tensor laid_out(const slg_tensor *t, int32_t dtype, void *to)
{
    slg_tensor v = *t;
    const int64_t b = t->shape[0], h = t->shape[1], n = t->shape[2], d = t->shape[3];
    v.dtype = dtype, v.data = to;
    v.stride[0] = n * h * d * 2, v.stride[2] = h * d * 2, v.stride[1] = d * 2, v.stride[3] = 2;
    for (int64_t i = 0; i < b * h * n * d; i++) {
        const int64_t at = (i / (n * h * d)) * v.stride[0] + i / (n * d) % h * v.stride[1] +
                           i / d % n * v.stride[2] + i % d * v.stride[3];
        const double x = (double)((const float *)t->data)[i];
        if (dtype == SLG_F32) ((float *)to)[at] = (float)x;
        if (dtype == SLG_F16) ((uint16_t *)to)[at] = half_bits(x);
        if (dtype == SLG_BF16) {
            const float f = (float)x;
            uint32_t w;
            memcpy(&w, &f, 4);
            ((uint16_t *)to)[at] = (uint16_t)(w >> 16);
        }
    }
    return v;
}

/* Numbers that all types hold give the same bits from all of them, strided or not. */
static void test_types(void **state)
{
    static const int32_t dtypes[] = { SLG_F32, SLG_BF16, SLG_F16 };
    static const plan p = { SETTING("types", 2, 4, 2, 77, 9, 13, WINDOWS(0, 8)),
                            .dtype = SLG_F16, CHUNKS(77) };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    session x;
    session_open(&x, ctx, &p);
    for (int64_t i = 0; i < x.t.r.n[3]; i++) x.t.c.q[i] = rintf(x.t.c.q[i] * 16) / 16;
    for (int64_t i = 0; i < x.t.r.n[4]; i++) x.t.c.k[i] = rintf(x.t.c.k[i] * 16) / 16;
    for (int64_t i = 0; i < x.t.r.n[5]; i++) x.t.c.v[i] = rintf(x.t.c.v[i] * 16) / 16;
    run_plan(&x, &p);
    for (int64_t in = 0; in < COUNT(dtypes); in++)
        for (int64_t kept = 0; kept < COUNT(dtypes); kept++) {
            slg_tensor t[3];
            float *o = calloc((size_t)x.t.r.n[0] * 2, sizeof *o);
            void *data[3];
            slg_attention_cache *cache;
            slg_attention_cache_opts opts = opts_of(&p, &x.t.c);
            opts.dtype = dtypes[kept];
            for (int i = 0; i < 3; i++) {
                const slg_tensor *from = &x.t.c.t[i];
                data[i] = calloc((size_t)(from->shape[0] * from->stride[0] * 2), sizeof(float));
                t[i] = laid_out(from, dtypes[in], data[i]);
            }
            OK(ctx, slg_attention_cache_create(ctx, &opts, &cache));
            OK(ctx, slg_attention_cache_append(cache, &t[1], &t[2]));
            slg_attention_inputs inputs = x.t.c.in;
            slg_attention_out out = x.t.y.out;
            slg_tensor given = laid_out(&x.t.y.t[0], dtypes[in], o);
            inputs.q = &t[0], inputs.k = inputs.v = inputs.window = NULL;
            out.o = &given, out.lse = out.max_logit = NULL;
            OK(ctx, slg_attention_decode(cache, &inputs, NULL, &out));
            for (int64_t i = 0; i < 77; i++) { /* the last dimension of a few rows */
                const int64_t at = 1 * given.stride[0] + 3 * given.stride[1] +
                                   i * given.stride[2] + 12 * given.stride[3];
                const double want = (double)x.t.y.x[0][(7 * 77 + i) * 13 + 12];
                const double got =
                    get_item(dtypes[in], (char *)o + (size_t)at * item_size(dtypes[in]));
                if (dtypes[in] == SLG_F32)
                    assert_true(got == want);
                else
                    assert_true(fabs(got - want) <= fabs(want) * 0x1p-8);
            }
            slg_attention_cache_free(cache);
            for (int i = 0; i < 3; i++) free(data[i]);
            free(o);
        }
    session_close(&x);
    slg_ctx_free(ctx);
}

/* ---- Taking back, copies ----------------------------------------------------------------- */

/* Drafts are appended and taken back; what comes in their place gives the bits that it gives
   without them. */
static void test_truncate(void **state)
{
    static const plan p = { SETTING("truncate", 1, 4, 2, 240, 8, 8, WINDOWS(0, 0, 20, 33)),
                            .dtype = SLG_F32, CHUNKS(1) };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    {
        session x, y;
        const uint64_t start = seed;
        session_open(&x, ctx, &p);
        seed = start;
        session_open(&y, ctx, &p);
        for (int64_t at = 0; at < 224; at++) {
            append(&x, at, 1), append(&y, at, 1);
            OK(ctx, decode(&x, x.cache, at, 1, NULL));
            append(&y, at + 1, 1 + at % 15); /* as drafts: other tokens than come next */
            OK(ctx, slg_attention_cache_truncate(y.cache, at + 1));
            OK(ctx, decode(&y, y.cache, at, 1, NULL));
        }
        for (int64_t h = 0; h < 4; h++)
            assert_memory_equal(x.t.y.x[0] + h * 240 * 8, y.t.y.x[0] + h * 240 * 8,
                                224 * 8 * sizeof(float));
        /* A ring cannot go back further, and says so; a cache without one can. */
        assert_int_equal(slg_attention_cache_truncate(y.cache, 150), SLG_ERR_RANGE);
        assert_non_null(strstr(slg_ctx_message(ctx), "the ring of key head 1 has dropped"));
        assert_int_equal(slg_attention_cache_length(y.cache), 224);
        assert_int_equal(slg_attention_cache_truncate(y.cache, 225), SLG_ERR_RANGE);
        assert_int_equal(slg_attention_cache_truncate(y.cache, -1), SLG_ERR_RANGE);
        OK(ctx, slg_attention_cache_reset(y.cache));
        assert_int_equal(slg_attention_cache_length(y.cache), 0);
        for (int64_t at = 0; at < 224; at++) {
            append(&y, at, 1);
            OK(ctx, decode(&y, y.cache, at, 1, NULL));
        }
        assert_memory_equal(x.t.y.x[0], y.t.y.x[0], 224 * 8 * sizeof(float));
        session_close(&x), session_close(&y);
    }
}

static void test_fork(void **state)
{
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    for (int64_t i = 0; i < COUNT(plans); i++) {
        session x;
        slg_attention_cache *copy;
        const int64_t n = plans[i].s.keys / 2, rest = plans[i].s.keys - n;
        session_open(&x, ctx, &plans[i]);
        reference(&x.t.c, false, &x.t.r);
        append(&x, 0, n);
        OK(ctx, decode(&x, x.cache, 0, n, NULL));
        OK(ctx, slg_attention_cache_fork(x.cache, &copy));
        assert_int_equal(slg_attention_cache_bytes(copy), slg_attention_cache_bytes(x.cache));
        /* The first goes on with other tokens. */
        const slg_tensor k = tokens_of(&x.t.c.t[1], 0, n), v = tokens_of(&x.t.c.t[2], 0, n);
        OK(ctx, slg_attention_cache_append(x.cache, &k, &v));
        slg_attention_cache_free(x.cache);
        x.cache = copy;
        for (int64_t at = n; at < n + rest; at++) {
            append(&x, at, 1);
            OK(ctx, decode(&x, x.cache, at, 1, NULL));
        }
        for (int o = 0; o < 2; o++)
            compare_output("fork", &x.t.r, &x.t.y, o, plans[i].s.spread > 0 ? 2e-4 : 5e-6);
        session_close(&x);
    }
    slg_ctx_free(ctx);
}

/* ---- Memory ------------------------------------------------------------------------------ */

static void test_bytes(void **state)
{
    static const plan local = { SETTING("local", 1, 2, 2, 4000, 8, 8, WINDOWS(64, 64)),
                                .dtype = SLG_F32, CHUNKS(1) };
    static const plan global = { SETTING("global", 1, 2, 2, 4000, 8, 8, WINDOWS(0)),
                                 .dtype = SLG_BF16, CHUNKS(1), .capacity = 4000 };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    session x, y;
    session_open(&x, ctx, &local);
    append(&x, 0, 3000); /* then it shrinks again */
    for (int64_t i = 3000; i < 3050; i++) append(&x, i, 1);
    assert_true(slg_attention_cache_bytes(x.cache) < 2 * 128 * 16 * 4 + 1024);
    OK(ctx, decode(&x, x.cache, 3049, 1, NULL));
    session_open(&y, ctx, &global);
    const int64_t reserved = slg_attention_cache_bytes(y.cache);
    assert_true(reserved >= 2 * 4000 * 16 * 2 && reserved < 2 * 4032 * 16 * 2 + 1024);
    append(&y, 0, 4000);
    assert_int_equal(slg_attention_cache_bytes(y.cache), reserved);
    assert_int_equal(slg_attention_cache_bytes(NULL), 0);
    assert_int_equal(slg_attention_cache_length(NULL), 0);
    session_close(&x), session_close(&y);
    slg_ctx_free(ctx);
}

/* An allocator that fails from the n-th call on, and counts what is not freed. */
static int64_t allocations_left, allocations_open;

static void *scarce(void *user, size_t alignment, size_t size)
{
    (void)user;
    if (allocations_left-- <= 0) return NULL;
    allocations_open++;
    return aligned_alloc(alignment, size);
}

static void give_back(void *user, void *memory)
{
    (void)user;
    allocations_open -= memory != NULL;
    free(memory);
}

/* Whatever allocation fails, the cache holds what it held, and goes on once there is memory. */
static void test_out_of_memory(void **state)
{
    static const plan p = { SETTING("memory", 1, 4, 2, 400, 8, 8, WINDOWS(0, 5, 20, 9)),
                            .dtype = SLG_F32, CHUNKS(1) };
    slg_ctx_opts o;
    slg_ctx *ctx;
    (void)state;
    slg_ctx_opts_init(&o, sizeof o);
    o.num_threads = 1;
    o.alloc = scarce, o.free = give_back;
    for (int64_t fail = 0; fail < 12; fail++) {
        session x;
        allocations_left = 1000;
        assert_int_equal(slg_ctx_create(&o, &ctx), SLG_OK);
        session_open(&x, ctx, &p);
        const slg_attention_cache_opts opts = opts_of(&p, &x.t.c);
        const int64_t kept = allocations_open;
        slg_attention_cache *other;
        allocations_left = fail % 4;
        assert_int_equal(slg_attention_cache_create(ctx, &opts, &other), SLG_ERR_MEMORY);
        assert_null(other);
        assert_true(allocations_open <= kept + 1); /* scratch may have grown */
        reference(&x.t.c, false, &x.t.r);
        for (int64_t at = 0, n = 1; at < 400; at += n, n = at % 90 + 1) {
            if (n > 400 - at) n = 400 - at;
            const slg_tensor k = tokens_of(&x.t.c.t[1], at, n),
                             v = tokens_of(&x.t.c.t[2], at, n);
            allocations_left = fail;
            const slg_status status = slg_attention_cache_append(x.cache, &k, &v);
            const int64_t length = slg_attention_cache_length(x.cache);
            assert_true(status == SLG_OK ? length == at + n
                                         : status == SLG_ERR_MEMORY && length == at);
            allocations_left = 0;
            assert_true(slg_attention_cache_fork(x.cache, &other) == SLG_ERR_MEMORY && !other);
            allocations_left = 1000;
            if (status) append(&x, at, n);
            OK(ctx, decode(&x, x.cache, at, n, NULL));
        }
        for (int i = 0; i < 2; i++) compare_output("memory", &x.t.r, &x.t.y, i, 5e-6);
        session_close(&x);
        slg_ctx_free(ctx);
        assert_int_equal(allocations_open, 0);
    }
}

/* ---- Values that are not finite ---------------------------------------------------------- */

/* A NaN reaches the queries that see its token, and no other; a token outside of every window
   changes no bit. */
static void test_reach(void **state)
{
    static const plan p = { SETTING("reach", 1, 4, 2, 120, 8, 8, WINDOWS(0, 6, 3, 9)),
                            .dtype = SLG_F32, CHUNKS(5, 1, 20) };
    (void)state;
    FOR_EACH_ISA(ctx, 1)
    for (int which = 1; which < 3; which++)
        for (int64_t token = 0; token < 120; token += 13) {
            session x, y;
            const uint64_t start = seed;
            session_open(&x, ctx, &p);
            seed = start;
            session_open(&y, ctx, &p);
            for (int64_t g = 0; g < 2; g++)
                for (int64_t d = 0; d < 8; d++)
                    (which == 1 ? y.t.c.k : y.t.c.v)[(g * 120 + token) * 8 + d] = NAN;
            run_plan(&x, &p), run_plan(&y, &p);
            for (int64_t h = 0; h < 4; h++)
                for (int64_t i = 0; i < 120; i++) {
                    const int64_t w = p.s.window[h], at = (h * 120 + i) * 8;
                    const bool sees = token <= i && (w == 0 || i - token < w);
                    if (sees)
                        assert_true(isnan(y.t.y.x[0][at]));
                    else
                        assert_memory_equal(x.t.y.x[0] + at, y.t.y.x[0] + at,
                                            8 * sizeof(float));
                }
            session_close(&x), session_close(&y);
        }
}

/* ---- What is refused --------------------------------------------------------------------- */

#define CREATE_REFUSED(status, text, ...)                                                      \
    do {                                                                                       \
        slg_attention_cache_opts o = opts_of(&p, &x.t.c);                                      \
        slg_attention_cache *c = x.cache;                                                      \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_attention_cache_create(ctx, &o, &c), status);                     \
        assert_null(c);                                                                        \
        if (!strstr(slg_ctx_message(ctx), text))                                               \
            fail_msg("\"%s\" lacks \"%s\"", slg_ctx_message(ctx), text);                       \
    } while (0)

#define DECODE_REFUSED(status, text, ...)                                                      \
    do {                                                                                       \
        slg_attention_inputs in = x.t.c.in;                                                    \
        slg_attention_opts opts = x.t.c.opts;                                                  \
        slg_attention_out out = x.t.y.out;                                                     \
        slg_tensor q = tokens_of(&x.t.c.t[0], 0, 1), o = tokens_of(&x.t.y.t[0], 0, 1);         \
        in.q = &q, in.k = in.v = in.window = NULL;                                             \
        out.o = &o, out.lse = out.max_logit = NULL;                                            \
        __VA_ARGS__;                                                                           \
        x.t.y.x[0][0] = 42;                                                                    \
        assert_int_equal(slg_attention_decode(x.cache, &in, &opts, &out), status);             \
        if (!strstr(slg_ctx_message(ctx), text))                                               \
            fail_msg("\"%s\" lacks \"%s\"", slg_ctx_message(ctx), text);                       \
        assert_true(x.t.y.x[0][0] == 42);                                                      \
    } while (0)

#define APPEND_REFUSED(status, text, ...)                                                      \
    do {                                                                                       \
        slg_tensor k = tokens_of(&x.t.c.t[1], 0, 3), v = tokens_of(&x.t.c.t[2], 0, 3);         \
        __VA_ARGS__;                                                                           \
        assert_int_equal(slg_attention_cache_append(x.cache, &k, &v), status);                 \
        if (!strstr(slg_ctx_message(ctx), text))                                               \
            fail_msg("\"%s\" lacks \"%s\"", slg_ctx_message(ctx), text);                       \
        assert_int_equal(slg_attention_cache_length(x.cache), 60);                             \
    } while (0)

static void test_refused(void **state)
{
    static const plan p = { SETTING("refused", 2, 4, 2, 60, 8, 6, WINDOWS(0, 9, 4, 3)),
                            .dtype = SLG_F32, CHUNKS(1) };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    session x;
    session_open(&x, ctx, &p);
    assert_int_equal(slg_attention_cache_create(NULL, NULL, &x.cache), SLG_ERR_NULL);
    assert_int_equal(slg_attention_cache_create(ctx, NULL, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_attention_cache_append(NULL, NULL, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_attention_decode(NULL, NULL, NULL, NULL), SLG_ERR_NULL);
    assert_int_equal(slg_attention_cache_truncate(NULL, 0), SLG_ERR_NULL);
    assert_int_equal(slg_attention_cache_reset(NULL), SLG_ERR_NULL);
    assert_int_equal(slg_attention_cache_fork(x.cache, NULL), SLG_ERR_NULL);
    slg_attention_cache_free(NULL);
    CREATE_REFUSED(SLG_ERR_RANGE, "heads is 0", o.heads = 0);
    CREATE_REFUSED(SLG_ERR_RANGE, "dim is -1", o.dim = -1);
    CREATE_REFUSED(SLG_ERR_RANGE, "batch is 0", o.batch = 0);
    CREATE_REFUSED(SLG_ERR_RANGE, "capacity is -5", o.capacity = -5);
    CREATE_REFUSED(SLG_ERR_SHAPE, "not a multiple of the 3", o.key_heads = 3);
    CREATE_REFUSED(SLG_ERR_DTYPE, "dtype is", o.dtype = SLG_F64);
    CREATE_REFUSED(SLG_ERR_OPTIONS, "opts", o.size = 4);
    CREATE_REFUSED(SLG_ERR_RANGE, "window[2] is -1", x.t.c.windows[2] = -1);
    x.t.c.windows[2] = 4;
    CREATE_REFUSED(SLG_ERR_SHAPE, "window", o.heads = 8);
    CREATE_REFUSED(SLG_ERR_MEMORY, "bytes", o.dim = o.capacity = INT32_MAX, o.window = NULL);
    append(&x, 0, 60);
    APPEND_REFUSED(SLG_ERR_SHAPE, "k has shape", k.shape[3] = 7);
    APPEND_REFUSED(SLG_ERR_SHAPE, "k has shape", k.shape[1] = 4);
    APPEND_REFUSED(SLG_ERR_SHAPE, "v has shape", v.shape[2] = 2);
    APPEND_REFUSED(SLG_ERR_DTYPE, "v has dtype", v.dtype = SLG_I32);
    DECODE_REFUSED(SLG_ERR_OPTIONS, "k must be NULL", in.k = &x.t.c.t[1]);
    DECODE_REFUSED(SLG_ERR_OPTIONS, "window must be NULL", in.window = &x.t.c.t[3]);
    DECODE_REFUSED(SLG_ERR_OPTIONS, "rng must be NULL", in.rng = &x.t.c.rng);
    DECODE_REFUSED(SLG_ERR_OPTIONS, "query_position must be NULL",
                   in.query_position = &x.t.c.t[9]);
    DECODE_REFUSED(SLG_ERR_OPTIONS, "key_offsets must be NULL", in.key_offsets = &x.t.c.t[12]);
    DECODE_REFUSED(SLG_ERR_OPTIONS, "dropout is 0.5", opts.dropout = 0.5);
    DECODE_REFUSED(SLG_ERR_NULL, "q is NULL", in.q = NULL);
    DECODE_REFUSED(SLG_ERR_NULL, "o is NULL", out.o = NULL);
    DECODE_REFUSED(SLG_ERR_SHAPE, "q has shape", q.shape[3] = 7);
    DECODE_REFUSED(SLG_ERR_SHAPE, "q has shape", q.shape[1] = 2);
    DECODE_REFUSED(SLG_ERR_SHAPE, "q has 61 tokens, the cache has 60", q.shape[2] = 61);
    DECODE_REFUSED(SLG_ERR_SHAPE, "o has shape", o.shape[2] = 2);
    DECODE_REFUSED(SLG_ERR_RANGE, "softcap is", opts.softcap = -1);
    DECODE_REFUSED(SLG_ERR_STRIDE, "o overlaps q", o.data = q.data);
    session_close(&x);
    slg_ctx_free(ctx);
}

/* More queries than a ring keeps tokens for. */
static void test_dropped(void **state)
{
    static const plan p = { SETTING("dropped", 1, 2, 2, 200, 4, 4, WINDOWS(8, 8)),
                            .dtype = SLG_F32, CHUNKS(1) };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    session x;
    session_open(&x, ctx, &p);
    for (int64_t i = 0; i < 200; i++) append(&x, i, 1);
    OK(ctx, decode(&x, x.cache, 184, 16, NULL));
    assert_int_equal(decode(&x, x.cache, 100, 100, NULL), SLG_ERR_RANGE);
    assert_non_null(strstr(slg_ctx_message(ctx), "100 queries see them from 93 on"));
    session_close(&x);
    slg_ctx_free(ctx);
}

/* No tokens, no queries. */
static void test_nothing(void **state)
{
    static const plan p = { SETTING("nothing", 1, 2, 2, 10, 4, 4, WINDOWS(0, 3)),
                            .dtype = SLG_F32, CHUNKS(1) };
    float top[2] = { 7, 7 };
    (void)state;
    slg_ctx *ctx = context(SLG_ISA_AUTO, 1);
    session x;
    session_open(&x, ctx, &p);
    append(&x, 0, 0);
    OK(ctx, decode(&x, x.cache, 0, 0, top));
    assert_true(top[0] == 0 && top[1] == 0);
    append(&x, 0, 4);
    OK(ctx, decode(&x, x.cache, 4, 0, top));
    session_close(&x);
    slg_ctx_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans),         cmocka_unit_test(test_against_forward),
        cmocka_unit_test(test_all_ways),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_types),         cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_fork),          cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_reach),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
