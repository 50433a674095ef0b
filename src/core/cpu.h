/*
 * cpu.h - what cpuinfo and the kernel know of the machine, beyond its ISA (see dispatch.c).
 */
#ifndef SLG_CORE_CPU_H
#define SLG_CORE_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "ctx.h"

/* Level 1 data, level 2: the part of one core, on the core that has least. Level 3: all that
   one core reaches, so what a call on all threads shares. 0 where unknown. */
typedef struct cpu_caches_t {
    size_t l1, l2, l3;
} cpu_caches_t;
cpu_caches_t cpu_caches(void);

/* Copies the processor's name, without commas (it is printed as CSV); "unknown" where it is. */
void cpu_name(char *name, size_t size);

/* CPUs that the affinity mask of this thread allows; at least 1. May allocate from ctx for the
   time of the call. */
int32_t cpu_available(slg_ctx *ctx);

#endif
