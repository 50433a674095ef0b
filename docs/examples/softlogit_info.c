/*
 * softlogit-info - what the library finds on this machine and what it chose.
 *
 *     softlogit-info                      a table
 *     softlogit-info --blas-core-advice   only the value that OPENBLAS_CORETYPE should have;
 *                                         nothing where its kernels fit the CPU
 */
#include <softlogit/softlogit.h>
#include <stdio.h>
#include <string.h>

static void print_table(const slg_ctx_info_t *info)
{
    static const char *const names[] = { "auto", "portable", "avx2", "avx512" };
    const int known = info->cpu_isa >= 0 && info->cpu_isa < (int)(sizeof names / sizeof *names);

    printf("libsoftlogit   %s\n", info->version);
    printf("CPU            %s\n", info->cpu_name);
    printf("ISA            %s (of the CPU: %s)\n", info->isa_name,
           known ? names[info->cpu_isa] : "unknown");
    printf("threads        %d\n", (int)info->num_threads);
    printf("caches         L1 %lld, L2 %lld, L3 %lld KiB\n", (long long)info->l1_bytes / 1024,
           (long long)info->l2_bytes / 1024, (long long)info->l3_bytes / 1024);
    printf("BLAS           %s\n", info->blas_name);
    printf("BLAS core      %s%s\n", info->blas_core,
           info->blas_mistaken == SLG_BLAS_HALF ? " (for AVX2)"
           : info->blas_mistaken                ? " (mistaken)"
                                                : "");
    printf("BLAS threads   %d\n", (int)info->blas_threads);
    if (info->blas_advice[0]) printf("advice         %s\n", info->blas_advice);
}

int main(int argc, char **argv)
{
    const int advice = argc == 2 && strcmp(argv[1], "--blas-core-advice") == 0;
    slg_ctx *ctx = NULL;
    slg_ctx_info_t info = { .size = sizeof info };
    slg_status status;

    if (argc > 1 && !advice) {
        const int help = argc == 2 && strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: softlogit-info [--blas-core-advice]\n");
        return help ? 0 : 2;
    }
    status = slg_ctx_create(NULL, &ctx);
    if (status == SLG_OK) status = slg_ctx_info(ctx, &info);
    if (status != SLG_OK) {
        fprintf(stderr, "softlogit-info: %s\n", slg_status_string(status));
        slg_ctx_free(ctx);
        return 1;
    }
    if (!advice)
        print_table(&info);
    else if (info.blas_mistaken)
        puts(info.cpu_isa == SLG_ISA_AVX512 ? "SkylakeX" : "Haswell");
    slg_ctx_free(ctx);
    return fflush(stdout) ? 1 : 0;
}
