/*
 * language_model.c - trains a word-level language model on text files, with libsoftlogit.
 *
 *     language_model [--seconds N] [--seed N] [--quick] [TEXT...]
 *
 * The model guesses a word from the CONTEXT words before it:
 *
 *     x = the vectors of these words, one after the other     [WIDE]
 *     h = relu(mix x + mix_bias)                              [DIM]
 *     p = softmax(words h + bias)                             [vocabulary]
 *
 * with one vector a word, the rows of `words`, both on the way in and on the way out. The last
 * line and its loss are the library's: slg_cross_entropy takes h, `words` and `bias`, and gives
 * the loss and all three gradients, without ever storing the matrix of logits. The optimizer is
 * the library's too. The hidden layer is BLAS.
 *
 * In this order: helpers, the model, training, what is reported, main.
 */
#include <softlogit/softlogit.h>

#include <cblas.h>
#include <sys/resource.h>
#include <time.h>

#include "language_text.h" /* reads files into numbered words; nothing of the library in it */

#define TEXT_DEFAULT "/usr/share/common-licenses"
#ifndef TEXT_ELSE
#define TEXT_ELSE "docs" /* where the default is absent; the build names this library's docs */
#endif

enum {
    DIM = 128, /* numbers in a word's vector, and in h */
    WIDE = CONTEXT * DIM,
    BATCH = 256, /* guesses between two steps of the optimizer */
    PASSES = 20, /* over the training part, if time allows */
};
static const double rate = 6e-3, decay = 0.2, norm_max = 1, temperature = 0.6;
static const float drop_words = 0.2f, drop_hidden = 0.4f; /* dropout: shares that are zeroed */

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

/* splitmix64. All randomness comes from here, so the seed fixes the result. */
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

/* ---- The model -------------------------------------------------------------------------- */

/* Tensors are views: a pointer, a type, a shape. Memory stays the program's. */
typedef struct weights {
    slg_tensor words, bias, mix, mix_bias;
    float *all; /* in one piece */
    int64_t size;
} weights;

typedef struct model {
    slg_ctx *ctx;
    weights w, dw;                    /* and their gradients */
    int32_t context[BATCH * CONTEXT]; /* a batch: the words to guess from, */
    int32_t target[BATCH];            /* the words to guess, */
    float loss[BATCH];                /* and -log p of these */
    float keep[BATCH * CONTEXT];      /* dropout's factor on each word's vector */
    float x[BATCH * WIDE], dx[BATCH * WIDE], h[BATCH * DIM], dh[BATCH * DIM];
} model;

static weights make_weights(int64_t vocab)
{
    weights w = { .size = vocab * DIM + vocab + DIM * WIDE + DIM };
    float *at = w.all = zeros(w.size, sizeof *w.all);
    w.words = slg_tensor_2d(at, SLG_F32, vocab, DIM);
    w.bias = slg_tensor_1d(at += vocab * DIM, SLG_F32, vocab);
    w.mix = slg_tensor_2d(at += vocab, SLG_F32, DIM, WIDE);
    w.mix_bias = slg_tensor_1d(at += DIM * WIDE, SLG_F32, DIM);
    return w;
}

static void fill_random(slg_tensor *t, uint64_t *seed)
{
    float *to = t->data;
    double width = sqrt(3.0 / (double)t->shape[1]);
    for (int64_t i = 0; i < t->shape[0] * t->shape[1]; i++)
        to[i] = (float)(width * (2 * random_unit(seed) - 1));
}

static model *make_model(slg_ctx *ctx, const text *t, uint64_t *seed)
{
    model *m = zeros(1, sizeof *m);
    m->ctx = ctx;
    m->w = make_weights(t->names);
    m->dw = make_weights(t->names);
    fill_random(&m->w.words, seed);
    fill_random(&m->w.mix, seed);
    memcpy(m->w.bias.data, t->unigram, (size_t)t->names * sizeof(float)); /* a head start */
    return m;
}

