/*
 * blas.c - OpenBLAS. Its dimensions are 32-bit, and it reports bad ones on stderr and goes on:
 * so all are checked here first. It runs with its own idea of subnormals, since the caller's
 * thread and OpenBLAS's should share it: results must not depend on which of them computes
 * what.
 */
#include "blas.h"

#include <string.h>
#include <strings.h>

#include <cblas.h>

#include "fpenv.h"

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define MSAN 1
#endif
#endif

/* Rows of c in one call of BLAS, where m is more than its integers hold. */
#define MAX_ROWS (INT64_C(1) << 30)

/* A product's dimensions, leading dimensions made fit for BLAS. */
typedef struct product {
    int64_t m, n, k, lda, ldb, ldc;
} product;

/* The row stride of a matrix of at most one row means nothing, but BLAS looks at it. */
static int64_t leading(int64_t rows, int64_t cols, int64_t ld)
{
    int64_t least = cols > 1 ? cols : 1;
    return rows <= 1 && (ld < least || ld > INT32_MAX) ? least : ld;
}

static slg_status check(slg_ctx *ctx, bool trans_a, bool trans_b, product *p)
{
    int64_t rows_a = trans_a ? p->k : p->m, cols_a = trans_a ? p->m : p->k;
    int64_t rows_b = trans_b ? p->n : p->k, cols_b = trans_b ? p->k : p->n;
    if (p->m < 0 || p->n < 0 || p->k < 0)
        return slg_fail(ctx, SLG_ERR_SHAPE, "product of %lld x %lld x %lld", (long long)p->m,
                        (long long)p->n, (long long)p->k);
    p->lda = leading(rows_a, cols_a, p->lda);
    p->ldb = leading(rows_b, cols_b, p->ldb);
    p->ldc = leading(p->m, p->n, p->ldc);
    if (p->n > INT32_MAX || p->k > INT32_MAX || (trans_a && p->m > INT32_MAX) ||
        p->lda > INT32_MAX || p->ldb > INT32_MAX || p->ldc > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE,
                        "a product of %lld x %lld x %lld is more than BLAS can index",
                        (long long)p->m, (long long)p->n, (long long)p->k);
    if (p->lda < cols_a || p->ldb < cols_b || p->ldc < p->n)
        return slg_fail(ctx, SLG_ERR_SHAPE, "row strides %lld, %lld, %lld are less than a row",
                        (long long)p->lda, (long long)p->ldb, (long long)p->ldc);
    return SLG_OK;
}

/* BLAS is not instrumented: say what it reads and writes. */
static void will_read(const void *x, int64_t rows, int64_t cols, int64_t ld, size_t item)
{
#if defined(MSAN)
    for (int64_t r = 0; r < rows; r++)
        __msan_check_mem_is_initialized((const char *)x + (size_t)(r * ld) * item,
                                        (size_t)cols * item);
#else
    (void)x, (void)rows, (void)cols, (void)ld, (void)item;
#endif
}

static void has_written(const void *x, int64_t rows, int64_t cols, int64_t ld, size_t item)
{
#if defined(MSAN)
    for (int64_t r = 0; r < rows; r++)
        __msan_unpoison((const char *)x + (size_t)(r * ld) * item, (size_t)cols * item);
#else
    (void)x, (void)rows, (void)cols, (void)ld, (void)item;
#endif
}

static void watch(const product *p, bool trans_a, bool trans_b, const void *a, const void *b,
                  const void *c, bool reads_c, size_t item)
{
    will_read(a, trans_a ? p->k : p->m, trans_a ? p->m : p->k, p->lda, item);
    will_read(b, trans_b ? p->n : p->k, trans_b ? p->k : p->n, p->ldb, item);
    if (reads_c) will_read(c, p->m, p->n, p->ldc, item);
}

