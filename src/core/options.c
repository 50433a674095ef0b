#include "options.h"

#include <math.h>
#include <string.h>

enum { MIN_SIZE = 8, MAX_SIZE = 4096 };

slg_status options_size(slg_ctx *ctx, const char *name, const void *given, size_t *size)
{
    uint32_t n;
    memcpy(&n, given, sizeof n);
    *size = n;
    if (n < MIN_SIZE || n > MAX_SIZE) {
        return slg_fail(ctx, SLG_ERR_OPTIONS, "%s->size is %u, must be from %d to %d", name,
                        (unsigned)n, MIN_SIZE, MAX_SIZE);
    }
    return SLG_OK;
}

slg_status options_read(slg_ctx *ctx, const char *name, const void *given, void *ours,
                        size_t size)
{
    size_t n;
    if (!given) return SLG_OK;
    slg_status status = options_size(ctx, name, given, &n);
    if (status) return status;
    const unsigned char *bytes = given;
    for (size_t i = size; i < n; i++) {
        if (!bytes[i]) continue;
        return slg_fail(ctx, SLG_ERR_OPTIONS,
                        "%s has a value at byte %zu, this library knows %zu bytes of it: is it "
                        "older than the header?",
                        name, i, size);
    }
    /* All but the size field, which stays that of our own struct. */
    size_t known = n < size ? n : size;
    memcpy((char *)ours + sizeof(uint32_t), bytes + sizeof(uint32_t), known - sizeof(uint32_t));
    return SLG_OK;
}

void options_init(void *opts, size_t size, const void *defaults, size_t full)
{
    if (!opts || size < sizeof(uint32_t)) return;
    size_t known = size < full ? size : full;
    uint32_t n = size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
    memcpy(opts, defaults, known);
    if (size > full) memset((char *)opts + full, 0, size - full);
    memcpy(opts, &n, sizeof n);
}

void options_write(void *given, const void *ours, size_t size)
{
    uint32_t n;
    memcpy(&n, given, sizeof n);
    size_t known = n < size ? n : size;
    if (known > sizeof n)
        memcpy((char *)given + sizeof n, (const char *)ours + sizeof n, known - sizeof n);
    if (n > size) memset((char *)given + size, 0, n - size);
}

slg_status option_range(slg_ctx *ctx, const char *name, double value, double low, double high)
{
    if (value >= low && value <= high) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %g, must be from %g to %g", name, value, low,
                    high);
}

slg_status option_least(slg_ctx *ctx, const char *name, double value, double low)
{
    if (value >= low && isfinite(value)) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %g, must be finite and at least %g", name, value,
                    low);
}

slg_status option_choice(slg_ctx *ctx, const char *name, int32_t value, int32_t first,
                         int32_t last)
{
    if (value >= first && value <= last) return SLG_OK;
    if (last == first + 1)
        return slg_fail(ctx, SLG_ERR_RANGE, "%s is %d, must be %d or %d", name, value, first,
                        last);
    return slg_fail(ctx, SLG_ERR_RANGE, "%s is %d, must be from %d to %d", name, value, first,
                    last);
}

slg_status option_reserved(slg_ctx *ctx, const char *name, int32_t value)
{
    if (value == 0) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_OPTIONS, "%s is %d, must be 0", name, value);
}
