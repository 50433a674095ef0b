/*
 * language_text.h - the text of language_model.c: files to words, words to numbers, and which
 * of them are held out. Plain C; nothing here is about libsoftlogit.
 */
#ifndef LANGUAGE_TEXT_H
#define LANGUAGE_TEXT_H

#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    CONTEXT = 4,       /* words that a guess is made from */
    MIN_COUNT = 2,     /* a word that is rarer in the training part is UNKNOWN */
    VOCAB_MAX = 50000, /* with more, MIN_COUNT is raised */
    MIN_WORDS = 200,   /* a shorter text is refused */
    BLOCK = 300,       /* of each ten blocks of so many words, the last is held out */
};

enum { UNKNOWN = 0, PARAGRAPH = 1 }; /* the first two words of the vocabulary */

static void die(const char *what, const char *why)
{
    fprintf(stderr, "language_model: %s%s%s\n", what, why[0] ? ": " : "", why);
    exit(1);
}

static void *resize(void *old, int64_t count, size_t size)
{
    void *memory = realloc(old, (size_t)(count > 0 ? count : 1) * size);
    if (!memory) die("out of memory", "");
    return memory;
}


static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- The text: files to words ----------------------------------------------------------- */

typedef struct text {
    char *chars; /* the words, each with a 0 at its end */
    int64_t size, room, words, bytes, files;
    struct stat *file;     /* of the files that were read */
    int64_t block;         /* words in a block: see held_out */
    int64_t *train, *test; /* places of the words that are trained on, tested on */
    int64_t trains, tests; /* how many */
    bool *seen;            /* of each test: is it, in its context, in the training part too? */
    int32_t *word;         /* the text as numbers of words */
    const char **name;     /* of each number, in the order of strcmp */
    float *unigram;        /* of each number, its log-probability in a unigram model */
    int32_t names;
} text;

static void add_word(text *t, const char *s, size_t n)
{
    if (t->size + (int64_t)n >= t->room)
        t->chars = resize(t->chars, t->room = 2 * t->room + (int64_t)n + 1, 1);
    memcpy(t->chars + t->size, s, n);
    t->size += (int64_t)n + 1;
    t->chars[t->size - 1] = '\0';
    t->words++;
}

/* Letters, digits, and all that is not ASCII: UTF-8 passes through as it is. */
static bool in_word(char c) { return isalnum((unsigned char)c) || (unsigned char)c >= 0x80; }

/*
 * A word is letters, ' and - among them, in lower case; or a punctuation mark, a run of which
 * counts once; or a blank line: PARAGRAPH. Other line ends are spaces, since where a text
 * breaks its lines says little about words.
 */
static void add_words(text *t, char *s, size_t n)
{
    add_word(t, "\n", 1);
    for (size_t i = 0, from = 0; i < n; from = i) {
        if (isspace((unsigned char)s[i])) {
            int ends = 0;
            for (; i < n && isspace((unsigned char)s[i]); i++) ends += s[i] == '\n';
            if (ends > 1) add_word(t, "\n", 1);
        } else if (in_word(s[i])) {
            for (; i < n; i++) {
                bool joins = (s[i] == '\'' || s[i] == '-') && i + 1 < n && in_word(s[i + 1]);
                if (!joins && !in_word(s[i])) break;
                s[i] = (char)tolower((unsigned char)s[i]);
            }
            add_word(t, s + from, i - from);
        } else {
            while (i < n && s[i] == s[from]) i++;
            add_word(t, s + from, 1);
        }
    }
}

/* NULL, or what is wrong with the file. A second name of a file that was read adds nothing. */
static const char *read_file(text *t, const char *path)
{
    struct stat st;
    if (stat(path, &st)) return "cannot be found";
    if (!S_ISREG(st.st_mode)) return "neither a file nor a folder";
    for (int64_t i = 0; i < t->files; i++)
        if (t->file[i].st_dev == st.st_dev && t->file[i].st_ino == st.st_ino) return NULL;

    FILE *f = fopen(path, "rb");
    if (!f) return "cannot be opened";
    char *s = resize(NULL, st.st_size, 1);
    size_t n = fread(s, 1, (size_t)st.st_size, f);
    const char *wrong = ferror(f) ? "cannot be read" : n == 0 ? "is empty" : NULL;
    for (size_t i = 0; i < n && !wrong; i++)
        if (iscntrl((unsigned char)s[i]) && !isspace((unsigned char)s[i]))
            wrong = "is not text, it has control bytes";
    if (!wrong) {
        add_words(t, s, n);
        t->file = resize(t->file, t->files + 1, sizeof *t->file);
        t->file[t->files++] = st;
        t->bytes += (int64_t)n;
    }
    fclose(f);
    free(s);
    return wrong;
}

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* A file; or a folder: those files in it that are text, in the order of names. */
static void read_path(text *t, const char *path)
{
    struct dirent **entry = NULL;
    int n = scandir(path, &entry, visible, alphasort);
    const char *wrong = n < 0 ? read_file(t, path) : NULL;
    if (wrong) die(path, wrong);
    for (int i = 0; i < n; i++) {
        char *file = resize(NULL, (int64_t)(strlen(path) + strlen(entry[i]->d_name)) + 2, 1);
        sprintf(file, "%s/%s", path, entry[i]->d_name);
        read_file(t, file);
        free(file), free(entry[i]);
    }
    free(entry);
}

