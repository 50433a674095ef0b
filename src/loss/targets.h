/*
 * targets.h - what rows are compared with: checked once, before anything is written.
 */
#ifndef SLG_LOSS_TARGETS_H
#define SLG_LOSS_TARGETS_H

#include "core/tensor.h"
#include "softlogit/loss.h"

/* What a loss uses of slg_targets; the rest must be NULL. */
enum {
    TARGET_INDEX = 1,
    TARGET_PROB = 2,
    TARGET_ROW_WEIGHT = 4,
    TARGET_CLASS_WEIGHT = 8,
    TARGET_TEACHER = 16,
    TARGET_LABELS = 1 << 9,   /* with TARGET_PROB: entries from 0 to 1 each, of any sum */
    TARGET_ANY_PROB = 1 << 10 /* prob may hold any numbers: it is not checked */
};

typedef struct target_set {
    int64_t rows, cols;
    rows index, prob, row_weight; /* data NULL: not given */
    bool has_index, has_prob;
    const float *class_weight; /* [cols] or NULL */
    const slg_logits *teacher;
    int64_t ignore_index;
} target_set;

/* uses: of TARGET_. Where a loss uses index and prob, exactly one of the two must be given. */
slg_status targets_open(slg_ctx *ctx, const slg_targets *given, unsigned uses, int64_t rows,
                        int64_t cols, target_set *t);

/* A weight a class [cols], f32, >= 0, under `name`, as floats in scratch; given NULL: NULL. */
slg_status targets_class_weight(slg_ctx *ctx, const char *name, const slg_tensor *given,
                                int64_t cols, const float **out);

/* Class of a row; -1 where it is ignored or there are no indices. */
int64_t targets_index(const target_set *t, int64_t row);

bool targets_ignored(const target_set *t, int64_t row);

/* 1 where no row weights are given. */
double targets_weight(const target_set *t, int64_t row);

/* True if out shares memory with one of the targets' tensors. */
bool targets_clash(const slg_targets *given, const slg_tensor *out);

#endif
