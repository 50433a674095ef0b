/*
 * onednn.c - oneDNN's primitives by its C interface: created once, executed on our buffers.
 *
 * Its times differ from process to process, not within one: a row of 4096 took 1.06 to 1.48 us,
 * once 2.4 us, in 12 processes, and the same to 2 % in 5 without address randomisation. Making
 * the primitive again, also at other addresses, changes nothing. So a goal against it is judged
 * over several runs of the program, by its best.
 */
#include <stdlib.h>

#include "race.h"

#ifdef PEERS_DNNL
#include <oneapi/dnnl/dnnl.h>

typedef struct state {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_memory_t x, y;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[2];
} state;

static void release(race *r, void *self)
{
    state *s = self;
    (void)r;
    if (s->primitive) dnnl_primitive_destroy(s->primitive);
    if (s->x) dnnl_memory_destroy(s->x);
    if (s->y) dnnl_memory_destroy(s->y);
    if (s->stream) dnnl_stream_destroy(s->stream);
    if (s->engine) dnnl_engine_destroy(s->engine);
    free(s);
}

static dnnl_status_t make(race *r, state *s, bool log)
{
    dnnl_dims_t dims = { r->rows, r->cols };
    dnnl_memory_desc_t md;
    dnnl_softmax_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status;
#define TRY(call)                                                                              \
    if ((status = (call)) != dnnl_success) return status
    TRY(dnnl_engine_create(&s->engine, dnnl_cpu, 0));
    TRY(dnnl_stream_create(&s->stream, s->engine, dnnl_stream_default_flags));
    TRY(dnnl_memory_desc_init_by_tag(&md, 2, dims, dnnl_f32, dnnl_ab));
    TRY(dnnl_memory_create(&s->x, &md, s->engine, r->x));
    TRY(dnnl_memory_create(&s->y, &md, s->engine, r->y));
    TRY(log ? dnnl_logsoftmax_forward_desc_init(&desc, dnnl_forward_inference, &md, 1)
            : dnnl_softmax_forward_desc_init(&desc, dnnl_forward_inference, &md, 1));
    TRY(dnnl_primitive_desc_create(&pd, &desc, NULL, s->engine, NULL));
    status = dnnl_primitive_create(&s->primitive, pd);
    dnnl_primitive_desc_destroy(pd);
#undef TRY
    s->args[0] = (dnnl_exec_arg_t){ DNNL_ARG_SRC, s->x };
    s->args[1] = (dnnl_exec_arg_t){ DNNL_ARG_DST, s->y };
    return status;
}

static void *prepare(race *r, const char *arg)
{
    state *s = calloc(1, sizeof *s);
    if (make(r, s, arg != NULL) == dnnl_success) return s;
    release(r, s);
    r->why = "it refused to make the primitive";
    return NULL;
}

static void run(race *r, void *self, int64_t times)
{
    state *s = self;
    (void)r;
    while (times--) dnnl_primitive_execute(s->primitive, s->stream, 2, s->args);
    dnnl_stream_wait(s->stream);
}

const char *onednn_version(void)
{
    static char text[64];
    const dnnl_version_t *v = dnnl_version();
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    snprintf(text, sizeof text, "%d.%d.%d (%s)", v->major, v->minor, v->patch,
             (isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core ? "avx512"
             : (isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2             ? "avx2"
                                                                          : "sse");
    return text;
}

#else

static void *prepare(race *r, const char *arg)
{
    (void)arg;
    r->why = "not there when this was built (libdnnl-dev)";
    return NULL;
}
#define run NULL
#define release NULL

const char *onednn_version(void) { return NULL; }

#endif

const candidate onednn_softmax = { "onednn", PEER, NULL, prepare, run, NULL, release, NULL };
const candidate onednn_log_softmax = {
    "onednn", PEER, "log", prepare, run, NULL, release, NULL
};