static void load(model *m, const text *t, const int64_t *place, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        m->target[r] = t->word[place[r]];
        for (int64_t c = 0, i = place[r] - CONTEXT; c < CONTEXT; c++, i++)
            m->context[r * CONTEXT + c] = i < 0 ? PARAGRAPH : t->word[i];
    }
}

/* 0 for a share of the calls, else what keeps the mean at 1. */
static float dropout(float share, uint64_t *seed)
{
    return random_unit(seed) < (double)share ? 0 : 1 / (1 - share);
}

/* From context to h; with a seed: with dropout, of whole words and of entries of h. */
static void forward(model *m, int64_t rows, uint64_t *seed)
{
    const float *words = m->w.words.data;
    for (int64_t i = 0; i < rows * CONTEXT; i++) {
        m->keep[i] = seed ? dropout(drop_words, seed) : 1;
        for (int64_t k = 0; k < DIM; k++)
            m->x[i * DIM + k] = m->keep[i] * words[m->context[i] * (int64_t)DIM + k];
    }
    for (int64_t r = 0; r < rows; r++)
        memcpy(m->h + r * DIM, m->w.mix_bias.data, DIM * sizeof(float));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, DIM, WIDE, 1, m->x, WIDE,
                m->w.mix.data, WIDE, 1, m->h, DIM);
    for (int64_t i = 0; i < rows * DIM; i++)
        m->h[i] = m->h[i] > 0 ? m->h[i] * (seed ? dropout(drop_hidden, seed) : 1) : 0;
}

/* From h to the rows' losses, whose sum it returns; and, in training, to gradients. */
static double cross_entropy(model *m, int64_t rows, bool training)
{
    slg_tensor hidden = slg_tensor_2d(m->h, SLG_F32, rows, DIM);
    slg_tensor dhidden = slg_tensor_2d(m->dh, SLG_F32, rows, DIM);
    slg_tensor index = slg_tensor_1d(m->target, SLG_I32, rows);
    slg_tensor loss = slg_tensor_1d(m->loss, SLG_F32, rows);

    /* Where logits come from: a matrix (`dense`), or, as here, the output layer
     * hidden x weight' + bias, of which a few rows at a time are formed in scratch memory. */
    slg_logits logits = slg_logits_layer(&hidden, &m->w.words, &m->w.bias);

    /* What they are compared with: the number of the right word. */
    slg_targets targets = slg_targets_index(&index);

    /* Where gradients go: a mirror of the source. A NULL is not computed. */
    slg_logits_grad grad = slg_grad_layer(&dhidden, &m->dw.words, &m->dw.bias);

    /* What comes out: the mean, to which the gradients belong; sum; counts; each row's loss. */
    slg_loss_out out = slg_loss_out_none();
    out.loss = &loss;

    slg_logits_grad *wanted = training ? &grad : NULL;
    check(m->ctx, slg_cross_entropy(m->ctx, &logits, &targets, NULL, &out, wanted));
    return out.sum;
}

/* From dh to the gradients of the hidden layer and of the vectors that went into it. */
static void backward(model *m, int64_t rows)
{
    float *dmix_bias = m->dw.mix_bias.data, *dwords = m->dw.words.data;
    memset(dmix_bias, 0, DIM * sizeof *dmix_bias);
    for (int64_t i = 0; i < rows * DIM; i++) { /* through dropout and relu */
        m->dh[i] = m->h[i] > 0 ? m->dh[i] / (1 - drop_hidden) : 0;
        dmix_bias[i % DIM] += m->dh[i];
    }
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, DIM, WIDE, (int)rows, 1, m->dh, DIM,
                m->x, WIDE, 0, m->dw.mix.data, WIDE);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, WIDE, DIM, 1, m->dh, DIM,
                m->w.mix.data, WIDE, 0, m->dx, WIDE);
    for (int64_t i = 0; i < rows * CONTEXT; i++) /* onto what the output layer put there */
        for (int64_t k = 0; k < DIM; k++)
            dwords[m->context[i] * (int64_t)DIM + k] += m->keep[i] * m->dx[i * DIM + k];
}

