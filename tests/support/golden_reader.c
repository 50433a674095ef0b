/* The whole text is held in memory and cut into words in place; names are pointers into it. */
#include "support/golden_reader.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *path;
    char *at;      /* next character that is not read */
    int line;      /* of at */
    int word_line; /* of the word read last */
    char **error;
} reader;

static bool fail(const reader *r, const char *format, ...)
{
    va_list args;
    char what[256];
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    size_t size = strlen(r->path) + strlen(what) + 32;
    if ((*r->error = malloc(size)) == NULL) return false;
    if (r->word_line)
        snprintf(*r->error, size, "%s:%d: %s", r->path, r->word_line, what);
    else
        snprintf(*r->error, size, "%s: %s", r->path, what);
    return false;
}

static bool no_memory(const reader *r) { return fail(r, "out of memory"); }

/* Appends an item to an array, given by the address of its pointer, whose capacity is the power
   of two that count last reached. */
static bool append(const reader *r, void *array, size_t *count, const void *item, size_t size)
{
    char *items;
    memcpy(&items, array, sizeof items);
    if ((*count & (*count - 1)) == 0) {
        items = realloc(items, (*count ? 2 * *count : 1) * size);
        if (!items) return no_memory(r);
        memcpy(array, &items, sizeof items);
    }
    memcpy(items + (*count)++ * size, item, size);
    return true;
}

/* ---- Words ----------------------------------------------------------------------------- */

/* The next word, ended with a 0 in place of the space behind it; NULL at the end. */
static char *next_word(reader *r)
{
    bool comment = false;
    for (; *r->at && (comment || *r->at == '#' || isspace((unsigned char)*r->at)); r->at++) {
        if (*r->at == '#') comment = true;
        if (*r->at == '\n') {
            comment = false;
            r->line++;
        }
    }
    r->word_line = r->line;
    if (!*r->at) return NULL;
    char *word = r->at;
    while (*r->at && *r->at != '#' && !isspace((unsigned char)*r->at)) r->at++;
    if (*r->at == '\n') r->line++;
    if (*r->at == '#') /* no room for the 0 and the #: skip the comment now */
        while (r->at[1] && r->at[1] != '\n') *r->at++ = '\0';
    if (*r->at) *r->at++ = '\0';
    return word;
}

static bool need_word(reader *r, const char *what, char **word)
{
    *word = next_word(r);
    return *word ? true : fail(r, "the file ends where %s should be", what);
}

static bool need_number(reader *r, const char *what, const char *name, double *value)
{
    char *word, *end;
    if (!need_word(r, what, &word)) return false;
    *value = strtod(word, &end);
    return *end == '\0' ? true
                        : fail(r, "%s of %.60s: '%.40s' is not a number", what, name, word);
}

/* ---- Lines of a case ------------------------------------------------------------------- */

static bool read_scalar(reader *r, golden_case *c)
{
    char *name;
    golden_scalar s;
    if (!need_word(r, "the name of a scalar", &name)) return false;
    if (golden_find_scalar(c, name)) return fail(r, "a second scalar %.60s", name);
    s.name = name;
    return need_number(r, "the value", name, &s.value) &&
           append(r, &c->scalars, &c->scalar_count, &s, sizeof s);
}

/* Dimensions and the colon. */
static bool read_shape(reader *r, golden_tensor *t)
{
    char *word, *end;
    t->size = 1;
    for (t->ndim = 0;; t->ndim++) {
        if (!need_word(r, "a dimension or ':'", &word)) return false;
        if (strcmp(word, ":") == 0) break;
        long long d = strtoll(word, &end, 10);
        if (*end || d < 0)
            return fail(r, "tensor %.60s: '%.40s' is neither a dimension nor ':'", t->name,
                        word);
        if (t->ndim == GOLDEN_MAX_DIMS)
            return fail(r, "tensor %.60s has more than %d dimensions", t->name,
                        GOLDEN_MAX_DIMS);
        t->shape[t->ndim] = d;
        if (__builtin_mul_overflow(t->size, d, &t->size) || t->size > INT64_MAX / 8)
            return fail(r, "tensor %.60s is too large", t->name);
    }
    for (int i = t->ndim; i < GOLDEN_MAX_DIMS; i++) t->shape[i] = 1;
    return t->ndim ? true : fail(r, "tensor %.60s has no dimensions", t->name);
}

static bool read_values(reader *r, golden_tensor *t)
{
    /* A number takes two characters at least: the text bounds what is allocated. */
    if (t->size > (int64_t)strlen(r->at) / 2 + 1)
        return fail(r, "tensor %.60s: the file ends before its %lld numbers", t->name,
                    (long long)t->size);
    t->values = malloc((size_t)t->size * sizeof *t->values + 1);
    if (!t->values) return no_memory(r);
    for (int64_t i = 0; i < t->size; i++)
        if (!need_number(r, "a value", t->name, &t->values[i])) return false;
    return true;
}

