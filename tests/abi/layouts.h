/*
 * layouts.h - every public struct: its size, and where its fields are. Included more than once,
 * by those that define LAYOUT. A new field goes last and changes the size; a line that changes
 * otherwise breaks programs that were built against an earlier release.
 */
/* clang-format off */
LAYOUT(slg_tensor, 80, AT(data, 0) AT(dtype, 8) AT(ndim, 12) AT(shape, 16) AT(stride, 48))
LAYOUT(slg_ctx_opts, 72,
       AT(size, 0) AT(isa, 4) AT(num_threads, 8) AT(verbose, 12) AT(alloc, 16) AT(free, 24)
       AT(alloc_user, 32) AT(parallel_for, 40) AT(parallel_user, 48) AT(log, 56)
       AT(log_user, 64))
LAYOUT(slg_ctx_info_t, 112,
       AT(size, 0) AT(isa, 4) AT(cpu_isa, 8) AT(num_threads, 12) AT(blas_threads, 16)
       AT(blas_mistaken, 20) AT(isa_name, 24) AT(cpu_name, 32) AT(blas_name, 40)
       AT(blas_core, 48) AT(blas_advice, 56) AT(version, 64) AT(l1_bytes, 72)
       AT(l2_bytes, 80) AT(l3_bytes, 88) AT(scratch_bytes, 96) AT(scratch_peak_bytes, 104))
LAYOUT(slg_rng, 16, AT(seed, 0) AT(offset, 8))
LAYOUT(slg_softmax_opts, 24,
       AT(size, 0) AT(algorithm, 4) AT(reread, 8) AT(reserved, 12) AT(temperature, 16))
LAYOUT(slg_linear_attention_opts, 16, AT(size, 0) AT(form, 4) AT(chunk, 8) AT(reserved, 12))
LAYOUT(slg_linear_attention_grad, 40,
       AT(size, 0) AT(reserved, 4) AT(dq, 8) AT(dk, 16) AT(dv, 24) AT(dstate, 32))
LAYOUT(slg_in_context_inputs, 56,
       AT(size, 0) AT(reserved, 4) AT(tokens, 8) AT(x, 16) AT(y, 24) AT(query, 32) AT(a, 40)
       AT(m, 48))
LAYOUT(slg_in_context_opts, 8, AT(size, 0) AT(normalise, 4))
LAYOUT(slg_in_context_grad, 56,
       AT(size, 0) AT(reserved, 4) AT(da, 8) AT(dm, 16) AT(dtokens, 24) AT(dx, 32)
       AT(dy, 40) AT(dquery, 48))
LAYOUT(slg_one_step_opts, 16, AT(size, 0) AT(reserved, 4) AT(eta, 8))
LAYOUT(slg_ridge_opts, 16, AT(size, 0) AT(reserved, 4) AT(lambda, 8))
LAYOUT(slg_one_step_eta_out, 32,
       AT(size, 0) AT(reserved, 4) AT(numerator, 8) AT(denominator, 16) AT(eta, 24))
LAYOUT(slg_in_context_optimum_out, 40,
       AT(size, 0) AT(reserved, 4) AT(risk, 8) AT(eta, 16) AT(eta_risk, 24)
       AT(zero_risk, 32))
LAYOUT(slg_regression_tasks_opts, 24,
       AT(size, 0) AT(function, 4) AT(units, 8) AT(noisy_label, 12) AT(noise, 16))
LAYOUT(slg_regression_tasks_out, 56,
       AT(size, 0) AT(reserved, 4) AT(tokens, 8) AT(x, 16) AT(y, 24) AT(query, 32)
       AT(label, 40) AT(weights, 48))
LAYOUT(slg_logits, 72,
       AT(size, 0) AT(reserved, 4) AT(dense, 8) AT(hidden, 16) AT(weight, 24) AT(bias, 32)
       AT(mask, 40) AT(row_temperature, 48) AT(temperature, 56) AT(softcap, 64))
LAYOUT(slg_logits_grad, 40,
       AT(size, 0) AT(accumulate, 4) AT(dlogits, 8) AT(dhidden, 16) AT(dweight, 24)
       AT(dbias, 32))
LAYOUT(slg_targets, 56,
       AT(size, 0) AT(reserved, 4) AT(index, 8) AT(prob, 16) AT(row_weight, 24)
       AT(class_weight, 32) AT(teacher, 40) AT(ignore_index, 48))
