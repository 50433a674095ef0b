/*
 * kernels.cc - times each kernel of kernels.h at every ISA level that this CPU has, on rows in
 * L1, L2, L3 and memory. A kernel without a function here does not compile.
 *
 *     kernels --benchmark_filter='lse/avx512'
 */
#include <benchmark/benchmark.h>

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__SSE__)
#include <xmmintrin.h> /* before fpenv.h includes it */
#else
#include <fenv.h>
#endif

extern "C" {
#include "core/fpenv.h"
#include "kernels/kernels.h"
exp_arg exp_arg_of(double temperature, float pre);
}
#include <softlogit/core.h>

namespace
{

/* Rows that kernels read (x of sd 3, p in (0, 1), g small) and write. */
struct buffers {
    size_t n;
    float *x, *p, *g, *y, *z, *w;
    double *sum, *wide;
    uint16_t *half;
    exp_arg arg;
    exp_out out;

    explicit buffers(size_t size)
        : n(size), arg(exp_arg_of(1.0, 0.0f)), out{ arg, 8.0f, 1.0f, 0.0f }
    {
        for (float **f : { &x, &p, &g, &y, &z, &w }) *f = static_cast<float *>(memory(4 * n));
        half = static_cast<uint16_t *>(memory(2 * n));
        for (double **f : { &sum, &wide }) *f = static_cast<double *>(memory(8 * n));
        uint32_t s = 1;
        for (size_t i = 0; i < n; i++) {
            float twelve = 0;
            for (int k = 0; k < 12; k++) twelve += uniform(&s);
            x[i] = 3.0f * (twelve - 6.0f);
            p[i] = uniform(&s);
            wide[i] = static_cast<double>(p[i]);
            g[i] = 1e-3f * (uniform(&s) - 0.5f);
            w[i] = 0.01f;
            half[i] = static_cast<uint16_t>(0x3C00 + (i & 0xFF));
        }
    }
    buffers(const buffers &) = delete;
    buffers &operator=(const buffers &) = delete;
    ~buffers()
    {
        for (float *f : { x, p, g, y, z, w }) std::free(f);
        std::free(half);
        std::free(sum);
        std::free(wide);
    }

