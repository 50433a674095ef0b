/*
 * golden - runs the cases of golden files through the library's public interface.
 *
 *     golden [--isa portable|avx2|avx512] [--margin] FILE...
 *
 * FILE is a path that ends in SLUG.golden. A line a case:
 *
 *     pass FILE CASE                with --margin: and the largest part of a tolerance used
 *     FAIL FILE CASE TENSOR[INDEX] got NUMBER want NUMBER within ABSOLUTE RELATIVE (how)
 *     FAIL FILE CASE REASON (how)
 *     skip FILE CASE                no adapter for this operation
 *
 * and at the end `N passed, N failed, N skipped`. A file that cannot be read is a failure.
 * Exits 0, or 1 on a failure, 2 on a wrong command line, 77 where the CPU lacks the ISA.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden/runner.h"

#define SLUG(name) extern const adapter adapt_##name[];
#include "golden/registry.h"
#undef SLUG

static const struct {
    const char *slug;
    const adapter *table;
} slugs[] = {
#define SLUG(name) { #name, adapt_##name },
#include "golden/registry.h"
#undef SLUG
};

enum { SLUGS = sizeof slugs / sizeof *slugs };

/* Whether text, length characters long, is the slug: - and _ are the same. */
static bool same_slug(const char *text, size_t length, const char *slug)
{
    if (strlen(slug) != length) return false;
    for (size_t i = 0; i < length; i++)
        if (text[i] != slug[i] && !(text[i] == '-' && slug[i] == '_')) return false;
    return true;
}

/* The adapters of a file's slug, or an empty table. */
static const adapter *adapters_of(const char *path)
{
    static const adapter none[] = { { NULL, NULL } };
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t length = strlen(base), suffix = strlen(".golden");
    if (length > suffix && strcmp(base + length - suffix, ".golden") == 0) length -= suffix;
    for (size_t i = 0; i < SLUGS; i++)
        if (same_slug(base, length, slugs[i].slug)) return slugs[i].table;
    return none;
}

/* The one of a case's operation, which is its name up to a slash, or the one for any; or
   NULL. */
static const adapter *find_adapter(const adapter *table, const char *name)
{
    size_t length = strcspn(name, "/");
    for (; table->operation; table++)
        if (strlen(table->operation) == length && strncmp(table->operation, name, length) == 0)
            return table;
        else if (strcmp(table->operation, "*") == 0)
            return table;
    return NULL;
}

typedef struct totals {
    long passed, failed, skipped;
} totals;

static void do_case(slg_ctx *const ctx[], const char *path, const adapter *table,
                    const golden_case *c, bool margin, totals *n)
{
    const adapter *a = find_adapter(table, c->name);
    if (!a) {
        n->skipped++;
        printf("skip %s %s\n", path, c->name);
        return;
    }
    outcome out = run_case(ctx, c, a);
    if (!out.passed) {
        n->failed++;
        printf("FAIL %s %s %s\n", path, c->name, out.text);
    } else {
        n->passed++;
        printf("pass %s %s", path, c->name);
        if (margin) printf(" %.3f of tolerance", out.margin);
        printf("\n");
    }
    fflush(stdout); /* should the next case end the program */
}

static void do_file(slg_ctx *const ctx[], const char *path, bool margin, totals *n)
{
    golden_file file;
    char *error;
    if (!golden_read(path, &file, &error)) {
        n->failed++;
        printf("FAIL %s - %s\n", path, error ? error : "out of memory");
        free(error);
        return;
    }
    for (size_t i = 0; i < file.count; i++)
        do_case(ctx, path, adapters_of(path), &file.cases[i], margin, n);
    golden_free(&file);
}

static void say(void *user, int32_t level, const char *text)
{
    (void)user;
    if (level == SLG_LOG_ERROR) fprintf(stderr, "golden: %s\n", text);
}

static slg_status create(int32_t isa, int32_t threads, slg_ctx **ctx)
{
    slg_ctx_opts o;
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = isa;
    o.num_threads = threads;
    o.log = say;
    return slg_ctx_create(&o, ctx);
}

static int usage(void)
{
    fprintf(stderr, "usage: golden [--isa portable|avx2|avx512] [--margin] FILE...\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const char *const isa_names[] = { "auto", "portable", "avx2", "avx512" };
    int32_t isa = SLG_ISA_AUTO;
    bool margin = false;
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--margin") == 0) {
            margin = true;
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            for (isa = 3, i++; isa >= 0 && strcmp(argv[i], isa_names[isa]) != 0;) isa--;
            if (isa < 0) return usage();
        } else {
            return usage();
        }
    }
    if (i == argc) return usage();

    slg_ctx *ctx[RUN_CONTEXTS] = { NULL };
    for (int k = 0; k < RUN_CONTEXTS; k++) {
        slg_status status = create(isa, k + 1, &ctx[k]);
        if (status == SLG_ERR_UNSUPPORTED) return 77;
        if (status) return 1;
    }
    totals n = { 0, 0, 0 };
    for (; i < argc; i++) do_file(ctx, argv[i], margin, &n);
    for (int k = 0; k < RUN_CONTEXTS; k++) slg_ctx_free(ctx[k]);
    printf("%ld passed, %ld failed, %ld skipped\n", n.passed, n.failed, n.skipped);
    return n.failed ? 1 : 0;
}
