/*
 * 41 - Dale meets Langevin: A Multiplicative Denoising Diffusion Model (2025).
 *
 * Images of thousands of pixels and their FID take days; what is run is the claim behind them:
 * geometric Brownian motion turns data into log-normal noise, and the multiplicative updates
 * turn it back.
 *
 * 1. Two dimensions, where the score is known: log x_0 = c (1, -1/2) + N(0, 0.15^2), c one of
 *    two. With the exact score, by both samplers, and with one that a network learned. Their
 *    distance: MMD^2 of log x, Gaussian kernel of width 0.3.
 * 2. The 8 by 8 digits, as images + 1, from noised class averages. Distances to digits that
 *    were held out: MMD^2 of width 2, and that to the nearest; beside those of other digits and
 *    of pixels drawn independently, each as it is in the digits.
 *
 * MMD^2 is unbiased: two sets of data are at about 0, also below. Training and sampling are the
 * library's: noising, loss, layers, AdamW, the chain.
 */
#include <cblas.h>

#include "papers.h"
#include "score_network.h"

enum { D = 2, HIDDEN = 64, SAMPLES = 4000, POINTS = 1500, CHAINS = 3 };
enum {
    ROWS = 1797,
    HELD = 500,
    PIXELS = 64,
    CLASSES = 10,
    WIDE = 256,
    DRAWN = 500,
    DENOISE = 5
};

static const double NARROW = 0.15, CENTER[2] = { -0.6, 0.7 };

/* ---- Distance ---------------------------------------------------------------------------- */

static double kernel_sum(const float *a, const float *b, int points, int d, double width)
{
    double sum = 0;
    for (int i = 0; i < points; i++)
        for (int j = 0; j < points; j++) {
            double square = 0;
            if (a == b && i == j) continue;
            for (int k = 0; k < d; k++) {
                const double far = (double)a[d * i + k] - (double)b[d * j + k];
                square += far * far;
            }
            sum += exp(-square / (2 * width * width));
        }
    return sum / ((double)points * (a == b ? points - 1 : points));
}

static double distance(const float *a, const float *b, int points, int d, double width)
{
    return kernel_sum(a, a, points, d, width) + kernel_sum(b, b, points, d, width) -
           2 * kernel_sum(a, b, points, d, width);
}

/* ---- Two dimensions ---------------------------------------------------------------------- */

typedef struct world {
    run_t *r;
    slg_ctx *ctx;
    score_network net;
    float *x, *h, *data;
    bool logs; /* what a chain's state holds */
} world;

static void draw_points(rng *g, size_t count, float *y)
{
    for (size_t i = 0; i < count; i++) {
        const double c = CENTER[rng_below(g, 2)];
        y[D * i] = (float)rng_normal(g, c, NARROW);
        y[D * i + 1] = (float)rng_normal(g, -0.5 * c, NARROW);
    }
}

static void draw_batch(void *user, rng *g, float *y)
{
    (void)user;
    draw_points(g, SCORE_BATCH, y);
}

/* h + 1 is the gradient of the logarithm of two Gaussians in log x. */
static void exact_h(const float *y, double t, float *h)
{
    const double v = NARROW * NARROW + SCORE_SIGMA * SCORE_SIGMA * t;
    double far[2][D], square[2];
    for (int k = 0; k < 2; k++) {
        far[k][0] = CENTER[k] - (double)y[0], far[k][1] = -0.5 * CENTER[k] - (double)y[1];
        square[k] = (far[k][0] * far[k][0] + far[k][1] * far[k][1]) / (2 * v);
    }
    const double first = 1 / (1 + exp(square[0] - square[1]));
    for (int j = 0; j < D; j++)
        h[j] = (float)(-1 + (first * far[0][j] + (1 - first) * far[1][j]) / v);
}

/* Mean squared error of h at t = 1 over the noised data, by its variance. */
static double learned_error(world *w, rng *g)
{
    double one = 1, error = 0, sum = 0, square = 0;
    float *y = w->x, *h = w->h, exact[D];
    draw_points(g, SAMPLES, y);
    for (int i = 0; i < SAMPLES * D; i++) y[i] += (float)rng_normal(g, 0, SCORE_SIGMA);
    score_network_run(&w->net, SAMPLES, y, &one, 0, h);
    for (int i = 0; i < SAMPLES; i++) {
        exact_h(y + D * i, 1, exact);
        for (int j = 0; j < D; j++) {
            const double e = (double)exact[j], off = (double)h[D * i + j] - e;
            error += off * off, sum += e, square += e * e;
        }
    }
    const double n = SAMPLES * D, variance = square / n - sum / n * (sum / n);
    note(w->r, "h at t = 1: mean squared error %.4f, variance %.2f", error / n, variance);
    return error / n / variance;
}