    static float uniform(uint32_t *s)
    {
        *s = *s * 1664525u + 1013904223u;
        return static_cast<float>(*s >> 8) * 0x1p-24f;
    }
    static void *memory(size_t bytes)
    {
        const size_t size = (bytes + 4095) / 4096 * 4096;
        void *m = std::aligned_alloc(4096, size);
        if (!m) std::abort();
        return std::memset(m, 0, size);
    }
};

using kernels = kernel_table;

/* ---- A call of each kernel -------------------------------------------------------------- */

void run_lse(const kernels &k, buffers &b)
{
    lse_part part = { 0.0, -INFINITY, -INFINITY };
    k.lse(b.n, b.x, &b.arg, &part);
    benchmark::DoNotOptimize(part);
}
void run_softmax_row(const kernels &k, buffers &b)
{
    lse_part part = { 0.0, -INFINITY, -INFINITY };
    benchmark::DoNotOptimize(k.softmax_row(b.n, b.x, &b.arg, b.y, &part));
}
/* Beyond 256k floats past the caches, as modules do. */
int store(const buffers &b) { return b.n > (1 << 18) ? STORE_STREAM : STORE_CACHED; }

void run_exp_emit(const kernels &k, buffers &b) { k.exp_emit(b.n, b.x, &b.out, b.y, store(b)); }
void run_exp_emit_q(const kernels &k, buffers &b)
{
    k.exp_emit_q(b.n, b.x, &b.out, -0.5f, b.p, b.y, store(b));
}
void run_exp_store(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.exp_store(b.n, b.x, &b.arg, b.out.ref, b.y, 0));
}
void run_exp_split(const kernels &k, buffers &b)
{
    double sums[2] = { 0.0, 0.0 };
    k.exp_split(b.n, b.x, &b.arg, b.out.ref, 0.0f, 3.0f, false, b.y, sums, 0);
    benchmark::DoNotOptimize(sums);
}
void run_split_emit(const kernels &k, buffers &b)
{
    k.split_emit(b.n, b.p, b.x, 3.0f, false, 0.5f, -0.5f, b.y, store(b));
}
void run_emit_lse(const kernels &k, buffers &b)
{
    lse_part part = { 0.0, -INFINITY, -INFINITY };
    k.emit_lse(b.n, b.x, &b.out, b.y, b.n, b.x, &b.arg, &part);
    benchmark::DoNotOptimize(part);
}
void run_lse_target(const kernels &k, buffers &b)
{
    lse_part part = { 0.0, -INFINITY, -INFINITY };
    double dot[2] = { 0.0, 0.0 };
    k.lse_target(b.n, b.x, b.p, 0.0f, &b.arg, &part, dot);
    benchmark::DoNotOptimize(dot);
}
void run_lse_dot(const kernels &k, buffers &b)
{
    lse_part part = { 0.0, -INFINITY, -INFINITY };
    double dot[2] = { 0.0, 0.0 };
    k.lse_dot(b.n, b.x, b.g, 0.0f, &b.arg, &part, dot);
    benchmark::DoNotOptimize(dot);
}
void run_lse_pair(const kernels &k, buffers &b)
{
    lse_part x = { 0.0, -INFINITY, -INFINITY }, y = x;
    double dot = 0.0;
    k.lse_pair(b.n, b.x, &b.arg, &x, b.g, &b.arg, &y, PAIR_DIFFERENCE, 0.0f, &dot);
    benchmark::DoNotOptimize(dot);
}
void run_js_sums(const kernels &k, buffers &b)
{
    double sums[2] = { 0.0, 0.0 };
    k.js_sums(b.n, b.x, &b.out, b.g, &b.out, 0.5f, sums);
    benchmark::DoNotOptimize(sums);
}
void run_js_emit(const kernels &k, buffers &b)
{
    k.js_emit(b.n, b.x, &b.out, b.g, &b.out, 0.5f, 1.0f, -0.5f, b.y, store(b));
}
void run_exp_emit2(const kernels &k, buffers &b)
{
    k.exp_emit2(b.n, b.x, &b.out, b.g, &b.out, b.y, store(b));
}
void run_exp_emit_linear(const kernels &k, buffers &b)
{
    k.exp_emit_linear(b.n, b.x, &b.out, -0.5f, b.g, 0.0f, b.y, store(b));
}
void run_bce(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.bce(b.n, b.x, 1.0f, b.p, nullptr, nullptr, 1.0f, b.y, store(b)));
}
const logit_pair halves = { 0.5f, 0.5f, 1.0f };
void run_log_cosh(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.log_cosh(b.n, b.x, b.g, &halves, 1.0f, b.y, store(b)));
}
void run_binary_kl(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.binary_kl(b.n, b.x, b.g, &halves, 1.0f, b.y, store(b)));
}
void run_log_emit(const kernels &k, buffers &b)
{
    const log_arg a = { 1.0f, 0.0f, 10.0f, 1e-7f, 0.0f, 1.0f };
    k.log_emit(b.n, b.x, &a, b.y, store(b));
}
void run_softmax_bwd(const kernels &k, buffers &b)
{
    k.softmax_bwd(b.n, b.p, b.g, 0.1f, 1.0f, b.y);
}
void run_log_softmax_bwd(const kernels &k, buffers &b)
{
    k.log_softmax_bwd(b.n, b.x, b.g, 0.1f, 1.0f, b.y);
}
void run_ext_exp(const kernels &k, buffers &b) { k.ext_exp(b.n, b.x, b.y, b.z); }
void run_softmax_two_pass(const kernels &k, buffers &b)
{
    double lse;
    k.softmax_two_pass(b.n, b.x, 1.0, b.y, &lse);
}
void run_softmax_recompute(const kernels &k, buffers &b)
{
    double lse;
    k.softmax_recompute(b.n, b.x, 1.0, b.y, &lse);
}
void run_softmax_reload(const kernels &k, buffers &b)
{
    double lse;
    k.softmax_reload(b.n, b.x, 1.0, b.y, &lse);
}
void run_max(const kernels &k, buffers &b) { benchmark::DoNotOptimize(k.max(b.n, b.x)); }
void run_find(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.find(b.n, b.x, 1e9f)); /* not there */
}
void run_dot(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.dot(b.n, b.x, b.p, 0.0f));
}
void run_count(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.count(b.n, b.x, 3.0f));
}
void run_above(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.above(b.n, b.x, 3.0f, b.y));
}
void run_within(const kernels &k, buffers &b)
{
    double sum;
    benchmark::DoNotOptimize(k.within(b.n, b.p, 1.0f, &sum));
    benchmark::DoNotOptimize(sum);
}
void run_live_sums(const kernels &k, buffers &b)
{
    double out[3];
    k.live_sums(b.n, b.x, nullptr, 0.0f, out);
    benchmark::DoNotOptimize(out);
}
void run_target_mix(const kernels &k, buffers &b)
{
    k.target_mix(b.n, b.x, b.p, 0.9f, 1e-4f, nullptr, b.y);
}
void run_softcap(const kernels &k, buffers &b) { k.softcap(b.n, b.x, 30.0f, b.y, b.z); }
void run_mul(const kernels &k, buffers &b) { k.mul(b.n, b.p, b.y); }
void run_mask(const kernels &k, buffers &b) { k.mask(b.n, b.x, b.p, b.y); }
void run_scale(const kernels &k, buffers &b) { k.scale(b.n, b.x, 0.5f, b.y); }
void run_add(const kernels &k, buffers &b) { k.add(b.n, b.g, b.y); }
void run_stable_sum(const kernels &k, buffers &b)
{
    stable_part part = { 0.0, 0.0, -INFINITY };
    k.stable_sum(b.n, b.x, 1.0f, &part);
    benchmark::DoNotOptimize(part);
}
void run_stable_dot(const kernels &k, buffers &b)
{
    double out[2];
    k.stable_dot(b.n, b.x, 1.0f, b.p, out);
    benchmark::DoNotOptimize(out);
}
const stable_out stable_arg = { 1.0f, 1e-4f, 1e-4f * STABLE_SCALE, 1.0f, 1e-4f, 9.2f, 1e-7f };
void run_stable_prob(const kernels &k, buffers &b)
{
    k.stable_prob(b.n, b.x, &stable_arg, b.y, store(b));
}
void run_stable_log(const kernels &k, buffers &b)
{
    k.stable_log(b.n, b.x, &stable_arg, b.y, store(b));
}
void run_stable_grad(const kernels &k, buffers &b)
{
    k.stable_grad(b.n, b.x, &stable_arg, 0.0f, nullptr, b.y, store(b));
}
void run_hinge_sum(const kernels &k, buffers &b)
{
    hinge_part part = { 0.0, 0.0, 0.0, -INFINITY };
    k.hinge_sum(b.n, b.x, 0.0f, 1.0f, &part);
    benchmark::DoNotOptimize(part);
}
void run_hinge_grad(const kernels &k, buffers &b)
{
    k.hinge_grad(b.n, b.x, 0.0f, 1.0f, 1e-4f, 2, b.y, store(b));
}
void run_ordinal(const kernels &k, buffers &b)
{
    const ordinal_terms to = { b.y, nullptr, b.z, b.w, nullptr }; /* of a loss */
    k.ordinal(b.n, b.x, b.p, &to);
}
void run_stream(const kernels &k, buffers &b) { k.stream(b.n, b.x, 1.0f, b.y); }
void run_moments(const kernels &k, buffers &b)
{
    double out[2];
    k.moments(b.n, b.x, out);
    benchmark::DoNotOptimize(out);
}
void run_affine_emit(const kernels &k, buffers &b)
{
    k.affine_emit(b.n, b.x, 1.0f, 0.5f, -0.1f, 1e-4f, b.y, store(b));
}
/* Rows of 64, two of each. */
void run_select_top(const kernels &k, buffers &b)
{
    const size_t cols = b.n < 64 ? b.n : 64, rows = cols ? b.n / cols : 0;
    if (cols < 2) return;
    k.select_top(rows, cols, b.x, cols, 2, b.y, reinterpret_cast<int32_t *>(b.z));
}
void run_dots(const kernels &k, buffers &b)
{
    double out[3];
    k.dots(b.n, b.x, b.p, out);
    benchmark::DoNotOptimize(out);
}
/* As rows of at most 64. */
wide_rows rows_of(const buffers &b)
{
    const size_t cols = b.n < 64 ? b.n : 64;
    return { b.n / cols, cols, b.x, static_cast<ptrdiff_t>(cols), false };
}
void run_rows_dot(const kernels &k, buffers &b)
{
    const wide_rows a = rows_of(b);
    k.rows_dot(&a, b.wide, b.sum);
}
void run_rows_sum(const kernels &k, buffers &b)
{
    const wide_rows a = rows_of(b);
    k.rows_sum(&a, b.wide, b.sum);
}
void run_accumulate(const kernels &k, buffers &b) { k.accumulate(b.n, b.x, b.sum, b.y); }
/* Any bits do as signs: those of x. */
const uint64_t *signs_of(const buffers &b) { return reinterpret_cast<const uint64_t *>(b.x); }
void run_sign_dot(const kernels &k, buffers &b)
{
    double sum = k.sign_dot(b.n, signs_of(b), b.p, b.g);
    benchmark::DoNotOptimize(sum);
}
void run_sign_add(const kernels &k, buffers &b) { k.sign_add(b.n, signs_of(b), 0.5, b.sum); }
constexpr margin_arg MARGIN = { 1.0, 1.0, 0.5f, 0.25f };
void run_margin_sums(const kernels &k, buffers &b)
{
    double out[2];
    k.margin_sums(b.n, b.x, b.p, &MARGIN, out);
    benchmark::DoNotOptimize(out);
}
void run_margin_emit(const kernels &k, buffers &b)
{
    k.margin_emit(b.n, b.x, b.p, &MARGIN, 0.1, b.y, store(b));
}
void run_weigh_sums(const kernels &k, buffers &b)
{
    double out[2];
    k.weigh_sums(b.n, b.p, 1.0f, -1.0f, b.x, out);
    benchmark::DoNotOptimize(out);
}
void run_weigh_emit(const kernels &k, buffers &b)
{
    k.weigh_emit(b.n, b.p, 1.0f, -1.0f, b.x, 0.5f, 0.25f, b.y, store(b));
}
void run_rank_keys(const kernels &k, buffers &b)
{
    const rank_arg a = { 1.0, 0.08, 0.0, -0.9 };
    uint32_t range[2] = { UINT32_MAX, 0 };
    k.rank_keys(b.n, b.x, b.p, &a, reinterpret_cast<uint32_t *>(b.y), range);
    benchmark::DoNotOptimize(range);
}
void run_lincomb(const kernels &k, buffers &b) { k.lincomb(b.n, 0.5, b.x, 0.5, b.y); }
void run_widen_bf16(const kernels &k, buffers &b) { k.widen_bf16(b.n, b.half, b.y); }
void run_widen_f16(const kernels &k, buffers &b) { k.widen_f16(b.n, b.half, b.y); }
void run_narrow_bf16(const kernels &k, buffers &b) { k.narrow_bf16(b.n, b.x, b.half); }
void run_narrow_f16(const kernels &k, buffers &b) { k.narrow_f16(b.n, b.x, b.half); }
/* A gradient as it comes, and as a chain leaves it. */
const update_grad plain_gradient = { true, 1.0f, 0.0f, INFINITY, 1.0f, 0.0f, 0.0f, 0.0f };
const update_grad chained_gradient = { false, 1.0f, 0.0f, INFINITY, 0.9f, -0.1f, 1e-9f, 0.0f };

