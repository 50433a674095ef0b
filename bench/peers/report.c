/*
 * report.c - figures as a line a workload, and as JSON.
 */
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "race.h"

/* ---- Header ----------------------------------------------------------------------------- */

static const char *or_none(const char *text) { return text ? text : "none"; }

/* s as a JSON string: names here have no control characters, but may have quotes. */
static void json_string(FILE *f, const char *s)
{
    putc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') putc('\\', f);
        putc((unsigned char)*s < ' ' ? ' ' : *s, f);
    }
    putc('"', f);
}

static void json_pair(FILE *f, const char *name, const char *value)
{
    fprintf(f, "    \"%s\": ", name);
    json_string(f, or_none(value));
    fputs(",\n", f);
}

/* JSON has no NaN. */
static void json_number(FILE *f, const char *name, double value)
{
    fprintf(f, "\"%s\": ", name);
    if (isfinite(value))
        fprintf(f, "%.6g", value);
    else
        fputs("null", f);
}

void report_header(FILE *json, bool quick)
{
    slg_ctx *ctx = NULL;
    slg_ctx_info_t info = { .size = sizeof info };
    if (slg_ctx_create(NULL, &ctx) || slg_ctx_info(ctx, &info)) exit(1);
    const char *torch = torch_version(), *onednn = onednn_version(),
               *xnnpack = xnnpack_version();
    const char *core = openblas_get_corename(), *asked = getenv("OPENBLAS_CORETYPE");
    double ghz = clock_ghz();
    if (!onednn) missing_add("onednn", "not there when this was built (libdnnl-dev)");
    if (!xnnpack) missing_add("xnnpack", "not there when this was built (libxnnpack-dev)");

    printf("softlogit %s (%s) on %s, %.2f GHz under vector load, L2 %lld KiB, L3 %lld KiB\n",
           info.version, info.isa_name, info.cpu_name, ghz, (long long)info.l2_bytes / 1024,
           (long long)info.l3_bytes / 1024);
    printf("OpenBLAS core %s (OPENBLAS_CORETYPE %s)%s\n", core, asked ? asked : "not set",
           info.blas_mistaken ? ": below what this CPU can do" : "");
    printf("peers: onednn %s, xnnpack %s, torch %s\n", or_none(onednn), or_none(xnnpack),
           or_none(torch));
    missing_print();
    puts("times of the library; then of each other / ours, \"|\" ours / floor; (WRONG) by the "
         "check");
    fflush(stdout);
    if (json) {
        fprintf(json, "{\n  \"quick\": %s,\n  \"machine\": {\n", quick ? "true" : "false");
        json_pair(json, "version", info.version);
        json_pair(json, "cpu", info.cpu_name);
        json_pair(json, "isa", info.isa_name);
        json_pair(json, "blas_core", core);
        json_pair(json, "blas_coretype", asked);
        json_pair(json, "onednn", onednn);
        json_pair(json, "xnnpack", xnnpack);
        json_pair(json, "torch", torch);
        fprintf(json, "    \"l1\": %lld, \"l2\": %lld, \"l3\": %lld, ",
                (long long)info.l1_bytes, (long long)info.l2_bytes, (long long)info.l3_bytes);
        json_number(json, "ghz", ghz);
        fputs("\n  },\n  \"workloads\": [", json);
    }
    slg_ctx_free(ctx);
}

/* ---- Goals ------------------------------------------------------------------------------ */

static bool met(const goal *g, double value)
{
    return g->kind == AT_MOST ? value <= g->bar : value >= g->bar;
}

static bool error_met(const result *res)
{
    return res->field[0].error <= res->w->op->error_goal;
}

/* A goal is judged at full size, if what it compares with is there. */
static bool judged(const result *res, int i)
{
    return !res->quick && res->num_field > 0 && !isnan(res->goal_value[i]);
}

