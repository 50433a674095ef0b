/*
 * transformer.h - a decoder-only transformer of libsoftlogit's parts: forward, backward,
 * generation with a cache, save and load. The language model is built on it, and the re-runs of
 * papers.
 *
 *     x = words[token] (+ places[position])
 *     for each block:   x += out(attention(norm(x)));   x += down(f(up(norm(x))))
 *     logits = norm(x) words'      (or, untied, a matrix of its own)
 *
 * The weights are one array, its gradient another, so one call of an optimizer updates all.
 */
#ifndef TRANSFORMER_H
#define TRANSFORMER_H

#include <softlogit/softlogit.h>
#include <stdbool.h>

typedef struct transformer_opts {
    int32_t vocab, context;       /* words; tokens of a sequence at most */
    int32_t layers, heads, width; /* width: of a token's vector; heads divides it */
    int32_t hidden;               /* width of the layer between up and down */
    int32_t local_heads, window;  /* LS-attention: so many heads a layer see `window` tokens */
    int32_t rotary;               /* 1: rotary positions; 0: a learned vector a position */
    int32_t rms;                  /* 1: RMS norm; 0: layer norm */
    int32_t activation;           /* slg_activation_kind */
    int32_t qk_norm;              /* 1: queries and keys of length 1, and a learned scale a
                                      head */
    int32_t untied;               /* 1: the output layer has weights of its own */
    double dropout;               /* of words, of what blocks add to x, and of the last norm */
} transformer_opts;

/* GPT-2's, small. */
transformer_opts transformer_defaults(int32_t vocab);

typedef struct transformer transformer;

/* Room for `batch` sequences of `context` tokens. Random weights, from the seed. */
transformer *transformer_create(slg_ctx *ctx, const transformer_opts *opts, int64_t batch,
                                uint64_t seed);
void transformer_free(transformer *m);

const transformer_opts *transformer_opts_of(const transformer *m);
slg_tensor transformer_weights(transformer *m);   /* [n] */
slg_tensor transformer_gradients(transformer *m); /* [n], of the last transformer_train */

/*
 * Mean cross-entropy of target[b, t] given token[b, 0..t], and gradients; targets below 0 are
 * left out.
 *
 *   token, target  [batch, tokens]  in
 *   loss           [batch, tokens]  out  each one's; NULL: not wanted
 */
double transformer_train(transformer *m, int64_t batch, int64_t tokens, const int32_t *token,
                         const int32_t *target, float *loss);

/* The same without gradients and without dropout. */
double transformer_test(transformer *m, int64_t batch, int64_t tokens, const int32_t *token,
                        const int32_t *target, float *loss);

/* Largest |logit| of attention in the last call, of a layer; [heads] are written. */
void transformer_max_logit(const transformer *m, int32_t layer, float *head);

/*
 * Generation: tokens go in, one or several at a time, and the logits of what follows the last
 * come out, [vocab]. What went in before is kept, in caches, until transformer_restart.
 */
void transformer_restart(transformer *m);
void transformer_next(transformer *m, int64_t tokens, const int32_t *token, float *logits);

/* Options and weights; false where the file cannot be written, or is not such a file. */
bool transformer_save(const transformer *m, const char *path);
transformer *transformer_load(slg_ctx *ctx, const char *path, int64_t batch);

#endif