template <typename Kernel, typename Arg>
void update(Kernel kernel, buffers &b, const Arg &a, int arrays, const update_grad &g)
{
    update_part p = {};
    float *state[] = { b.y, b.z, b.p };
    for (int i = 0; i < arrays; i++) p.state[i] = state[i];
    p.grad = g;
    kernel(b.n, b.w, b.g, &p, &a);
}

void run_adam(const kernels &k, buffers &b)
{
    const adam_arg a = { 1e-5f, 0.9f, 0.1f, 0.999f, 0.001f, 1e-3f, 0.0f, 1.0f, 1e-8f };
    update(k.adam, b, a, 2, chained_gradient);
}
void run_sgd(const kernels &k, buffers &b)
{
    update(k.sgd, b, sgd_arg{ 1e-5f, 1e-3f, 0.9f, 1.0f, 0 }, 1, plain_gradient);
}
void run_optimistic(const kernels &k, buffers &b)
{
    update(k.optimistic, b, optimistic_arg{ 1e-5f, 2e-3f, 1e-3f }, 1, plain_gradient);
}
void run_rmsprop(const kernels &k, buffers &b)
{
    const rmsprop_arg a = { 0.0f, 1e-3f, 0.99f, 0.01f, 1e-8f, 0.9f };
    update(k.rmsprop, b, a, 3, plain_gradient);
}
void run_lion(const kernels &k, buffers &b)
{
    const lion_arg a = { 1e-5f, 1e-4f, 0.9f, 0.1f, 0.99f, 0.01f };
    update(k.lion, b, a, 1, plain_gradient);
}
void run_egd(const kernels &k, buffers &b)
{
    const egd_arg a = { 0.0f, 1e-4f, 0.0f, 1e-6f, 1e6f };
    update(k.egd, b, a, 0, plain_gradient);
}
void run_factor_step(const kernels &k, buffers &b)
{
    update(k.factor_step, b, factor_arg{ 1e-5f, 1e-4f, 1.0f, 0.9f, 0.1f }, 1, plain_gradient);
}
void run_factor_squares(const kernels &k, buffers &b)
{
    double sums[2];
    k.factor_squares(b.n, b.w, b.g, &plain_gradient, b.sum, sums);
    benchmark::DoNotOptimize(sums);
}
void run_factor_full(const kernels &k, buffers &b)
{
    double sums[2];
    k.factor_full(b.n, b.w, b.g, &plain_gradient, 1e-30f, 0.01f, b.y, sums);
    benchmark::DoNotOptimize(sums);
}
void run_factor_norm(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.factor_norm(b.n, nullptr, b.g, &plain_gradient, 1.0f, b.p));
}
void run_update_dots(const kernels &k, buffers &b)
{
    const gradient_map m = { 1.0, 0.0, 2.0, 0.9, -0.1 };
    double sums[3];
    k.update_dots(b.n, b.w, b.g, &m, sums);
    benchmark::DoNotOptimize(sums);
}
void run_clip(const kernels &k, buffers &b) { k.clip(b.n, 2.0f, b.y); }

