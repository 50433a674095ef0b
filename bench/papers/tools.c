/*
 * tools.c - a run's memory and contexts, random numbers, tables.
 */
#include "run.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>

/* ---- The run ----------------------------------------------------------------------------- */

enum { HUGE_PAGE = 2 << 20 };

struct held {
    held *next;
    void *user;    /* what the run was given */
    void *start;   /* what is to be freed */
    size_t mapped; /* by mmap; 0: by calloc */
};

void run_paper(run_t *r, const paper *p, bool quick)
{
    memset(r, 0, sizeof *r);
    r->paper = p;
    r->quick = quick;
    static cpu_set_t allowed; /* not on the stack: longjmp, maybe out of a race, which pins */
    const bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
    if (setjmp(r->end) == 0) p->run(r);
    if (known) sched_setaffinity(0, sizeof allowed, &allowed);
    for (size_t i = 0; i < r->context_count; i++) slg_ctx_free(r->contexts[i]);
    while (r->memory) run_release(r, r->memory->user);
}

bool run_quick(const run_t *r) { return r->quick; }

void run_skip(run_t *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->reason, sizeof r->reason, format, args);
    va_end(args);
    r->outcome = RUN_SKIPPED;
    longjmp(r->end, 1);
}

void run_fail(run_t *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->reason, sizeof r->reason, format, args);
    va_end(args);
    r->outcome = RUN_FAILED;
    longjmp(r->end, 1);
}

void must(run_t *r, const slg_ctx *ctx, slg_status status)
{
    if (status != SLG_OK)
        run_fail(r, "%s: %s", slg_status_string(status), ctx ? slg_ctx_message(ctx) : "");
}

slg_ctx *run_ctx(run_t *r, int32_t isa, int32_t threads)
{
    slg_ctx_opts o;
    slg_ctx *ctx;
    slg_ctx_opts_init(&o, sizeof o);
    o.isa = isa;
    o.num_threads = threads;
    slg_status status = slg_ctx_create(&o, &ctx);
    if (status == SLG_ERR_UNSUPPORTED) return NULL;
    must(r, NULL, status);
    if (r->context_count == sizeof r->contexts / sizeof r->contexts[0]) {
        slg_ctx_free(ctx);
        run_fail(r, "too many contexts");
    }
    r->contexts[r->context_count++] = ctx;
    return ctx;
}

/* Fills in start, user and mapped. */
static bool hold_bytes(held *h, size_t bytes)
{
    if (bytes < HUGE_PAGE) {
        h->start = h->user = aligned_alloc(64, (bytes + 64) / 64 * 64);
        if (h->user) memset(h->user, 0, bytes);
        return h->user;
    }
    h->mapped = bytes + HUGE_PAGE;
    h->start =
        mmap(NULL, h->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (h->start == MAP_FAILED) return false;
    h->user = (char *)h->start + (size_t)(-(uintptr_t)h->start) % HUGE_PAGE;
    madvise(h->user, bytes, MADV_HUGEPAGE);
    memset(h->user, 0, bytes);
    return true;
}

void *run_memory(run_t *r, size_t bytes)
{
    held *h = calloc(1, sizeof *h);
    if (!h || !hold_bytes(h, bytes)) {
        free(h);
        run_fail(r, "no memory for %zu MiB", bytes >> 20);
    }
    h->next = r->memory;
    r->memory = h;
    return h->user;
}

void run_release(run_t *r, void *memory)
{
    for (held **at = &r->memory; *at; at = &(*at)->next) {
        held *h = *at;
        if (h->user != memory) continue;
        *at = h->next;
        if (h->mapped)
            munmap(h->start, h->mapped);
        else
            free(h->start);
        free(h);
        return;
    }
}

/* ---- Random numbers ---------------------------------------------------------------------- */

/* splitmix64; the seed goes through it once, or seeds would be places of one sequence. */
uint64_t rng_bits(rng *g)
{
    uint64_t z = g->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

rng rng_seed(uint64_t seed)
{
    rng g = { .state = seed };
    g.state = rng_bits(&g);
    return g;
}

double rng_uniform(rng *g, double low, double high)
{
    return low + (high - low) * (double)(rng_bits(g) >> 11) * 0x1p-53;
}

double rng_normal(rng *g, double mean, double sd)
{
    if (g->has_spare) {
        g->has_spare = false;
        return mean + sd * g->spare;
    }
    double u = 1.0 - rng_uniform(g, 0, 1), angle = rng_uniform(g, 0, 6.283185307179586477);
    double radius = sqrt(-2.0 * log(u));
    g->spare = radius * sin(angle);
    g->has_spare = true;
    return mean + sd * radius * cos(angle);
}

int64_t rng_below(rng *g, int64_t n) { return (int64_t)(rng_uniform(g, 0, 1) * (double)n); }

void rng_shuffle(rng *g, size_t n, int64_t *items)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)rng_below(g, (int64_t)i);
        int64_t held_item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = held_item;
    }
}