int report_met(const result *res, int *total)
{
    int count = 0;
    *total = 0;
    for (int i = 0; i < MAX_GOALS && res->w->goals[i].kind; i++) {
        if (!judged(res, i)) continue;
        ++*total;
        count += met(&res->w->goals[i], res->goal_value[i]);
    }
    if (res->w->op->error_goal > 0 && res->num_field > 0) {
        ++*total;
        count += error_met(res);
    }
    return count;
}

static void print_goals(const result *res)
{
    for (int i = 0; i < MAX_GOALS && res->w->goals[i].kind; i++) {
        const goal *g = &res->w->goals[i];
        printf("%s %s%s %.4g %s %g",
               i ? "," : " | goals:", g->kind == LESS_MEMORY ? "memory of " : "", g->of,
               res->goal_value[i], g->kind == AT_MOST ? "<=" : ">=", g->bar);
        fputs(!judged(res, i)              ? " (not judged)"
              : met(g, res->goal_value[i]) ? ""
                                           : " MISSED",
              stdout);
    }
    int total, count = report_met(res, &total);
    if (total && !res->quick) printf(" | %s", count == total ? "met" : "NOT MET");
}

/* ---- A line ------------------------------------------------------------------------------ */

static void print_time(double ns)
{
    if (ns < 1e4)
        printf("%8.4g ns", ns);
    else if (ns < 1e7)
        printf("%8.4g us", ns / 1e3);
    else
        printf("%8.4g ms", ns / 1e6);
}

static bool named_by_goal(const result *res, const char *name)
{
    for (int i = 0; i < MAX_GOALS && res->w->goals[i].kind; i++)
        if (!strcmp(res->w->goals[i].of, name)) return true;
    return false;
}

static void print_memory(const result *res)
{
    const char *sep = " | extra memory";
    for (int i = 0; i < MAX_GOALS && res->w->goals[i].kind; i++)
        if (res->w->goals[i].kind == LESS_MEMORY) goto wanted;
    return;
wanted:
    for (int i = 0; i < res->num_field; i++) {
        const entry *e = &res->field[i];
        if (e->c->role == FLOOR) continue;
        printf("%s %s %.1f MiB (%s)", sep, e->c->name, e->memory / 0x1p20,
               e->memory_counted ? "its scratch" : "peak RSS");
        if (e->memory_counted) printf(", %.1f MiB (peak RSS)", e->resident / 0x1p20);
        sep = ",";
    }
}

/* Least times, so their sum is less than the median. */
static void print_parts(const result *res)
{
    double all = 0;
    for (int i = 0; i < res->num_parts; i++) all += res->parts[i].ns;
    for (int i = 0; i < res->num_parts; i++) {
        const share *p = &res->parts[i];
        printf("    %-28s%9.3f ms %6.2f %%\n", p->name, p->ns / 1e6, 100 * p->ns / all);
    }
    if (all > 0) printf("    %-28s%9.3f ms\n", "all, at their least", all / 1e6);
}

void report_line(const result *res)
{
    if (!res->num_field) {
        printf("%-34s %s\n", res->w->name, res->failed ? "FAILED" : "not on this CPU");
        return;
    }
    const entry *ours = &res->field[0];
    printf("%-34s", res->w->name);
    print_time(ours->median);
    for (int i = 1; i < res->num_field; i++) {
        const entry *e = &res->field[i];
        if (e->c->role == FLOOR) continue;
        printf("  %s %.2fx", e->c->name, e->ratio);
        if (e->part) printf(" (%lld rows)", (long long)e->part);
        if (e->wrong) printf(" (WRONG: %.2g)", e->error);
    }
    const char *sep = " |";
    for (int i = 1; i < res->num_field; i++) {
        const entry *e = &res->field[i];
        if (e->c->role != FLOOR) continue;
        if (!named_by_goal(res, e->c->name) && strcmp(e->c->name, res->w->op->floor)) continue;
        printf("%s %s %.3f", sep, e->c->name, 1 / e->ratio);
        sep = ",";
    }
    printf(" | min %.3f, noise %.1f%%", ours->low / ours->median,
           100 * (ours->q3 / ours->q1 - 1));
    printf(" | %s %.2g%s", res->measure ? res->measure : "error", ours->error,
           ours->wrong                                     ? " WRONG"
           : res->w->op->error_goal > 0 && !error_met(res) ? " MISSED"
                                                           : "");
    for (int i = 1; res->measure && i < res->num_field; i++)
        if (res->field[i].checked)
            printf(", %s %.2g", res->field[i].c->name, res->field[i].error);
    print_memory(res);
    if (res->flops > 0) printf(" | %.4g GFLOP/s", res->flops / ours->median);
    print_goals(res);
    putchar('\n');
    print_parts(res);
    fflush(stdout);
}