void run_normals(const kernels &k, buffers &b) { k.normals(b.n, 1, 0, b.y); }
void run_positive(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.positive(b.n, b.p));
}
const line_arg line_of_bench = { 0.01f, 0.001f, 0.1f, nullptr, nullptr, nullptr };
void run_line(const kernels &k, buffers &b)
{
    k.line(b.n, b.p, b.x, b.g, &line_of_bench, b.y);
}
void run_log_of(const kernels &k, buffers &b) { k.log_of(b.n, b.p, b.y); }
void run_log_ratio(const kernels &k, buffers &b) { k.log_ratio(b.n, b.p, b.w, b.y); }
void run_gbm_step(const kernels &k, buffers &b)
{
    int64_t lost = 0;
    k.gbm_step(b.n, b.p, b.x, b.g, &line_of_bench, b.y, &lost);
    benchmark::DoNotOptimize(lost);
}
void run_gbm_linear(const kernels &k, buffers &b)
{
    int64_t lost[2] = { 0, 0 };
    k.gbm_linear(b.n, b.p, b.x, b.g, &line_of_bench, b.y, lost);
    benchmark::DoNotOptimize(lost);
}
void run_score_grad(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.score_grad(b.n, b.x, 0.5f, nullptr, nullptr, b.y));
}
void run_score_sum(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.score_sum(b.n, b.x, b.g, 0.5f, b.y));
}

