/*
 * The layout of every public struct on LP64, pinned: a program built against this release must
 * work with later ones. A new field goes last; its line and the new size are added here.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <softlogit/softlogit.h>

#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field);
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type);

#if UINTPTR_MAX == UINT64_MAX && LONG_MAX == INT64_MAX
SIZE(slg_tensor, 80)
AT(slg_tensor, data, 0)
AT(slg_tensor, dtype, 8)
AT(slg_tensor, ndim, 12)
AT(slg_tensor, shape, 16)
AT(slg_tensor, stride, 48)

SIZE(slg_ctx_opts, 72)
AT(slg_ctx_opts, size, 0)
AT(slg_ctx_opts, isa, 4)
AT(slg_ctx_opts, num_threads, 8)
AT(slg_ctx_opts, verbose, 12)
AT(slg_ctx_opts, alloc, 16)
AT(slg_ctx_opts, free, 24)
AT(slg_ctx_opts, alloc_user, 32)
AT(slg_ctx_opts, parallel_for, 40)
AT(slg_ctx_opts, parallel_user, 48)
AT(slg_ctx_opts, log, 56)
AT(slg_ctx_opts, log_user, 64)

SIZE(slg_ctx_info_t, 112)
AT(slg_ctx_info_t, size, 0)
AT(slg_ctx_info_t, isa, 4)
AT(slg_ctx_info_t, cpu_isa, 8)
AT(slg_ctx_info_t, num_threads, 12)
AT(slg_ctx_info_t, blas_threads, 16)
AT(slg_ctx_info_t, blas_mistaken, 20)
AT(slg_ctx_info_t, isa_name, 24)
AT(slg_ctx_info_t, cpu_name, 32)
AT(slg_ctx_info_t, blas_name, 40)
AT(slg_ctx_info_t, blas_core, 48)
AT(slg_ctx_info_t, blas_advice, 56)
AT(slg_ctx_info_t, version, 64)
AT(slg_ctx_info_t, l1_bytes, 72)
AT(slg_ctx_info_t, l2_bytes, 80)
AT(slg_ctx_info_t, l3_bytes, 88)
AT(slg_ctx_info_t, scratch_bytes, 96)
AT(slg_ctx_info_t, scratch_peak_bytes, 104)

SIZE(slg_rng, 16)
AT(slg_rng, seed, 0)
AT(slg_rng, offset, 8)

SIZE(slg_softmax_opts, 24)
AT(slg_softmax_opts, size, 0)
AT(slg_softmax_opts, algorithm, 4)
AT(slg_softmax_opts, reread, 8)
AT(slg_softmax_opts, reserved, 12)
AT(slg_softmax_opts, temperature, 16)

SIZE(slg_logits, 72)
AT(slg_logits, size, 0)
AT(slg_logits, reserved, 4)
AT(slg_logits, dense, 8)
AT(slg_logits, hidden, 16)
AT(slg_logits, weight, 24)
AT(slg_logits, bias, 32)
AT(slg_logits, mask, 40)
AT(slg_logits, row_temperature, 48)
AT(slg_logits, temperature, 56)
AT(slg_logits, softcap, 64)

SIZE(slg_logits_grad, 40)
AT(slg_logits_grad, size, 0)
AT(slg_logits_grad, accumulate, 4)
AT(slg_logits_grad, dlogits, 8)
AT(slg_logits_grad, dhidden, 16)
AT(slg_logits_grad, dweight, 24)
AT(slg_logits_grad, dbias, 32)

SIZE(slg_targets, 56)
AT(slg_targets, size, 0)
AT(slg_targets, reserved, 4)
AT(slg_targets, index, 8)
AT(slg_targets, prob, 16)
AT(slg_targets, row_weight, 24)
AT(slg_targets, class_weight, 32)
AT(slg_targets, teacher, 40)
AT(slg_targets, ignore_index, 48)

SIZE(slg_loss_out, 64)
AT(slg_loss_out, size, 0)
AT(slg_loss_out, reserved, 4)
AT(slg_loss_out, loss, 8)
AT(slg_loss_out, lse, 16)
AT(slg_loss_out, value, 24)
AT(slg_loss_out, sum, 32)
AT(slg_loss_out, weight, 40)
AT(slg_loss_out, count, 48)
AT(slg_loss_out, correct, 56)

SIZE(slg_cross_entropy_opts, 24)
AT(slg_cross_entropy_opts, size, 0)
AT(slg_cross_entropy_opts, reduction, 4)
AT(slg_cross_entropy_opts, label_smoothing, 8)
AT(slg_cross_entropy_opts, z_loss, 16)

SIZE(slg_comp_sum_opts, 24)
AT(slg_comp_sum_opts, size, 0)
AT(slg_comp_sum_opts, reduction, 4)
AT(slg_comp_sum_opts, neg_log_p, 8)
AT(slg_comp_sum_opts, tau, 16)
SIZE(slg_spherical_opts, 48)
AT(slg_spherical_opts, size, 0)
AT(slg_spherical_opts, kind, 4)
AT(slg_spherical_opts, reduction, 8)
AT(slg_spherical_opts, reserved, 12)
AT(slg_spherical_opts, a, 16)
AT(slg_spherical_opts, b, 24)
AT(slg_spherical_opts, eps, 32)
AT(slg_spherical_opts, z, 40)

SIZE(slg_robust_cross_entropy_opts, 16)
AT(slg_robust_cross_entropy_opts, size, 0)
AT(slg_robust_cross_entropy_opts, reduction, 4)
AT(slg_robust_cross_entropy_opts, rho, 8)

SIZE(slg_optimal_temperature_opts, 40)
AT(slg_optimal_temperature_opts, size, 0)
AT(slg_optimal_temperature_opts, reserved, 4)
AT(slg_optimal_temperature_opts, rho, 8)
AT(slg_optimal_temperature_opts, entropy, 16)
AT(slg_optimal_temperature_opts, tau_min, 24)
AT(slg_optimal_temperature_opts, tau_max, 32)

SIZE(slg_tempnet, 88)
AT(slg_tempnet, size, 0)
AT(slg_tempnet, form, 4)
AT(slg_tempnet, w1, 8)
AT(slg_tempnet, b1, 16)
AT(slg_tempnet, w2, 24)
AT(slg_tempnet, b2, 32)
AT(slg_tempnet, c, 40)
AT(slg_tempnet, b, 48)
AT(slg_tempnet, phi, 56)
AT(slg_tempnet, drop, 64)
AT(slg_tempnet, tau_min, 72)
AT(slg_tempnet, tau_max, 80)

SIZE(slg_tempnet_saved, 32)
AT(slg_tempnet_saved, size, 0)
AT(slg_tempnet_saved, reserved, 4)
AT(slg_tempnet_saved, s, 8)
AT(slg_tempnet_saved, v, 16)
AT(slg_tempnet_saved, w, 24)

SIZE(slg_tempnet_grad, 64)
AT(slg_tempnet_grad, size, 0)
AT(slg_tempnet_grad, accumulate, 4)
AT(slg_tempnet_grad, dw1, 8)
AT(slg_tempnet_grad, db1, 16)
AT(slg_tempnet_grad, dw2, 24)
AT(slg_tempnet_grad, db2, 32)
AT(slg_tempnet_grad, dc, 40)
AT(slg_tempnet_grad, db, 48)
AT(slg_tempnet_grad, dphi, 56)

SIZE(slg_contrastive_pairs, 56)
AT(slg_contrastive_pairs, size, 0)
AT(slg_contrastive_pairs, reserved, 4)
AT(slg_contrastive_pairs, sim, 8)
AT(slg_contrastive_pairs, image, 16)
AT(slg_contrastive_pairs, text, 24)
AT(slg_contrastive_pairs, id, 32)
AT(slg_contrastive_pairs, tau_image, 40)
AT(slg_contrastive_pairs, tau_text, 48)

SIZE(slg_contrastive_opts, 24)
AT(slg_contrastive_opts, size, 0)
AT(slg_contrastive_opts, first, 4)
AT(slg_contrastive_opts, gamma, 8)
AT(slg_contrastive_opts, rho, 16)

SIZE(slg_contrastive_out, 56)
AT(slg_contrastive_out, size, 0)
AT(slg_contrastive_out, reserved, 4)
AT(slg_contrastive_out, dsim, 8)
AT(slg_contrastive_out, dimage, 16)
AT(slg_contrastive_out, dtext, 24)
AT(slg_contrastive_out, dtau_image, 32)
AT(slg_contrastive_out, dtau_text, 40)
AT(slg_contrastive_out, value, 48)
SIZE(slg_squared_softmax_opts, 8)
AT(slg_squared_softmax_opts, size, 0)
AT(slg_squared_softmax_opts, reduction, 4)

SIZE(slg_softmax_regression_out, 88)
AT(slg_softmax_regression_out, size, 0)
AT(slg_softmax_regression_out, reserved, 4)
AT(slg_softmax_regression_out, prob, 8)
AT(slg_softmax_regression_out, dx, 16)
AT(slg_softmax_regression_out, da, 24)
AT(slg_softmax_regression_out, db, 32)
AT(slg_softmax_regression_out, hessian, 40)
AT(slg_softmax_regression_out, gauss_newton, 48)
AT(slg_softmax_regression_out, hessian_p, 56)
AT(slg_softmax_regression_out, gauss_newton_p, 64)
AT(slg_softmax_regression_out, loss, 72)
AT(slg_softmax_regression_out, value, 80)

SIZE(slg_preference_opts, 16)
AT(slg_preference_opts, size, 0)
AT(slg_preference_opts, reduction, 4)
AT(slg_preference_opts, margin, 8)

SIZE(slg_rival_gradient_opts, 16)
AT(slg_rival_gradient_opts, size, 0)
AT(slg_rival_gradient_opts, reduction, 4)
AT(slg_rival_gradient_opts, accumulate, 8)
AT(slg_rival_gradient_opts, reserved, 12)

SIZE(slg_utility_transform_opts, 24)
AT(slg_utility_transform_opts, size, 0)
AT(slg_utility_transform_opts, offsets, 4)
AT(slg_utility_transform_opts, length_power, 8)
AT(slg_utility_transform_opts, temperature, 16)

SIZE(slg_temperature_fit_opts, 24)
AT(slg_temperature_fit_opts, size, 0)
AT(slg_temperature_fit_opts, iterations, 4)
AT(slg_temperature_fit_opts, least, 8)
AT(slg_temperature_fit_opts, most, 16)

SIZE(slg_temperature_fit_out, 32)
AT(slg_temperature_fit_out, size, 0)
AT(slg_temperature_fit_out, evaluations, 4)
AT(slg_temperature_fit_out, inverse_temperature, 8)
AT(slg_temperature_fit_out, nll_before, 16)
AT(slg_temperature_fit_out, nll_after, 24)

SIZE(slg_utility_sample_opts, 16)
AT(slg_utility_sample_opts, size, 0)
AT(slg_utility_sample_opts, top, 4)
AT(slg_utility_sample_opts, temperature, 8)
SIZE(slg_adversarial_comp_sum_opts, 40)
AT(slg_adversarial_comp_sum_opts, size, 0)
AT(slg_adversarial_comp_sum_opts, reduction, 4)
AT(slg_adversarial_comp_sum_opts, margin_change, 8)
AT(slg_adversarial_comp_sum_opts, tau, 16)
AT(slg_adversarial_comp_sum_opts, rho, 24)
AT(slg_adversarial_comp_sum_opts, nu, 32)

SIZE(slg_margin_change_opts, 8)
AT(slg_margin_change_opts, size, 0)
AT(slg_margin_change_opts, reduction, 4)

SIZE(slg_attack_opts, 40)
AT(slg_attack_opts, size, 0)
AT(slg_attack_opts, ball, 4)
AT(slg_attack_opts, radius, 8)
AT(slg_attack_opts, step, 16)
AT(slg_attack_opts, low, 24)
AT(slg_attack_opts, high, 32)

SIZE(slg_distillation_opts, 48)
AT(slg_distillation_opts, size, 0)
AT(slg_distillation_opts, reduction, 4)
AT(slg_distillation_opts, kind, 8)
AT(slg_distillation_opts, tau_squared, 12)
AT(slg_distillation_opts, temperature, 16)
AT(slg_distillation_opts, weight, 24)
AT(slg_distillation_opts, cross_entropy, 32)
AT(slg_distillation_opts, teacher_share, 40)

SIZE(slg_nkd_opts, 56)
AT(slg_nkd_opts, size, 0)
AT(slg_nkd_opts, reduction, 4)
AT(slg_nkd_opts, temperature, 8)
AT(slg_nkd_opts, gamma, 16)
AT(slg_nkd_opts, target_weight, 24)
AT(slg_nkd_opts, cross_entropy, 32)
AT(slg_nkd_opts, target_loss, 40)
AT(slg_nkd_opts, other_loss, 48)
SIZE(slg_stablemax_opts, 16)
AT(slg_stablemax_opts, size, 0)
AT(slg_stablemax_opts, reserved, 4)
AT(slg_stablemax_opts, temperature, 8)

SIZE(slg_stablemax_loss_opts, 8)
AT(slg_stablemax_loss_opts, size, 0)
AT(slg_stablemax_loss_opts, reduction, 4)

SIZE(slg_collapse_out, 64)
AT(slg_collapse_out, size, 0)
AT(slg_collapse_out, reserved, 4)
AT(slg_collapse_out, collapsed, 8)
AT(slg_collapse_out, zero_loss, 16)
AT(slg_collapse_out, count, 24)
AT(slg_collapse_out, collapsed_rows, 32)
AT(slg_collapse_out, zero_loss_rows, 40)
AT(slg_collapse_out, collapsed_fraction, 48)
AT(slg_collapse_out, zero_loss_fraction, 56)

SIZE(slg_hinge_opts, 32)
AT(slg_hinge_opts, size, 0)
AT(slg_hinge_opts, form, 4)
AT(slg_hinge_opts, power, 8)
AT(slg_hinge_opts, reduction, 12)
AT(slg_hinge_opts, per_entry, 16)
AT(slg_hinge_opts, reserved, 20)
AT(slg_hinge_opts, margin, 24)

SIZE(slg_svm_layer_opts, 40)
AT(slg_svm_layer_opts, size, 0)
AT(slg_svm_layer_opts, form, 4)
AT(slg_svm_layer_opts, power, 8)
AT(slg_svm_layer_opts, scaling, 12)
AT(slg_svm_layer_opts, outer_decay, 16)
AT(slg_svm_layer_opts, reserved, 20)
AT(slg_svm_layer_opts, margin, 24)
AT(slg_svm_layer_opts, penalty, 32)

SIZE(slg_binary_cross_entropy_opts, 24)
AT(slg_binary_cross_entropy_opts, size, 0)
AT(slg_binary_cross_entropy_opts, reduction, 4)
AT(slg_binary_cross_entropy_opts, class_reduction, 8)
AT(slg_binary_cross_entropy_opts, reserved, 12)
AT(slg_binary_cross_entropy_opts, pos_weight, 16)

SIZE(slg_focal_opts, 16)
AT(slg_focal_opts, size, 0)
AT(slg_focal_opts, reduction, 4)
AT(slg_focal_opts, gamma, 8)

SIZE(slg_poly1_opts, 16)
AT(slg_poly1_opts, size, 0)
AT(slg_poly1_opts, reduction, 4)
AT(slg_poly1_opts, epsilon, 8)

SIZE(slg_binary_kl_opts, 16)
AT(slg_binary_kl_opts, size, 0)
AT(slg_binary_kl_opts, reduction, 4)
AT(slg_binary_kl_opts, temperature, 8)

SIZE(slg_dual_head_opts, 40)
AT(slg_dual_head_opts, size, 0)
AT(slg_dual_head_opts, reduction, 4)
AT(slg_dual_head_opts, normalised, 8)
AT(slg_dual_head_opts, reserved, 12)
AT(slg_dual_head_opts, main_weight, 16)
AT(slg_dual_head_opts, auxiliary_weight, 24)
AT(slg_dual_head_opts, temperature, 32)

SIZE(slg_align_gradients_opts, 16)
AT(slg_align_gradients_opts, size, 0)
AT(slg_align_gradients_opts, merge, 4)
AT(slg_align_gradients_opts, shared_only, 8)
AT(slg_align_gradients_opts, reserved, 12)

SIZE(slg_align_gradients_out, 32)
AT(slg_align_gradients_out, size, 0)
AT(slg_align_gradients_out, aligned, 4)
AT(slg_align_gradients_out, dot, 8)
AT(slg_align_gradients_out, main_norm2, 16)
AT(slg_align_gradients_out, auxiliary_norm2, 24)

SIZE(slg_sgd_opts, 48)
AT(slg_sgd_opts, size, 0)
AT(slg_sgd_opts, nesterov, 4)
AT(slg_sgd_opts, decoupled, 8)
AT(slg_sgd_opts, reserved, 12)
AT(slg_sgd_opts, lr, 16)
AT(slg_sgd_opts, momentum, 24)
AT(slg_sgd_opts, dampening, 32)
AT(slg_sgd_opts, weight_decay, 40)

SIZE(slg_adamw_opts, 48)
AT(slg_adamw_opts, size, 0)
AT(slg_adamw_opts, decoupled, 4)
AT(slg_adamw_opts, lr, 8)
AT(slg_adamw_opts, beta1, 16)
AT(slg_adamw_opts, beta2, 24)
AT(slg_adamw_opts, eps, 32)
AT(slg_adamw_opts, weight_decay, 40)
#endif

/* Enumerators travel as int32_t. */
_Static_assert(SLG_OK == 0 && SLG_ERR_NULL == -1 && SLG_ERR_THREAD == -12, "slg_status_code");
_Static_assert(SLG_F32 == 0 && SLG_BF16 == 1 && SLG_F16 == 2 && SLG_F64 == 3 && SLG_I32 == 4 &&
                   SLG_I64 == 5,
               "slg_dtype");
