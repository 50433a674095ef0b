/*
 * update.c - weight updates in one pass over memory, in place: what counts is bytes. Scalars
 * of the step (bias corrections, rates) come folded; a division and a square root a vector hide
 * behind memory.
 */
#include "vec.h"

void KERNEL(adamw)(size_t n, float *w, const float *g, float *m, float *v, const adamw_arg *a)
{
    const vf scale = vf_set(a->grad_scale), decay = vf_set(a->decay_grad),
             shrink = vf_set(a->shrink);
    const vf b1 = vf_set(a->beta1), o1 = vf_set(a->one_beta1), b2 = vf_set(a->beta2);
    const vf o2 = vf_set(a->one_beta2), step = vf_set(a->step), root = vf_set(a->root);
    const vf eps = vf_set(a->eps);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf weight = load_at(w, i, n, 0.0f);
        vf grad = vf_fma(decay, weight, vf_mul(scale, load_at(g, i, n, 0.0f)));
        vf first = vf_fma(b1, load_at(m, i, n, 0.0f), vf_mul(o1, grad));
        vf second = vf_fma(b2, load_at(v, i, n, 0.0f), vf_mul(vf_mul(o2, grad), grad));
        vf down = vf_fma(vf_sqrt(second), root, eps);
        vf ratio = vf_div(vf_mul(step, first), down);
        store_at(m, i, n, first);
        store_at(v, i, n, second);
        store_at(w, i, n, vf_sub(vf_fnma(shrink, weight, weight), ratio));
    }
}

void KERNEL(sgd)(size_t n, float *w, const float *g, float *v, const sgd_arg *a)
{
    const vf scale = vf_set(a->grad_scale), decay = vf_set(a->decay_grad),
             shrink = vf_set(a->shrink);
    const vf lr = vf_set(a->lr), mu = vf_set(a->momentum), fresh = vf_set(a->one_dampening);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf weight = load_at(w, i, n, 0.0f);
        vf grad = vf_fma(decay, weight, vf_mul(scale, load_at(g, i, n, 0.0f)));
        vf move = grad;
        if (v) {
            vf mean = vf_fma(mu, load_at(v, i, n, 0.0f), vf_mul(fresh, grad));
            store_at(v, i, n, mean);
            move = a->nesterov ? vf_fma(mu, mean, grad) : mean;
        }
        store_at(w, i, n, vf_sub(vf_fnma(shrink, weight, weight), vf_mul(lr, move)));
    }
}

void KERNEL(optimistic)(size_t n, float *w, const float *g, float *last,
                        const optimistic_arg *a)
{
    const vf scale = vf_set(a->grad_scale), decay = vf_set(a->decay_grad),
             shrink = vf_set(a->shrink);
    const vf step = vf_set(a->step), back = vf_set(a->back);
    for (size_t i = 0; i < n; i += VF_LEN) {
        vf weight = load_at(w, i, n, 0.0f);
        vf grad = vf_fma(decay, weight, vf_mul(scale, load_at(g, i, n, 0.0f)));
        vf kept = vf_fnma(step, grad, vf_fnma(shrink, weight, weight));
        store_at(w, i, n, vf_fma(back, load_at(last, i, n, 0.0f), kept));
        store_at(last, i, n, grad);
    }
}
