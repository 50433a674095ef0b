/*
 * info.c - what the library tells of itself: version, sizes, status names, a context's
 * findings.
 */
#include <string.h>

#include "blas.h"
#include "cpu.h"
#include "ctx.h"
#include "options.h"
#include "structs.h"

#define STR(x) #x
#define TEXT(x) STR(x)
#define MAJOR 0
#define MINOR 1
#define PATCH 0

_Static_assert(MAJOR == SLG_VERSION_MAJOR && MINOR == SLG_VERSION_MINOR &&
                   PATCH == SLG_VERSION_PATCH,
               "the preprocessor cannot read enumerators, so the text has the version again");

int32_t slg_version(void)
{
    return 10000 * SLG_VERSION_MAJOR + 100 * SLG_VERSION_MINOR + SLG_VERSION_PATCH;
}

const char *slg_version_string(void) { return TEXT(MAJOR) "." TEXT(MINOR) "." TEXT(PATCH); }

size_t slg_struct_size(const char *name)
{
    if (!name) return 0;
#define COMPARE(type)                                                                          \
    if (!strcmp(name, #type)) return sizeof(type);
    SLG_STRUCTS(COMPARE)
#undef COMPARE
    return 0;
}

const char *slg_status_string(slg_status status)
{
    switch (status) {
    case SLG_OK:
        return "SLG_OK: success";
    case SLG_ERR_NULL:
        return "SLG_ERR_NULL: an argument that is needed is NULL";
    case SLG_ERR_SHAPE:
        return "SLG_ERR_SHAPE: shapes do not fit, or a size overflows";
    case SLG_ERR_DTYPE:
        return "SLG_ERR_DTYPE: an element type that is not taken there";
    case SLG_ERR_STRIDE:
        return "SLG_ERR_STRIDE: elements of an output would share memory";
    case SLG_ERR_RANGE:
        return "SLG_ERR_RANGE: a value outside of its domain";
    case SLG_ERR_OPTIONS:
        return "SLG_ERR_OPTIONS: an options struct of unknown size or fields";
    case SLG_ERR_MEMORY:
        return "SLG_ERR_MEMORY: out of memory";
    case SLG_ERR_ENVIRONMENT:
        return "SLG_ERR_ENVIRONMENT: a SOFTLOGIT_ variable is not understood";
    case SLG_ERR_UNSUPPORTED:
        return "SLG_ERR_UNSUPPORTED: the CPU or this build lacks it";
    case SLG_ERR_STATE:
        return "SLG_ERR_STATE: a handle or state file is not fit for the call";
    case SLG_ERR_STOPPED:
        return "SLG_ERR_STOPPED: the callback asked to stop";
    case SLG_ERR_THREAD:
        return "SLG_ERR_THREAD: a thread could not be created";
    default:
        return "unknown status";
    }
}

slg_status slg_ctx_info(slg_ctx *ctx, slg_ctx_info_t *info)
{
    size_t size;
    if (!ctx) return SLG_ERR_NULL;
    op_begin(ctx, "slg_ctx_info");
    if (!info) return op_end(ctx, slg_fail(ctx, SLG_ERR_NULL, "info is NULL"));
    slg_status status = options_size(ctx, "info", info, &size);
    if (status) return op_end(ctx, status);

    blas_info_t blas = blas_info(ctx->cpu_isa);
    cpu_caches_t caches = cpu_caches();
    slg_ctx_info_t ours = {
        .size = sizeof ours,
        .isa = ctx->isa,
        .cpu_isa = ctx->cpu_isa,
        .num_threads = ctx->num_threads,
        .blas_threads = blas.threads,
        .blas_mistaken = blas.mistaken,
        .isa_name = isa_name(ctx->isa),
        .cpu_name = ctx->cpu_name,
        .blas_name = blas.name,
        .blas_core = blas.core,
        .blas_advice = blas.advice,
        .version = slg_version_string(),
        .l1_bytes = (int64_t)caches.l1,
        .l2_bytes = (int64_t)caches.l2,
        .l3_bytes = (int64_t)caches.l3,
        .scratch_bytes = (int64_t)ctx->arena.held,
        .scratch_peak_bytes = (int64_t)ctx->arena.peak,
    };
    options_write(info, &ours, sizeof ours);
    return op_end(ctx, SLG_OK);
}
