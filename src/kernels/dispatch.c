/*
 * dispatch.c - which kernels a CPU can run. cpuinfo is asked once a context.
 */
#include <cpuinfo.h>

#include "kernels.h"
#include "softlogit/core.h"

int32_t kernels_cpu_isa(void)
{
    if (!cpuinfo_initialize()) return SLG_ISA_PORTABLE;
#if !defined(SLG_ONLY_PORTABLE)
    bool avx2 = cpuinfo_has_x86_avx2() && cpuinfo_has_x86_fma3() && cpuinfo_has_x86_f16c();
    bool avx512 = cpuinfo_has_x86_avx512f() && cpuinfo_has_x86_avx512dq() &&
                  cpuinfo_has_x86_avx512bw() && cpuinfo_has_x86_avx512vl();
    if (avx2 && avx512) return SLG_ISA_AVX512;
    if (avx2) return SLG_ISA_AVX2;
#endif
    return SLG_ISA_PORTABLE;
}

void kernels_fill(kernel_table *k, int32_t isa)
{
#define K(result, name, args) k->name = slg_##name##_portable;
    SLG_KERNELS(K)
#undef K
#if !defined(SLG_ONLY_PORTABLE)
    if (isa >= SLG_ISA_AVX2) {
#define K(result, name, args) k->name = slg_##name##_avx2;
        SLG_KERNELS(K)
#undef K
    }
    if (isa >= SLG_ISA_AVX512) {
#define K(result, name, args) k->name = slg_##name##_avx512;
        SLG_KERNELS(K)
#undef K
    }
#else
    (void)isa;
#endif
}
