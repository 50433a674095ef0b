/*
 * xnnpack.c - XNNPACK's softmax operator: created and set up once, run on our buffers.
 */
#include "race.h"

#ifdef PEERS_XNNPACK
#include <xnnpack.h>

static void *prepare(race *r, const char *arg)
{
    xnn_operator_t op = NULL;
    size_t cols = (size_t)r->cols;
    (void)arg;
    if (xnn_initialize(NULL) != xnn_status_success) {
        r->why = "it does not support this CPU";
        return NULL;
    }
    if (xnn_create_softmax_nc_f32(cols, cols, cols, 0, &op) != xnn_status_success ||
        xnn_setup_softmax_nc_f32(op, (size_t)r->rows, r->x, r->y, NULL) != xnn_status_success) {
        if (op) xnn_delete_operator(op);
        r->why = "it refused to make the operator";
        return NULL;
    }
    return op;
}

static void run(race *r, void *op, int64_t times)
{
    (void)r;
    while (times--) xnn_run_operator(op, NULL);
}

static void release(race *r, void *op)
{
    (void)r;
    xnn_delete_operator(op);
}

const char *xnnpack_version(void) { return "of the system"; /* it does not tell */ }

#else

static void *prepare(race *r, const char *arg)
{
    (void)arg;
    r->why = "not there when this was built (libxnnpack-dev, libpthreadpool-dev)";
    return NULL;
}
#define run NULL
#define release NULL

const char *xnnpack_version(void) { return NULL; }

#endif

const candidate xnnpack_softmax = { "xnnpack", PEER, NULL, prepare, run, NULL, release, NULL };
