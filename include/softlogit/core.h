/*
 * core.h - what every module of libsoftlogit shares: status codes, tensor views, the context.
 *
 * Conventions (docs/conventions.md has them at length):
 *   - Every function returns a slg_status: 0, or a negative code. slg_ctx_message() then says
 *     in words which argument was wrong and which numbers it held. Arguments are checked before
 *     anything is written: on an error no output and no state has changed.
 *   - Tensors are views of the caller's memory. Nothing outside of a view is read or written.
 *   - A context is used by one thread at a time. Contexts share nothing.
 *   - Options structs start with their size; slg_NAME_opts_init() fills in the defaults, and
 *     NULL means the defaults. Fields are only ever added at the end.
 */
#ifndef SOFTLOGIT_CORE_H
#define SOFTLOGIT_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define SLG_API
#else
#define SLG_API __attribute__((visibility("default")))
#endif

/* Version of the headers. slg_version() tells the version of the library that is loaded. */
enum { SLG_VERSION_MAJOR = 0, SLG_VERSION_MINOR = 1, SLG_VERSION_PATCH = 0 };

/* ---- Status ---------------------------------------------------------------------------- */

typedef int32_t slg_status;

enum slg_status_code {
    SLG_OK = 0,
    SLG_ERR_NULL = -1,        /* an argument that is needed is NULL */
    SLG_ERR_SHAPE = -2,       /* number of dimensions, shapes that do not fit, a size that
                                 overflows */
    SLG_ERR_DTYPE = -3,       /* an element type that the function does not take there */
    SLG_ERR_STRIDE = -4,      /* strides under which output elements would share memory */
    SLG_ERR_RANGE = -5,       /* a value outside of its domain: a temperature, a class index */
    SLG_ERR_OPTIONS = -6,     /* an options struct of unknown size, or with unknown fields
                                 set */
    SLG_ERR_MEMORY = -7,      /* out of memory; the context remains usable */
    SLG_ERR_ENVIRONMENT = -8, /* a SOFTLOGIT_ variable with a value that is not understood */
    SLG_ERR_UNSUPPORTED = -9, /* the CPU, or this build, lacks what was asked for */
    SLG_ERR_STATE = -10,      /* a handle that is not in the state the call needs; a bad state
                                 file */
    SLG_ERR_STOPPED = -11,    /* the caller's callback asked to stop */
    SLG_ERR_THREAD = -12      /* a thread could not be created */
};

/* The code's name and meaning in English; a fixed string, never NULL. */
SLG_API const char *slg_status_string(slg_status status);

/* ---- Tensors --------------------------------------------------------------------------- */

enum slg_dtype {
    SLG_F32 = 0,
    SLG_BF16 = 1,
    SLG_F16 = 2,
    SLG_F64 = 3,
    SLG_I32 = 4,
    SLG_I64 = 5
};

/*
 * A view of an array: 80 bytes, frozen. Strides count elements, may be 0 or negative for
 * inputs. Entries of shape and stride past ndim are not looked at. The memory stays
 * the caller's. data needs the natural alignment of its type, and may be NULL where a dimension
 * is 0.
 */
typedef struct slg_tensor {
    void *data;
    int32_t dtype; /* slg_dtype */
    int32_t ndim;  /* 1 to 4 */
    int64_t shape[4];
    int64_t stride[4];
} slg_tensor;

/* Views of contiguous memory, for C and C++. Other languages fill in the struct. */
static inline slg_tensor slg_tensor_2d(const void *data, int32_t dtype, int64_t rows,
                                       int64_t cols)
{
    slg_tensor t = {
        (void *)(uintptr_t)data, dtype, 2, { rows, cols, 1, 1 }, { cols, 1, 1, 1 }
    };
    return t;
}

static inline slg_tensor slg_tensor_1d(const void *data, int32_t dtype, int64_t size)
{
    slg_tensor t = { (void *)(uintptr_t)data, dtype, 1, { size, 1, 1, 1 }, { 1, 1, 1, 1 } };
    return t;
}

/* ---- Context --------------------------------------------------------------------------- */

typedef struct slg_ctx slg_ctx;