_Static_assert(SLG_ISA_AUTO == 0 && SLG_ISA_PORTABLE == 1 && SLG_ISA_AVX2 == 2 &&
                   SLG_ISA_AVX512 == 3,
               "slg_isa");
_Static_assert(SLG_NONE == 0 && SLG_MEAN == 1 && SLG_SUM == 2, "slg_reduction");
_Static_assert(SLG_UNIFORM == 0 && SLG_NORMAL == 1 && SLG_GUMBEL == 2, "slg_distribution");
_Static_assert(SLG_TEMPNET_LOGITS == 1 && SLG_TEMPNET_FEATURES == 2, "slg_tempnet_form");
_Static_assert(SLG_BALL_LINF == 0 && SLG_BALL_L2 == 1, "slg_ball");
_Static_assert(SLG_FORWARD_KL == 0 && SLG_REVERSE_KL == 1 && SLG_JENSEN_SHANNON == 2, "slg_divergence");
_Static_assert(SLG_ONE_VS_REST == 0 && SLG_MAX_MARGIN == 1 && SLG_SUM_MARGIN == 2, "slg_hinge_form");
_Static_assert(SLG_SVM_MEAN == 0 && SLG_SVM_SUM == 1, "slg_svm_scaling");
_Static_assert(SLG_SGD == 1 && SLG_ADAMW == 2, "slg_optimizer_kind");