static bool read_tensor(reader *r, golden_case *c)
{
    char *name;
    golden_tensor t = { 0 };
    if (!need_word(r, "the name of a tensor", &name)) return false;
    if (golden_find_tensor(c, name)) return fail(r, "a second tensor %.60s", name);
    t.name = name;
    if (read_shape(r, &t) && read_values(r, &t) &&
        append(r, &c->tensors, &c->tensor_count, &t, sizeof t))
        return true;
    free(t.values);
    return false;
}

static bool read_tolerance(reader *r, golden_case *c)
{
    char *name;
    golden_tolerance t;
    if (!need_word(r, "the name of a tensor", &name)) return false;
    t.name = name;
    if (!need_number(r, "the absolute tolerance", name, &t.absolute) ||
        !need_number(r, "the relative tolerance", name, &t.relative))
        return false;
    if (!(t.absolute >= 0 && t.relative >= 0))
        return fail(r, "the tolerances of %.60s are not >= 0", name);
    return append(r, &c->tolerances, &c->tolerance_count, &t, sizeof t);
}

/* After the word `case`, to the word `end`. */
static bool read_case(reader *r, golden_case *c)
{
    char *word;
    c->line = r->word_line;
    if (!need_word(r, "the name of a case", &word)) return false;
    c->name = word;
    for (;;) {
        bool ok;
        if (!need_word(r, "'end'", &word)) return false;
        if (strcmp(word, "end") == 0) break;
        if (strcmp(word, "scalar") == 0)
            ok = read_scalar(r, c);
        else if (strcmp(word, "tensor") == 0)
            ok = read_tensor(r, c);
        else if (strcmp(word, "tol") == 0)
            ok = read_tolerance(r, c);
        else
            ok = fail(r, "'%.40s' in case %.60s: scalar, tensor, tol or end should be here",
                      word, c->name);
        if (!ok) return false;
    }
    for (size_t i = 0; i < c->tolerance_count; i++)
        if (!golden_find_tensor(c, c->tolerances[i].name))
            return fail(r, "case %.60s: a tolerance for %.60s, which is not there", c->name,
                        c->tolerances[i].name);
    return true;
}

/* ---- Files ----------------------------------------------------------------------------- */

/* The text with a 0 behind it, or NULL and an error. */
static char *read_text(const reader *r)
{
    FILE *in = fopen(r->path, "rb");
    size_t size = 0, capacity = 1 << 16;
    char *text = malloc(capacity), *more;
    while (in && text) {
        size_t n = fread(text + size, 1, capacity - size - 1, in);
        size += n;
        if (n == 0) break;
        if (size + 1 < capacity) continue;
        if ((more = realloc(text, capacity *= 2)) == NULL) free(text);
        text = more;
    }
    const char *what = !in                                ? "cannot be opened"
                       : !text                            ? "out of memory"
                       : ferror(in)                       ? "cannot be read"
                       : memchr(text, '\0', size) != NULL ? "is not a text file"
                                                          : NULL;
    if (in) fclose(in);
    if (!what) {
        text[size] = '\0';
        return text;
    }
    free(text);
    fail(r, "%s", what);
    return NULL;
}

static void free_case(golden_case *c)
{
    for (size_t i = 0; i < c->tensor_count; i++) free(c->tensors[i].values);
    free(c->tensors);
    free(c->scalars);
    free(c->tolerances);
}

static bool read_cases(reader *r, golden_file *file)
{
    char *word;
    while ((word = next_word(r)) != NULL) {
        golden_case c = { 0 };
        if (strcmp(word, "case") != 0)
            return fail(r, "'%.40s' outside of a case: 'case' should be here", word);
        bool ok = read_case(r, &c);
        /* Appended even where it is not whole, so that golden_free finds what it holds. */
        if (!append(r, &file->cases, &file->count, &c, sizeof c)) {
            free_case(&c);
            return false;
        }
        if (!ok) return false;
    }
    return true;
}

bool golden_read(const char *path, golden_file *file, char **error)
{
    reader r = { path, NULL, 1, 0, error };
    memset(file, 0, sizeof *file);
    *error = NULL;
    if ((file->text = r.at = read_text(&r)) == NULL) return false;
    if (read_cases(&r, file)) return true;
    golden_free(file);
    return false;
}

void golden_free(golden_file *file)
{
    for (size_t i = 0; i < file->count; i++) free_case(&file->cases[i]);
    free(file->cases);
    free(file->text);
    memset(file, 0, sizeof *file);
}

const golden_scalar *golden_find_scalar(const golden_case *c, const char *name)
{
    for (size_t i = 0; i < c->scalar_count; i++)
        if (strcmp(c->scalars[i].name, name) == 0) return &c->scalars[i];
    return NULL;
}

const golden_tensor *golden_find_tensor(const golden_case *c, const char *name)
{
    for (size_t i = 0; i < c->tensor_count; i++)
        if (strcmp(c->tensors[i].name, name) == 0) return &c->tensors[i];
    return NULL;
}

golden_tolerance golden_find_tolerance(const golden_case *c, const char *name)
{
    for (size_t i = 0; i < c->tolerance_count; i++)
        if (strcmp(c->tolerances[i].name, name) == 0) return c->tolerances[i];
    return (golden_tolerance){ name, 1e-6, 1e-5 };
}
