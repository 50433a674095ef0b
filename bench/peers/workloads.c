/*
 * workloads.c - the table: name, operation, loss, rows x cols x dim, threads, ISA, input,
 * goals.
 * The goals are those of the issue that asked for the kernels, as ratios in one run.
 */
#include "race.h"

enum { K = 1024, M = 1024 * 1024, GPT2 = 50257, LLAMA3 = 128256 };

#define AUTO SLG_ISA_AUTO
#define AVX2 SLG_ISA_AVX2

/* clang-format off */
const workload workloads[] = {
    /* One row. */
    { "softmax-10", &op_softmax, NULL, 1, 10, 0, 1, AUTO, NORMAL, { { 0 } } },
    { "softmax-64", &op_softmax, NULL, 1, 64, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 1.5 }, { FASTER, "onednn", 8 }, { FASTER, "torch", 8 } } },
    { "softmax-1k", &op_softmax, NULL, 1, K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 4 } } },
    { "softmax-4k", &op_softmax, NULL, 1, 4 * K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 2.5 },
        { AT_MOST, "issue-limit", 1.7 } } },
    { "softmax-32k", &op_softmax, NULL, 1, 32 * K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 2.5 } } },
    { "softmax-128k", &op_softmax, NULL, 1, 128 * K, 0, 1, AUTO, NORMAL,
      { { FASTER, "plain", 2.2 }, { FASTER, "onednn", 2.5 } } },
    { "softmax-1M", &op_softmax, NULL, 1, M, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.7 }, { AT_MOST, "read+copy-nt", 1.12 } } },
    { "softmax-16M", &op_softmax, NULL, 1, 16 * M, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.7 }, { AT_MOST, "read+copy-nt", 1.2 } } },
    { "softmax-64M", &op_softmax, NULL, 1, 64 * M, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.7 }, { AT_MOST, "read+copy-nt", 1.2 } } },
    { "softmax-16M-2threads", &op_softmax, NULL, 1, 16 * M, 0, 2, AUTO, NORMAL,
      { { FASTER, "best", 2.5 }, { AT_MOST, "read+copy-nt", 1.4 } } },
    /* Rows. */
    { "softmax-4096x1000", &op_softmax, NULL, 4096, 1000, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.5 }, { AT_MOST, "copy-nt", 1.5 } } },
    { "softmax-2048x50257", &op_softmax, NULL, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.8 }, { AT_MOST, "copy-nt", 1.35 } } },
    { "softmax-512x128256", &op_softmax, NULL, 512, LLAMA3, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.8 }, { AT_MOST, "copy-nt", 1.35 } } },
    { "log-softmax-2048x50257", &op_log_softmax, NULL, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "best", 1.5 }, { AT_MOST, "copy-nt", 1.5 } } },
    { "logsumexp-2048x50257", &op_logsumexp, NULL, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch", 6 }, { AT_MOST, "read", 1.25 } } },
    { "cross-entropy-2048x50257", &op_cross_entropy, NULL, 2048, GPT2, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch-autograd", 12 }, { FASTER, "torch-kernels", 7 },
        { AT_MOST, "copy-nt", 1.35 } } },
    /* Subnormal results and masks must cost nothing: against our own time at sd 3. */
    { "softmax-2048x50257-sd30", &op_softmax, NULL, 2048, GPT2, 0, 1, AUTO, WIDE,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    { "softmax-2048x50257-masked", &op_softmax, NULL, 2048, GPT2, 0, 1, AUTO, MASKED,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    { "cross-entropy-2048x50257-sd30", &op_cross_entropy, NULL, 2048, GPT2, 0, 1, AUTO, WIDE,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    { "cross-entropy-2048x50257-masked", &op_cross_entropy, NULL, 2048, GPT2, 0, 1, AUTO,
      MASKED,
      { { AT_MOST, "ours-sd3", 1.3 } } },
    /* Other losses, forward and backward: against our own cross-entropy; with a second matrix
       against bytes. PyTorch's compositions on some of the rows, scaled. */
#define LOSS(name)                                                                             \
    { name "-2048x50257", &op_loss, name, 2048, GPT2, 0, 1, AUTO, NORMAL,                      \
      { { AT_MOST, "cross-entropy", 1.6 }, { FASTER, "torch", 5 } } }
#define TWO(name, floor)                                                                       \
    { name "-2048x50257", &op_loss, name, 2048, GPT2, 0, 1, AUTO, NORMAL,                      \
      { { AT_MOST, floor, 1.35 }, { FASTER, "torch", 5 } } }
    LOSS("smoothed"), LOSS("comp-sum"), LOSS("focal"), LOSS("poly1"), LOSS("squared-softmax"),
    LOSS("stablemax"), LOSS("hinge"), LOSS("hinge-max"), LOSS("hinge-sum"), LOSS("z-loss"),
    LOSS("taylor"), LOSS("log-spherical"), LOSS("squared-error"), LOSS("preference"),
    LOSS("robust"), LOSS("reward"), LOSS("reward-k100"), LOSS("reward-k5000"),
    LOSS("expected-reward"),
    TWO("expected-reward-table", "read+copy-nt"), TWO("cross-entropy-prob", "read+copy-nt"),
    TWO("squared-softmax-prob", "read+copy-nt"), TWO("stablemax-prob", "read+copy-nt"),
    TWO("bce", "read+copy-nt"), TWO("forward-kl", "read+copy-nt"),
    TWO("reverse-kl", "read+copy-nt"), TWO("jensen-shannon", "read+copy-nt"),
    TWO("kd", "read+copy-nt"), TWO("nkd", "read+copy-nt"), TWO("nkd-tau2", "read+copy-nt"),
    TWO("binary-kl", "read+copy-nt"), TWO("binary-kl-normalised", "read+copy-nt"),
    TWO("margin-change", "read+copy-nt"), TWO("uskd", "copy-nt-twice"),
    TWO("adversarial", "copy-nt-twice"), TWO("dual-head", "read+copy-nt-twice"),
    /* Output layer and optimizer. */
    { "linear-cross-entropy-2048x768x50257", &op_linear, NULL, 2048, GPT2, 768, 1, AUTO, NORMAL,
      { { FASTER, "torch", 1.0 }, { AT_MOST, "gemms", 1.05 },
        { LESS_MEMORY, "torch-autograd", 4 } } },
#define FUSED(name)                                                                            \
    { "linear-" name "-2048x768x50257", &op_fused_loss, name, 2048, GPT2, 768, 1, AUTO,        \
      NORMAL,                                                                                  \
      { { AT_MOST, "gemms", 1.08 }, { LESS_MEMORY, "logits", 1 } } }
    FUSED("focal"), FUSED("comp-sum"), FUSED("z-loss"), FUSED("forward-kl"),
    FUSED("svm-layer"),
    { "adamw-124M", &op_adamw, NULL, 1, 124439808, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch", 4 }, { AT_MOST, "stream28", 1.15 } } },
    /* Clipped by its norm, perpendicular to the weights, AdamW: one more read of both. */
    { "adamw-chain-124M", &op_update_chain, NULL, 1, 124439808, 0, 1, AUTO, NORMAL,
      { { FASTER, "torch", 4 }, { AT_MOST, "stream36", 1.15 } } },
    /* Causal attention, 12 heads of 64. Floors: the peak of multiply-adds. */
    { "attention-512", &op_attention, NULL, 512, 12, 64, 1, AUTO, NORMAL,
      { { FASTER, "torch", 4 } } },
    { "attention-2048", &op_attention, NULL, 2048, 12, 64, 1, AUTO, NORMAL,
      { { FASTER, "torch", 5 }, { FASTER, "plain", 2 }, { AT_MOST, "fma-peak", 2.0 } } },
    { "attention-8192", &op_attention, NULL, 8192, 12, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "fma-peak", 2.0 } } },
    { "attention-2048-2threads", &op_attention, NULL, 2048, 12, 64, 2, AUTO, NORMAL,
      { { FASTER, "torch", 5 }, { AT_MOST, "fma-peak", 2.2 } } },
    { "attention-grad-512", &op_attention_grad, NULL, 512, 12, 64, 1, AUTO, NORMAL,
      { { FASTER, "torch", 3 } } },
    { "attention-grad-2048", &op_attention_grad, NULL, 2048, 12, 64, 1, AUTO, NORMAL,
      { { FASTER, "torch", 4.5 }, { AT_MOST, "fma-peak", 2.2 } } },
    { "attention-grad-8192", &op_attention_grad, NULL, 8192, 12, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "fma-peak", 2.2 } } },
    { "attention-grad-2048-2threads", &op_attention_grad, NULL, 2048, 12, 64, 2, AUTO, NORMAL,
      { { AT_MOST, "fma-peak", 2.4 } } },
    /* Every other head with a window of 64: the paper's latency is 36 % lower. */
    { "ls-attention-2048", &op_ls_attention, NULL, 2048, 12, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "all-global", 0.64 } } },
    { "attention-2048-avx2", &op_attention, NULL, 2048, 12, 64, 1, AVX2, NORMAL,
      { { AT_MOST, "fma-peak", 2.0 } } },
    /* A token, to a cache of 12 heads of 64; of 8 heads, of which some have a window of 64. */
    { "decode-8192", &op_decode, "f32", 8192, 1536, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "read", 1.15 } } },
    { "decode-8192-bf16", &op_decode, "bf16", 8192, 768, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "read", 1.15 } } },
    { "decode-8192-f16", &op_decode, "f16", 8192, 768, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "read", 1.15 } } },
    { "decode-8192-2threads", &op_decode, "f32", 8192, 1536, 64, 2, AUTO, NORMAL,
      { { AT_MOST, "read", 1.2 } } },
    { "ls-decode-4096", &op_ls_decode, "4 local", 4096, 1024, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "all-global", 0.6 } } },
    { "ls-decode-4096-6", &op_ls_decode, "6 local", 4096, 1024, 64, 1, AUTO, NORMAL,
      { { AT_MOST, "all-global", 0.35 } } },
    /* Forward, backward and AdamW of a model like GPT-2: 8 sequences of 256, 6 layers. What
       is no product with weights: under 15 %. */
    { "train-step", &op_train_step, NULL, 2048, GPT2, 384, 1, AUTO, NORMAL,
      { { FASTER, "torch", 1.5 }, { AT_MOST, "gemms", 1 / 0.85 } } },
    { "train-step-2threads", &op_train_step, NULL, 2048, GPT2, 384, 2, AUTO, NORMAL,
      { { FASTER, "torch", 1.5 }, { AT_MOST, "gemms", 1 / 0.85 } } },
    /* Linear attention, 12 heads of 64. Floor: the products of chunks, by BLAS. */
    { "linear-attention-2048", &op_linear_attention, NULL, 2048, 12, 64, 1, AUTO, NORMAL,
      { { FASTER, "torch", 2 }, { AT_MOST, "gemms", 1.2 } } },
    { "linear-attention-8192-2threads", &op_linear_attention, NULL, 8192, 12, 64, 2, AUTO,
      NORMAL, { { FASTER, "torch", 2 } } },
    { "linear-attention-grad-2048", &op_linear_attention_grad, NULL, 2048, 12, 64, 1, AUTO,
      NORMAL, { { FASTER, "torch", 2 }, { AT_MOST, "gemms", 1.3 } } },
    /* Multinomial logistic regression to a gradient of 2e-3, data of MNIST's shape. Ours in
       single precision; floor: the data read once an evaluation. */
    { "logistic-60000x784", &op_logistic, NULL, 60000, 10, 784, 1, AUTO, NORMAL,
      { { FASTER, "sklearn", 3 }, { AT_MOST, "read", 6 } } },
    { "logistic-60000x784-2threads", &op_logistic, NULL, 60000, 10, 784, 2, AUTO, NORMAL,
      { { FASTER, "sklearn", 3 } } },
    /* The AVX2 level, also where the CPU has more. */
    { "softmax-4k-avx2", &op_softmax, NULL, 1, 4 * K, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.2 } } },
    { "softmax-128k-avx2", &op_softmax, NULL, 1, 128 * K, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.2 } } },
    { "softmax-16M-avx2", &op_softmax, NULL, 1, 16 * M, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.4 } } },
    { "softmax-2048x50257-avx2", &op_softmax, NULL, 2048, GPT2, 0, 1, AVX2, NORMAL,
      { { FASTER, "plain", 1.4 } } },
    { .name = NULL },
};
/* clang-format on */