/* Bindings check their declarations by this. */
static void test_struct_size(void **state)
{
#define CHECK(type) assert_int_equal(slg_struct_size(#type), sizeof(type));
    CHECK(slg_tensor)
    CHECK(slg_ctx_opts)
    CHECK(slg_ctx_info_t)
    CHECK(slg_rng)
    CHECK(slg_softmax_opts)
    CHECK(slg_logits)
    CHECK(slg_logits_grad)
    CHECK(slg_targets)
    CHECK(slg_loss_out)
    CHECK(slg_cross_entropy_opts)
    CHECK(slg_comp_sum_opts)
    CHECK(slg_robust_cross_entropy_opts)
    CHECK(slg_optimal_temperature_opts)
    CHECK(slg_tempnet)
    CHECK(slg_tempnet_saved)
    CHECK(slg_tempnet_grad)
    CHECK(slg_contrastive_pairs)
    CHECK(slg_contrastive_opts)
    CHECK(slg_contrastive_out)
    CHECK(slg_spherical_opts)
    CHECK(slg_squared_softmax_opts)
    CHECK(slg_softmax_regression_out)
    CHECK(slg_preference_opts)
    CHECK(slg_rival_gradient_opts)
    CHECK(slg_utility_transform_opts)
    CHECK(slg_temperature_fit_opts)
    CHECK(slg_temperature_fit_out)
    CHECK(slg_utility_sample_opts)
    CHECK(slg_adversarial_comp_sum_opts)
    CHECK(slg_margin_change_opts)
    CHECK(slg_attack_opts)
    CHECK(slg_distillation_opts)
    CHECK(slg_nkd_opts)
    CHECK(slg_stablemax_opts)
    CHECK(slg_stablemax_loss_opts)
    CHECK(slg_collapse_out)
    CHECK(slg_hinge_opts)
    CHECK(slg_svm_layer_opts)





    CHECK(slg_binary_cross_entropy_opts)
    CHECK(slg_focal_opts)
    CHECK(slg_poly1_opts)
    CHECK(slg_binary_kl_opts)
    CHECK(slg_dual_head_opts)
    CHECK(slg_align_gradients_opts)
    CHECK(slg_align_gradients_out)
    CHECK(slg_sgd_opts)
    CHECK(slg_adamw_opts)
    assert_int_equal(slg_struct_size("slg_nothing"), 0);
    assert_int_equal(slg_struct_size(""), 0);
    assert_int_equal(slg_struct_size(NULL), 0);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_struct_size) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