LAYOUT(slg_loss_out, 64,
       AT(size, 0) AT(reserved, 4) AT(loss, 8) AT(lse, 16) AT(value, 24) AT(sum, 32)
       AT(weight, 40) AT(count, 48) AT(correct, 56))
LAYOUT(slg_cross_entropy_opts, 24,
       AT(size, 0) AT(reduction, 4) AT(label_smoothing, 8) AT(z_loss, 16))
LAYOUT(slg_comp_sum_opts, 24, AT(size, 0) AT(reduction, 4) AT(neg_log_p, 8) AT(tau, 16))
LAYOUT(slg_spherical_opts, 48,
       AT(size, 0) AT(kind, 4) AT(reduction, 8) AT(reserved, 12) AT(a, 16) AT(b, 24)
       AT(eps, 32) AT(z, 40))
LAYOUT(slg_robust_cross_entropy_opts, 16, AT(size, 0) AT(reduction, 4) AT(rho, 8))
LAYOUT(slg_optimal_temperature_opts, 40,
       AT(size, 0) AT(reserved, 4) AT(rho, 8) AT(entropy, 16) AT(tau_min, 24)
       AT(tau_max, 32))
LAYOUT(slg_tempnet, 88,
       AT(size, 0) AT(form, 4) AT(w1, 8) AT(b1, 16) AT(w2, 24) AT(b2, 32) AT(c, 40)
       AT(b, 48) AT(phi, 56) AT(drop, 64) AT(tau_min, 72) AT(tau_max, 80))
LAYOUT(slg_tempnet_saved, 32, AT(size, 0) AT(reserved, 4) AT(s, 8) AT(v, 16) AT(w, 24))
LAYOUT(slg_tempnet_grad, 64,
       AT(size, 0) AT(accumulate, 4) AT(dw1, 8) AT(db1, 16) AT(dw2, 24) AT(db2, 32)
       AT(dc, 40) AT(db, 48) AT(dphi, 56))
LAYOUT(slg_contrastive_pairs, 56,
       AT(size, 0) AT(reserved, 4) AT(sim, 8) AT(image, 16) AT(text, 24) AT(id, 32)
       AT(tau_image, 40) AT(tau_text, 48))
LAYOUT(slg_contrastive_opts, 24, AT(size, 0) AT(first, 4) AT(gamma, 8) AT(rho, 16))
LAYOUT(slg_contrastive_out, 56,
       AT(size, 0) AT(reserved, 4) AT(dsim, 8) AT(dimage, 16) AT(dtext, 24)
       AT(dtau_image, 32) AT(dtau_text, 40) AT(value, 48))
LAYOUT(slg_squared_softmax_opts, 16, AT(size, 0) AT(reduction, 4) AT(prob, 8))
LAYOUT(slg_softmax_regression_out, 88,
       AT(size, 0) AT(reserved, 4) AT(prob, 8) AT(dx, 16) AT(da, 24) AT(db, 32)
       AT(hessian, 40) AT(gauss_newton, 48) AT(hessian_p, 56) AT(gauss_newton_p, 64)
       AT(loss, 72) AT(value, 80))
LAYOUT(slg_attention_regression_out, 56,
       AT(size, 0) AT(reserved, 4) AT(loss, 8) AT(prob, 16) AT(dx, 24) AT(da1, 32)
       AT(da2, 40) AT(value, 48))
LAYOUT(slg_regression_descent_opts, 32,
       AT(size, 0) AT(steps, 4) AT(line_search, 8) AT(max_halvings, 12) AT(step, 16)
       AT(decrease, 24))
LAYOUT(slg_regression_descent_out, 56,
       AT(size, 0) AT(steps, 4) AT(values, 8) AT(prob, 16) AT(loss, 24) AT(value, 32)
       AT(step, 40) AT(evaluations, 48))
LAYOUT(slg_regression_shift_opts, 16, AT(size, 0) AT(norm, 4) AT(a_norm, 8))
LAYOUT(slg_regression_shift_out, 136,
       AT(size, 0) AT(small_move, 4) AT(implied_target, 8) AT(data_change, 16) AT(prob, 24)
       AT(prob_new, 32) AT(loss, 40) AT(loss_new, 48) AT(target_shift, 56)
       AT(weight_move, 64) AT(data_move, 72) AT(a_norm, 80) AT(weight_bound, 88)
       AT(data_bound, 96) AT(log_weight_factor, 104) AT(log_data_factor, 112)
       AT(paper_weight_bound, 120) AT(paper_data_bound, 128))
