/* Layout of a mapping: no-access page, pages with pattern and data, no-access page. */
#include "support/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILL = 0xA5, PATTERN = 0x6E };

static size_t page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static void must(int ok, const char *what)
{
    if (ok) return;
    perror(what);
    abort();
}

guard guard_create(size_t bytes, enum guard_side side)
{
    guard g = { NULL, bytes, NULL, 0 };
    size_t inner = bytes / page() * page() + page(); /* at least a byte more than bytes */
    g.map_bytes = inner + 2 * page();
    g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(g.map != MAP_FAILED, "guard: mmap");
    char *start = (char *)g.map + page();
    must(mprotect(start, inner, PROT_READ | PROT_WRITE) == 0, "guard: mprotect");
    memset(start, PATTERN, inner);
    g.data = side == GUARD_AFTER ? start + inner - bytes : start;
    memset(g.data, FILL, bytes);
    return g;
}

guard guard_copy(const void *from, size_t bytes, enum guard_side side)
{
    guard g = guard_create(bytes, side);
    if (bytes) memcpy(g.data, from, bytes);
    return g;
}

bool guard_intact(const guard *g)
{
    const unsigned char *data = g->data;
    const unsigned char *p = (const unsigned char *)g->map + page();
    const unsigned char *end = (const unsigned char *)g->map + g->map_bytes - page();
    for (; p < end; p++)
        if ((p < data || p >= data + g->bytes) && *p != PATTERN) return false;
    return true;
}

static void protect(guard *g, int access)
{
    must(mprotect((char *)g->map + page(), g->map_bytes - 2 * page(), access) == 0,
         "guard: mprotect");
}

void guard_lock(guard *g) { protect(g, PROT_READ); }
void guard_unlock(guard *g) { protect(g, PROT_READ | PROT_WRITE); }

void guard_free(guard *g)
{
    if (g->map) munmap(g->map, g->map_bytes);
    memset(g, 0, sizeof *g);
}

uint64_t checksum(const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}
