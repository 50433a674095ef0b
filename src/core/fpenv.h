/*
 * fpenv.h - the floating-point mode inside of the library: round to nearest, all exceptions
 * masked, subnormal results flushed and subnormal inputs read as zero (each would cost
 * a microcode assist of some hundred cycles). The caller's mode, flags included, is put back on
 * return.
 */
#ifndef SLG_CORE_FPENV_H
#define SLG_CORE_FPENV_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>

typedef uint32_t fp_mode;

static inline fp_mode fp_enter(void)
{
    fp_mode old = _mm_getcsr();
    /* 0x1F80: masks on, nearest. 0x8040: flush to zero, denormals are zero. */
    if ((old & ~0x3Fu) != 0x9FC0u) _mm_setcsr(0x9FC0u);
    return old;
}

/* The same with subnormals as IEEE 754 has them, as a thread starts with: around calls of BLAS,
   whose own threads compute so. */
static inline fp_mode fp_enter_ieee(void)
{
    fp_mode old = _mm_getcsr();
    if ((old & ~0x3Fu) != 0x1F80u) _mm_setcsr(0x1F80u);
    return old;
}

static inline void fp_leave(fp_mode old)
{
    if (_mm_getcsr() != old) _mm_setcsr(old);
}

/* Reads the mode, and sets nothing: true if it rounds to nearest and traps nothing, so that a
   short piece of work may go on in it and put flags back by fp_leave. */
static inline bool fp_nearest(fp_mode *old)
{
    *old = _mm_getcsr();
    return (*old & 0x7F80u) == 0x1F80u;
}

#else
#include <fenv.h>

typedef fenv_t fp_mode;

static inline fp_mode fp_enter(void)
{
    fp_mode old;
    feholdexcept(&old);
    fesetround(FE_TONEAREST);
    return old;
}

static inline fp_mode fp_enter_ieee(void) { return fp_enter(); }

static inline void fp_leave(fp_mode old) { fesetenv(&old); }

/* Elsewhere: never as it is. */
static inline bool fp_nearest(fp_mode *old)
{
    (void)old;
    return false;
}

#endif

#endif