LAYOUT(slg_attention_step_opts, 16, AT(size, 0) AT(reserved, 4) AT(step, 8))
LAYOUT(slg_attention_step_out, 56,
       AT(size, 0) AT(reserved, 4) AT(scores, 8) AT(step_x, 16) AT(step_scores, 24)
       AT(dq, 32) AT(dp, 40) AT(dqueries, 48))
LAYOUT(slg_preference_opts, 16, AT(size, 0) AT(reduction, 4) AT(margin, 8))
LAYOUT(slg_rival_gradient_opts, 16,
       AT(size, 0) AT(reduction, 4) AT(accumulate, 8) AT(reserved, 12))
LAYOUT(slg_utility_transform_opts, 24,
       AT(size, 0) AT(offsets, 4) AT(length_power, 8) AT(temperature, 16))
LAYOUT(slg_temperature_fit_opts, 24, AT(size, 0) AT(iterations, 4) AT(least, 8) AT(most, 16))
LAYOUT(slg_temperature_fit_out, 32,
       AT(size, 0) AT(evaluations, 4) AT(inverse_temperature, 8) AT(nll_before, 16)
       AT(nll_after, 24))
LAYOUT(slg_utility_sample_opts, 16, AT(size, 0) AT(top, 4) AT(temperature, 8))
LAYOUT(slg_adversarial_comp_sum_opts, 40,
       AT(size, 0) AT(reduction, 4) AT(margin_change, 8) AT(tau, 16) AT(rho, 24) AT(nu, 32))
LAYOUT(slg_margin_change_opts, 8, AT(size, 0) AT(reduction, 4))
LAYOUT(slg_attack_opts, 40,
       AT(size, 0) AT(ball, 4) AT(radius, 8) AT(step, 16) AT(low, 24) AT(high, 32))
LAYOUT(slg_distillation_opts, 48,
       AT(size, 0) AT(reduction, 4) AT(kind, 8) AT(tau_squared, 12) AT(temperature, 16)
       AT(weight, 24) AT(cross_entropy, 32) AT(teacher_share, 40))
LAYOUT(slg_nkd_opts, 56,
       AT(size, 0) AT(reduction, 4) AT(temperature, 8) AT(gamma, 16) AT(target_weight, 24)
       AT(cross_entropy, 32) AT(target_loss, 40) AT(other_loss, 48))
LAYOUT(slg_stablemax_opts, 16, AT(size, 0) AT(reserved, 4) AT(temperature, 8))
LAYOUT(slg_stablemax_loss_opts, 8, AT(size, 0) AT(reduction, 4))
LAYOUT(slg_collapse_out, 64,
       AT(size, 0) AT(reserved, 4) AT(collapsed, 8) AT(zero_loss, 16) AT(count, 24)
       AT(collapsed_rows, 32) AT(zero_loss_rows, 40) AT(collapsed_fraction, 48)
       AT(zero_loss_fraction, 56))
LAYOUT(slg_hinge_opts, 32,
       AT(size, 0) AT(form, 4) AT(power, 8) AT(reduction, 12) AT(per_entry, 16)
       AT(reserved, 20) AT(margin, 24))
LAYOUT(slg_svm_layer_opts, 40,
       AT(size, 0) AT(form, 4) AT(power, 8) AT(scaling, 12) AT(outer_decay, 16)
       AT(reserved, 20) AT(margin, 24) AT(penalty, 32))
LAYOUT(slg_binary_cross_entropy_opts, 24,
       AT(size, 0) AT(reduction, 4) AT(class_reduction, 8) AT(reserved, 12)
       AT(pos_weight, 16))
LAYOUT(slg_focal_opts, 16, AT(size, 0) AT(reduction, 4) AT(gamma, 8))
LAYOUT(slg_poly1_opts, 16, AT(size, 0) AT(reduction, 4) AT(epsilon, 8))
LAYOUT(slg_binary_kl_opts, 16, AT(size, 0) AT(reduction, 4) AT(temperature, 8))
LAYOUT(slg_dual_head_opts, 40,
       AT(size, 0) AT(reduction, 4) AT(normalised, 8) AT(reserved, 12) AT(main_weight, 16)
       AT(auxiliary_weight, 24) AT(temperature, 32))
LAYOUT(slg_align_gradients_opts, 16,
       AT(size, 0) AT(merge, 4) AT(shared_only, 8) AT(reserved, 12))