static slg_status exact_model(void *user, double t, const slg_tensor *x, slg_tensor *h)
{
    const world *w = user;
    const float *from = x->data;
    for (int64_t i = 0; i < x->shape[0]; i++) {
        float y[D];
        for (int j = 0; j < D; j++)
            y[j] = w->logs ? from[D * i + j] : logf(fabsf(from[D * i + j]));
        exact_h(y, t, (float *)h->data + D * i);
    }
    return SLG_OK;
}

typedef struct outcome {
    double mmd, start_mmd;
    int64_t lost; /* elements that are not positive, saturated, or changed their sign */
} outcome;

static void to_logs(world *w, outcome *out)
{
    for (int i = 0; i < SAMPLES * D; i++) {
        if (!w->logs) {
            out->lost += !(w->x[i] > 0);
            w->x[i] = logf(w->x[i]);
        }
        out->lost += !(expf(w->x[i]) > 0) || isinf(expf(w->x[i]));
    }
}

/* Which: Dale and Langevin with the exact score, unconstrained with it, the former learned. */
static outcome run_chain(world *w, int which, int steps)
{
    slg_gbm p;
    slg_gbm_sample_opts o;
    slg_gbm_counts counts;
    slg_rng noise = { 7 + (uint64_t)which, 0 };
    slg_tensor x = plane(w->x, SAMPLES, D), h = plane(w->h, SAMPLES, D);
    outcome out = { .lost = 0 };
    slg_gbm_init(&p, sizeof p), slg_gbm_sample_opts_init(&o, sizeof o);
    slg_gbm_counts_init(&counts, sizeof counts);
    o.steps = steps, o.sampler = which == 1 ? SLG_GBM_UNCONSTRAINED : SLG_DALE_LANGEVIN;
    w->logs = which != 1, p.log_state = w->logs;
    must(w->r, w->ctx, slg_random(w->ctx, &noise, SLG_NORMAL, &x));
    for (int i = 0; i < SAMPLES * D; i++)
        w->x[i] *= (float)sqrt(SCORE_SIGMA * SCORE_SIGMA + 0.3);
    out.start_mmd = distance(w->x, w->data, POINTS, D, 0.3);
    for (int i = 0; i < SAMPLES * D && !w->logs; i++) w->x[i] = expf(w->x[i]);
    must(w->r, w->ctx,
         which == 2 ? slg_gbm_sample(w->ctx, &x, &h, &noise, &p, &o, score_network_model,
                                     &w->net, &counts)
                    : slg_gbm_sample(w->ctx, &x, &h, &noise, &p, &o, exact_model, w, &counts));
    out.lost = counts.saturated + counts.sign_changes;
    to_logs(w, &out);
    out.mmd = distance(w->x, w->data, POINTS, D, 0.3);
    return out;
}

static void note_moments(world *w, const char *who)
{
    double mean[D], sd[D];
    for (int j = 0; j < D; j++) {
        double sum = 0, square = 0;
        for (int i = 0; i < SAMPLES; i++) {
            const double v = (double)w->x[D * i + j];
            sum += v, square += v * v;
        }
        mean[j] = sum / SAMPLES, sd[j] = sqrt(square / SAMPLES - mean[j] * mean[j]);
    }
    note(w->r, "log x, %s: mean (%.3f, %.3f), standard deviation (%.3f, %.3f)", who, mean[0],
         mean[1], sd[0], sd[1]);
}

static void scatter(world *w, const char *name)
{
    double *x = run_doubles(w->r, 500), *y = run_doubles(w->r, 500);
    for (int i = 0; i < 500; i++)
        x[i] = exp((double)w->x[D * i]), y[i] = exp((double)w->x[D * i + 1]);
    series(w->r, name, 500, x, y);
}

