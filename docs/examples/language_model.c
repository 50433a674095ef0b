/*
 * language_model.c - trains a word-level language model on text files, with libsoftlogit.
 *
 *     language_model [--seconds N] [--seed N] [--attention mhsa|ls] [--quick] [TEXT...]
 *
 * The model is the transformer of transformer.c: word vectors, blocks of attention and of two
 * linear layers, and an output layer that shares the word vectors. Attention, norms,
 * activations, the loss fused with its output layer, and the optimizer are the library's. With
 * --attention ls half of the heads of each layer see the last few words alone (LS-attention).
 *
 * In this order: helpers, training, what is reported, main.
 */
#include <time.h>

#include <sys/resource.h>

#include "language_text.h" /* reads files into numbered words; nothing of the library in it */
#include "transformer.h"

#define TEXT_DEFAULT "/usr/share/common-licenses"
#ifndef TEXT_ELSE
#define TEXT_ELSE "docs" /* where the default is absent; the build names this library's docs */
#endif

enum {
    TOKENS = 64, /* words of a sequence */
    BATCH = 8,   /* sequences between two steps of the optimizer */
    PASSES = 12, /* over the training part, if time allows */
};
static const double rate = 4e-3, decay = 0.2, norm_max = 1, temperature = 0.6;

/* ---- Helpers ---------------------------------------------------------------------------- */

