/*
 * workloads.c - the table: name, operation, rows x cols x dim, threads, ISA, input, goals.
 * The goals are those of the issue that asked for the kernels, as ratios in one run.
 */
#include "race.h"

enum { K = 1024, M = 1024 * 1024, GPT2 = 50257, LLAMA3 = 128256 };

#define AUTO SLG_ISA_AUTO
#define AVX2 SLG_ISA_AVX2

/* clang-format off */
const workload workloads[] = {
    /* One row. */
    { "softmax-10", &op_softmax, 1, 10, 0, 1, AUTO, NORMAL, { { 0 } } },
    { "softmax-64", &op_softmax, 1, 64, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 1.5 }, { FASTER, "onednn", 8 }, { FASTER, "torch", 8 } } },
    { "softmax-1k", &op_softmax, 1, K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 4 } } },
    { "softmax-4k", &op_softmax, 1, 4 * K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 2.5 },
        { AT_MOST, "issue-limit", 1.7 } } },
    { "softmax-32k", &op_softmax, 1, 32 * K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 2.5 } } },
    { "softmax-128k", &op_softmax, 1, 128 * K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 2.5 } } },
    { "softmax-1M", &op_softmax, 1, M, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.7 }, { AT_MOST, "read+copy-nt", 1.12 } } },
    { "softmax-16M", &op_softmax, 1, 16 * M, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.7 }, { AT_MOST, "read+copy-nt", 1.2 } } },
    { "softmax-64M", &op_softmax, 1, 64 * M, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.7 }, { AT_MOST, "read+copy-nt", 1.2 } } },
    { "softmax-16M-2threads", &op_softmax, 1, 16 * M, 0, 2, AUTO, NORMAL,
      { { FASTER, "best", 2.5 }, { AT_MOST, "read+copy-nt", 1.4 } } },
    /* Rows. */
    { "softmax-4096x1000", &op_softmax, 4096, 1000, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.5 }, { AT_MOST, "copy-nt", 1.5 } } },
    { "softmax-2048x50257", &op_softmax, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.8 }, { AT_MOST, "copy-nt", 1.35 } } },
    { "softmax-512x128256", &op_softmax, 512, LLAMA3, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.8 }, { AT_MOST, "copy-nt", 1.35 } } },
    { "log-softmax-2048x50257", &op_log_softmax, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.5 }, { AT_MOST, "copy-nt", 1.5 } } },
    { "logsumexp-2048x50257", &op_logsumexp, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch", 6 }, { AT_MOST, "read", 1.25 } } },
    { "cross-entropy-2048x50257", &op_cross_entropy, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch-autograd", 12 }, { FASTER, "torch-kernels", 7 },
        { AT_MOST, "copy-nt", 1.35 } } },
    /* Subnormal results and masks must cost nothing: against our own time at sd 3. */
    { "softmax-2048x50257-sd30", &op_softmax, 2048, GPT2, 0, 1, AUTO, WIDE,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    { "softmax-2048x50257-masked", &op_softmax, 2048, GPT2, 0, 1, AUTO, MASKED,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    { "cross-entropy-2048x50257-sd30", &op_cross_entropy, 2048, GPT2, 0, 1, AUTO, WIDE,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    { "cross-entropy-2048x50257-masked", &op_cross_entropy, 2048, GPT2, 0, 1, AUTO, MASKED,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    /* Other losses, forward and backward: against our own cross-entropy; a teacher against
       bytes. */
#define LOSS(name, op)                                                                         \
    { name "-2048x50257", &op, 2048, GPT2, 0, 1, AUTO, NORMAL,                                 \
      { { AT_MOST, "cross-entropy", 1.6 } } }
    LOSS("comp-sum", op_comp_sum),   LOSS("focal", op_focal), LOSS("poly1", op_poly1),
    LOSS("stablemax", op_stablemax), LOSS("hinge", op_hinge), LOSS("z-loss", op_spherical),
    { "distillation-2048x50257", &op_distillation, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { AT_MOST, "read+copy-nt", 1.35 } } },
    /* Output layer and optimizer. */
    { "linear-cross-entropy-2048x768x50257", &op_linear, 2048, GPT2, 768, 1, AUTO, NORMAL,
      { { FASTER, "torch", 1.0 }, { AT_MOST, "gemms", 1.05 },
        { LESS_MEMORY, "torch-autograd", 4 } } },
    { "adamw-124M", &op_adamw, 1, 124439808, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch", 4 }, { AT_MOST, "stream28", 1.15 } } },
    /* The AVX2 level, also where the CPU has more. */
    { "softmax-4k-avx2", &op_softmax, 1, 4 * K, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.2 } } },
    { "softmax-128k-avx2", &op_softmax, 1, 128 * K, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.2 } } },
    { "softmax-16M-avx2", &op_softmax, 1, 16 * M, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.4 } } },
    { "softmax-2048x50257-avx2", &op_softmax, 2048, GPT2, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.4 } } },
    { .name = NULL },
};
/* clang-format on */
