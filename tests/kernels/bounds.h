/*
 * bounds.h - what the kernels promise, in u = 2^-24 = 6.0e-8; docs/numerics.md quotes it.
 *
 * A relative error, unless it says of what. Beside each promise: the largest error seen on
 * portable, avx2, avx512, by the tests here (and, where 2048 times the same value is hardest,
 * by a search over 60000 values, once). Where n or the values are unlimited, so is the promise.
 *
 * Exponentials below BOUND_zero may be 0; those of exp_emit also below BOUND_zero times its
 * factor, where that is more than 1.
 */
#ifndef TESTS_KERNELS_BOUNDS_H
#define TESTS_KERNELS_BOUNDS_H

#define BOUND_zero 0x1p-124

/* exp(x) as all kernels have it: test_exp.c, over the floats of its range. */
#define BOUND_exp 7.5          /* 6.7  6.5  5.4; 3.4  3.1  2.3 for T not 1 */
#define BOUND_exp_near 4.0     /* 3.9  3.6  2.3; the same within e^20 of the reference */
#define BOUND_ext_exp_ulp 2.0  /* 1.98; m for |x| <= 1000, in ulp of float32 */
#define BOUND_ext_exp_far 17.0 /* 15.9; m up to |x| = 1e6, in ulp; twice that up to 2^21 */

