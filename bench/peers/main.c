/*
 * peers - races the library against what a user would take instead, and against the floors.
 *
 *     peers [--list] [--quick] [--json FILE] [WORKLOAD...]
 *
 * WORKLOAD is a name or a pattern such as 'softmax-*'; none: all. --quick: small sizes and few
 * trials, in seconds: tells that all works, judges no goal of speed. Exit status: 1 if the
 * library failed or was wrong, 2 for a bad command line. Goals that are missed are no failure.
 */
#include <dlfcn.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cblas.h>

#include "race.h"

/*
 * What libraries read as they are loaded: waiting threads sleep, and OpenBLAS takes the
 * kernels of this CPU. A value that is set is respected. So the program starts itself once
 * more.
 */
static void settle_environment(char **argv)
{
    if (getenv("PEERS_SETTLED")) return;
    setenv("PEERS_SETTLED", "1", 1);
    setenv("OMP_WAIT_POLICY", "passive", 0);
    slg_ctx *ctx = NULL;
    slg_ctx_info_t info = { .size = sizeof info };
    if (slg_ctx_create(NULL, &ctx) == SLG_OK && slg_ctx_info(ctx, &info) == SLG_OK &&
        info.blas_mistaken)
        setenv("OPENBLAS_CORETYPE", info.cpu_isa == SLG_ISA_AVX512 ? "SkylakeX" : "Haswell", 0);
    slg_ctx_free(ctx);
    execv("/proc/self/exe", argv);
    perror("peers: cannot start itself again with OMP_WAIT_POLICY=passive");
}

void set_peer_threads(int threads)
{
    void (*omp)(int);
    *(void **)&omp = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (omp) omp(threads);
    openblas_set_num_threads(threads);
    torch_set_threads(threads);
}

static void list(void)
{
    static const char *const relation[] = { "", ">=", "<=", "memory >=" };
    for (const workload *w = workloads; w->name; w++) {
        printf("%-36s", w->name);
        for (int i = 0; i < MAX_GOALS && w->goals[i].kind; i++)
            printf("%s %s %s %g", i ? "," : "", w->goals[i].of, relation[w->goals[i].kind],
                   w->goals[i].bar);
        putchar('\n');
    }
}

static bool wanted(const char *name, char **patterns, int count)
{
    for (int i = 0; i < count; i++)
        if (fnmatch(patterns[i], name, 0) == 0) return true;
    return count == 0;
}

static bool known(const char *pattern)
{
    for (const workload *w = workloads; w->name; w++)
        if (fnmatch(pattern, w->name, 0) == 0) return true;
    return false;
}

static int race_all(FILE *json, bool quick, char **patterns, int count)
{
    int failed = 0, goals = 0, met = 0, raced = 0;
    report_header(json, quick);
    for (const workload *w = workloads; w->name; w++) {
        static result res;
        int judged;
        if (!wanted(w->name, patterns, count)) continue;
        race_run(w, quick, &res);
        report_line(&res);
        if (json) report_json(json, &res, raced == 0);
        met += report_met(&res, &judged);
        goals += judged;
        failed += res.failed;
        raced++;
    }
    if (json) fputs("\n  ]\n}\n", json);
    printf("%d workloads, %d of %d goals met, %d failed\n", raced, met, goals, failed);
    return failed ? 1 : 0;
}

static int usage(void)
{
    fputs("usage: peers [--list] [--quick] [--json FILE] [WORKLOAD...]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    bool quick = false;
    const char *file = NULL;
    char **patterns = calloc((size_t)argc, sizeof *patterns);
    int count = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--list")) return list(), 0;
        if (!strcmp(argv[i], "--quick"))
            quick = true;
        else if (!strcmp(argv[i], "--json") && i + 1 < argc)
            file = argv[++i];
        else if (argv[i][0] == '-')
            return usage();
        else if (known(argv[i]))
            patterns[count++] = argv[i];
        else
            return fprintf(stderr, "peers: no workload %s (see --list)\n", argv[i]), 2;
    }
    settle_environment(argv);
    FILE *json = file ? fopen(file, "w") : NULL;
    if (file && !json) return perror(file), 2;
    int status = race_all(json, quick, patterns, count);
    if (json && fclose(json)) return perror(file), 1;
    free(patterns);
    return status;
}
