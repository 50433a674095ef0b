/*
 * pipeline.c - see pipeline.h.
 */
#include "pipeline.h"

#include <stdalign.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

/* Below this many elements a range is not worth waking a thread for (measured: a wake-up costs
   some microseconds, an element half a nanosecond). */
enum { MIN_ELEMENTS = 1 << 14 };

void stream_end(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

void row_pipeline(const row_job *job, void *self, int64_t first, int64_t last, int64_t cols)
{
    alignas(64) char state[2][ROW_STATE_MAX];
    for (int64_t r = first; r <= last; r++) {
        void *now = state[r & 1], *before = state[(r & 1) ^ 1];
        bool reduce = r<last, emit = r> first && job->emit;
        if (reduce) job->start(self, r, now);
        for (int64_t col = 0; col < cols && (reduce || emit); col += KERNEL_BLOCK) {
            int64_t n = cols - col < KERNEL_BLOCK ? cols - col : KERNEL_BLOCK;
            if (emit && reduce && job->both && job->both(self, r - 1, before, now, col, n))
                continue;
            if (emit) job->emit(self, r - 1, before, col, n);
            if (reduce) job->reduce(self, r, now, col, n);
        }
        if (reduce) job->finish(self, r, now);
    }
    stream_end();
}

typedef struct range_run {
    const row_job *job;
    void *self;
    int64_t first, count, cols, ranges;
} range_run;

static void run_range(void *arg, int64_t task, int32_t worker)
{
    const range_run *run = arg;
    (void)worker;
    int64_t from = run->first + pool_range_start(run->count, run->ranges, task);
    int64_t to = run->first + pool_range_start(run->count, run->ranges, task + 1);
    row_pipeline(run->job, run->self, from, to, run->cols);
}

void row_pipeline_run(slg_ctx *ctx, const row_job *job, void *self, int64_t first,
                      int64_t count, int64_t cols)
{
    int64_t least = MIN_ELEMENTS / (cols > 0 ? cols : 1) + 1;
    range_run run = { job, self, first, count, cols, pool_ranges(ctx, count, least) };
    pool_run(ctx, run.ranges, run_range, &run);
}

bool stream_pays(const slg_ctx *ctx, int64_t count, int64_t cols)
{
    return (double)count * (double)cols * 2 * sizeof(float) > (double)ctx->l2_bytes;
}
