/*
 * report.c - claims, notes and figures: a line each on the screen, and JSON.
 */
#include "run.h"

#include <stdarg.h>

static void text_room(text *t, size_t more)
{
    if (t->length + more < t->room) return;
    t->room = 2 * (t->length + more) + 256;
    t->data = realloc(t->data, t->room);
    if (!t->data) abort();
}

static void text_add_list(text *t, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    text_room(t, (size_t)n + 1);
    vsnprintf(t->data + t->length, (size_t)n + 1, format, again);
    va_end(again);
    t->length += (size_t)n;
}

void text_add(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_add_list(t, format, args);
    va_end(args);
}

void text_add_string(text *t, const char *s)
{
    text_add(t, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            text_add(t, "\\%c", c);
        else if (c < 0x20)
            text_add(t, "\\u%04x", c);
        else
            text_add(t, "%c", c);
    }
    text_add(t, "\"");
}

void text_add_number(text *t, double v)
{
    if (isfinite(v))
        text_add(t, "%.9g", v);
    else
        text_add(t, "null");
}

static void add_field(text *t, const char *name, const char *value)
{
    text_add(t, "\"%s\": ", name);
    text_add_string(t, value);
}

/* ---- Claims ------------------------------------------------------------------------------ */

static bool holds_bar(double v, bar b)
{
    switch (b.kind) {
    case BAR_AT_LEAST:
        return v >= b.low;
    case BAR_AT_MOST:
        return v <= b.high;
    case BAR_BETWEEN:
        return v >= b.low && v <= b.high;
    default:
        return true;
    }
}

static void bar_words(char *out, size_t size, bar b, const char *unit)
{
    switch (b.kind) {
    case BAR_AT_LEAST:
        snprintf(out, size, ">= %.4g%s", b.low, unit);
        break;
    case BAR_AT_MOST:
        snprintf(out, size, "<= %.4g%s", b.high, unit);
        break;
    case BAR_BETWEEN:
        snprintf(out, size, "%.4g .. %.4g%s", b.low, b.high, unit);
        break;
    default:
        snprintf(out, size, "-");
        break;
    }
}

static void print_claim(run_t *r, const char *what, const char *says, const char *ours,
                        const char *wanted, bool has_bar, bool holds)
{
    const char *verdict = !has_bar ? "      " : holds ? "holds " : "MISSED";
    printf("  %s  %s: %s", verdict, what, ours);
    if (has_bar) printf("  (bar %s)", wanted);
    if (*says) printf("  [paper: %s]", says);
    printf("\n");
    fflush(stdout);
    r->held_to += has_bar;
    r->missed += has_bar && !holds;

    text *t = &r->claims;
    text_add(t, "%s\n        { ", t->length ? "," : "");
    add_field(t, "what", what);
    add_field((text_add(t, ", "), t), "paper", says);
    add_field((text_add(t, ", "), t), "ours", ours);
    add_field((text_add(t, ", "), t), "bar", wanted);
    text_add(t, ", \"holds\": %s", has_bar ? holds ? "true" : "false" : "null");
}

void claim(run_t *r, const char *what, const char *paper_says, double ours, const char *unit,
           bar b)
{
    char words[64], wanted[64];
    snprintf(words, sizeof words, "%.4g%s", ours, unit);
    bar_words(wanted, sizeof wanted, b, unit);
    print_claim(r, what, paper_says, words, wanted, b.kind != BAR_NONE, holds_bar(ours, b));
    text_add(&r->claims, ", \"value\": ");
    text_add_number(&r->claims, ours);
    text_add(&r->claims, " }");
}

void claim_words(run_t *r, const char *what, const char *paper_says, const char *ours,
                 const char *wanted, bool holds)
{
    print_claim(r, what, paper_says, ours, wanted, true, holds);
    text_add(&r->claims, " }");
}

void note(run_t *r, const char *format, ...)
{
    char line[600];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    printf("          %s\n", line);
    fflush(stdout);
    text_add(&r->notes, "%s\n        ", r->notes.length ? "," : "");
    text_add_string(&r->notes, line);
}