void run_least(const kernels &k, buffers &b)
{
    float least;
    benchmark::DoNotOptimize(k.least(b.n, b.x, &least));
}
void run_barrier_gap(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.barrier_gap(b.n, b.p, 0.0, 0.5, b.sum));
}
void run_barrier_sums(const kernels &k, buffers &b)
{
    double out[2];
    k.barrier_sums(b.n, b.sum, 2.0, out);
    benchmark::DoNotOptimize(out);
}
void run_barrier_emit(const kernels &k, buffers &b)
{
    k.barrier_emit(b.n, b.sum, 2.0, 1.0, b.y);
}
void run_barrier_dots(const kernels &k, buffers &b)
{
    double out[2];
    k.barrier_dots(b.n, b.p, b.g, out);
    benchmark::DoNotOptimize(out);
}
void run_barrier_grad(const kernels &k, buffers &b)
{
    k.barrier_grad(b.n, b.p, b.g, -0.5, 1e-4, b.y);
}

void run_surrogate(const kernels &k, buffers &b)
{
    double sums[3] = { 0 };
    k.surrogate(b.n, b.g, b.x, b.p, 0.5, b.y, sums);
    benchmark::DoNotOptimize(sums);
}
void run_shifted(const kernels &k, buffers &b) { k.shifted(b.n, b.x, b.g, 0.5, b.y); }
void run_kl_beyond(const kernels &k, buffers &b)
{
    benchmark::DoNotOptimize(k.kl_beyond(b.n, b.x, b.p, 0.1f, &b.out, &b.out));
}