enum slg_isa { SLG_ISA_AUTO = 0, SLG_ISA_PORTABLE = 1, SLG_ISA_AVX2 = 2, SLG_ISA_AVX512 = 3 };

enum slg_log_level { SLG_LOG_ERROR = 0, SLG_LOG_WARNING = 1, SLG_LOG_CALL = 2 };

/* fn(arg, i) is to be called once for each i in [0, n), on any threads, before this returns. */
typedef void (*slg_parallel_fn)(void *arg, int64_t i);
typedef void (*slg_parallel_for)(void *user, int64_t n, slg_parallel_fn fn, void *arg);

/* Text for a person. Called on the thread that called the library. */
typedef void (*slg_log_fn)(void *user, int32_t level, const char *text);

/*
 * Options of a context. They win over the environment variables SOFTLOGIT_ISA,
 * SOFTLOGIT_NUM_THREADS and SOFTLOGIT_VERBOSE, which are read once, by slg_ctx_create().
 */
typedef struct slg_ctx_opts {
    uint32_t size;       /* sizeof(slg_ctx_opts), set by slg_ctx_opts_init */
    int32_t isa;         /* slg_isa: highest level to use; default SLG_ISA_AUTO: SOFTLOGIT_ISA,
                            else the best that the CPU has. SLG_ERR_UNSUPPORTED above that. */
    int32_t num_threads; /* threads of a call, the caller's included; default 0:
                            SOFTLOGIT_NUM_THREADS, else as many as the affinity mask allows */
    int32_t verbose;     /* 1, 2: a line a call to log, or to stderr; default -1:
                            SOFTLOGIT_VERBOSE */
    void *(*alloc)(void *user, size_t alignment, size_t size); /* default NULL: aligned_alloc */
    void (*free)(void *user, void *memory);                    /* goes with alloc */
    void *alloc_user;
    slg_parallel_for parallel_for; /* default NULL: the context's own pool */
    void *parallel_user;
    slg_log_fn log; /* default NULL: nothing is said, save with verbose, which writes
                       to stderr */
    void *log_user;
} slg_ctx_opts;

SLG_API void slg_ctx_opts_init(slg_ctx_opts *opts, size_t size);

/*
 * Makes a context: chooses kernels for this CPU, starts num_threads - 1 threads. opts may be
 * NULL. On an error *ctx is NULL and opts->log, if given, is told why.
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS, SLG_ERR_RANGE (num_threads outside of [0, 1024]),
 * SLG_ERR_ENVIRONMENT, SLG_ERR_UNSUPPORTED, SLG_ERR_MEMORY, SLG_ERR_THREAD.
 */
SLG_API slg_status slg_ctx_create(const slg_ctx_opts *opts, slg_ctx **ctx);

/* Ends the threads and frees all. NULL is allowed. Objects made from ctx must be freed
   first. */
SLG_API void slg_ctx_free(slg_ctx *ctx);

/* What the last call that failed on ctx had to say; "" if none did. Valid until the next
   call. */
SLG_API const char *slg_ctx_message(const slg_ctx *ctx);

/* Frees the scratch memory that ctx keeps between calls. */
SLG_API slg_status slg_ctx_trim(slg_ctx *ctx);

/*
 * Whether OpenBLAS's kernels are those that the CPU could run. It chooses by itself, and may
 * not know a CPU that is newer than it; or OPENBLAS_CORETYPE says so. SLG_BLAS_HALF costs up
 * to half of the speed of products, and little on CPUs whose AVX-512 units are half as wide.
 */
enum slg_blas_fit {
    SLG_BLAS_FITS = 0,
    SLG_BLAS_FAR_BELOW = 1, /* kernels without AVX2 on a CPU that has it: several times
                               slower */
    SLG_BLAS_HALF = 2       /* kernels for AVX2 on a CPU with AVX-512 */
};

