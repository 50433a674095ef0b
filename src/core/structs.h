/*
 * structs.h - every public struct, for slg_struct_size(). A module that adds a struct to its
 * header adds a line here.
 */
#ifndef SLG_CORE_STRUCTS_H
#define SLG_CORE_STRUCTS_H

#include "softlogit/softlogit.h"

#define SLG_STRUCTS(S)       \
    S(slg_tensor)            \
    S(slg_ctx_opts)          \
    S(slg_ctx_info_t)        \
    S(slg_rng)               \
    S(slg_softmax_opts)      \
    S(slg_logits)            \
    S(slg_logits_grad)       \
    S(slg_targets)           \
    S(slg_loss_out)          \
    S(slg_cross_entropy_opts) \
    S(slg_comp_sum_opts)    \
    S(slg_robust_cross_entropy_opts) \
    S(slg_optimal_temperature_opts) \
    S(slg_tempnet) \
    S(slg_tempnet_saved) \
    S(slg_tempnet_grad) \
    S(slg_contrastive_pairs) \
    S(slg_contrastive_opts) \
    S(slg_contrastive_out) \
    S(slg_spherical_opts)    \
    S(slg_squared_softmax_opts) \
    S(slg_softmax_regression_out) \
    S(slg_attention_regression_out) \
    S(slg_regression_descent_opts) \
    S(slg_regression_descent_out) \
    S(slg_regression_shift_opts) \
    S(slg_regression_shift_out) \
    S(slg_attention_step_opts) \
    S(slg_attention_step_out) \
    S(slg_linear_attention_opts) \
    S(slg_linear_attention_grad) \
    S(slg_in_context_inputs) \
    S(slg_in_context_opts) \
    S(slg_in_context_grad) \
    S(slg_one_step_opts) \
    S(slg_ridge_opts) \
    S(slg_one_step_eta_out) \
    S(slg_in_context_optimum_out) \
    S(slg_regression_tasks_opts) \
    S(slg_regression_tasks_out) \
    S(slg_preference_opts) \
    S(slg_rival_gradient_opts) \
    S(slg_utility_transform_opts) \
    S(slg_temperature_fit_opts) \
    S(slg_temperature_fit_out) \
    S(slg_utility_sample_opts) \
    S(slg_adversarial_comp_sum_opts) \
    S(slg_margin_change_opts) \
    S(slg_attack_opts)       \
    S(slg_distillation_opts) \
    S(slg_nkd_opts)          \
    S(slg_stablemax_opts)      \
    S(slg_stablemax_loss_opts) \
    S(slg_collapse_out)        \
    S(slg_hinge_opts)          \
    S(slg_svm_layer_opts)      \
    S(slg_binary_cross_entropy_opts) \
    S(slg_focal_opts) \
    S(slg_poly1_opts) \
    S(slg_binary_kl_opts) \
    S(slg_dual_head_opts) \
    S(slg_align_gradients_opts) \
    S(slg_align_gradients_out) \
    S(slg_reward_cross_entropy_opts) \
    S(slg_expected_reward_opts) \
    S(slg_entropy_opts) \
    S(slg_spherical_layer_opts) \
    S(slg_spherical_batch) \
    S(slg_spherical_layer_out) \
    S(slg_spherical_layer_info_t) \
    S(slg_uskd_opts)         \
    S(slg_norm_opts) \
    S(slg_activation_opts) \
    S(slg_dropout_opts) \
    S(slg_rope_opts) \
    S(slg_embedding_opts) \
    S(slg_linear_opts) \
    S(slg_attention_inputs)  \
    S(slg_attention_opts)    \
    S(slg_attention_out)     \
    S(slg_attention_grad)    \
    S(slg_attention_cache_opts) \
    S(slg_qk_norm_opts)      \
    S(slg_sigma_reparam_opts) \
    S(slg_moe_gate_opts) \
    S(slg_moe_balance_opts) \
    S(slg_moe_balance_out) \
    S(slg_moe_dispatch_opts) \
    S(slg_omd_opts) \
    S(slg_hedge_opts) \
    S(slg_omd_ensemble_opts) \
    S(slg_learner_info_t) \
    S(slg_sgd_opts)          \
    S(slg_adamw_opts)

#endif