/* Absolute, of the log-sum-exp; which is relative, of the sum. */
#define BOUND_lse 11.0             /* 8.4   7.9   6.7 */
#define BOUND_exp_emit 8.0         /* 6.9   6.6   6.5; with c: of |a exp| + |c| */
#define BOUND_exp_emit_q 8.0       /* 6.4   5.5   5.4; of |a exp| + |b q| */
#define BOUND_softmax_row 14.0     /* 9.5   9.7   8.0; the log-sum-exp as BOUND_lse */
#define BOUND_emit_lse 0           /* the bits of exp_emit and lse */
#define BOUND_lse_target 16.0      /* of the second: of sum q |x - shift| */
#define BOUND_lse_dot 13.0         /* 9.9  10.4   5.6; of sum p |v|, its square */
#define BOUND_lse_pair 13.0        /* 8.5   8.3   5.5; the sum beside: of sum q |v| */
#define BOUND_js_sums 10.0         /* 5.4   5.5   7.8; of sum p (1 + |log(p / m)|) */
#define BOUND_js_emit 8.0          /* 5.9   5.9   4.9; of p (1 + |b log(p / m)|) */
#define BOUND_exp_emit2 8.0        /* 5.4   5.6   4.7; of |p| + |q| */
#define BOUND_exp_emit_linear 10.0 /* 7.0   7.4   7.0; of |p| (|c| + |b v|) */
#define BOUND_bce 16.5             /* 13.5  11.6  11.6 */
#define BOUND_bce_slope 6.0        /* 4.6   4.4   3.7; of the two terms */
#define BOUND_log_cosh 24.0        /* 18.5  19.0  15.0 */
#define BOUND_log_cosh_slope 6.0   /* 4.6   4.7   3.8 */
#define BOUND_binary_kl 70.0       /* 39.1  39.8  35.4; of the sum, half a unit off its least */
#define BOUND_binary_kl_slope 8.5  /* 6.6   6.3   4.3; more for large logits */
#define BOUND_ordinal 16.0          /* each in its own scale, of log p the whole */
#define BOUND_dots 1e-4            /* in double */
#define BOUND_rows_dot 1e-4        /* in double; of the magnitudes that are added up */
#define BOUND_rows_sum 1e-4        /* the same */
#define BOUND_sign_dot 1e-4        /* in double */
#define BOUND_rank_keys 0
#define BOUND_weigh_sums 24.0     /* of the magnitudes that are added up */
#define BOUND_weigh_emit 4.0      /* of |f p| (|c p| + |b q| + |s|) */
#define BOUND_margin_sums 1e-4    /* in double; of the magnitudes that are added up */
#define BOUND_margin_emit 1.0     /* rounded once */
#define BOUND_lincomb 1.0         /* rounded once */
#define BOUND_exp_store 14.0
#define BOUND_exp_split 14.0 /* the second sum: of sum p |x - shift| */
#define BOUND_split_emit 1.0
#define BOUND_log_emit 2.5           /* 1.92  1.92  1.92 */
#define BOUND_softmax_bwd 2.5        /* 1.98  1.98  1.98; of |s y| (|dy| + |dot|) */
#define BOUND_log_softmax_bwd 8.0    /* 6.3   5.9   4.9; of |s| (|dy| + exp(y) |sum|) */
#define BOUND_ext_exp 4.0            /* 2.7   2.7   2.7; 16 times that past 1000 */
#define BOUND_softmax_two_pass 16.0  /* 12.6  12.6  9.5 */
#define BOUND_softmax_recompute 14.0 /* 9.2  10.3  9.5 */
#define BOUND_softmax_reload 14.0    /* 8.4   7.8   7.7 */
#define BOUND_max 0
#define BOUND_find 0
#define BOUND_select_top 0
#define BOUND_dot 12.0       /* 9.5   9.1   9.0; of sum |x| (|y| + |shift|) */
#define BOUND_count 0
#define BOUND_above 0
#define BOUND_within 26.0    /* 21.7  14.6   6.3; of the sum of magnitudes */
#define BOUND_live_sums 22.0 /* 17.7  17.1  17.1; of sum |w| (|x| + |shift|), sum |w| */
#define BOUND_target_mix 2.5 /* 1.94  1.94  1.94; of |w| (|p q| + |u|) */
#define BOUND_softcap 5.0    /* 4.1   4.4   3.6 */
#define BOUND_mul 1.0
#define BOUND_mask 0
#define BOUND_scale 1.0 /* 1, rounded once, as the next */
#define BOUND_add 1.0
#define BOUND_accumulate 1.0      /* rounded once */
#define BOUND_sign_add 1.0        /* rounded once */
#define BOUND_surrogate 1.0       /* rounded once; sums 1e-4, in double */
#define BOUND_shifted 1.0         /* rounded once */
#define BOUND_kl_beyond 8.0       /* 5.6   4.5   4.1; of the sum of its terms' magnitudes */
#define BOUND_stable_sum 10.0 /* 7.7   6.3   6.3 */
#define BOUND_stable_dot 12.0 /* 6.2   7.3   6.7; of sum q |log s| */
#define BOUND_stable_prob 5.0 /* 2.4   2.4   2.4 */
#define BOUND_stable_log 3.0  /* 1.6   1.6   1.6; of |log s| + |log of the sum| */
#define BOUND_stable_grad 6.0 /* 4.6   4.6   4.6; of |a s| / u + |b q| / u */
#define BOUND_hinge_sum 12.0  /* 8.2   5.3   4.8 */
#define BOUND_hinge_grad 1.5  /* 0.93  0.93  0.93 */
#define BOUND_stream 1.0
#define BOUND_moments 60.0    /* 48.3  24.0  10.3; of max |x|, and of the sum of squares */
#define BOUND_affine_emit 2.5 /* 1.25  1.25  1.25; of |a| |x unit - pivot| + |c| */
#define BOUND_widen_bf16 0    /* and nearest, ties to even, in all conversions */
#define BOUND_widen_f16 0
#define BOUND_narrow_bf16 0
#define BOUND_narrow_f16 0
#define BOUND_adam 8.0          /* 6.5   6.1   6.2; of the magnitudes that are added up */
#define BOUND_sgd 4.0           /* 3.1   3.1   3.1 */
#define BOUND_optimistic 3.5    /* 2.9   2.8   2.8 */
#define BOUND_rmsprop 5.0       /* 3.1   3.7   3.3 */
#define BOUND_lion 4.0          /* 3.0   3.0   2.9 */
#define BOUND_egd 7.0           /* 5.4   5.3   4.9; times 1 + the exponent */
#define BOUND_factor_step 5.0    /* 3.5   3.7   3.5 */
#define BOUND_factor_squares 8.0 /* 5.9   5.8   5.8; weights' squares: of 2^-49 */
#define BOUND_factor_full 9.0    /* 7.5   4.0   2.5; as that */
#define BOUND_factor_norm 7.0    /* 4.7   5.0   5.3 */
#define BOUND_update_dots 50.0  /* 35    35    33; of 2^-53 */
#define BOUND_clip 0
#define BOUND_normals 5.0       /* 3.8   3.8   3.8 */
#define BOUND_positive 0
#define BOUND_line 4.0          /* 2.5   3.0   2.5; of |x| + |a h| + |b| + |c z| */
#define BOUND_log_of 2.5        /* 1.28  1.34  1.34 */
#define BOUND_log_ratio 3.0     /* 1.99  2.00  2.00; of 1/2 + |log| */
#define BOUND_gbm_step 4.0      /* 2.8   2.8   2.4; times 1 + the exponent's magnitudes */
#define BOUND_gbm_linear 4.0    /* 3.1   3.0   2.7; of |x| (1 + the line's magnitudes) */
#define BOUND_score_grad 8.5    /* 6.8   5.8   4.3 */
#define BOUND_score_sum 4.0     /* 2.9   1.8   1.9; of the sum of magnitudes */
#define BOUND_least 0
#define BOUND_barrier_gap 1e-4  /* in double, as the sums */
#define BOUND_barrier_sums 1e-4
#define BOUND_barrier_emit 1.0  /* rounded once */
#define BOUND_barrier_dots 1e-4 /* of the magnitudes that are added up */
#define BOUND_barrier_grad 1.0
#define BOUND_act 10.0          /* 8.0   7.0   6.5; GELU_TANH: times 1 + |its argument| */
#define BOUND_act_bwd 10.0      /* 8.0   7.6   7.4; of its two terms, as act */
#define BOUND_act_gate 10.0     /* 7.0   7.2   6.8; as act */
#define BOUND_act_gate_bwd 10.0 /* 7.0   7.6   7.4; as act_bwd */
#define BOUND_norm_emit 4.0     /* 2.8   3.0   2.8; of (|x| + |mean|) rstd |w| + |b| */
#define BOUND_norm_sums 60.0    /* 38.1  26.5  15.0; of the sums of magnitudes */
#define BOUND_norm_bwd 4.5      /* 3.4   3.5   3.2; of the magnitudes that are added up */
#define BOUND_rope 2.0          /* 1.93  1.93  1.93; of |a cos| + |b sin| */