void fill_uniform(rng *g, size_t n, float *x, double low, double high)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_uniform(g, low, high);
}

void fill_normal(rng *g, size_t n, float *x, double mean, double sd)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_normal(g, mean, sd);
}

/* ---- Files ------------------------------------------------------------------------------- */

static bool find_file(const char *name, char *path, size_t size)
{
    const char *const folders[] = { "", getenv("SOFTLOGIT_DATA"), PAPERS_DATA,
                                    "/usr/lib/python3/dist-packages/sklearn/datasets/data" };
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (!folders[i]) continue;
        snprintf(path, size, "%s%s%s", folders[i], *folders[i] ? "/" : "", name);
        FILE *f = fopen(path, "rb");
        if (f) {
            fclose(f);
            return true;
        }
    }
    return false;
}

bool text_there(const char *name)
{
    char path[1024];
    return find_file(name, path, sizeof path);
}

char *text_read(run_t *r, const char *name, size_t *length)
{
    char path[1024], command[1100];
    size_t ending = strlen(name);
    if (!find_file(name, path, sizeof path)) run_skip(r, "%s is not on this machine", name);
    bool packed = ending > 3 && strcmp(name + ending - 3, ".gz") == 0;
    snprintf(command, sizeof command, "gzip -dc -- '%s'", path);
    FILE *f = packed ? popen(command, "r") : fopen(path, "rb");
    if (!f) run_fail(r, "%s cannot be read", path);

    size_t room = 1 << 16, n = 0, got;
    char *data = run_memory(r, room);
    while ((got = fread(data + n, 1, room - n - 1, f)) > 0) {
        n += got;
        if (n < room - 1) continue;
        char *more = run_memory(r, 2 * room);
        memcpy(more, data, n);
        run_release(r, data);
        data = more;
        room *= 2;
    }
    if (packed)
        pclose(f);
    else
        fclose(f);
    data[n] = 0;
    if (n == 0) run_fail(r, "%s is empty", path);
    if (length) *length = n;
    return data;
}

/* Ends the cell at *at, and moves *at past it; NULL at the end of the line. */
static char *next_cell(char **at, char separator)
{
    char *s = *at, *cell, *end;
    if (!s) return NULL;
    if (!separator) {
        s += strspn(s, " \t");
        if (!*s) return NULL;
    }
    if (*s == '"') {
        cell = s + 1;
        end = strchr(cell, '"');
        if (!end) end = cell + strlen(cell);
        s = *end ? end + 1 : end;
        *end = 0;
    } else {
        cell = s;
    }
    end = separator ? strchr(s, separator) : s + strcspn(s, " \t");
    *at = end && *end ? end + 1 : NULL;
    if (end) *end = 0;
    return cell;
}

static char *next_line(char **at)
{
    char *line = *at;
    if (!line || !*line) return NULL;
    char *end = line + strcspn(line, "\n");
    *at = *end ? end + 1 : NULL;
    if (end > line && end[-1] == '\r') end[-1] = 0;
    *end = 0;
    return line;
}

csv csv_read(run_t *r, const char *name, char separator)
{
    char *data = text_read(r, name, NULL), *at = data, *line;
    csv t = { 0 };
    size_t lines = 1, cells = 1;
    for (const char *s = data; *s; s++) {
        lines += *s == '\n';
        cells += *s == separator || (!separator && (*s == ' ' || *s == '\t'));
    }
    char ***row = run_memory(r, lines * sizeof *row), **cell;
    size_t *widths = run_memory(r, lines * sizeof *widths);
    cell = run_memory(r, (cells + lines) * sizeof *cell);
    while ((line = next_line(&at))) {
        if (*line == '#' || !*line) continue;
        row[t.rows] = cell;
        for (char *c; (c = next_cell(&line, separator)); widths[t.rows]++) *cell++ = c;
        if (widths[t.rows] > t.cols) t.cols = widths[t.rows];
        t.rows++;
    }
    static char nothing[] = "";
    t.cells = run_memory(r, t.rows * t.cols * sizeof *t.cells);
    for (size_t i = 0; i < t.rows; i++)
        for (size_t j = 0; j < t.cols; j++)
            t.cells[i * t.cols + j] = j < widths[i] ? row[i][j] : nothing;
    return t;
}

double csv_number(const csv *t, size_t row, size_t col)
{
    const char *s = csv_text(t, row, col);
    char *end;
    double v = strtod(s, &end);
    return end == s ? (double)NAN : v;
}

size_t csv_column(run_t *r, const csv *t, const char *name)
{
    for (size_t j = 0; t->rows && j < t->cols; j++)
        if (strcmp(csv_text(t, 0, j), name) == 0) return j;
    run_fail(r, "no column is called \"%s\"", name);
}