/* What a context found and chose. Strings live as long as the context. */
typedef struct slg_ctx_info_t {
    uint32_t size;   /* in: sizeof(slg_ctx_info_t), set by the caller */
    int32_t isa;     /* slg_isa in use */
    int32_t cpu_isa; /* best slg_isa of this CPU */
    int32_t num_threads;
    int32_t blas_threads;
    int32_t blas_mistaken; /* slg_blas_fit; not 0: products are slower than they could be */
    const char *isa_name;  /* "portable", "avx2", "avx512" */
    const char *cpu_name;
    const char *blas_name;                /* OpenBLAS's own description of its build */
    const char *blas_core;                /* its kernels' name, such as "SkylakeX" */
    const char *blas_advice;              /* "" or what to do where blas_mistaken */
    const char *version;                  /* of the library */
    int64_t l1_bytes, l2_bytes, l3_bytes; /* of one core; 0 where unknown */
    int64_t scratch_bytes;                /* kept by the context now */
    int64_t scratch_peak_bytes;           /* most that a call has used */
} slg_ctx_info_t;

/* Errors: SLG_ERR_NULL, SLG_ERR_OPTIONS (info->size). */
SLG_API slg_status slg_ctx_info(slg_ctx *ctx, slg_ctx_info_t *info);

/* Version of the loaded library: 10000 * major + 100 * minor + patch, and as text. */
SLG_API int32_t slg_version(void);
SLG_API const char *slg_version_string(void);

/*
 * sizeof of a public struct by its name ("slg_tensor", "slg_ctx_opts"), for bindings that check
 * their own declarations; 0 if there is no struct of that name.
 */
SLG_API size_t slg_struct_size(const char *name);

/* ---- Reductions ------------------------------------------------------------------------ */

enum slg_reduction { SLG_NONE = 0, SLG_MEAN = 1, SLG_SUM = 2 };

/* ---- Random numbers -------------------------------------------------------------------- */

/*
 * Random numbers are a function of a counter: number i of a stream is f(seed, i), the same bits
 * on every machine, ISA level and number of threads. The caller owns the state. A call that
 * draws n numbers uses i = offset to offset + n - 1 and adds n to offset; its header says n.
 * Distinct seeds give independent streams; to jump, set offset. 16 bytes, frozen.
 *
 * f is Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) with
 * key = seed and counter = i / 2: its four 32-bit words make two 64-bit numbers, low word
 * first.
 */
typedef struct slg_rng {
    uint64_t seed;
    uint64_t offset; /* numbers drawn so far; wraps around at 2^64 */
} slg_rng;

enum slg_distribution {
    SLG_UNIFORM = 0, /* in (0, 1), both ends left out */
    SLG_NORMAL = 1,  /* mean 0, variance 1; magnitudes up to 6.7 */
    SLG_GUMBEL = 2   /* -log(-log(uniform)): arg-max of log p + this is a sample of p */
};

/*
 * Fills out with random numbers in row-major order: element i is number rng->offset + i.
 * Advances rng->offset by the number of elements. Uniform numbers are (k + 1/2) 2^-23 in
 * float32, with k the top 23 bits of the number, and (k + 1/2) 2^-52 in float64. Normal numbers
 * in float32 are computed in float32, to a relative error of 5 * 2^-24; the others in double
 * with the C library's log and cos, and rounded.
 *
 *   rng           in/out  not NULL
 *   distribution  in      slg_distribution
 *   out           out     f32, f64, any shape and strides
 *
 * Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE; SLG_ERR_RANGE for an
 * unknown distribution. Nothing has changed then. Since 0.1.
 */
SLG_API slg_status slg_random(slg_ctx *ctx, slg_rng *rng, int32_t distribution,
                              slg_tensor *out);

/*
 * Fills out with the first of a random permutation of 0, 1, .. n - 1: distinct numbers, each
 * set and order of them as likely as any other. Advances rng->offset by the number of elements.
 *
 *   rng           in/out  not NULL
 *   n             in      at least count; below 2^31 where out is i32
 *   out  [count]  out     i32, i64
 *
 * Workspace 8 n bytes. Errors: SLG_ERR_NULL, SLG_ERR_SHAPE, SLG_ERR_DTYPE, SLG_ERR_STRIDE,
 * SLG_ERR_MEMORY; SLG_ERR_RANGE for n. Nothing has changed then. Since 0.1.
 */
SLG_API slg_status slg_permutation(slg_ctx *ctx, slg_rng *rng, int64_t n, slg_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
