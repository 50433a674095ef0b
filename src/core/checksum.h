/*
 * checksum.h - FNV-1a over 32-bit words: enough to tell that bytes of a handle's state, as
 * exported, are damaged.
 */
#ifndef SLG_CORE_CHECKSUM_H
#define SLG_CORE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CHECKSUM_START 0xCBF29CE484222325u

/* Goes on from `sum` over size bytes, the last word filled up with zeros. */
static inline uint64_t checksum_of(uint64_t sum, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 4) {
        uint32_t word = 0;
        memcpy(&word, (const char *)bytes + i, size - i < 4 ? size - i : 4);
        sum = (sum ^ word) * 0x100000001B3u;
    }
    return sum;
}

#endif
