/*
 * main.c - papers [--list] [--quick] [--json FILE] [SLUG...]: re-runs the claims of papers. A
 * line a claim: holds or missed, ours, the bar, the paper's figure. SLUG: 04, two-pass-softmax
 * or 04-two-pass-softmax; none: all. Exit status: 0, also where a bar is missed; 1 where
 * a paper could not run; 2 for arguments that are wrong.
 */
#include "run.h"

/* PAPER(paper_NN_slug) a file, by CMake. */
#define PAPER(name) extern const paper name;
#include "papers_list.h"
#undef PAPER
#define PAPER(name) &name,
static const paper *const papers[] = {
#include "papers_list.h"
    NULL
};
#undef PAPER

static void full_name(const paper *p, char *out, size_t size)
{
    snprintf(out, size, "%02d-%s", p->number, p->slug);
}

static bool is_called(const paper *p, const char *name)
{
    char full[128], *end;
    full_name(p, full, sizeof full);
    if (strcmp(name, p->slug) == 0 || strcmp(name, full) == 0) return true;
    long number = strtol(name, &end, 10);
    return end != name && !*end && number == p->number;
}

static int list(void)
{
    for (const paper *const *p = papers; *p; p++) {
        char full[128];
        full_name(*p, full, sizeof full);
        printf("%-36s %s\n", full, (*p)->title);
    }
    return 0;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: papers [--list] [--quick] [--json FILE] [SLUG...]\n");
    return to == stdout ? 0 : 2;
}

typedef struct options {
    bool quick;
    const char *json;
    char **names;
    int name_count;
} options;

static bool is_wanted(const options *o, const paper *p)
{
    for (int i = 0; i < o->name_count; i++)
        if (is_called(p, o->names[i])) return true;
    return o->name_count == 0;
}

static bool names_known(const options *o)
{
    for (int i = 0; i < o->name_count; i++) {
        bool known = false;
        for (const paper *const *p = papers; *p; p++)
            known = known || is_called(*p, o->names[i]);
        if (known) continue;
        fprintf(stderr, "papers: no paper is called \"%s\"; --list shows them\n", o->names[i]);
        return false;
    }
    return true;
}

static int write_json(const char *path, const text *t)
{
    FILE *f = fopen(path, "w");
    bool good = f && fwrite(t->data, 1, t->length, f) == t->length;
    if (f) good = fclose(f) == 0 && good;
    if (!good) fprintf(stderr, "papers: %s cannot be written\n", path);
    return good ? 0 : 1;
}

/* One paper, and its object in the JSON. True unless it could not run. */
static bool run_one(const paper *p, bool quick, text *json, int *held_to, int *missed)
{
    static run_t r; /* not on the stack: longjmp */
    char full[128];
    full_name(p, full, sizeof full);
    printf("\n%s  %s\n", full, p->title);
    double from = seconds();
    run_paper(&r, p, quick);
    double took = seconds() - from;
    if (r.outcome == RUN_SKIPPED) printf("  skipped: %s\n", r.reason);
    if (r.outcome == RUN_FAILED) printf("  COULD NOT RUN: %s\n", r.reason);
    printf("          %.1f s\n", took);
    fflush(stdout);
    report_paper(json, &r, took);
    *held_to += r.held_to;
    *missed += r.missed;
    run_free_texts(&r);
    return r.outcome != RUN_FAILED;
}

static int run_all(const options *o)
{
    text json = { 0 };
    int ran = 0, failed = 0, held_to = 0, missed = 0;
    report_machine(&json, o->quick);
    text_add(&json, ",\n  \"papers\": [");
    for (const paper *const *p = papers; *p; p++) {
        if (!is_wanted(o, *p)) continue;
        if (ran++) text_add(&json, ",");
        failed += !run_one(*p, o->quick, &json, &held_to, &missed);
    }
    text_add(&json, "\n  ]\n}\n");
    printf("\n%d papers, %d claims held to a bar, %d missed, %d could not run\n", ran, held_to,
           missed, failed);
    int status = failed ? 1 : 0;
    if (o->json && write_json(o->json, &json)) status = 1;
    free(json.data);
    return status;
}

int main(int argc, char **argv)
{
    options o = { .names = argv }; /* names are gathered over what was read */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) return list();
        if (strcmp(argv[i], "--help") == 0) return usage(stdout);
        if (strcmp(argv[i], "--quick") == 0)
            o.quick = true;
        else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc)
            o.json = argv[++i];
        else if (argv[i][0] == '-')
            return usage(stderr);
        else
            o.names[o.name_count++] = argv[i];
    }
    return names_known(&o) ? run_all(&o) : 2;
}
