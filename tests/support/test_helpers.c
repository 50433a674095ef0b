/* What tests rest on: the golden reader, ulp, guards, gradcheck. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/golden_reader.h"
#include "support/gradcheck.h"
#include "support/guard.h"
#include "support/ulp.h"

/* ---- Golden reader --------------------------------------------------------------------- */

static bool read_text(const char *text, golden_file *file, char **error)
{
    char path[] = "/tmp/test_helpers_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    bool ok = golden_read(path, file, error);
    unlink(path);
    return ok;
}

static void reads_cases(void **state)
{
    golden_file f;
    char *error;
    (void)state;
    assert_true(read_text("# one\ncase a/b#c\n scalar s -2.5e3 scalar t inf\ntol x 0.5 0\n"
                          "tensor x 2\n3 : 1 2 nan #gap\n\t4 -inf 1e-40 tensor e 0 7 :\nend\n"
                          "case second tensor one 1 1 1 1 : 0x1p-3 end",
                          &f, &error));
    assert_null(error);
    assert_int_equal(f.count, 2);
    const golden_case *c = &f.cases[0];
    assert_string_equal(c->name, "a/b");
    assert_int_equal(c->line, 2);
    assert_true(golden_find_scalar(c, "s")->value == -2500);
    assert_true(golden_find_scalar(c, "t")->value == INFINITY);
    assert_null(golden_find_scalar(c, "x"));
    const golden_tensor *x = golden_find_tensor(c, "x");
    assert_int_equal(x->ndim, 2);
    assert_int_equal(x->shape[1], 3);
    assert_int_equal(x->size, 6);
    assert_true(isnan(x->values[2]) && x->values[3] == 4 && x->values[4] == -INFINITY);
    assert_true(x->values[5] == 1e-40);
    assert_int_equal(golden_find_tensor(c, "e")->size, 0);
    assert_true(golden_find_tolerance(c, "x").absolute == 0.5);
    assert_true(golden_find_tolerance(c, "x").relative == 0);
    assert_true(golden_find_tolerance(c, "e").relative == 1e-5);
    assert_int_equal(f.cases[1].line, 9);
    assert_int_equal(golden_find_tensor(&f.cases[1], "one")->ndim, 4);
    golden_free(&f);
    golden_free(&f);
}

static void reads_many(void **state)
{
    enum { CASES = 3000, SIZE = 40 };
    char *text = malloc(CASES * SIZE), *error;
    size_t n = 0;
    golden_file f;
    (void)state;
    for (int i = 0; i < CASES; i++)
        n += (size_t)snprintf(text + n, SIZE, "case c%d tensor x 1 : %d end\n", i, i);
    assert_true(read_text(text, &f, &error));
    assert_int_equal(f.count, CASES);
    assert_true(f.cases[CASES - 1].tensors[0].values[0] == CASES - 1);
    golden_free(&f);
    free(text);
}

static void tells_what_is_wrong(void **state)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {
        { "case", ":1: the file ends where the name of a case" },
        { "\n\nscalar x 1", ":3: 'scalar' outside of a case" },
        { "case a\nscalar x\n1e", ":3: the value of x: '1e' is not a number" },
        { "case a\ntensor x 2 : 1", ":2: tensor x: the file ends before its 2" },
        { "case a\ntensor x 2 : 1 end end", ":2: a value of x: 'end' is not a number" },
        { "case a\ntensor x 1000 1000 : 1\nend",
          ":2: tensor x: the file ends before its 1000000" },
        { "case a tensor x 4000000000 4000000000 4000000000 :", ":1: tensor x is too large" },
        { "case a tensor x 1 1 1 1 1 : 1", ":1: tensor x has more than 4" },
        { "case a tensor x : 1", ":1: tensor x has no dimensions" },
        { "case a tensor x -1 : 1", ":1: tensor x: '-1' is neither" },
        { "case a tensor x 2.5 : 1", ":1: tensor x: '2.5' is neither" },
        { "case a\ntensor x 1 : 1\n\ntensor x 1 : 1", ":4: a second tensor x" },
        { "case a scalar x 1 scalar x 1", ":1: a second scalar x" },
        { "case a tol x 1 1 end", ":1: case a: a tolerance for x" },
        { "case a tol x -1 1 end", ":1: the tolerances of x are not >= 0" },
        { "case a\nfoo", ":2: 'foo' in case a: scalar," },
        { "case a\nscalar x 1\n", ":3: the file ends where 'end'" },
    };
    golden_file f;
    char *error;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(read_text(wrong[i].text, &f, &error));
        if (!strstr(error, wrong[i].says)) fail_msg("%s: says %s", wrong[i].text, error);
        free(error);
        golden_free(&f);
    }
    assert_false(golden_read("/nonexistent", &f, &error));
    assert_string_equal(error, "/nonexistent: cannot be opened");
    free(error);
}

/* ---- Errors in ulp --------------------------------------------------------------------- */

