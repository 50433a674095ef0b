/*
 * golden_reader.h - reads golden vectors: cases of named numbers and tensors in plain text.
 *
 *     # a comment, to the end of the line
 *     case operation/variant
 *     scalar NAME NUMBER
 *     tensor NAME DIM... : NUMBER...        row-major, as many numbers as the dimensions say
 *     tol NAME ABSOLUTE RELATIVE            for a tensor of this case; it may come before it
 *     end
 *
 * White space of any kind separates words. Numbers are what strtod reads: inf, -inf, nan too.
 */
#ifndef TESTS_SUPPORT_GOLDEN_READER_H
#define TESTS_SUPPORT_GOLDEN_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GOLDEN_MAX_DIMS = 4 }; /* of slg_tensor */

typedef struct golden_scalar {
    const char *name;
    double value;
} golden_scalar;

typedef struct golden_tensor {
    const char *name;
    int32_t ndim;                   /* 1 to 4 */
    int64_t shape[GOLDEN_MAX_DIMS]; /* entries past ndim are 1 */
    int64_t size;                   /* number of elements */
    double *values;
} golden_tensor;

typedef struct golden_tolerance {
    const char *name;
    double absolute, relative;
} golden_tolerance;

typedef struct golden_case {
    const char *name;
    int line; /* of its first word */
    size_t scalar_count, tensor_count, tolerance_count;
    golden_scalar *scalars;
    golden_tensor *tensors;
    golden_tolerance *tolerances;
} golden_case;

typedef struct golden_file {
    size_t count;
    golden_case *cases;
    char *text; /* what the names point into */
} golden_file;

/*
 * Reads a file. Where it cannot be read returns false, *file is empty and *error says why, as
 * "PATH:LINE: what"; the caller frees that with free(). *error is NULL on success.
 */
bool golden_read(const char *path, golden_file *file, char **error);

/* An empty file, or all zeros, is allowed. */
void golden_free(golden_file *file);

/* NULL if there is none of that name. */
const golden_scalar *golden_find_scalar(const golden_case *c, const char *name);
const golden_tensor *golden_find_tensor(const golden_case *c, const char *name);

/* (1e-6, 1e-5) where the case does not say. */
golden_tolerance golden_find_tolerance(const golden_case *c, const char *name);

#endif