LAYOUT(slg_align_gradients_out, 32,
       AT(size, 0) AT(aligned, 4) AT(dot, 8) AT(main_norm2, 16) AT(auxiliary_norm2, 24))
LAYOUT(slg_reward_cross_entropy_opts, 72,
       AT(size, 0) AT(reduction, 4) AT(form, 8) AT(reserved, 12) AT(positive_weight, 16)
       AT(entropy, 24) AT(top_k, 32) AT(beta, 40) AT(lambda_top, 48) AT(lambda_tail, 56)
       AT(cap, 64))
LAYOUT(slg_expected_reward_opts, 16, AT(size, 0) AT(reduction, 4) AT(reward, 8))
LAYOUT(slg_entropy_opts, 32,
       AT(size, 0) AT(reserved, 4) AT(top_entropy, 8) AT(top_mass, 16) AT(top_k, 24))
LAYOUT(slg_spherical_layer_opts, 56,
       AT(size, 0) AT(kind, 4) AT(period, 8) AT(refresh, 12) AT(a, 16) AT(b, 24) AT(eps, 32)
       AT(low, 40) AT(high, 48))
LAYOUT(slg_spherical_batch, 48,
       AT(size, 0) AT(reserved, 4) AT(hidden, 8) AT(target, 16) AT(target_value, 24)
       AT(row_weight, 32) AT(ignore_index, 40))
LAYOUT(slg_spherical_layer_out, 64,
       AT(size, 0) AT(reserved, 4) AT(loss, 8) AT(sum, 16) AT(sum_squares, 24)
       AT(target_output, 32) AT(dhidden, 40) AT(value, 48) AT(count, 56))
LAYOUT(slg_spherical_layer_info_t, 96,
       AT(size, 0) AT(pending, 4) AT(gram, 8) AT(column_sums, 16) AT(singular, 24)
       AT(classes, 32) AT(dim, 40) AT(steps, 48) AT(moved, 56) AT(refactorised, 64)
       AT(low_bound, 72) AT(high_bound, 80) AT(drift, 88))
LAYOUT(slg_uskd_opts, 112,
       AT(size, 0) AT(reduction, 4) AT(score, 8) AT(reserved, 12) AT(alpha, 16) AT(beta, 24)
       AT(mu, 32) AT(smoothing, 40) AT(cross_entropy, 48) AT(mean_square, 56)
       AT(mean_square2, 64) AT(target_loss, 72) AT(other_loss, 80) AT(weak_loss, 88)
       AT(soft_target, 96) AT(rank, 104))
LAYOUT(slg_norm_opts, 16, AT(size, 0) AT(accumulate, 4) AT(eps, 8))
LAYOUT(slg_activation_opts, 16, AT(size, 0) AT(kind, 4) AT(accumulate, 8) AT(reserved, 12))
LAYOUT(slg_dropout_opts, 16, AT(size, 0) AT(rows, 4) AT(probability, 8))
LAYOUT(slg_rope_opts, 32,
       AT(size, 0) AT(interleaved, 4) AT(inverse, 8) AT(offset, 12) AT(base, 16)
       AT(scale, 24))
LAYOUT(slg_embedding_opts, 16, AT(size, 0) AT(accumulate, 4) AT(padding, 8))
LAYOUT(slg_linear_opts, 8, AT(size, 0) AT(accumulate, 4))
LAYOUT(slg_attention_inputs, 120,
       AT(size, 0) AT(reserved, 4) AT(q, 8) AT(k, 16) AT(v, 24) AT(window, 32) AT(scale, 40)
       AT(slopes, 48) AT(sinks, 56) AT(bias, 64) AT(key_valid, 72) AT(key_length, 80)
       AT(query_position, 88) AT(query_offsets, 96) AT(key_offsets, 104) AT(rng, 112))
LAYOUT(slg_attention_opts, 32,
       AT(size, 0) AT(causal, 4) AT(scale, 8) AT(softcap, 16) AT(dropout, 24))
LAYOUT(slg_attention_out, 40,
       AT(size, 0) AT(reserved, 4) AT(o, 8) AT(lse, 16) AT(max_logit, 24) AT(rng_next, 32))
LAYOUT(slg_attention_grad, 64,
       AT(size, 0) AT(reserved, 4) AT(dlse, 8) AT(dq, 16) AT(dk, 24) AT(dv, 32)
       AT(dbias, 40) AT(dsinks, 48) AT(dscale, 56))
