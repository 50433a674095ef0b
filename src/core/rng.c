/*
 * rng.c - see rng.h. Multiplications of 32 bits, exclusive or, and a key that grows by
 * a constant a round: ten rounds pass every test of randomness that there is, and no number
 * needs another.
 */
#include "rng.h"

#include <math.h>

#include "tensor.h"

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Numbers 2 block and 2 block + 1. */
static void number_pair(uint64_t seed, uint64_t block, uint64_t pair[2])
{
    const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32), 0, 0 };
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t word[4];
    philox4x32(counter, key, word);
    for (int i = 0; i < 2; i++) pair[i] = word[2 * i] | (uint64_t)word[2 * i + 1] << 32;
}

uint64_t rng_number(uint64_t seed, uint64_t index)
{
    uint64_t pair[2];
    number_pair(seed, index >> 1, pair);
    return pair[index & 1];
}

void rng_numbers(uint64_t seed, uint64_t first, int64_t n, uint64_t *out)
{
    uint64_t pair[2];
    for (int64_t i = 0; i < n; i++) {
        const uint64_t index = first + (uint64_t)i;
        if (i == 0 || !(index & 1)) number_pair(seed, index >> 1, pair);
        out[i] = pair[index & 1];
    }
}

/* The half is what leaves both ends out: 52 bits and a half are exact in double. */
double rng_uniform(uint64_t seed, uint64_t index)
{
    return ((double)(rng_number(seed, index) >> 12) + 0.5) * 0x1p-52;
}

/* Box and Muller's way, with a number a half: so each normal number needs one counter. */
double rng_normal(uint64_t seed, uint64_t index)
{
    const uint64_t bits = rng_number(seed, index);
    const double u = ((double)(uint32_t)bits + 0.5) * 0x1p-32;
    const double v = ((double)(uint32_t)(bits >> 32) + 0.5) * 0x1p-32;
    return sqrt(-2 * log(u)) * cos(6.283185307179586477 * v);
}

double rng_gumbel(uint64_t seed, uint64_t index)
{
    return -log(-log(rng_uniform(seed, index)));
}

/* ---- slg_random ------------------------------------------------------------------------- */

/* Numbers a task draws. */
enum { PIECE = 1 << 12 };

typedef struct fill_run {
    const kernel_table *k;
    slg_rng rng;
    int32_t distribution;
    rows out;
    int64_t count;
} fill_run;

static double draw(const fill_run *f, uint64_t index)
{
    if (f->distribution == SLG_NORMAL) return rng_normal(f->rng.seed, index);
    if (f->distribution == SLG_GUMBEL) return rng_gumbel(f->rng.seed, index);
    if (f->out.dtype == SLG_F64) return rng_uniform(f->rng.seed, index);
    /* Float32 holds 23 bits and a half: more would round to 1. */
    return ((double)(rng_number(f->rng.seed, index) >> 41) + 0.5) * 0x1p-23;
}

/* Elements [from, to), by the kernel: float32 arithmetic is enough there. */
static void fill_normals(const fill_run *f, int64_t from, int64_t to)
{
    float scratch[512];
    for (int64_t i = from, n; i < to; i += n) {
        const int64_t row = i / f->out.cols, col = i % f->out.cols;
        n = f->out.cols - col < to - i ? f->out.cols - col : to - i;
        if (n > 512) n = 512;
        float *z = rows_stage(&f->out, row, col, scratch);
        f->k->normals((size_t)n, f->rng.seed, f->rng.offset + (uint64_t)i, z);
        rows_commit(f->k, &f->out, row, col, n, scratch);
    }
}

static void fill_piece(void *arg, int64_t task, int32_t worker)
{
    const fill_run *f = arg;
    int64_t to = (task + 1) * PIECE < f->count ? (task + 1) * PIECE : f->count;
    (void)worker;
    if (f->distribution == SLG_NORMAL && f->out.dtype == SLG_F32) {
        fill_normals(f, task * PIECE, to);
        return;
    }
    for (int64_t i = task * PIECE; i < to; i++)
        rows_put(&f->out, i / f->out.cols, i % f->out.cols,
                 draw(f, f->rng.offset + (uint64_t)i));
}

static slg_status fill_random(slg_ctx *ctx, slg_rng *rng, int32_t distribution, slg_tensor *out)
{
    if (!rng) return slg_fail(ctx, SLG_ERR_NULL, "rng is NULL");
    if (distribution < SLG_UNIFORM || distribution > SLG_GUMBEL)
        return slg_fail(ctx, SLG_ERR_RANGE, "distribution is %d, must be from %d to %d",
                        distribution, SLG_UNIFORM, SLG_GUMBEL);
    SLG_TRY(tensor_out(ctx, "out", out, DT_F32 | DT_F64, 1, 4));
    op_detail(ctx, out);
    fill_run f = { &ctx->k, *rng, distribution, rows_of(out), tensor_size(out) };
    pool_run(ctx, (f.count + PIECE - 1) / PIECE, fill_piece, &f);
    rng->offset += (uint64_t)f.count;
    return SLG_OK;
}

slg_status slg_random(slg_ctx *ctx, slg_rng *rng, int32_t distribution, slg_tensor *out)
{
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_random");
    return op_end(ctx, fill_random(ctx, rng, distribution, out));
}
