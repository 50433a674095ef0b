/*
 * ops.c - what is raced: buffers, float64 checks and the field of each operation.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"
#include "plain.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Rows of logits --------------------------------------------------------------------- */

/* Fewer rows where quick, and shorter ones where a row alone is long. */
static void shrink(race *r, int64_t elements)
{
    if (!r->quick || r->rows * r->cols <= elements) return;
    r->cols = least(r->cols, elements);
    r->rows = least(r->rows, (elements + r->cols - 1) / r->cols);
}

static double *reference_lse(race *r, const float *x)
{
    double *lse = race_memory(r, (size_t)r->rows * sizeof *lse);
    for (int64_t i = 0; i < r->rows; i++) lse[i] = ref_logsumexp(r->cols, x + i * r->cols);
    return lse;
}

void logits_setup(race *r)
{
    shrink(r, 1 << 19);
    int64_t n = r->rows * r->cols;
    r->x = race_floats(r, n);
    r->y = race_floats(r, n);
    r->row_out = race_floats(r, r->rows);
    fill_logits(r->x, r->rows, r->cols, r->w->input, 1);
    fill_targets(r);
    r->lse = reference_lse(r, r->x);
    if (r->w->input == NORMAL) return;
    r->x_normal = race_floats(r, n);
    fill_logits(r->x_normal, r->rows, r->cols, NORMAL, 1);
}

void logits_reset(race *r)
{
    memset(r->y, 0xFF, (size_t)(r->rows * r->cols) * sizeof *r->y); /* NaN */
    memset(r->row_out, 0xFF, (size_t)r->rows * sizeof *r->row_out);
}

static double softmax_check(race *r)
{
    double worst = 0;
    int64_t bad = 0;
    for (int64_t i = 0; i < r->rows; i++)
        worst = fmax(worst, ref_softmax_error(r->cols, r->x + i * r->cols, r->lse[i],
                                              r->y + i * r->cols, &bad));
    return bad ? NAN : worst;
}

static double log_softmax_check(race *r)
{
    double worst = 0;
    int64_t bad = 0;
    for (int64_t i = 0; i < r->rows; i++)
        worst = fmax(worst, ref_log_error(r->cols, r->x + i * r->cols, r->lse[i],
                                          r->y + i * r->cols, &bad));
    return bad ? NAN : worst;
}

/* fmax forgets a NaN, this does not. */
static double worse(double a, double b) { return isnan(b) || b > a ? b : a; }

static double logsumexp_check(race *r)
{
    double worst = 0;
    for (int64_t i = 0; i < r->rows && !isnan(worst); i++)
        worst = worse(worst, fabs((double)r->row_out[i] - r->lse[i]) / (1 + fabs(r->lse[i])));
    return worst;
}

double cross_entropy_check(race *r)
{
    double worst = 0, loss = 0;
    int64_t bad = 0;
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->cols;
        worst = fmax(worst, ref_gradient_error(r->cols, x, r->lse[i], r->target[i],
                                               (double)r->rows, r->y + i * r->cols, &bad));
        loss += r->lse[i] - (double)x[r->target[i]];
    }
    loss /= (double)r->rows;
    return bad ? NAN : worse(worst, fabs(r->loss - loss) / (1 + fabs(loss)));
}

/* ---- Output layer and cross-entropy ----------------------------------------------------- */

void linear_setup(race *r)
{
    if (r->quick) r->rows = 128, r->dim = 128, r->cols = 4096;
    r->hidden = race_floats(r, r->rows * r->dim);
    r->weight = race_floats(r, r->cols * r->dim);
    r->dhidden = race_floats(r, r->rows * r->dim);
    r->dweight = race_floats(r, r->cols * r->dim);
    /* Logits of sd 3, as a trained model's. */
    fill_normal(r->hidden, r->rows * r->dim, 1.0f, 2);
    fill_normal(r->weight, r->cols * r->dim, 3.0f / sqrtf((float)r->dim), 3);
    fill_targets(r);
}

void linear_reset(race *r)
{
    memset(r->dhidden, 0xFF, (size_t)(r->rows * r->dim) * sizeof(float));
    memset(r->dweight, 0xFF, (size_t)(r->cols * r->dim) * sizeof(float));
}