LAYOUT(slg_attention_cache_opts, 40,
       AT(size, 0) AT(dtype, 4) AT(batch, 8) AT(heads, 12) AT(key_heads, 16) AT(dim, 20)
       AT(value_dim, 24) AT(capacity, 28) AT(window, 32))
LAYOUT(slg_qk_norm_opts, 16, AT(size, 0) AT(form, 4) AT(eps, 8))
LAYOUT(slg_sigma_reparam_opts, 16, AT(size, 0) AT(iterations, 4) AT(gamma, 8))
LAYOUT(slg_moe_gate_opts, 16, AT(size, 0) AT(chosen, 4) AT(bias, 8) AT(accumulate, 12))
LAYOUT(slg_moe_balance_opts, 32,
       AT(size, 0) AT(accumulate, 4) AT(balance, 8) AT(z, 16) AT(importance, 24))
LAYOUT(slg_moe_balance_out, 112,
       AT(size, 0) AT(reserved, 4) AT(loss, 8) AT(balance, 16) AT(z, 24) AT(importance, 32)
       AT(load, 40) AT(most, 48) AT(rows, 56) AT(count, 64) AT(total, 72)
       AT(probability, 80) AT(dscore, 88) AT(dbias, 96) AT(dweight, 104))
LAYOUT(slg_moe_dispatch_opts, 16, AT(size, 0) AT(reserved, 4) AT(capacity, 8))
LAYOUT(slg_ftrl_opts, 24, AT(size, 0) AT(rule, 4) AT(hint, 8) AT(decreasing, 12) AT(eta, 16))
LAYOUT(slg_ftrl_policy_opts, 16, AT(size, 0) AT(rule, 4) AT(eta, 8))
LAYOUT(slg_inverse_covariance_opts, 16, AT(size, 0) AT(normalise, 4) AT(gamma, 8))
LAYOUT(slg_linear_q_opts, 32,
       AT(size, 0) AT(reserved, 4) AT(horizon, 8) AT(loss_to_go, 16) AT(beta, 24))
LAYOUT(slg_linear_q_out, 48,
       AT(size, 0) AT(reserved, 4) AT(plain, 8) AT(offset, 16) AT(reduced, 24) AT(width, 32)
       AT(bonus, 40))
LAYOUT(slg_dilated_bonus_opts, 16, AT(size, 0) AT(reserved, 4) AT(dilation, 8))
LAYOUT(slg_mdp_policy_opts, 80,
       AT(size, 0) AT(rule, 4) AT(estimator, 8) AT(reserved, 12) AT(horizon, 16)
       AT(states, 24) AT(actions, 32) AT(dim, 40) AT(eta, 48) AT(gamma, 56) AT(beta, 64)
       AT(dilation, 72))
LAYOUT(slg_mdp_episode, 56,
       AT(size, 0) AT(reserved, 4) AT(losses, 8) AT(visited, 16) AT(occupancy, 24)
       AT(samples, 32) AT(weight, 40) AT(transition, 48))
LAYOUT(slg_mdp_world, 56,
       AT(size, 0) AT(reserved, 4) AT(simulations, 8) AT(draws, 16) AT(fn, 24) AT(user, 32)
       AT(transition, 40) AT(start, 48))
LAYOUT(slg_inverse_gap_opts, 16, AT(size, 0) AT(rule, 4) AT(gamma, 8))
LAYOUT(slg_perturbed_loss_opts, 32,
       AT(size, 0) AT(rule, 4) AT(signs, 8) AT(reserved, 12) AT(c_p, 16) AT(width, 24))
LAYOUT(slg_perturbed_loss_out, 56,
       AT(size, 0) AT(reserved, 4) AT(value, 8) AT(perturbed, 16) AT(prediction, 24)
       AT(loss, 32) AT(df, 40) AT(dtheta, 48))
LAYOUT(slg_bandit_opts, 136,
       AT(size, 0) AT(rule, 4) AT(model, 8) AT(width, 12) AT(activation, 16) AT(shared, 20)
       AT(signs, 24) AT(schedule, 28) AT(seed, 32) AT(gamma, 40) AT(horizon, 48)
       AT(regret, 56) AT(delta, 64) AT(c_p, 72) AT(step, 80) AT(mu, 88) AT(radius, 96)
       AT(variance, 104) AT(user, 112) AT(predict, 120) AT(gradient, 128))