static void measures_ulp(void **state)
{
    (void)state;
    assert_int_equal(ulp_distance(1.0f, nextafterf(1.0f, 2.0f)), 1);
    assert_int_equal(ulp_distance(-FLT_TRUE_MIN, FLT_TRUE_MIN), 2);
    assert_int_equal(ulp_distance(0.0f, -0.0f), 0);
    assert_int_equal(ulp_distance(INFINITY, FLT_MAX), 1);
    assert_int_equal(ulp_distance(NAN, NAN), 0);
    assert_true(ulp_distance(NAN, 1.0f) == UINT32_MAX);
    assert_true(ulp_error(nextafterf(1.0f, 2.0f), 1.0) == 1.0);
    assert_true(ulp_error(2.0f, 2.0 - 0x1p-24) == 0.5);
    assert_true(ulp_error(0.0f, 0x1p-149) == 1.0);
    assert_true(ulp_error(INFINITY, 1e39) == 0.0);
    assert_true(isinf(ulp_error(INFINITY, 1.0)) && isinf(ulp_error(1.0f, -INFINITY)));
    assert_true(isinf(ulp_error(NAN, 1.0)) && ulp_error(NAN, NAN) == 0.0);
    assert_true(ulp_error_flush(0.0f, 0x1p-127) == 0.0);
    assert_true(ulp_error_flush(-0x1p-127f, 0x1p-127) > 1.0);
    assert_true(ulp_error_flush(0.0f, 0x1p-126) > 1.0);
    assert_true(relative_error(1.5, 1.0) == 0.5 && relative_error(0.0, 0.0) == 0.0);
    assert_true(isinf(relative_error(1.0, 0.0)) && relative_error(INFINITY, INFINITY) == 0.0);
    assert_true(within(1.5, 1.0, 0.25, 0.25) && !within(1.5, 1.0, 0.25, 0.2));
    assert_true(within(NAN, NAN, 0, 0) && !within(NAN, 1, 9, 9) && !within(1, NAN, 9, 9));
    assert_true(within(-INFINITY, -INFINITY, 0, 0) && !within(FLT_MAX, INFINITY, 9, 9));
}

/* ---- Guards ---------------------------------------------------------------------------- */

/* Does touching this byte end a process? */
static bool crashes(volatile char *p, bool write)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        char c = *p;
        if (write) *p = (char)(c + 1);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void guards(void **state)
{
    static const size_t sizes[] = { 0, 1, 4, 4092, 4096, 10000 };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        guard after = guard_create(n, GUARD_AFTER), before = guard_create(n, GUARD_BEFORE);
        char *a = after.data, *b = before.data;
        memset(a, 1, n);
        memset(b, 1, n);
        assert_true(guard_intact(&after) && guard_intact(&before));
        assert_true(crashes(a + n, false) && crashes(b - 1, false));
        a[-1] = 0;
        b[n] = 0;
        assert_false(guard_intact(&after) || guard_intact(&before));
        guard_lock(&after);
        if (n) assert_true(crashes(a, true) && !crashes(a, false));
        guard_unlock(&after);
        if (n) assert_false(crashes(a, true));
        guard_free(&after);
        guard_free(&after);
        guard_free(&before);
    }
    guard copy = guard_copy("text", 5, GUARD_AFTER);
    assert_string_equal(copy.data, "text");
    assert_true(checksum("text", 4) == checksum(copy.data, 4));
    assert_true(checksum("text", 4) != checksum("tex", 3));
    assert_true(checksum("text", 4) != checksum("texu", 4));
    guard_free(&copy);
}

/* ---- Gradients ------------------------------------------------------------------------- */

enum { N = 6 };

static double log_sum_exp(const float *x, void *calls)
{
    double sum = 0;
    ++*(int *)calls;
    for (int i = 0; i < N; i++) sum += exp((double)x[i]);
    return log(sum);
}

static void checks_gradients(void **state)
{
    float x[N] = { 1, 2, -3, 0.5f, 3, -INFINITY }, before[N], gradient[N];
    int calls = 0;
    double lse = log_sum_exp(x, &calls);
    (void)state;
    memcpy(before, x, sizeof x);
    for (int i = 0; i < N; i++) gradient[i] = (float)exp((double)x[i] - lse);
    gradcheck_result r = gradcheck(log_sum_exp, &calls, x, N, gradient, NULL);
    assert_true(gradcheck_ok(&r, 1e-7, "log-sum-exp"));
    assert_int_equal(r.checked, N);
    assert_int_equal(calls, 1 + 4 * (N - 1)); /* nothing for the masked class */
    assert_memory_equal(before, x, sizeof x);

    gradient[3] *= 1.001f;
    r = gradcheck(log_sum_exp, &calls, x, N, gradient, NULL);
    assert_int_equal(r.index, 3);
    assert_true(r.error > 5e-5 && r.error < 7e-5);
    r = gradcheck(log_sum_exp, &calls, x, N, gradient, &(gradcheck_opts){ .floor = 1e-9 });
    assert_true(r.index == 3 && r.error > 9e-4 && r.error < 1.1e-3);
    r = gradcheck(log_sum_exp, &calls, x, N, gradient, &(gradcheck_opts){ .every = 2 });
    assert_true(r.checked == 3 && r.error < 1e-7);
    gradient[5] = 1e-30f;
    r = gradcheck(log_sum_exp, &calls, x, N, gradient, NULL);
    assert_true(r.index == 5 && isinf(r.error));
    gradient[0] = NAN;
    r = gradcheck(log_sum_exp, &calls, x, N, gradient, NULL);
    assert_true(r.index == 0 && isinf(r.error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_cases),
        cmocka_unit_test(reads_many),
        cmocka_unit_test(tells_what_is_wrong),
        cmocka_unit_test(measures_ulp),
        cmocka_unit_test(guards),
        cmocka_unit_test(checks_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
