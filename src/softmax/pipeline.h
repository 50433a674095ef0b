/*
 * pipeline.h - two passes over each of many rows, so that memory sees one read and one write.
 *
 * Pass 1 of row r + 1 runs block by block between pass 2 of row r: while one row is written,
 * and read from the cache for the second time, the next one streams in. Reads never pause, and
 * the cache has to hold one row, not two.
 */
#ifndef SLG_SOFTMAX_PIPELINE_H
#define SLG_SOFTMAX_PIPELINE_H

#include "parts.h"

/*
 * What to do with rows. `self` is the job; `s` is the row's own state, kept from its pass 1
 * to the end of its pass 2. Columns [col, col + n), n <= KERNEL_BLOCK, col a multiple of it.
 */
typedef struct row_job {
    size_t state_size; /* of s; at most ROW_STATE_MAX */
    void (*start)(void *self, int64_t row, void *s);
    void (*reduce)(void *self, int64_t row, void *s, int64_t col, int64_t n);
    void (*finish)(void *self, int64_t row, void *s); /* between the passes */
    void (*emit)(void *self, int64_t row, void *s, int64_t col, int64_t n); /* NULL: no pass
                                                                               2 */
    /* emit(row, before) and reduce(row + 1, now) of a block at once; false: not this one.
       NULL. */
    bool (*both)(void *self, int64_t row, void *before, void *now, int64_t col, int64_t n);
} row_job;

enum { ROW_STATE_MAX = 512 };

/* Rows [first, last) of cols columns, in order, on this thread. */
void row_pipeline(const row_job *job, void *self, int64_t first, int64_t last, int64_t cols);

/* Rows [first, first + count), ranges of them over the context's threads. */
void row_pipeline_run(slg_ctx *ctx, const row_job *job, void *self, int64_t first,
                      int64_t count, int64_t cols);

/* After streaming stores, before other threads may read what they wrote. */
void stream_end(void);

/* Whether an output of this many bytes beside an input as large should go past the caches. */
bool stream_pays(const slg_ctx *ctx, int64_t count, int64_t cols);

#endif