/* Tiles. */
#define BOUND_tile_gemm 14.0 /* 11.1  9.7   9.9; of sum |a b| + |c| */
#define BOUND_finite 0
#define BOUND_transpose 1.0
#define BOUND_tile_band 0
#define BOUND_tile_alibi 1.5    /* 1.0   1.0   1.0; of |s| + |slope far| */
#define BOUND_tile_softmax 10.0 /* 7.7   6.5   8.0; of p (1 + |a - ref| / 4) */
#define BOUND_tile_finish 3.0   /* 1.8   1.6   2.0; of |ref| + |log sum| */
#define BOUND_tile_scale 1.0
#define BOUND_tile_grad 6.0 /* 4.0   4.0   3.9; of p (|d| + |delta|), as that */
#define BOUND_tile_keep 0
#define BOUND_cache_scores_f32 20.0 /* 14.9  6.8   3.8; of sum |q k| */
#define BOUND_cache_scores_bf16 8.0
#define BOUND_cache_scores_f16 8.0
#define BOUND_cache_softmax 10.0    /* 4.9   4.1   4.0; as tile_softmax */
#define BOUND_cache_values_f32 32.0 /* 21.4  16.0  14.2; of sum |p v| + |o| */
#define BOUND_cache_values_bf16 8.0
#define BOUND_cache_values_f16 8.0

/* Rows: in double but for f32; of sums of magnitudes. */
#define BOUND_row_dots_f32 30.0
#define BOUND_row_dots_wide 1e-7
#define BOUND_row_dots_f64 1e-7
#define BOUND_row_sums_f32 6.5 /* 5.0   4.1   4.1 */
#define BOUND_row_sums_wide 1e-7
#define BOUND_row_sums_f64 1e-7
#define BOUND_exp_f64 1e-8
#define BOUND_log1p_f64 1e-8

#endif