static void points_part(world *w, rng *g)
{
    static const char *const names[CHAINS] = { "Dale-Langevin, exact score",
                                               "unconstrained, exact score",
                                               "Dale-Langevin, learned score" };
    static const int lengths[] = { 20, 100, 500 };
    double table[CHAINS][3] = { { 0 } }, start = 0, began = seconds();
    int64_t lost = 0;
    w->x = run_floats(w->r, SAMPLES * D), w->h = run_floats(w->r, SAMPLES * D);
    w->data = run_floats(w->r, SAMPLES * D);
    w->net = score_network_new(w->r, w->ctx, g, D, HIDDEN, SAMPLES);
    draw_points(g, SAMPLES, w->data);
    score_network_train(&w->net, g, 4000, 2e-3, draw_batch, NULL);
    note(w->r, "training, 4000 steps of 256: %.1f s", seconds() - began);
    const double error = learned_error(w, g);
    figure(w->r, "Samples after 500 steps, from log-normal noise", "x1", "x2", FIGURE_POINTS);
    for (int which = 0; which < CHAINS; which++)
        for (int k = which == 2 ? 1 : 0; k < 3; k++) {
            const outcome o = run_chain(w, which, lengths[k]);
            table[which][k] = o.mmd, start = o.start_mmd, lost += o.lost;
            note(w->r, "%s, %d steps: MMD^2 %.5f", names[which], lengths[k], o.mmd);
            if (k < 2 || which == 1) continue;
            note_moments(w, names[which]);
            scatter(w, names[which]);
        }
    claim(w->r, "exact score, Dale-Langevin, 100 steps: MMD^2 to the data",
          "turns noise into data", table[0][1], "", at_most(0.004));
    claim(w->r, "exact score, unconstrained, 100 steps: MMD^2", "the same to first order",
          table[1][1], "", at_most(0.004));
    claim(w->r, "learned score, Dale-Langevin, 500 steps: MMD^2", "generates the data",
          table[2][2], "", at_most(0.015));
    claim(w->r, "that by the start's", "", table[2][2] / start, "", at_most(0.2));
    claim(w->r, "error of the learned h at t = 1, of its variance", "", 100 * error, "%",
          at_most(2));
    claim(w->r, "elements that are not positive, or changed their sign on the way", "none",
          (double)lost, "", at_most(0));
}

/* ---- Digits ------------------------------------------------------------------------------ */

typedef struct digits {
    float *x;                        /* [ROWS, PIXELS] in [0, 1], in any order */
    float average[CLASSES * PIXELS]; /* of log(1 + x), of each class */
} digits;

/* The last HELD are held out. */
static void read_digits(run_t *r, rng *g, digits *d)
{
    csv t = csv_read(r, "digits.csv.gz", ',');
    int64_t order[ROWS];
    int count[CLASSES] = { 0 };
    d->x = run_floats(r, ROWS * PIXELS);
    if (t.rows != ROWS || t.cols != PIXELS + 1)
        run_fail(r, "digits: %zu rows of %zu", t.rows, t.cols);
    for (int i = 0; i < ROWS; i++) order[i] = i;
    rng_shuffle(g, ROWS, order);
    for (int i = 0; i < ROWS; i++) {
        const int label = (int)csv_number(&t, (size_t)order[i], PIXELS);
        for (int j = 0; j < PIXELS; j++) {
            const double v = csv_number(&t, (size_t)order[i], (size_t)j) / 16;
            d->x[i * PIXELS + j] = (float)v;
            if (i < ROWS - HELD) d->average[label * PIXELS + j] += logf(1 + (float)v);
        }
        count[label] += i < ROWS - HELD;
    }
    for (int i = 0; i < CLASSES * PIXELS; i++) d->average[i] /= (float)count[i / PIXELS];
}

static void draw_digits(void *user, rng *g, float *y)
{
    const digits *d = user;
    for (int i = 0; i < SCORE_BATCH; i++) {
        const float *image = d->x + rng_below(g, ROWS - HELD) * PIXELS;
        for (int j = 0; j < PIXELS; j++) y[i * PIXELS + j] = logf(1 + image[j]);
    }
}

/* Noised class averages, as the paper starts. */
static void start_noise(world *w, const digits *d, const slg_gbm *p, slg_rng *noise,
                        slg_tensor *y)
{
    double *one = run_doubles(w->r, DRAWN);
    const slg_tensor t = slg_tensor_1d(one, SLG_F64, DRAWN);
    for (int i = 0; i < DRAWN; i++) {
        one[i] = 1;
        memcpy((float *)y->data + i * PIXELS, d->average + i % CLASSES * PIXELS,
               PIXELS * sizeof(float));
    }
    must(w->r, w->ctx, slg_gbm_forward(w->ctx, y, &t, NULL, noise, p, NULL, y, NULL, NULL));
}

