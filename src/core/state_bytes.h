/*
 * state_bytes.h - the state of a handle as bytes, little-endian, as is everything that this
 * library runs on: a header of the handle's own, which begins with 8 bytes of magic and ends
 * with a checksum of what comes before it and of what follows, then parts, end to end.
 */
#ifndef SLG_CORE_STATE_BYTES_H
#define SLG_CORE_STATE_BYTES_H

#include "ctx.h"

typedef struct state_part {
    void *data; /* may be NULL where bytes is 0 */
    size_t bytes;
} state_part;

/* FNV-1a over 32-bit words, the last filled up with zeros; goes on from sum. Enough to tell
   a damaged file. */
#define CHECKSUM_START 0xCBF29CE484222325u
uint64_t checksum_of(uint64_t sum, const void *bytes, size_t size);

/* Bytes in all, of a header of so many. */
int64_t state_total(size_t header, const state_part *parts, int64_t count);

/* Export: *bytes, and with a buffer the whole, the header's checksum filled in. SLG_ERR_RANGE
   where capacity is too small. */
slg_status state_write(slg_ctx *ctx, void *header, size_t size, const state_part *parts,
                       int64_t count, void *buffer, int64_t capacity, int64_t *bytes);

/*
 * Import, in three steps, so that the handle is untouched by what is refused: the header, of
 * "a learner"; after the caller's look at it, whether all the bytes are there and undamaged;
 * then the parts. SLG_ERR_NULL for a buffer that is NULL, else SLG_ERR_STATE.
 */
slg_status state_open(slg_ctx *ctx, const char *whose, const char magic[8], const void *buffer,
                      int64_t bytes, void *header, size_t size);
slg_status state_check(slg_ctx *ctx, const void *header, size_t size, int64_t total,
                       const void *buffer, int64_t bytes);
void state_read(const void *buffer, size_t size, const state_part *parts, int64_t count);

#endif