LAYOUT(slg_bandit_info_t, 96,
       AT(size, 0) AT(model, 4) AT(arms, 8) AT(dim, 16) AT(weights, 24) AT(rounds, 32)
       AT(draws, 40) AT(projections, 48) AT(cost, 56) AT(loss, 64) AT(gamma, 72)
       AT(step, 80) AT(distance, 88))
LAYOUT(slg_omd_opts, 96,
       AT(size, 0) AT(domain, 4) AT(mode, 8) AT(hint, 12) AT(radius, 16) AT(lo, 24)
       AT(hi, 32) AT(numerator, 40) AT(offset, 48) AT(grad_bound, 56) AT(lambda, 64)
       AT(eta, 72) AT(alpha, 80) AT(beta, 88))
LAYOUT(slg_gbm, 40,
       AT(size, 0) AT(log_state, 4) AT(sigma, 8) AT(mu, 16) AT(sigma_columns, 24)
       AT(mu_columns, 32))
LAYOUT(slg_gbm_counts, 24, AT(size, 0) AT(reserved, 4) AT(saturated, 8) AT(sign_changes, 16))
LAYOUT(slg_mdsm_opts, 16, AT(size, 0) AT(weight, 4) AT(raw_score, 8) AT(reduction, 12))
LAYOUT(slg_gbm_reverse_opts, 24, AT(size, 0) AT(sampler, 4) AT(delta, 8) AT(anneal, 16))
LAYOUT(slg_gbm_sample_opts, 56,
       AT(size, 0) AT(sampler, 4) AT(steps, 8) AT(repeats, 12) AT(denoise, 16)
       AT(reserved, 20) AT(start, 24) AT(delta, 32) AT(anneal, 40) AT(anneal_factor, 48))
LAYOUT(slg_hedge_opts, 16, AT(size, 0) AT(hint, 4) AT(bound, 8))
LAYOUT(slg_omd_ensemble_opts, 72,
       AT(size, 0) AT(domain, 4) AT(hint, 8) AT(rounds, 12) AT(radius, 16) AT(lo, 24)
       AT(hi, 32) AT(diameter, 40) AT(grad_bound, 48) AT(cap, 56) AT(movement, 64))
LAYOUT(slg_learner_info_t, 32,
       AT(size, 0) AT(kind, 4) AT(experts, 8) AT(reserved, 12) AT(step, 16)
       AT(variation, 24))
LAYOUT(slg_moe_mixture, 48,
       AT(size, 0) AT(chosen, 4) AT(beta1, 8) AT(beta0, 16) AT(a, 24) AT(b, 32)
       AT(log_variance, 40))
LAYOUT(slg_moe_density_out, 96,
       AT(size, 0) AT(reserved, 4) AT(nll, 8) AT(loglik, 16) AT(index, 24) AT(weight, 32)
       AT(responsibility, 40) AT(mean, 48) AT(dbeta1, 56) AT(dbeta0, 64) AT(da, 72)
       AT(db, 80) AT(dlog_variance, 88))
LAYOUT(slg_moe_em_opts, 56,
       AT(size, 0) AT(max_steps, 4) AT(block_diagonal, 8) AT(halvings, 12) AT(tolerance, 16)
       AT(variance_floor, 24) AT(ridge, 32) AT(gate_ridge, 40) AT(least, 48))
LAYOUT(slg_moe_voronoi_opts, 16,
       AT(size, 0) AT(chosen, 4) AT(over_specified, 8) AT(reserved, 12))
LAYOUT(slg_optimistic_opts, 32,
       AT(size, 0) AT(decoupled, 4) AT(lr, 8) AT(optimism, 16) AT(weight_decay, 24))
LAYOUT(slg_sgd_opts, 48,
       AT(size, 0) AT(nesterov, 4) AT(decoupled, 8) AT(reserved, 12) AT(lr, 16)
       AT(momentum, 24) AT(dampening, 32) AT(weight_decay, 40))
LAYOUT(slg_adamw_opts, 56,
       AT(size, 0) AT(decoupled, 4) AT(amsgrad, 8) AT(reserved, 12) AT(lr, 16) AT(beta1, 24)
       AT(beta2, 32) AT(eps, 40) AT(weight_decay, 48))
LAYOUT(slg_nadam_opts, 56,
       AT(size, 0) AT(decoupled, 4) AT(lr, 8) AT(beta1, 16) AT(beta2, 24) AT(eps, 32)
       AT(weight_decay, 40) AT(momentum_decay, 48))