/* Tiles: n floats as rows of 64, or of as many as there are, from 16 up. */
size_t lanes(const buffers &b) { return b.n < 64 ? 16 : 64; }
size_t tile_rows(const buffers &b) { return b.n / lanes(b); }

void run_tile_gemm(const kernels &k, buffers &b)
{
    const size_t n = lanes(b);
    const auto step = static_cast<ptrdiff_t>(n);
    const tile_product t = { tile_rows(b), n,    n,   b.x,  step,  1,
                             b.p,          step, b.y, step, false, false };
    if (b.n >= n * n) k.tile_gemm(&t);
}
void run_finite(const kernels &k, buffers &b) { benchmark::DoNotOptimize(k.finite(b.n, b.x)); }
void run_transpose(const kernels &k, buffers &b)
{
    const size_t n = lanes(b), m = tile_rows(b);
    for (size_t i = 0; i < m; i += n) {
        const size_t rows = m - i < n ? m - i : n;
        k.transpose(rows, n, b.x + i * n, static_cast<ptrdiff_t>(n), 1.0f, b.y + i * n,
                    static_cast<ptrdiff_t>(rows));
    }
}
void run_tile_band(const kernels &k, buffers &b)
{
    k.tile_band(tile_rows(b), lanes(b), b.y, lanes(b), 0, 0, 31);
}
void run_tile_alibi(const kernels &k, buffers &b)
{
    k.tile_alibi(tile_rows(b), lanes(b), b.y, lanes(b), 0, 0.0f);
}
struct lane_arrays {
    float ref[64] = { 0 }, sum[64] = { 0 }, lost[64] = { 0 }, factor[64] = { 0 };
    tile_lanes state = { ref, sum, lost, factor, nullptr };
};
void run_tile_softmax(const kernels &k, buffers &b)
{
    lane_arrays a;
    benchmark::DoNotOptimize(k.tile_softmax(tile_rows(b), lanes(b), b.y, lanes(b), &a.state));
}
void run_tile_finish(const kernels &k, buffers &b)
{
    const tile_lanes state = { b.x, b.p, nullptr, nullptr, nullptr };
    k.tile_finish(b.n, &state, b.y, b.z);
}
void run_tile_scale(const kernels &k, buffers &b)
{
    k.tile_scale(tile_rows(b), lanes(b), b.p, b.y, lanes(b));
}
void run_tile_grad(const kernels &k, buffers &b)
{
    k.tile_grad(tile_rows(b), lanes(b), b.y, b.z, lanes(b), b.x, b.x + 64);
}
void run_tile_keep(const kernels &k, buffers &b)
{
    k.tile_keep(b.n / 64 * 16, 1, 0, 512, 1u << 29, 1.0f, b.y, b.n / 64 * 16);
}