/* The same for both types: T and its BLAS function. */
#define DEFINE_GEMM(name, T, gemm)                                                             \
    /* c = beta c, for products of no terms. */                                                \
    static void name##_scale(const product *p, T beta, T *c)                                   \
    {                                                                                          \
        for (int64_t i = 0; i < p->m; i++) {                                                   \
            T *row = c + i * p->ldc;                                                           \
            for (int64_t j = 0; j < p->n; j++) row[j] = beta == 0 ? 0 : beta * row[j];         \
        }                                                                                      \
    }                                                                                          \
    slg_status name(slg_ctx *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, \
                    T alpha, const T *a, int64_t lda, const T *b, int64_t ldb, T beta, T *c,   \
                    int64_t ldc)                                                               \
    {                                                                                          \
        product p = { m, n, k, lda, ldb, ldc };                                                \
        slg_status status = check(ctx, trans_a, trans_b, &p);                                  \
        if (status || m == 0 || n == 0) return status;                                         \
        fp_mode mode = fp_enter_ieee();                                                        \
        if (k == 0)                                                                            \
            name##_scale(&p, beta, c);                                                         \
        else                                                                                   \
            watch(&p, trans_a, trans_b, a, b, c, beta != 0, sizeof(T));                        \
        for (int64_t i = 0; i < m && k; i += MAX_ROWS) {                                       \
            int64_t rows = m - i < MAX_ROWS ? m - i : MAX_ROWS;                                \
            gemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,                           \
                 trans_b ? CblasTrans : CblasNoTrans, (int)rows, (int)n, (int)k, alpha,        \
                 a + (trans_a ? i : i * p.lda), (int)p.lda, b, (int)p.ldb, beta,               \
                 c + i * p.ldc, (int)p.ldc);                                                   \
        }                                                                                      \
        has_written(c, m, n, p.ldc, sizeof(T));                                                \
        fp_leave(mode);                                                                        \
        return SLG_OK;                                                                         \
    }

DEFINE_GEMM(blas_sgemm, float, cblas_sgemm)
DEFINE_GEMM(blas_dgemm, double, cblas_dgemm)

/* y is zeroed here where it is overwritten: versions differ in whether 0 times NaN is 0
   there. */
slg_status blas_dgemv(slg_ctx *ctx, bool trans, int64_t m, int64_t n, const double *a,
                      int64_t lda, const double *x, bool add, double *y)
{
    product p = { m, 1, n, lda, 1, 1 };
    SLG_TRY(check(ctx, false, false, &p));
    if (m > INT32_MAX)
        return slg_fail(ctx, SLG_ERR_SHAPE, "a matrix of %lld rows is more than BLAS can index",
                        (long long)m);
    const int64_t in = trans ? m : n, out = trans ? n : m;
    for (int64_t i = 0; !add && i < out; i++) y[i] = 0;
    if (m == 0 || n == 0) return SLG_OK;
    fp_mode mode = fp_enter_ieee();
    will_read(a, m, n, p.lda, sizeof *a);
    will_read(x, 1, in, in, sizeof *x);
    cblas_dgemv(CblasRowMajor, trans ? CblasTrans : CblasNoTrans, (int)m, (int)n, 1, a,
                (int)p.lda, x, 1, 1, y, 1);
    has_written(y, 1, out, out, sizeof *y);
    fp_leave(mode);
    return SLG_OK;
}

/* The level of an OpenBLAS core's kernels; those of 0.3.x that have one. */
static int32_t core_isa(const char *core)
{
    static const struct {
        const char *core;
        int32_t isa;
    } known[] = { { "Haswell", SLG_ISA_AVX2 },      { "Zen", SLG_ISA_AVX2 },
                  { "Excavator", SLG_ISA_AVX2 },    { "SkylakeX", SLG_ISA_AVX512 },
                  { "Cooperlake", SLG_ISA_AVX512 }, { "SapphireRapids", SLG_ISA_AVX512 } };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcasecmp(core, known[i].core)) return known[i].isa;
    return SLG_ISA_PORTABLE;
}

int32_t blas_mistaken(const char *core, int32_t cpu_isa)
{
    const int32_t isa = core_isa(core);
    if (isa >= cpu_isa) return SLG_BLAS_FITS;
    return isa == SLG_ISA_AVX2 ? SLG_BLAS_HALF : SLG_BLAS_FAR_BELOW;
}

static const char *advice(int32_t mistaken, int32_t cpu_isa)
{
    if (mistaken == SLG_BLAS_FITS) return "";
    if (mistaken == SLG_BLAS_HALF)
        return "OpenBLAS runs kernels for AVX2 on a CPU with AVX-512 and may be half as fast "
               "as "
               "it could be: set OPENBLAS_CORETYPE=SkylakeX in the environment";
    /* SLG_ISA_AVX512 stands for F, DQ, BW and VL, which is what SkylakeX needs. */
    return cpu_isa >= SLG_ISA_AVX512
               ? "OpenBLAS took this CPU for an old one and is several times slower than it "
                 "could be: set OPENBLAS_CORETYPE=SkylakeX in the environment"
               : "OpenBLAS took this CPU for an old one and is several times slower than it "
                 "could be: set OPENBLAS_CORETYPE=Haswell in the environment";
}

blas_info_t blas_info(int32_t cpu_isa)
{
    const char *core = openblas_get_corename();
    const int32_t mistaken = blas_mistaken(core, cpu_isa);
    return (blas_info_t){ .threads = openblas_get_num_threads(),
                          .parallel = openblas_get_parallel(),
                          .mistaken = mistaken,
                          .name = openblas_get_config(),
                          .core = core,
                          .advice = advice(mistaken, cpu_isa) };
}