static double dot(int64_t n, const float *a, const float *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Error of dhidden of token t, relative to its largest entry: from float64 logits. */
static double token_error(race *r, int64_t t, double *logits)
{
    const float *h = r->hidden + t * r->dim;
    double max = -INFINITY, sum = 0, largest = 0, worst = 0;
    for (int64_t c = 0; c < r->cols; c++) {
        logits[c] = dot(r->dim, h, r->weight + c * r->dim);
        max = fmax(max, logits[c]);
    }
    for (int64_t c = 0; c < r->cols; c++) sum += logits[c] = exp(logits[c] - max);
    double *dh = calloc((size_t)r->dim, sizeof *dh);
    for (int64_t c = 0; c < r->cols; c++) {
        double d = (logits[c] / sum - (c == r->target[t])) / (double)r->rows;
        for (int64_t k = 0; k < r->dim; k++) dh[k] += d * (double)r->weight[c * r->dim + k];
    }
    for (int64_t k = 0; k < r->dim; k++) largest = fmax(largest, fabs(dh[k]));
    for (int64_t k = 0; k < r->dim; k++)
        worst = worse(worst, fabs((double)r->dhidden[t * r->dim + k] - dh[k]) / largest);
    free(dh);
    return worst;
}

double linear_products_error(const race *r)
{
    double a = dot(r->cols * r->dim, r->dweight, r->weight);
    double b = dot(r->rows * r->dim, r->dhidden, r->hidden);
    return fabs(a - b) / (1 + fabs(b));
}

/* A few tokens' dhidden in full, dweight as a whole. */
static double linear_check(race *r)
{
    double *logits = malloc((size_t)r->cols * sizeof *logits), worst = 0;
    for (int64_t i = 0; i < 4 && !isnan(worst); i++)
        worst = worse(worst, token_error(r, i * (r->rows - 1) / 3, logits));
    free(logits);
    return worse(worst, linear_products_error(r));
}

/* ---- AdamW ------------------------------------------------------------------------------ */

int64_t tensor_sizes(const race *r, int64_t *sizes, int64_t max)
{
    enum { D = 768 };
    static const int64_t block[] = { D, D, 3 * D * D, 3 * D, D * D,     D,
                                     D, D, 4 * D * D, 4 * D, 4 * D * D, D };
    enum { BLOCK = sizeof block / sizeof *block, ALL = 2 + 12 * BLOCK + 2 };
    int64_t count = 0, left = r->cols;
    for (int64_t i = 0; i < ALL && left > 0 && count < max; i++) {
        int64_t n = i == 0         ? 50257 * D
                    : i == 1       ? 1024 * D
                    : i >= ALL - 2 ? D
                                   : block[(i - 2) % BLOCK];
        sizes[count] = least(n, left);
        left -= sizes[count++];
    }
    return count;
}

static void adamw_setup(race *r)
{
    if (r->quick) r->cols = least(r->cols, 1 << 20);
    r->x = race_floats(r, r->cols);
    r->grad = race_floats(r, r->cols);
    r->m = race_floats(r, r->cols);
    r->v = race_floats(r, r->cols);
    r->start = race_floats(r, r->cols);
    fill_normal(r->start, r->cols, 0.02f, 4);
    fill_normal(r->grad, r->cols, 1e-3f, 5);
}

static void adamw_reset(race *r)
{
    memcpy(r->x, r->start, (size_t)r->cols * sizeof(float));
    memset(r->m, 0, (size_t)r->cols * sizeof(float));
    memset(r->v, 0, (size_t)r->cols * sizeof(float));
}

/* After the first step, where m / (1 - beta1) = g and v / (1 - beta2) = g^2. */
static double adamw_check(race *r)
{
    const double lr = 1e-3, eps = 1e-8, decay = 0.01;
    double worst = 0;
    for (int64_t i = 0; i < r->cols && !isnan(worst); i++) {
        double g = (double)r->grad[i], w = (double)r->start[i];
        w = w - lr * decay * w - lr * g / (fabs(g) + eps);
        worst = worse(worst, fabs((double)r->x[i] - w) / (fabs(w) + lr));
    }
    return worst;
}

/* The same after the chain: of a tensor's gradient its norm and what lies along the weights. */
static double update_chain_check(race *r)
{
    int64_t size[MAX_TENSORS], at = 0;
    const int64_t count = tensor_sizes(r, size, MAX_TENSORS);
    double norm = 0, worst = 0;
    for (int64_t i = 0; i < r->cols; i++) norm += (double)r->grad[i] * (double)r->grad[i];
    const double clip = fmin(1, 1 / (sqrt(norm) + 1e-6)), lr = 1e-3;
    for (int64_t t = 0; t < count; at += size[t++]) {
        const float *w = r->start + at, *g = r->grad + at;
        double ww = 0, wg = 0, gg = 0;
        for (int64_t i = 0; i < size[t]; i++) {
            ww += (double)w[i] * (double)w[i];
            wg += (double)w[i] * (double)g[i];
            gg += (double)g[i] * (double)g[i];
        }
        const double along = wg / ww, scale = clip * sqrt(gg / (gg - along * wg));
        for (int64_t i = 0; i < size[t] && !isnan(worst); i++) {
            double u = scale * ((double)g[i] - along * (double)w[i]);
            double want = (double)w[i] * (1 - lr * 0.01) - lr * u / (fabs(u) + 1e-8);
            worst = worse(worst, fabs((double)r->x[at + i] - want) / (fabs(want) + lr));
        }
    }
    return worst;
}

/* ---- Fields: the library first ---------------------------------------------------------- */

#define FIELD(name) static const candidate *const name[]

FIELD(softmax_field) = { &ours_softmax,
                         &ours_softmax_normal,
                         &plain_softmax,
                         &onednn_softmax,
                         &xnnpack_softmax,
                         &torch_softmax,
                         &ours_two_pass,
                         &ours_recompute,
                         &ours_reload,
                         &floor_read,
                         &floor_copy,
                         &floor_copy_nt,
                         &floor_fill_nt,
                         &floor_read_copy,
                         &floor_read_copy_nt,
                         &floor_issue,
                         NULL };
FIELD(log_softmax_field) = { &ours_log_softmax,   &plain_log_softmax,
                             &onednn_log_softmax, &torch_log_softmax,
                             &floor_read,         &floor_copy,
                             &floor_copy_nt,      NULL };
FIELD(logsumexp_field) = { &ours_logsumexp, &plain_logsumexp, &torch_logsumexp, &floor_read,
                           NULL };
FIELD(cross_entropy_field) = { &ours_cross_entropy,
                               &ours_cross_entropy_normal,
                               &ours_cross_entropy_in_place,
                               &plain_cross_entropy,
                               &torch_cross_entropy,
                               &torch_cross_entropy_kernels,
                               &floor_read,
                               &floor_copy,
                               &floor_copy_nt,
                               NULL };
FIELD(linear_field) = { &ours_linear, &torch_linear, &torch_linear_kernels, &floor_gemms,
                        NULL };
FIELD(adamw_field) = { &ours_adamw,          &ours_adamw_half, &plain_adamw, &torch_adamw,
                       &torch_adamw_foreach, &floor_stream28,  NULL };
FIELD(update_chain_field) = { &ours_update_chain, &torch_update_chain,
                              &torch_update_chain_foreach, &floor_stream36, NULL };

const operation op_softmax = { "softmax", logits_setup, softmax_check,  logits_reset,
                               1e-2,      1e-6,         "read+copy-nt", softmax_field };
const operation op_log_softmax = {
    "log_softmax", logits_setup,     log_softmax_check, logits_reset, 1e-4, 0,
    "copy-nt",     log_softmax_field
};
const operation op_logsumexp = { "logsumexp", logits_setup, logsumexp_check, logits_reset, 1e-4,
                                 0,           "read",       logsumexp_field };
const operation op_cross_entropy = {
    "cross_entropy", logits_setup,       cross_entropy_check, logits_reset, 1e-2, 0,
    "copy-nt",       cross_entropy_field
};
const operation op_linear = { "linear_cross_entropy",
                              linear_setup,
                              linear_check,
                              linear_reset,
                              1e-3,
                              0,
                              "gemms",
                              linear_field };
const operation op_adamw = { "adamw", adamw_setup, adamw_check, adamw_reset,
                             1e-4,    0,           "stream28",  adamw_field };
const operation op_update_chain = {
    "update_chain", adamw_setup, update_chain_check, adamw_reset,
    1e-3,           0,           "stream36",         update_chain_field
};
