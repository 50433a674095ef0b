/*
 * guard.h - memory between two pages that cannot be touched. A read or write one byte outside
 * is a crash, not a wrong number later; what lies between the buffer and its farther guard page
 * holds a pattern that guard_intact checks.
 */
#ifndef TESTS_SUPPORT_GUARD_H
#define TESTS_SUPPORT_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum guard_side {
    GUARD_AFTER, /* data ends where the guard page starts: finds reads past the end */
    GUARD_BEFORE /* data starts where the guard page ends: finds reads before the start */
};

typedef struct guard {
    void *data; /* `bytes` bytes, filled with 0xA5; not NULL even where bytes is 0 */
    size_t bytes;
    void *map; /* the rest is guard.c's own */
    size_t map_bytes;
} guard;

/*
 * With GUARD_AFTER the alignment of data is that of bytes: for floats, 4 times the count. Ends
 * the test program where memory runs out.
 */
guard guard_create(size_t bytes, enum guard_side side);

/* A guarded copy of what is there already. */
guard guard_copy(const void *from, size_t bytes, enum guard_side side);

/* True if nothing was written beside the buffer. */
bool guard_intact(const guard *g);

/* From here on a write to the buffer is a crash: for inputs. guard_unlock ends that. */
void guard_lock(guard *g);
void guard_unlock(guard *g);

/* *g is all zeros then; freeing that is allowed. */
void guard_free(guard *g);

/* A number that differs, in practice, if any bit of the bytes does (64-bit FNV-1a). */
uint64_t checksum(const void *data, size_t bytes);

#endif