/* Mean distance of the first DRAWN images to the nearest of others. */
static double nearest(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < DRAWN; i++) {
        double least = INFINITY;
        for (int j = 0; j < HELD; j++) {
            double square = 0;
            for (int k = 0; k < PIXELS; k++) {
                const double far = (double)a[PIXELS * i + k] - (double)b[PIXELS * j + k];
                square += far * far;
            }
            least = fmin(least, square);
        }
        sum += sqrt(least);
    }
    return sum / DRAWN;
}

static void to_images(const float *y, float *image)
{
    for (int i = 0; i < DRAWN * PIXELS; i++) image[i] = fminf(1, fmaxf(0, expf(y[i]) - 1));
}

static void print_digits(world *w, const float *image)
{
    static const char shades[] = " .:-=+*#%@";
    for (int row = 0; row < 8; row++) {
        char line[96] = "";
        for (int k = 0; k < 8; k++) {
            for (int j = 0; j < 8; j++)
                line[k * 10 + j] = shades[(int)(9.99f * image[k * PIXELS + row * 8 + j])];
            line[k * 10 + 8] = line[k * 10 + 9] = ' ';
        }
        note(w->r, "%s", line);
    }
}

static void digits_part(world *w, rng *g)
{
    digits *d = run_memory(w->r, sizeof *d);
    read_digits(w->r, g, d);
    const float *images = d->x, *held = images + (ROWS - HELD) * PIXELS;
    float *y = run_floats(w->r, DRAWN * PIXELS), *h = run_floats(w->r, DRAWN * PIXELS);
    float *drawn = run_floats(w->r, DRAWN * PIXELS), *apart = run_floats(w->r, DRAWN * PIXELS);
    slg_tensor x = plane(y, DRAWN, PIXELS), ht = plane(h, DRAWN, PIXELS);
    slg_rng noise = { 8, 0 };
    slg_gbm p;
    slg_gbm_sample_opts o;
    double began = seconds();
    score_network net = score_network_new(w->r, w->ctx, g, PIXELS, WIDE, DRAWN);
    net.least_t = 0.002, net.power = 2;
    score_network_train(&net, g, run_quick(w->r) ? 2000 : 8000, 2e-4, draw_digits, d);
    slg_gbm_init(&p, sizeof p), slg_gbm_sample_opts_init(&o, sizeof o);
    p.log_state = 1, o.steps = run_quick(w->r) ? 200 : 500, o.denoise = DENOISE;
    start_noise(w, d, &p, &noise, &x);
    to_images(y, drawn);
    const double start = distance(drawn, held, DRAWN, PIXELS, 2);
    must(w->r, w->ctx,
         slg_gbm_sample(w->ctx, &x, &ht, &noise, &p, &o, score_network_model, &net, NULL));
    to_images(y, drawn);
    for (int i = 0; i < DRAWN * PIXELS; i++)
        apart[i] = images[rng_below(g, ROWS - HELD) * PIXELS + i % PIXELS];
    const double mmd = distance(drawn, held, DRAWN, PIXELS, 2);
    const double other = nearest(images, held), chance = nearest(apart, held) - other;
    const double excess = nearest(drawn, held) - other;
    note(w->r,
         "digits: to the nearest of 500 held out: other digits %.3f, samples %.3f, "
         "independent pixels %.3f; %.1f s",
         other, other + excess, other + chance, seconds() - began);
    print_digits(w, drawn);
    claim(w->r, "digits: MMD^2 of samples by that of the noise", "generates images",
          mmd / start, "", at_most(0.25));
    claim(w->r, "digits: how much farther than digits, by independent pixels", "",
          excess / chance, "", at_most(0.6));
}

static void run(run_t *r)
{
    world w = { .r = r, .ctx = run_ctx(r, SLG_ISA_AUTO, 0) };
    rng g = rng_seed(41);
    const int threads = openblas_get_num_threads();
    openblas_set_num_threads(1); /* small products: threads would wait more than they do */
    points_part(&w, &g);
    digits_part(&w, &g);
    openblas_set_num_threads(threads);
}

const paper paper_41_dale_langevin = { 41, "dale-langevin",
                                       "Dale meets Langevin: A Multiplicative Denoising "
                                       "Diffusion Model",
                                       run };
