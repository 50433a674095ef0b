/*
 * state_bytes.c - see state_bytes.h.
 */
#include "state_bytes.h"

#include <string.h>

uint64_t checksum_of(uint64_t sum, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 4) {
        uint32_t word = 0;
        memcpy(&word, (const char *)bytes + i, size - i < 4 ? size - i : 4);
        sum = (sum ^ word) * 0x100000001B3u;
    }
    return sum;
}

/* Of a header but for its last field, and of the bytes behind it. */
static uint64_t checksum(const void *header, size_t size, const char *parts, size_t bytes)
{
    const uint64_t sum = checksum_of(CHECKSUM_START, header, size - sizeof(uint64_t));
    return checksum_of(sum, parts, bytes);
}

int64_t state_total(size_t header, const state_part *parts, int64_t count)
{
    size_t total = header;
    for (int64_t i = 0; i < count; i++) total += parts[i].bytes;
    return (int64_t)total;
}

slg_status state_write(slg_ctx *ctx, void *header, size_t size, const state_part *parts,
                       int64_t count, void *buffer, int64_t capacity, int64_t *bytes)
{
    *bytes = state_total(size, parts, count);
    if (!buffer) return SLG_OK;
    if (capacity < *bytes)
        return slg_fail(ctx, SLG_ERR_RANGE, "capacity is %lld bytes, the state needs %lld",
                        (long long)capacity, (long long)*bytes);
    char *const first = (char *)buffer + size, *to = first;
    for (int64_t i = 0; i < count; to += parts[i++].bytes)
        if (parts[i].bytes > 0) memcpy(to, parts[i].data, parts[i].bytes);
    const uint64_t sum = checksum(header, size, first, (size_t)(to - first));
    memcpy((char *)header + size - sizeof sum, &sum, sizeof sum);
    memcpy(buffer, header, size);
    return SLG_OK;
}

slg_status state_open(slg_ctx *ctx, const char *whose, const char magic[8], const void *buffer,
                      int64_t bytes, void *header, size_t size)
{
    if (!buffer) return slg_fail(ctx, SLG_ERR_NULL, "buffer is NULL");
    if (bytes < (int64_t)size)
        return slg_fail(ctx, SLG_ERR_STATE, "%lld bytes are too few for a state",
                        (long long)bytes);
    memcpy(header, buffer, size);
    if (memcmp(header, magic, 8) == 0) return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STATE, "buffer does not hold %s's state", whose);
}

slg_status state_check(slg_ctx *ctx, const void *header, size_t size, int64_t total,
                       const void *buffer, int64_t bytes)
{
    uint64_t sum;
    if (bytes != total)
        return slg_fail(ctx, SLG_ERR_STATE, "state has %lld bytes, must have %lld",
                        (long long)bytes, (long long)total);
    memcpy(&sum, (const char *)header + size - sizeof sum, sizeof sum);
    if (checksum(header, size, (const char *)buffer + size, (size_t)bytes - size) == sum)
        return SLG_OK;
    return slg_fail(ctx, SLG_ERR_STATE, "state is damaged: its checksum does not fit");
}

void state_read(const void *buffer, size_t size, const state_part *parts, int64_t count)
{
    const char *from = (const char *)buffer + size;
    for (int64_t i = 0; i < count; from += parts[i++].bytes)
        if (parts[i].bytes > 0) memcpy(parts[i].data, from, parts[i].bytes);
}
