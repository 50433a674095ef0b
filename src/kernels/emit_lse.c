/*
 * emit_lse.c - pass 2 of one row and pass 1 of the next, step by step in one loop. Streaming
 * stores and the loads of what comes next then keep memory busy at the same time, where block
 * after block it would write, then read: the copy is what such a pass is bound by.
 *
 * The sums are those of lse.c, bit for bit.
 */
#include "lse_block.h"

void KERNEL(emit_lse)(size_t n_out, const float *x, const exp_out *e, float *y, size_t n_in,
                      const float *next, const exp_arg *arg, lse_part *part)
{
    const exp_consts ke = exp_setup(&e->arg, e->ref, e->a);
    float ref = first_ref(n_in, next, arg, part);
    exp_consts k = exp_setup(arg, ref, 1.0f);
    lanes l = lanes_none();
    size_t i = 0, both = n_out < n_in ? n_out : n_in;
    for (; i + STEP <= both; i += STEP) {
        vf v0 = exp_vec(vf_load(x + i), &ke, true),
           v1 = exp_vec(vf_load(x + i + VF_LEN), &ke, true);
        vf v2 = exp_vec(vf_load(x + i + 2 * VF_LEN), &ke, true);
        vf v3 = exp_vec(vf_load(x + i + 3 * VF_LEN), &ke, true);
        vf_stream(y + i, v0), vf_stream(y + i + VF_LEN, v1);
        vf_stream(y + i + 2 * VF_LEN, v2), vf_stream(y + i + 3 * VF_LEN, v3);
        lanes_step(&l, next, i, &k, true);
    }
    accept_block(n_in, next, arg, part, &ref, &k, lanes_rest(&l, n_in, next, i, &k, true),
                 true);
    close_part(part, ref);
    KERNEL(exp_emit)(n_out - i, x + i, e, y + i, STORE_STREAM);
}
