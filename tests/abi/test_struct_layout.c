/*
 * The layout of every public struct on LP64, pinned in layouts.h: a program built against this
 * release must work with later ones. And the values of enums.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <softlogit/softlogit.h>

/* LP64 alone: there pointers and int64_t are of one size. */
#if UINTPTR_MAX == UINT64_MAX && LONG_MAX == INT64_MAX
#define AT(field, offset) _Static_assert(offsetof(layout, field) == (offset), #field);
#define LAYOUT(type, bytes, ...)                                                               \
    static inline void layout_of_##type(void)                                                  \
    {                                                                                          \
        typedef type layout;                                                                   \
        _Static_assert(sizeof(layout) == (bytes), #type);                                      \
        __VA_ARGS__                                                                            \
    }
#include "layouts.h"
#undef LAYOUT
#undef AT
#endif

_Static_assert(SLG_MDSM_PLAIN == 0 && SLG_MDSM_UNIT_VARIANCE == 1, "slg_mdsm_weight");
_Static_assert(SLG_DALE_LANGEVIN == 0 && SLG_GBM_UNCONSTRAINED == 1, "slg_gbm_sampler");
/* Enumerators travel as int32_t. */
_Static_assert(SLG_OK == 0 && SLG_ERR_NULL == -1 && SLG_ERR_THREAD == -12, "slg_status_code");
_Static_assert(SLG_F32 == 0 && SLG_BF16 == 1 && SLG_F16 == 2 && SLG_F64 == 3 && SLG_I32 == 4 &&
                   SLG_I64 == 5,
               "slg_dtype");
_Static_assert(SLG_ISA_AUTO == 0 && SLG_ISA_PORTABLE == 1 && SLG_ISA_AVX2 == 2 &&
                   SLG_ISA_AVX512 == 3,
               "slg_isa");
_Static_assert(SLG_BLAS_FITS == 0 && SLG_BLAS_FAR_BELOW == 1 && SLG_BLAS_HALF == 2,
               "slg_blas_fit");
_Static_assert(SLG_NONE == 0 && SLG_MEAN == 1 && SLG_SUM == 2, "slg_reduction");
_Static_assert(SLG_UNIFORM == 0 && SLG_NORMAL == 1 && SLG_GUMBEL == 2, "slg_distribution");
_Static_assert(SLG_SURROGATE_SQUARED == 0 && SLG_SURROGATE_KL == 1, "slg_surrogate_kind");
_Static_assert(SLG_TARGET_SQUARED == 0 && SLG_TARGET_LOGISTIC == 1 && SLG_TARGET_SOFTMAX == 2,
               "slg_target_loss_kind");
_Static_assert(SLG_SEARCH_ACCEPTED == 0 && SLG_SEARCH_EXHAUSTED == 1 &&
                   SLG_SEARCH_NOT_FINITE == 2,
               "slg_search_reason");
_Static_assert(SLG_ETA_CONSTANT == 0 && SLG_ETA_ROOT == 1 && SLG_ETA_EXPONENTIAL == 2 &&
                   SLG_ETA_ADAGRAD == 3 && SLG_ETA_SEARCH == 4,
               "slg_eta_schedule");
_Static_assert(SLG_INNER_ARMIJO == 0 && SLG_INNER_FIXED == 1 && SLG_INNER_OPTIMIZER == 2 &&
                   SLG_INNER_CONJUGATE == 3,
               "slg_inner_kind");
_Static_assert(SLG_BATCH_DRAWN == 0 && SLG_BATCH_SHUFFLED == 1 && SLG_BATCH_IN_ORDER == 2,
               "slg_batch_order");
_Static_assert(SLG_SSO_STEPS == 0 && SLG_SSO_GRADIENT == 1 && SLG_SSO_EXHAUSTED == 2 &&
                   SLG_SSO_UNBOUNDED == 3 && SLG_SSO_NOT_FINITE == 4 && SLG_SSO_CALLBACK == 5 &&
                   SLG_SSO_EMPTY == 6,
               "slg_sso_reason");
_Static_assert(SLG_TEMPNET_LOGITS == 1 && SLG_TEMPNET_FEATURES == 2, "slg_tempnet_form");
_Static_assert(SLG_REWARD_OTHERS == 0 && SLG_REWARD_LABEL == 1, "slg_reward_form");
_Static_assert(SLG_BALL_LINF == 0 && SLG_BALL_L2 == 1, "slg_ball");
_Static_assert(SLG_FORWARD_KL == 0 && SLG_REVERSE_KL == 1 && SLG_JENSEN_SHANNON == 2,
               "slg_divergence");
_Static_assert(SLG_ONE_VS_REST == 0 && SLG_MAX_MARGIN == 1 && SLG_SUM_MARGIN == 2,
               "slg_hinge_form");
_Static_assert(SLG_SVM_MEAN == 0 && SLG_SVM_SUM == 1, "slg_svm_scaling");
_Static_assert(SLG_QK_NORM_L2 == 0 && SLG_QK_NORM_RMS == 1, "slg_qk_norm_form");
_Static_assert(SLG_GAP_SQUARE == 0 && SLG_GAP_FIRST_ORDER == 1, "slg_gap_rule");
_Static_assert(SLG_BANDIT_LINEAR == 0 && SLG_BANDIT_TWO_LAYER == 1 && SLG_BANDIT_CALLBACKS == 2,
               "slg_bandit_model");
_Static_assert(SLG_BANDIT_CONSTANT == 0 && SLG_BANDIT_INVERSE == 1, "slg_bandit_step");
_Static_assert(SLG_BANDIT_THETA == 1 && SLG_BANDIT_THETA0 == 2 && SLG_BANDIT_OUTPUT == 3,
               "slg_bandit_part");
_Static_assert(SLG_OMD == 1 && SLG_HEDGE == 2 && SLG_OMD_ENSEMBLE == 3, "slg_learner_kind");
_Static_assert(SLG_DOMAIN_FREE == 0 && SLG_DOMAIN_BALL == 1 && SLG_DOMAIN_BOX == 2 &&
                   SLG_DOMAIN_SIMPLEX == 3 && SLG_DOMAIN_SIMPLEX_ENTROPY == 4,
               "slg_domain");
_Static_assert(SLG_OMD_CONVEX == 0 && SLG_OMD_STRONGLY_CONVEX == 1 &&
                   SLG_OMD_EXP_CONCAVE == 2 && SLG_OMD_CONSTANT == 3,
               "slg_omd_mode");
_Static_assert(SLG_HINT_LAST == 0 && SLG_HINT_ZERO == 1, "slg_hint");
_Static_assert(SLG_LEARNER_CENTER == 1 && SLG_LEARNER_LOG_CENTER == 2 &&
                   SLG_LEARNER_INVERSE == 3 && SLG_LEARNER_TOTALS == 4 &&
                   SLG_LEARNER_STEPS == 5 && SLG_LEARNER_WEIGHTS == 6,
               "slg_learner_part");
_Static_assert(SLG_SGD == 1 && SLG_ADAMW == 2 && SLG_OPTIMISTIC == 3 && SLG_NADAM == 4 &&
                   SLG_RMSPROP == 5 && SLG_LION == 6 && SLG_EGD == 7 && SLG_ADAFACTOR == 8,
               "slg_optimizer_kind");
_Static_assert(SLG_CLIP_NORM == 1 && SLG_CLIP_VALUE == 2 && SLG_PERPENDICULAR == 3 &&
                   SLG_SKIP_NONFINITE == 4,
               "slg_transform_kind");

/* Bindings check their declarations by this. */
static void test_struct_size(void **state)
{
#define AT(field, offset)
#define LAYOUT(type, bytes, ...) assert_int_equal(slg_struct_size(#type), sizeof(type));
#include "layouts.h"
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