/* ---- JSON -------------------------------------------------------------------------------- */

static void json_entry(FILE *f, const entry *e)
{
    static const char *const roles[] = { "ours", "peer", "form", "floor" };
    fprintf(f, "        {\"name\": \"%s\", \"role\": \"%s\", \"trials\": %d, \"inner\": %lld, ",
            e->c->name, roles[e->c->role], e->trials, (long long)e->inner);
    if (e->part) fprintf(f, "\"rows\": %lld, ", (long long)e->part);
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        { "median_ns", e->median }, { "min_ns", e->low },        { "q1_ns", e->q1 },
        { "q3_ns", e->q3 },         { "ratio", e->ratio },       { "error", e->error },
        { "memory", e->memory },    { "peak_rss", e->resident },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        json_number(f, numbers[i].name, numbers[i].value);
        fputs(", ", f);
    }
    fprintf(f, "\"wrong\": %s, \"memory_is\": \"%s\",\n         \"samples_ns\": [",
            e->wrong ? "true" : "false", e->memory_counted ? "scratch" : "peak RSS");
    for (int i = 0; i < e->trials; i++) fprintf(f, "%s%.6g", i ? ", " : "", e->sample[i]);
    fputs("]}", f);
}

void report_json(FILE *f, const result *res, bool first)
{
    static const char *const kinds[] = { "", "faster", "at_most", "less_memory" };
    static const char *const inputs[] = { "sd 3", "sd 30", "sd 3, half -inf" };
    const workload *w = res->w;
    fprintf(f,
            "%s\n    {\"name\": \"%s\", \"op\": \"%s\", \"rows\": %lld, \"cols\": %lld, "
            "\"dim\": %lld, "
            "\"threads\": %d, \"isa\": %d, \"input\": \"%s\", \"failed\": %s,\n      "
            "\"candidates\": [",
            first ? "" : ",", w->name, w->op->name, (long long)res->rows, (long long)res->cols,
            (long long)res->dim, (int)w->threads, (int)w->isa, inputs[w->input],
            res->failed ? "true" : "false");
    for (int i = 0; i < res->num_field; i++) {
        fputs(i ? ",\n" : "\n", f);
        json_entry(f, &res->field[i]);
    }
    fputs("],\n      \"parts_ns\": {", f);
    for (int i = 0; i < res->num_parts; i++) {
        fputs(i ? ", " : "", f);
        json_number(f, res->parts[i].name, res->parts[i].ns);
    }
    fprintf(f, "}, \"flops\": %.6g", res->flops);
    fputs(",\n      \"goals\": [", f);
    for (int i = 0; i < MAX_GOALS && w->goals[i].kind; i++) {
        const goal *g = &w->goals[i];
        fprintf(f, "%s\n        {\"kind\": \"%s\", \"of\": \"%s\", \"bar\": %g, ", i ? "," : "",
                kinds[g->kind], g->of, g->bar);
        json_number(f, "value", res->num_field ? res->goal_value[i] : NAN);
        fprintf(f, ", \"met\": %s}",
                !judged(res, i)              ? "null"
                : met(g, res->goal_value[i]) ? "true"
                                             : "false");
    }
    fputs("]}", f);
}
