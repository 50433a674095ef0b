/*
 * data.c - memory and inputs of a race. Random numbers are a function of seed and index, so
 * all candidates of a kind see the same, and every run does.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "race.h"
#include "plain.h"

enum { HUGE_PAGE = 2 << 20, SLACK = 64 /* XNNPACK reads past the end */ };

void *race_memory(race *r, size_t bytes)
{
    size_t size = (bytes + SLACK + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = aligned_alloc(HUGE_PAGE, size);
    if (!p || r->num_buffers == MAX_BUFFERS) {
        fprintf(stderr, "peers: no memory for %zu bytes\n", size);
        exit(2);
    }
    madvise(p, size, MADV_HUGEPAGE);
    memset(p, 0, size);
    r->buffers[r->num_buffers++] = p;
    return p;
}

float *race_floats(race *r, int64_t n) { return race_memory(r, (size_t)n * sizeof(float)); }

void race_free(race *r)
{
    while (r->num_buffers) free(r->buffers[--r->num_buffers]);
}

static uint64_t hash(uint64_t z)
{
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void fill_normal(float *x, int64_t n, float sd, uint64_t seed)
{
    ref_fill_normal(x, n, sd, hash(seed));
}

void fill_logits(float *x, int64_t rows, int64_t cols, input kind, uint64_t seed)
{
    fill_normal(x, rows * cols, kind == WIDE ? 30.0f : 3.0f, seed);
    if (kind != MASKED) return;
    for (int64_t i = 0; i < rows * cols; i++)
        if (hash((uint64_t)i ^ seed << 40) & 1) x[i] = -INFINITY;
}

/* Classes that are not masked. */
void fill_targets(race *r)
{
    r->target = race_memory(r, (size_t)r->rows * sizeof *r->target);
    for (int64_t i = 0; i < r->rows; i++) {
        int64_t t = (int64_t)(hash((uint64_t)i + 77) % (uint64_t)r->cols);
        if (r->x && r->x[i * r->cols + t] == -INFINITY) r->x[i * r->cols + t] = 0.0f;
        r->target[i] = t;
    }
}