/* ---- Figures ----------------------------------------------------------------------------- */

void figure(run_t *r, const char *title, const char *x_label, const char *y_label, int flags)
{
    text *t = &r->figures;
    if (r->in_figure) text_add(t, "\n          ] },");
    text_add(t, "\n        { ");
    add_field(t, "title", title);
    add_field((text_add(t, ", "), t), "x_label", x_label);
    add_field((text_add(t, ", "), t), "y_label", y_label);
    text_add(t, ",\n          \"log_x\": %s, \"log_y\": %s, \"points\": %s, \"series\": [",
             flags & FIGURE_LOG_X ? "true" : "false", flags & FIGURE_LOG_Y ? "true" : "false",
             flags & FIGURE_POINTS ? "true" : "false");
    r->in_figure = true;
}

static void add_numbers(text *t, const char *name, size_t n, const double *v)
{
    text_add(t, ", \"%s\": [", name);
    for (size_t i = 0; i < n; i++) {
        if (i) text_add(t, ", ");
        text_add_number(t, v[i]);
    }
    text_add(t, "]");
}

void series(run_t *r, const char *name, size_t n, const double *x, const double *y)
{
    text *t = &r->figures;
    if (!r->in_figure) run_fail(r, "series() before figure()");
    text_add(t, "%s\n            { ", t->data[t->length - 1] == '[' ? "" : ",");
    add_field(t, "name", name);
    add_numbers(t, "x", n, x);
    add_numbers(t, "y", n, y);
    text_add(t, " }");
}

/* ---- The file ---------------------------------------------------------------------------- */

void report_machine(text *out, bool quick)
{
    slg_ctx *ctx;
    slg_ctx_info_t info = { .size = sizeof info };
    text_add(out, "{\n  \"quick\": %s", quick ? "true" : "false");
    if (slg_ctx_create(NULL, &ctx) != SLG_OK) return;
    if (slg_ctx_info(ctx, &info) == SLG_OK) {
        text_add(out, ",\n  \"machine\": { ");
        add_field(out, "cpu", info.cpu_name);
        add_field((text_add(out, ", "), out), "isa", info.isa_name);
        text_add(out, ", \"threads\": %d, \"l1\": %lld, \"l2\": %lld, \"l3\": %lld, ",
                 (int)info.num_threads, (long long)info.l1_bytes, (long long)info.l2_bytes,
                 (long long)info.l3_bytes);
        add_field(out, "blas_core", info.blas_core);
        add_field((text_add(out, ", "), out), "version", info.version);
        text_add(out, " }");
        printf("%s, %s, L2 %lld KiB, L3 %lld KiB, softlogit %s%s\n", info.cpu_name,
               info.isa_name, (long long)info.l2_bytes / 1024, (long long)info.l3_bytes / 1024,
               info.version, quick ? ", quick" : "");
    }
    slg_ctx_free(ctx);
}

static const char *body(const text *t) { return t->data ? t->data : ""; }

void report_paper(text *out, const run_t *r, double took)
{
    static const char *const outcomes[] = { "ran", "skipped", "failed" };
    text_add(out, "\n    { \"number\": %d, ", r->paper->number);
    add_field(out, "slug", r->paper->slug);
    add_field((text_add(out, ", "), out), "title", r->paper->title);
    add_field((text_add(out, ", "), out), "outcome", outcomes[r->outcome]);
    add_field((text_add(out, ", "), out), "reason", r->reason);
    text_add(out, ", \"seconds\": %.1f", took);
    text_add(out,
             ",\n      \"claims\": [%s ],\n      \"notes\": [%s ],\n      \"figures\": [%s",
             body(&r->claims), body(&r->notes), body(&r->figures));
    if (r->in_figure) text_add(out, "\n          ] }");
    text_add(out, " ] }");
}

void run_free_texts(run_t *r)
{
    free(r->claims.data);
    free(r->notes.data);
    free(r->figures.data);
}