/* ---- The text: hold-out, vocabulary ----------------------------------------------------- */

static bool held_out(const text *t, int64_t i) { return i / t->block % 10 == 9; }

static void split(text *t)
{
    char found[64];
    snprintf(found, sizeof found, "%lld words, at least %d are needed", (long long)t->words,
             MIN_WORDS);
    if (t->words < MIN_WORDS) die("too little text", found);
    t->block = smaller(BLOCK, t->words / 10);
    t->train = resize(NULL, t->words, sizeof *t->train);
    t->test = resize(NULL, t->words, sizeof *t->test);
    for (int64_t i = 0; i < t->words; i++) {
        if (held_out(t, i))
            t->test[t->tests++] = i;
        else if (i < CONTEXT || !held_out(t, i - CONTEXT)) /* nor is it seen as a context */
            t->train[t->trains++] = i;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The vocabulary, and the unigram model: both by counts in the training part, which
   is sorted. */
static void count_words(text *t, const char **sorted, int64_t n, int64_t min_count)
{
    int64_t unknown = 0;
    t->names = 1;
    for (int64_t from = 0, to = 0; from < n; from = to) {
        while (to < n && strcmp(sorted[from], sorted[to]) == 0) to++;
        if (to - from < min_count && sorted[from][0] != '\n') {
            unknown += to - from;
        } else if (t->names++ < VOCAB_MAX) {
            t->name[t->names - 1] = sorted[from];
            t->unigram[t->names - 1] = (float)log((double)(to - from) / (double)n);
        }
    }
    t->name[UNKNOWN] = ""; /* first in order, as is "\n" among what a text can have */
    t->unigram[UNKNOWN] = (float)log((double)(unknown ? unknown : 1) / (double)n);
}

static void make_vocabulary(text *t)
{
    const char **all = resize(NULL, t->words, sizeof *all), *s = t->chars;
    const char **sorted = resize(NULL, t->words, sizeof *sorted), **found;
    int64_t n = 0, min_count = MIN_COUNT;
    for (int64_t i = 0; i < t->words; i++, s += strlen(s) + 1) {
        all[i] = s;
        if (!held_out(t, i)) sorted[n++] = s;
    }
    qsort(sorted, (size_t)n, sizeof *sorted, by_name);
    t->name = resize(NULL, VOCAB_MAX, sizeof *t->name);
    t->unigram = resize(NULL, VOCAB_MAX, sizeof *t->unigram);
    do count_words(t, sorted, n, min_count++);
    while (t->names > VOCAB_MAX);
    if (t->names <= PARAGRAPH + 1) die("no word occurs twice", "there is nothing to learn");

    t->word = resize(NULL, t->words, sizeof *t->word);
    for (int64_t i = 0; i < t->words; i++) {
        found = bsearch(&all[i], t->name, (size_t)t->names, sizeof *t->name, by_name);
        t->word[i] = found ? (int32_t)(found - t->name) : UNKNOWN;
    }
    free(all), free(sorted);
}

/* A word with its context, as one number. */
static uint64_t run_at(const text *t, int64_t place)
{
    uint64_t run = 14695981039346656037u; /* FNV-1a, a word at a time, then mixed */
    for (int64_t i = place - CONTEXT; i <= place; i++) {
        run = (run ^ (uint64_t)(i < 0 ? PARAGRAPH : t->word[i])) * 1099511628211u;
        run ^= run >> 32;
    }
    return run;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Texts repeat themselves, and licences one another: which tests could be known by heart? */
static void find_seen(text *t)
{
    uint64_t *runs = resize(NULL, t->trains, sizeof *runs);
    for (int64_t i = 0; i < t->trains; i++) runs[i] = run_at(t, t->train[i]);
    qsort(runs, (size_t)t->trains, sizeof *runs, by_value);
    t->seen = resize(NULL, t->tests, sizeof *t->seen);
    for (int64_t i = 0; i < t->tests; i++) {
        uint64_t run = run_at(t, t->test[i]);
        t->seen[i] = bsearch(&run, runs, (size_t)t->trains, sizeof run, by_value) != NULL;
    }
    free(runs);
}

/* What is to be done once all files are read. */
static void prepare_text(text *t)
{
    split(t);
    make_vocabulary(t);
    find_seen(t);
}

static void free_text(text *t)
{
    free(t->chars), free(t->file), free(t->train), free(t->test), free(t->seen);
    free(t->word), free(t->name), free(t->unigram);
}

#endif