/* Every call of the library returns a status; the context then has the reason in words. */
static void check(const slg_ctx *ctx, slg_status status)
{
    if (status != SLG_OK) die(slg_status_string(status), slg_ctx_message(ctx));
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* splitmix64: the order of sequences, and the words that are drawn. */
static uint64_t random_bits(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static double random_unit(uint64_t *seed)
{
    return (double)(random_bits(seed) >> 11) * 0x1p-53;
}

/* A sequence: the words [from, to) are to be guessed, from those before, back to `floor`. */
typedef struct span {
    int64_t from, to, floor;
} span;

/* A batch: words, the word that follows each, and the model's -log p of that. */
typedef struct batch {
    int32_t token[BATCH * TOKENS], target[BATCH * TOKENS];
    float loss[BATCH * TOKENS];
} batch;

/* Rows end together; what room is left in front has words before `from`, not to be guessed. */
static void load(batch *b, const text *t, const span *sequence, int64_t count)
{
    for (int64_t i = 0; i < count * TOKENS; i++) {
        const span s = sequence[i / TOKENS];
        const int64_t place = s.to - TOKENS + i % TOKENS; /* of the target */
        b->token[i] = place > s.floor ? t->word[place - 1] : PARAGRAPH;
        b->target[i] = place >= s.from ? t->word[place] : -1;
    }
}

/* ---- Training --------------------------------------------------------------------------- */

static transformer_opts model_opts(int32_t vocab, bool local)
{
    transformer_opts o = transformer_defaults(vocab);
    o.context = TOKENS;
    o.layers = 2, o.heads = 4, o.width = 128, o.hidden = 512;
    o.local_heads = local ? o.heads / 2 : 0, o.window = 8;
    o.rotary = 1;
    o.dropout = 0.05;
    return o;
}

/* One update of all weights, at a rate that is warmed up and then let down. Time may cut the
   training short, so the schedule goes by how much is done, in thousandths. */
static void update(slg_ctx *ctx, transformer *m, slg_optimizer *optimizer, double done)
{
    slg_tensor w = transformer_weights(m), dw = transformer_gradients(m);
    const double lr = slg_lr_cosine(rate, 0, (int64_t)(1000 * done), 30, 1000);
    check(ctx, slg_optimizer_set_lr(optimizer, lr));
    check(ctx, slg_optimizer_step(optimizer, &w, &dw));
}

/*
 * The sequences of a pass over the training part: its runs, cut from a place that differs from
 * pass to pass, in random order. No held-out word is seen. Returns how many.
 */
static int64_t cut(const text *t, span *s, uint64_t *seed)
{
    int64_t count = 0, at = 0, end;
    for (; at < t->words; at = end) {
        for (end = at; end < t->words && !held_out(t, end);) end++;
        int64_t first = at + (int64_t)(random_bits(seed) % TOKENS);
        for (int64_t f = at, to; f < end; f = to, first += TOKENS) {
            to = smaller(first, end);
            if (to > f) s[count++] = (span){ f, to, at };
        }
        while (end < t->words && held_out(t, end)) end++;
    }
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = (int64_t)(random_bits(seed) % (uint64_t)(i + 1));
        span swap = s[i];
        s[i] = s[j], s[j] = swap;
    }
    return count;
}

static int64_t words_of(const span *s, int64_t count)
{
    int64_t words = 0;
    for (int64_t i = 0; i < count; i++) words += s[i].to - s[i].from;
    return words;
}

/* So many passes, or as much of them as the time allows. Returns words a second. */
static double train(slg_ctx *ctx, transformer *m, const text *t, int passes, double seconds,
                    uint64_t *seed)
{
    slg_adamw_opts opts; /* options: fill in the defaults, then change what you like */
    slg_adamw_opts_init(&opts, sizeof opts);
    opts.weight_decay = decay;
    slg_optimizer *optimizer; /* one for all weights: moments and a step count */
    check(ctx, slg_optimizer_create(ctx, SLG_ADAMW, transformer_weights(m).shape[0], &opts,
                                    &optimizer));
    /* What happens to gradients on the way: here they are clipped by their norm. */
    const slg_transform clip = slg_transform_of(SLG_CLIP_NORM, norm_max);
    check(ctx, slg_optimizer_set_chain(optimizer, 1, &clip));

    span *s = resize(NULL, t->words, sizeof *s);
    batch *b = resize(NULL, 1, sizeof *b);
    const double start = now();
    double done = 0, shown = 0, sum = 0, elapsed = 0, planned = 0;
    int64_t words = 0, summed = 0, count = 0;
    bool hurried = false; /* did time, rather than passes, tell how much is done? */
    printf("\n  training   loss  perplexity  words/s\n");
    for (int64_t at = 0; done < 1; at = at + BATCH < count ? at + BATCH : 0) {
        if (at == 0) count = cut(t, s, seed);
        if (planned == 0) planned = passes * (double)words_of(s, count);
        const int64_t rows = smaller(BATCH, count - at), guessed = words_of(s + at, rows);
        load(b, t, s + at, rows);
        sum += (double)guessed * transformer_train(m, rows, TOKENS, b->token, b->target, NULL);
        update(ctx, m, optimizer, done);

        words += guessed;
        summed += guessed;
        elapsed = now() - start;
        done = (double)words / planned;
        if (elapsed > seconds / 20 && elapsed / seconds > done) { /* not for a slow start */
            done = elapsed / seconds;
            hurried = true;
        }
        if (done >= shown + 0.1 || done >= 1) {
            printf("  %7.0f%%  %5.3f  %10.1f  %7.0f\n", 100 * fmin(done, 1),
                   sum / (double)summed, exp(sum / (double)summed), (double)words / elapsed);
            fflush(stdout);
            shown = done;
            sum = 0;
            summed = 0;
        }
    }
    slg_optimizer_free(optimizer);
    free(s), free(b);
    printf("  %.1f passes, %.1f s%s\n", passes * (double)words / planned, elapsed,
           hurried ? ": cut to the time, so the result depends on the machine" : "");
    return (double)words / elapsed;
}

/* ---- What is reported ------------------------------------------------------------------- */

/* Sums of -log p over the words that are held out: all, and those that are new. */
typedef struct score {
    double ours[2], unigram[2];
    int64_t count[2], unknown, at; /* at: of t->test */
} score;

static void add_scores(score *r, const text *t, const batch *b, int64_t rows)
{
    for (int64_t i = 0; i < rows * TOKENS; i++) {
        const int32_t target = b->target[i];
        if (target < 0) continue;
        const int fresh = !t->seen[r->at++];
        for (int k = 0; k <= fresh; k++) {
            r->ours[k] += (double)b->loss[i];
            r->unigram[k] -= (double)t->unigram[target];
            r->count[k]++;
        }
        r->unknown += target == UNKNOWN;
    }
}

/*
 * Perplexity on the held-out part: exp of the mean -log p, each word with at least half a
 * sequence before it. Licences repeat one another, so it is told again for those words that do
 * not, after the same few words, stand in the training part too.
 */
static void report_perplexity(transformer *m, const text *t)
{
    enum { STEP = TOKENS / 2 };
    score r = { 0 };
    span s[BATCH];
    batch *b = resize(NULL, 1, sizeof *b);
    for (int64_t i = 0, rows = 0, n = 0; i < t->tests; i += n) { /* words in a row, in order */
        for (n = 1; n < STEP && i + n < t->tests && t->test[i + n] == t->test[i] + n;) n++;
        s[rows++] = (span){ t->test[i], t->test[i] + n, 0 };
        if (rows < BATCH && i + n < t->tests) continue;
        load(b, t, s, rows);
        transformer_test(m, rows, TOKENS, b->token, b->target, b->loss);
        add_scores(&r, t, b, rows);
        rows = 0;
    }
    printf("\n  held-out perplexity              words    model  unigram\n");
    for (int k = 0; k < 2 && r.count[k] > 0; k++)
        printf("  %s  %6lld  %7.2f  %7.2f\n",
               k ? "new in this context          " : "all                          ",
               (long long)r.count[k], exp(r.ours[k] / (double)r.count[k]),
               exp(r.unigram[k] / (double)r.count[k]));
    printf("  %.1f%% are unknown words, to both models one and the same word\n",
           100 * (double)r.unknown / (double)t->tests);
    free(b);
}

/* Draws the word that follows `last`. */
static int32_t draw(slg_ctx *ctx, transformer *m, int32_t last, float *p, uint64_t *seed)
{
    const int32_t names = transformer_opts_of(m)->vocab;
    transformer_next(m, 1, &last, p);
    p[UNKNOWN] = -INFINITY; /* a masked class: its probability is exactly 0 */
    if (last == PARAGRAPH) p[PARAGRAPH] = -INFINITY; /* not an empty one */

    slg_tensor row = slg_tensor_1d(p, SLG_F32, names);
    slg_softmax_opts opts;
    slg_softmax_opts_init(&opts, sizeof opts);
    opts.temperature = temperature; /* below 1, likely words become likelier */
    check(ctx, slg_softmax(ctx, &row, &opts, &row, NULL)); /* in place */

    int32_t word = PARAGRAPH;
    double left = random_unit(seed) - (double)p[word];
    for (int32_t i = PARAGRAPH + 1; i < names && left >= 0; left -= (double)p[i++]) word = i;
    return word;
}

static void report_lines(slg_ctx *ctx, transformer *m, const text *t, int lines, uint64_t *seed)
{
    float *p = resize(NULL, t->names, sizeof *p);
    printf("\n  generated, at temperature %g\n", temperature);
    while (lines-- > 0) {
        const char *before = "";
        int32_t word = PARAGRAPH;
        transformer_restart(m);
        for (int n = 0; n < 40; n++) {
            word = draw(ctx, m, word, p, seed);
            if (word == PARAGRAPH) break;
            const char *name = t->name[word];
            bool tight = n == 0 || strchr(".,;:!?)]/", name[0]) || strchr("([/", before[0]);
            printf("%s%s", n == 0 ? "  > " : tight ? "" : " ", name);
            before = name;
        }
        printf("\n");
    }
    free(p);
}

static void report_machine(slg_ctx *ctx, double words_per_second)
{
    slg_ctx_info_t info = { .size = sizeof info };
    struct rusage usage;
    check(ctx, slg_ctx_info(ctx, &info));
    getrusage(RUSAGE_SELF, &usage);
    printf("\n  %.0f words/s; peak memory %.1f MiB, the library's scratch %.1f MiB\n",
           words_per_second, (double)usage.ru_maxrss / 1024,
           (double)info.scratch_peak_bytes / 0x1p20);
    printf("  libsoftlogit %s: ISA %s, %d threads; BLAS core %s\n", info.version, info.isa_name,
           (int)info.num_threads, info.blas_core);
    if (info.blas_mistaken) printf("  slower than it could be: %s\n", info.blas_advice);
}

/* ---- main ------------------------------------------------------------------------------- */

static const char help[] =
    "usage: language_model [--seconds N] [--seed N] [--attention mhsa|ls] [--quick] [TEXT...]\n"
    "Trains a word-level language model on text files, or on the text files of a folder, and\n"
    "tells its perplexity on a tenth of the text that is held out.\n"
    "  TEXT         default: " TEXT_DEFAULT ", or where that is absent\n"
    "               " TEXT_ELSE "\n"
    "  --seconds N  at most so long in training (default 45)\n"
    "  --seed N     fixes the result, unless time ends the training (default 1)\n"
    "  --attention  mhsa: all heads see all words of a sequence; ls: half of the heads of\n"
    "               each layer see the last few alone (default mhsa)\n"
    "  --quick      two passes over the text, at most 3 seconds\n";

int main(int argc, char **argv)
{
    double seconds = 45;
    uint64_t seed = 1;
    bool local = false;
    int i, passes = PASSES;
    for (i = 1; i < argc && argv[i][0] == '-'; i++) {
        char *value = i + 1 < argc ? argv[i + 1] : argv[0] + strlen(argv[0]), *end = value;
        if (strcmp(argv[i], "--help") == 0) return fputs(help, stdout) < 0 ? 1 : 0;
        if (strcmp(argv[i], "--quick") == 0) {
            passes = 2;
            seconds = 3;
            continue;
        }
        if (strcmp(argv[i], "--seconds") == 0) seconds = strtod(value, &end);
        if (strcmp(argv[i], "--seed") == 0) seed = strtoull(value, &end, 10);
        if (strcmp(argv[i], "--attention") == 0 && value[0]) {
            local = strcmp(value, "ls") == 0;
            if (local || strcmp(value, "mhsa") == 0) end = value + strlen(value);
        }
        if (end == value || *end || !(seconds > 0)) return fputs(help, stderr), 2;
        i++;
    }

    text t = { 0 };
    struct stat st;
    if (i == argc) read_path(&t, stat(TEXT_DEFAULT, &st) == 0 ? TEXT_DEFAULT : TEXT_ELSE);
    for (; i < argc; i++) read_path(&t, argv[i]);
    prepare_text(&t);

    slg_ctx *ctx = NULL; /* threads, kernels for this CPU, scratch memory, the last message */
    check(ctx, slg_ctx_create(NULL, &ctx));
    transformer_opts o = model_opts(t.names, local);
    transformer *m = transformer_create(ctx, &o, BATCH, seed);
    printf("  %lld files, %.2f MB, %lld words, a vocabulary of %d; %lld weights\n",
           (long long)t.files, 1e-6 * (double)t.bytes, (long long)t.words, (int)t.names,
           (long long)transformer_weights(m).shape[0]);
    printf("  held out: of each ten blocks of %lld words the last, %lld words in all\n",
           (long long)t.block, (long long)t.tests);

    double words_per_second = train(ctx, m, &t, passes, seconds, &seed);
    report_perplexity(m, &t);
    report_machine(ctx, words_per_second);
    report_lines(ctx, m, &t, 4, &seed);

    transformer_free(m);
    slg_ctx_free(ctx);
    free_text(&t);
    return fflush(stdout) != 0;
}