/* ---- Training --------------------------------------------------------------------------- */

/* One update of all weights: gradients clipped, the rate warmed up and then let down. */
static void update(model *m, slg_optimizer *optimizer, double done)
{
    slg_tensor *const w[] = { &m->w.words, &m->w.bias, &m->w.mix, &m->w.mix_bias };
    const slg_tensor *const dw[] = { &m->dw.words, &m->dw.bias, &m->dw.mix, &m->dw.mix_bias };
    double norm = (double)cblas_snrm2((int)m->dw.size, m->dw.all, 1);
    double clip = norm > norm_max ? norm_max / norm : 1;
    double cosine = 0.5 + 0.5 * cos(3.14159265358979 * done);
    check(m->ctx, slg_optimizer_set_lr(optimizer, rate * cosine * fmin(done / 0.03, 1)));
    check(m->ctx, slg_optimizer_set_grad_scale(optimizer, clip));
    check(m->ctx, slg_optimizer_step_list(optimizer, 4, w, dw));
}

static void shuffle(int64_t *place, int64_t n, uint64_t *seed)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)(random_bits(seed) % (uint64_t)(i + 1)), swap = place[i];
        place[i] = place[j];
        place[j] = swap;
    }
}

/* So many passes, or as much of them as the time allows. Returns words a second. */
static double train(model *m, text *t, int passes, double seconds, uint64_t *seed)
{
    slg_adamw_opts opts; /* options: fill in the defaults, then change what you like */
    slg_adamw_opts_init(&opts, sizeof opts);
    opts.weight_decay = decay;
    slg_optimizer *optimizer; /* one for all weights: moments and a step count */
    check(m->ctx, slg_optimizer_create(m->ctx, SLG_ADAMW, m->w.size, &opts, &optimizer));

    const double start = now(), planned = (double)passes * (double)t->trains;
    double done = 0, shown = 0, sum = 0, elapsed = 0;
    int64_t words = 0, summed = 0;
    bool hurried = false; /* did time, rather than passes, tell how much is done? */
    printf("\n  training   loss  perplexity  words/s\n");
    for (int64_t at = 0; done < 1; at = at + BATCH < t->trains ? at + BATCH : 0) {
        int64_t rows = smaller(BATCH, t->trains - at);
        if (at == 0) shuffle(t->train, t->trains, seed);
        load(m, t, t->train + at, rows);
        forward(m, rows, seed);
        sum += cross_entropy(m, rows, true);
        backward(m, rows);
        update(m, optimizer, done);

        words += rows;
        summed += rows;
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
    printf("  %.1f passes, %.1f s%s\n", (double)words / (double)t->trains, elapsed,
           hurried ? ": cut to the time, so the result depends on the machine" : "");
    return (double)words / elapsed;
}

/* ---- What is reported ------------------------------------------------------------------- */

/*
 * Perplexity on the held-out part: exp of the mean -log p. Licences repeat one another, so it
 * is told again for those words that do not, after this context, stand in the training part
 * too.
 */
static void report_perplexity(model *m, const text *t)
{
    double ours[2] = { 0, 0 }, unigram[2] = { 0, 0 };
    int64_t count[2] = { 0, 0 }, unknown = 0;
    for (int64_t at = 0; at < t->tests; at += BATCH) {
        int64_t rows = smaller(BATCH, t->tests - at);
        load(m, t, t->test + at, rows);
        forward(m, rows, NULL);
        cross_entropy(m, rows, false);
        for (int64_t r = 0; r < rows; r++) {
            int fresh = !t->seen[at + r];
            for (int k = 0; k <= fresh; k++) {
                ours[k] += (double)m->loss[r];
                unigram[k] -= (double)t->unigram[m->target[r]];
                count[k]++;
            }
            unknown += m->target[r] == UNKNOWN;
        }
    }
    printf("\n  held-out perplexity              words    model  unigram\n");
    for (int k = 0; k < 2 && count[k] > 0; k++)
        printf("  %s  %6lld  %7.2f  %7.2f\n",
               k ? "new in this context          " : "all                          ",
               (long long)count[k], exp(ours[k] / (double)count[k]),
               exp(unigram[k] / (double)count[k]));
    printf("  %.1f%% are unknown words, to both models one and the same word\n",
           100 * (double)unknown / (double)t->tests);
}

/* Draws the word that follows the first context of the batch. */
static int32_t draw(model *m, const text *t, float *p, uint64_t *seed)
{
    forward(m, 1, NULL);
    memcpy(p, m->w.bias.data, (size_t)t->names * sizeof *p);
    cblas_sgemv(CblasRowMajor, CblasNoTrans, t->names, DIM, 1, m->w.words.data, DIM, m->h, 1, 1,
                p, 1);
    p[UNKNOWN] = -INFINITY; /* a masked class: its probability is exactly 0 */
    if (m->context[CONTEXT - 1] == PARAGRAPH) p[PARAGRAPH] = -INFINITY; /* not an empty one */

    slg_tensor row = slg_tensor_1d(p, SLG_F32, t->names);
    slg_softmax_opts opts;
    slg_softmax_opts_init(&opts, sizeof opts);
    opts.temperature = temperature; /* below 1, likely words become likelier */
    check(m->ctx, slg_softmax(m->ctx, &row, &opts, &row, NULL)); /* in place */

    int32_t word = PARAGRAPH;
    double left = random_unit(seed) - (double)p[word];
    for (int32_t i = PARAGRAPH + 1; i < t->names && left >= 0; left -= (double)p[i++]) word = i;
    return word;
}

static void report_lines(model *m, const text *t, int lines, uint64_t *seed)
{
    float *p = resize(NULL, t->names, sizeof *p);
    printf("\n  generated, at temperature %g\n", temperature);
    while (lines-- > 0) {
        const char *last = "";
        for (int c = 0; c < CONTEXT; c++) m->context[c] = PARAGRAPH;
        for (int n = 0; n < 40; n++) {
            int32_t word = draw(m, t, p, seed);
            if (word == PARAGRAPH) break;
            const char *name = t->name[word];
            bool tight = n == 0 || strchr(".,;:!?)]/", name[0]) || strchr("([/", last[0]);
            printf("%s%s", n == 0 ? "  > " : tight ? "" : " ", name);
            last = name;
            memmove(m->context, m->context + 1, (CONTEXT - 1) * sizeof *m->context);
            m->context[CONTEXT - 1] = word;
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
    "usage: language_model [--seconds N] [--seed N] [--quick] [TEXT...]\n"
    "Trains a word-level language model on text files, or on the text files of a folder, and\n"
    "tells its perplexity on a tenth of the text that is held out.\n"
    "  TEXT         default: " TEXT_DEFAULT ", or where that is absent\n"
    "               " TEXT_ELSE "\n"
    "  --seconds N  at most so long in training (default 45)\n"
    "  --seed N     fixes the result, unless time ends the training (default 1)\n"
    "  --quick      two passes over the text, at most 3 seconds\n";

int main(int argc, char **argv)
{
    double seconds = 45;
    uint64_t seed = 1;
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
    model *m = make_model(ctx, &t, &seed);
    printf("  %lld files, %.2f MB, %lld words, a vocabulary of %d; %lld weights\n",
           (long long)t.files, 1e-6 * (double)t.bytes, (long long)t.words, (int)t.names,
           (long long)m->w.size);
    printf("  held out: of each ten blocks of %lld words the last, %lld words in all\n",
           (long long)t.block, (long long)t.tests);

    double words_per_second = train(m, &t, passes, seconds, &seed);
    report_perplexity(m, &t);
    report_machine(ctx, words_per_second);
    report_lines(m, &t, 4, &seed);

    free(m->w.all), free(m->dw.all), free(m);
    slg_ctx_free(ctx);
    free_text(&t);
    return fflush(stdout) != 0;
}
