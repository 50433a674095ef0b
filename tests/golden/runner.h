/* runner.h - runs one case by its adapter: what golden.c needs of adapter.c. */
#ifndef TESTS_GOLDEN_RUNNER_H
#define TESTS_GOLDEN_RUNNER_H

#include "golden/adapter.h"
#include "support/golden_reader.h"

enum { RUN_CONTEXTS = 2 }; /* of one and of two threads */

typedef struct outcome {
    bool passed;
    char text[600]; /* why not */
    double margin;  /* largest |got - want| / (absolute + relative |want|) */
} outcome;

outcome run_case(slg_ctx *const ctx[RUN_CONTEXTS], const golden_case *c, const adapter *a);

#endif
