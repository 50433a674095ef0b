/*
 * options.h - options structs that can grow. A caller built against an older or a newer header
 * passes a struct that is shorter or longer than ours.
 */
#ifndef SLG_CORE_OPTIONS_H
#define SLG_CORE_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "ctx.h"

/*
 * Reads the caller's struct into ours, which already holds the defaults: copies the fields that
 * both know. given NULL leaves the defaults. SLG_ERR_OPTIONS (with a message that names `name`)
 * if given->size is under 8 or over 4096, or if bytes past our size are not zero.
 * `size` is sizeof of our struct; both start with uint32_t size.
 */
slg_status options_read(slg_ctx *ctx, const char *name, const void *given, void *ours,
                        size_t size);

/* The size field of a caller's struct; SLG_ERR_OPTIONS if it is under 8 or over 4096. */
slg_status options_size(slg_ctx *ctx, const char *name, const void *given, size_t *size);

/*
 * For the public _init functions: writes the first min(size, full) bytes of defaults to opts
 * and sets its size field to `size`; bytes past `full` are zeroed. Does nothing for NULL or
 * size < 4.
 */
void options_init(void *opts, size_t size, const void *defaults, size_t full);

/*
 * For structs that the library writes to (slg_loss_out, slg_ctx_info_t): copies ours back into
 * the caller's struct, the fields that both know, leaving the caller's size field; fields past
 * ours become 0. given->size must have passed options_size.
 */
void options_write(void *given, const void *ours, size_t size);

/*
 * Checks of one field; messages name it and say what it is and must be. SLG_ERR_RANGE, and for
 * a reserved field SLG_ERR_OPTIONS. A NaN is in no range.
 */
slg_status option_range(slg_ctx *ctx, const char *name, double value, double low, double high);
slg_status option_least(slg_ctx *ctx, const char *name, double value, double low); /* finite */
slg_status option_choice(slg_ctx *ctx, const char *name, int32_t value, int32_t first,
                         int32_t last);
slg_status option_reserved(slg_ctx *ctx, const char *name, int32_t value);

#endif
