/* run.h - inside of a run: what report.c, tools.c and main.c share. */
#ifndef PAPERS_RUN_H
#define PAPERS_RUN_H

#include <setjmp.h>

#include "papers.h"

/* JSON as it grows, in memory: runs end by longjmp, a file must not be left half written. */
typedef struct text {
    char *data;
    size_t length, room;
} text;

void text_add(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_string(text *t, const char *s); /* quoted and escaped */
void text_add_number(text *t, double v);      /* null for NaN and infinities */

typedef struct held held;

struct run_t {
    const paper *paper;
    bool quick;
    text claims, notes, figures; /* JSON, without the brackets */
    bool in_figure;
    int held_to, missed; /* of the claims with a bar */
    enum { RUN_OK, RUN_SKIPPED, RUN_FAILED } outcome;
    char reason[400];
    jmp_buf end;
    held *memory;
    slg_ctx *contexts[32];
    size_t context_count;
};

/* Runs a paper; afterwards all that it took is freed, and the texts hold what it said. */
void run_paper(run_t *r, const paper *p, bool quick);
void run_free_texts(run_t *r);

/* The JSON object of a paper that was run. */
void report_paper(text *out, const run_t *r, double took);
void report_machine(text *out, bool quick);

#endif