LAYOUT(slg_rmsprop_opts, 56,
       AT(size, 0) AT(centered, 4) AT(decoupled, 8) AT(reserved, 12) AT(lr, 16)
       AT(alpha, 24) AT(eps, 32) AT(momentum, 40) AT(weight_decay, 48))
LAYOUT(slg_lion_opts, 40,
       AT(size, 0) AT(decoupled, 4) AT(lr, 8) AT(beta1, 16) AT(beta2, 24)
       AT(weight_decay, 32))
LAYOUT(slg_egd_opts, 48,
       AT(size, 0) AT(reserved, 4) AT(lr, 8) AT(momentum, 16) AT(floor, 24) AT(cap, 32)
       AT(weight_decay, 40))
LAYOUT(slg_adafactor_opts, 72,
       AT(size, 0) AT(relative_step, 4) AT(scale_parameter, 8) AT(reserved, 12) AT(lr, 16)
       AT(beta1, 24) AT(decay_rate, 32) AT(eps1, 40) AT(eps2, 48) AT(clip_threshold, 56)
       AT(weight_decay, 64))
LAYOUT(slg_optimizer_setup, 16, AT(size, 0) AT(state_dtype, 4) AT(seed, 8))
LAYOUT(slg_param_group, 32,
       AT(size, 0) AT(frozen, 4) AT(perpendicular, 8) AT(reserved, 12) AT(lr_scale, 16)
       AT(decay_scale, 24))
LAYOUT(slg_optimizer_report, 40,
       AT(size, 0) AT(skipped, 4) AT(nonfinite, 8) AT(zeroed, 16) AT(grad_norm, 24)
       AT(clip_factor, 32))
LAYOUT(slg_perpendicular_opts, 24,
       AT(size, 0) AT(rescale, 4) AT(skip_scalars, 8) AT(reserved, 12) AT(threshold, 16))
LAYOUT(slg_transform, 24,
       AT(kind, 0) AT(rescale, 4) AT(skip_scalars, 8) AT(reserved, 12) AT(value, 16))
LAYOUT(slg_objective, 64,
       AT(size, 0) AT(reserved, 4) AT(dim, 8) AT(user, 16) AT(value, 24) AT(curvature, 32)
       AT(product, 40) AT(free, 48) AT(noise, 56))
LAYOUT(slg_logistic_opts, 32,
       AT(size, 0) AT(intercept, 4) AT(ridge, 8) AT(dense_limit, 16) AT(precision, 24)
       AT(reserved, 28))
LAYOUT(slg_residuals, 40,
       AT(size, 0) AT(reserved, 4) AT(rows, 8) AT(dim, 16) AT(user, 24) AT(fn, 32))
LAYOUT(slg_objective_out, 48,
       AT(size, 0) AT(which, 4) AT(grad, 8) AT(dense, 16) AT(diagonal, 24) AT(product, 32)
       AT(value, 40))
LAYOUT(slg_step_opts, 48,
       AT(size, 0) AT(form, 4) AT(max_products, 8) AT(reserved, 12) AT(scale, 16)
       AT(tolerance, 24) AT(product, 32) AT(user, 40))
LAYOUT(slg_step_out, 32, AT(size, 0) AT(solved, 4) AT(lambda, 8) AT(norm, 16) AT(products, 24))
LAYOUT(slg_normalized_newton_opts, 80,
       AT(size, 0) AT(which, 4) AT(form, 8) AT(max_trials, 12) AT(max_products, 16)
       AT(reserved, 20) AT(gamma0, 24) AT(gamma_min, 32) AT(growth, 40) AT(shrink, 48)
       AT(decrease, 56) AT(tolerance, 64) AT(metric, 72))
LAYOUT(slg_lbfgs_opts, 32,
       AT(size, 0) AT(memory, 4) AT(max_trials, 8) AT(reserved, 12) AT(c1, 16) AT(c2, 24))
LAYOUT(slg_ordinal_cross_entropy_opts, 8, AT(size, 0) AT(reduction, 4))
LAYOUT(slg_ordinal_terms, 48,
       AT(size, 0) AT(reserved, 4) AT(prob, 8) AT(log_prob, 16) AT(fisher_diag, 24)
       AT(fisher_off, 32) AT(infeasible, 40))
