#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity and the CPU_ macros */
#endif
#include "cpu.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <cpuinfo.h>

enum { MAX_MASK_BITS = 1 << 20 };

/* Least size over the caches of one level; divided by the cores that share it, where smt, the
   processors of a core, is given. */
static size_t least(const struct cpuinfo_cache *caches, uint32_t count, uint32_t smt)
{
    size_t found = 0;
    for (uint32_t i = 0; caches && i < count; i++) {
        uint32_t cores = smt ? caches[i].processor_count / smt : 1;
        size_t size = caches[i].size / (cores > 1 ? cores : 1);
        if (size && (!found || size < found)) found = size;
    }
    return found;
}

cpu_caches_t cpu_caches(void)
{
    cpu_caches_t c = { 0, 0, 0 };
    if (!cpuinfo_initialize()) return c; /* its getters would abort */
    const struct cpuinfo_core *core = cpuinfo_get_core(0);
    uint32_t smt = core && core->processor_count ? core->processor_count : 1;
    c.l1 = least(cpuinfo_get_l1d_caches(), cpuinfo_get_l1d_caches_count(), smt);
    c.l2 = least(cpuinfo_get_l2_caches(), cpuinfo_get_l2_caches_count(), smt);
    c.l3 = least(cpuinfo_get_l3_caches(), cpuinfo_get_l3_caches_count(), 0);
    return c;
}

void cpu_name(char *name, size_t size)
{
    const struct cpuinfo_package *package = NULL;
    if (cpuinfo_initialize()) package = cpuinfo_get_package(0);
    const char *from = package && package->name[0] ? package->name : "unknown";
    size_t n = strnlen(from, size - 1);
    if (package && n > sizeof package->name) n = sizeof package->name;
    for (size_t i = 0; i < n; i++) name[i] = from[i] == ',' ? ' ' : from[i];
    name[n] = 0;
}

int32_t cpu_available(slg_ctx *ctx)
{
    cpu_set_t small;
    int count = 0;
    if (sched_getaffinity(0, sizeof small, &small) == 0) {
        count = CPU_COUNT(&small);
    } else if (errno == EINVAL) {
        /* The kernel's mask is longer than ours, by an amount it does not tell. */
        for (size_t bits = 2 * CPU_SETSIZE; !count && bits <= MAX_MASK_BITS; bits *= 2) {
            size_t bytes = CPU_ALLOC_SIZE(bits);
            cpu_set_t *set = ctx_alloc(ctx, bytes);
            if (!set) break;
            if (sched_getaffinity(0, bytes, set) == 0) count = CPU_COUNT_S(bytes, set);
            ctx_free(ctx, set);
        }
    }
    if (count < 1) count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count;
}