/* Keys of 64 that are kept: tiles of 64, or as many as there are. */
size_t kept_keys(const buffers &b) { return b.n / 64 < 64 ? b.n / 64 : 64; }
cache_scores scores_of(const buffers &b, const void *k)
{
    return { 1, kept_keys(b) / CACHE_GROUP, 64, b.p, 64, k, b.y, 64 };
}
cache_values values_of(const buffers &b, const void *v)
{
    return { 1, kept_keys(b), 64, b.p, 64, v, 64, b.y, 64, false };
}
template <typename T> void run_scores(void (*f)(const cache_scores *), const T *k, buffers &b)
{
    for (size_t at = 0; at < b.n; at += 4096) {
        const cache_scores a = scores_of(b, k + at);
        f(&a);
    }
}
template <typename T> void run_values(void (*f)(const cache_values *), const T *v, buffers &b)
{
    for (size_t at = 0; at + 16 < b.n; at += 4096) {
        cache_values a = values_of(b, v + at);
        if (at + 4096 >= b.n && a.keys > 0) a.keys--; /* what is read past the last row */
        f(&a);
    }
}
void run_cache_scores_f32(const kernels &k, buffers &b)
{
    run_scores(k.cache_scores_f32, b.x, b);
}
void run_cache_scores_bf16(const kernels &k, buffers &b)
{
    run_scores(k.cache_scores_bf16, b.half, b);
}
void run_cache_scores_f16(const kernels &k, buffers &b)
{
    run_scores(k.cache_scores_f16, b.half, b);
}
void run_cache_softmax(const kernels &k, buffers &b)
{
    float ref = 0.0f, factor;
    double sum = 0;
    const cache_state state = { &ref, &factor, &sum, nullptr };
    benchmark::DoNotOptimize(k.cache_softmax(1, b.n, b.y, b.n, &state));
}
void run_cache_values_f32(const kernels &k, buffers &b)
{
    run_values(k.cache_values_f32, b.x, b);
}
void run_cache_values_bf16(const kernels &k, buffers &b)
{
    run_values(k.cache_values_bf16, b.half, b);
}
void run_cache_values_f16(const kernels &k, buffers &b)
{
    run_values(k.cache_values_f16, b.half, b);
}

