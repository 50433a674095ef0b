/*
 * pieces.c - see pieces.h.
 */
#include <string.h>

#include "core/arena.h"
#include "core/tensor.h"
#include "pieces.h"

slg_status pieces_tensors(slg_ctx *ctx, int64_t count, step_pieces *p)
{
    *p = (step_pieces){ .count = count };
    p->tensors = arena_alloc(ctx, (size_t)count, sizeof *p->tensors);
    if (!p->tensors) return SLG_ERR_MEMORY;
    if (count > 0) memset(p->tensors, 0, (size_t)count * sizeof *p->tensors);
    return SLG_OK;
}

slg_status pieces_cut(slg_ctx *ctx, step_pieces *p)
{
    int64_t tasks = 0;
    for (int64_t i = 0; i < p->count; i++)
        if (takes_part(&p->tensors[i], 0)) tasks += (p->tensors[i].n + PIECE - 1) / PIECE;
    p->pieces = arena_alloc(ctx, (size_t)tasks, sizeof *p->pieces);
    if (!p->pieces) return SLG_ERR_MEMORY;
    for (int64_t i = 0; i < p->count; i++) {
        if (!takes_part(&p->tensors[i], 0)) continue;
        for (int64_t from = 0; from < p->tensors[i].n; from += PIECE) {
            int64_t n = p->tensors[i].n - from < PIECE ? p->tensors[i].n - from : PIECE;
            p->pieces[p->tasks++] = (piece){ i, from, n };
        }
    }
    return SLG_OK;
}

slg_status pieces_check(slg_ctx *ctx, const char *w_name, const slg_tensor *w,
                        const char *g_name, const slg_tensor *g)
{
    SLG_TRY(tensor_out(ctx, w_name, w, DT_F32, 1, 4));
    SLG_TRY(tensor_in(ctx, g_name, g, DT_F32, 1, 4));
    SLG_TRY(tensor_same_shape(ctx, g_name, g, w_name, w));
    if (!tensor_contiguous(w) || !tensor_contiguous(g))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s and %s must be contiguous", w_name, g_name);
    if (tensor_clash(w, g) || (w->data == g->data && tensor_size(w) > 0))
        return slg_fail(ctx, SLG_ERR_STRIDE, "%s and %s overlap", w_name, g_name);
    return SLG_OK;
}