LAYOUT(slg_ordinal_opts, 88,
       AT(size, 0) AT(standardize, 4) AT(proportional, 8) AT(max_steps, 12)
       AT(max_sweeps, 16) AT(max_halvings, 20) AT(folds, 24) AT(reserved, 28) AT(mix, 32)
       AT(base_penalty, 40) AT(tolerance, 48) AT(path_ratio, 56) AT(penalty_factor, 64)
       AT(progress, 72) AT(user, 80))
LAYOUT(slg_ordinal_path_out, 72,
       AT(size, 0) AT(best, 4) AT(lambda, 8) AT(alpha, 16) AT(beta, 24) AT(value, 32)
       AT(score, 40) AT(nonzero, 48) AT(reason, 56) AT(lambda_max, 64))
LAYOUT(slg_solver_report, 120,
       AT(size, 0) AT(reason, 4) AT(steps, 8) AT(values, 16) AT(gradients, 24)
       AT(curvatures, 32) AT(solves, 40) AT(products, 48) AT(value, 56) AT(grad_norm, 64)
       AT(step_norm, 72) AT(radius, 80) AT(lambda, 88) AT(wrong, 96) AT(min_margin, 104)
       AT(log_beta, 112))
LAYOUT(slg_solver_run_opts, 48,
       AT(size, 0) AT(reserved, 4) AT(steps, 8) AT(grad_norm, 16) AT(value, 24)
       AT(progress, 32) AT(user, 40))
LAYOUT(slg_separation_out, 80,
       AT(size, 0) AT(reserved, 4) AT(margins, 8) AT(gradient, 16) AT(direction, 24)
       AT(weights, 32) AT(dscores, 40) AT(loss, 48) AT(log_beta, 56) AT(min_margin, 64)
       AT(wrong, 72))
LAYOUT(slg_separation_opts, 40,
       AT(size, 0) AT(rule, 4) AT(stop, 8) AT(draw, 12) AT(classes, 16) AT(gamma, 24)
       AT(seed, 32))
LAYOUT(slg_surrogate_opts, 16, AT(size, 0) AT(kind, 4) AT(eta, 8))
LAYOUT(slg_surrogate_out, 56,
       AT(size, 0) AT(reserved, 4) AT(row_values, 8) AT(value, 16) AT(linear, 24)
       AT(divergence, 32) AT(gradient_norm, 40) AT(move_norm, 48))
LAYOUT(slg_armijo_opts, 48,
       AT(size, 0) AT(max_trials, 4) AT(c, 8) AT(expand, 16) AT(shrink, 24) AT(step_min, 32)
       AT(step_max, 40))
LAYOUT(slg_target_search_out, 40,
       AT(size, 0) AT(reason, 4) AT(trials, 8) AT(step, 16) AT(loss, 24) AT(loss_at, 32))
LAYOUT(slg_target_model, 80,
       AT(size, 0) AT(reserved, 4) AT(rows, 8) AT(targets, 16) AT(dim, 24) AT(user, 32)
       AT(begin, 40) AT(forward, 48) AT(backward, 56) AT(tangent, 64) AT(free, 72))
LAYOUT(slg_target_oracle, 80,
       AT(size, 0) AT(reserved, 4) AT(rows, 8) AT(targets, 16) AT(smoothness, 24)
       AT(user, 40) AT(begin, 48) AT(evaluate, 56) AT(shifted, 64) AT(free, 72))
LAYOUT(slg_sso_report, 144,
       AT(size, 0) AT(reason, 4) AT(steps, 8) AT(oracle_calls, 16) AT(inner_steps, 24)
       AT(forwards, 32) AT(backwards, 40) AT(tangents, 48) AT(losses, 56) AT(batch, 64)
       AT(taken, 72) AT(trials, 80) AT(loss, 88) AT(eta, 96) AT(gradient_norm, 104)
       AT(value, 112) AT(inner_norm, 120) AT(inner_step, 128) AT(state, 136))
LAYOUT(slg_sso_opts, 120,
       AT(size, 0) AT(surrogate, 4) AT(schedule, 8) AT(inner, 12) AT(inner_steps, 16)
       AT(order, 20) AT(final_value, 24) AT(reserved, 28) AT(batch, 32) AT(total_steps, 40)
       AT(seed, 48) AT(eta, 56) AT(step, 64) AT(grad_norm, 72) AT(search, 80)
       AT(inner_search, 88) AT(optimizer, 96) AT(progress, 104) AT(user, 112))