/* Rows of 64, or one row that is shorter, and up to 10 vectors. */
row_products rows_of(const buffers &b, bool back, const void *x, const void *w, void *out)
{
    row_products t = {};
    t.dim = b.n < 64 ? b.n : 64, t.rows = b.n / t.dim, t.k = t.rows < 10 ? t.rows : 10;
    t.x = x, t.w = w, t.out = out;
    t.ldx = static_cast<ptrdiff_t>(t.dim);
    t.ldw = static_cast<ptrdiff_t>(back ? t.rows : t.dim);
    t.ldo = static_cast<ptrdiff_t>(back ? t.dim : t.rows);
    return t;
}
void run_row_dots_f32(const kernels &k, buffers &b)
{
    const row_products t = rows_of(b, false, b.x, b.p, b.y);
    k.row_dots_f32(&t);
}
void run_row_dots_wide(const kernels &k, buffers &b)
{
    const row_products t = rows_of(b, false, b.x, b.wide, b.sum);
    k.row_dots_wide(&t);
}
void run_row_dots_f64(const kernels &k, buffers &b)
{
    const row_products t = rows_of(b, false, b.wide, b.wide, b.sum);
    k.row_dots_f64(&t);
}
void run_row_sums_f32(const kernels &k, buffers &b)
{
    const row_products t = rows_of(b, true, b.x, b.p, b.sum);
    k.row_sums_f32(&t);
}
void run_row_sums_wide(const kernels &k, buffers &b)
{
    const row_products t = rows_of(b, true, b.x, b.wide, b.sum);
    k.row_sums_wide(&t);
}
void run_row_sums_f64(const kernels &k, buffers &b)
{
    const row_products t = rows_of(b, true, b.wide, b.wide, b.sum);
    k.row_sums_f64(&t);
}
void run_exp_f64(const kernels &k, buffers &b) { k.exp_f64(b.n, b.wide, b.sum); }
void run_log1p_f64(const kernels &k, buffers &b) { k.log1p_f64(b.n, b.wide, b.sum); }

/* ---- Registration ----------------------------------------------------------------------- */

void run_act(const kernels &k, buffers &b) { k.act(b.n, b.x, nullptr, 0, b.y); }
void run_act_bwd(const kernels &k, buffers &b) { k.act_bwd(b.n, b.x, nullptr, b.g, 0, b.y); }
void run_act_gate(const kernels &k, buffers &b) { k.act_gate(b.n, b.x, b.p, 2, b.y); }
void run_act_gate_bwd(const kernels &k, buffers &b)
{
    k.act_gate_bwd(b.n, b.x, b.p, b.g, 2, b.y, b.z);
}
const norm_arg norm_of_bench = { 0.1f, 1e-9f, 0.3f, 0.01f, 0.02f };
void run_norm_emit(const kernels &k, buffers &b)
{
    k.norm_emit(b.n, b.x, &norm_of_bench, b.p, b.g, b.y);
}
void run_norm_sums(const kernels &k, buffers &b)
{
    double sums[3];
    k.norm_sums(b.n, b.x, &norm_of_bench, b.p, b.g, sums);
    benchmark::DoNotOptimize(sums);
}
void run_norm_bwd(const kernels &k, buffers &b)
{
    k.norm_bwd(b.n, b.x, &norm_of_bench, b.p, b.g, nullptr, b.y, b.z, b.w);
}
void run_rope(const kernels &k, buffers &b) { k.rope(b.n / 2, b.x, b.p, b.g, 0, b.y); }

using kernel_run = void (*)(const kernels &, buffers &);

void time_kernel(benchmark::State &state, kernel_run run, int32_t isa)
{
    kernels k;
    kernels_fill(&k, isa);
    buffers b(static_cast<size_t>(state.range(0)));
    const fp_mode mode = fp_enter();
    for (auto _ : state) {
        run(k, b);
        benchmark::ClobberMemory();
    }
    fp_leave(mode);
    state.SetItemsProcessed(state.iterations() * state.range(0));
}

void enlist(const char *name, kernel_run run)
{
    static const char *const isas[] = { "", "portable", "avx2", "avx512" };
    for (int32_t isa = SLG_ISA_PORTABLE; isa <= kernels_cpu_isa(); isa++)
        benchmark::RegisterBenchmark((std::string(name) + "/" + isas[isa]).c_str(), time_kernel,
                                     run, isa)
            ->Arg(64)
            ->Arg(4096)
            ->Arg(1 << 16)
            ->Arg(1 << 22);
}

} // namespace

int main(int argc, char **argv)
{
#define K(result, name, args) enlist(#name, run_##name);
    SLG_KERNELS(K)
#undef K
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
