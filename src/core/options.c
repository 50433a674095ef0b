#include "options.h"

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
