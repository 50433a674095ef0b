/*
 * race.h - what a race is made of. A workload is an operation, a shape and goals; an operation
 * has a field of candidates (the library, its peers, the floors), buffers and a check; a
 * candidate prepares itself for a race, then runs as often as it is told.
 *
 * To add a peer: a candidate {name, role, argument, prepare, run, fetch, release} in a file of
 * its own or in the file of its library, a line in race.h, and a place in the fields of ops.c.
 * To add a workload: a line in workloads.c; a loss: see losses.c.
 */
#ifndef PEERS_RACE_H
#define PEERS_RACE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <softlogit/softlogit.h>

enum { MAX_FIELD = 24, MAX_GOALS = 6, MAX_TRIALS = 31, MAX_BUFFERS = 24, MAX_PARTS = 16 };

/* Logits: normal with standard deviation 3 or 30, or sd 3 with half of them -inf. */
typedef enum input { NORMAL, WIDE, MASKED } input;

/* FORM: another form of our own, for the comparison; not among "best". */
typedef enum role { OURS, PEER, FORM, FLOOR } role;

typedef enum goal_kind {
    NO_GOAL,
    /* Time of `of` / ours, at least. "best": the best peer; "torch": the best of those whose
       name begins so. */
    FASTER,
    AT_MOST,    /* ours / time of floor `of`, at most */
    LESS_MEMORY /* extra memory of `of` / ours, at least. "logits": rows x cols floats */
} goal_kind;

typedef struct goal {
    goal_kind kind;
    const char *of;
    double bar;
} goal;

typedef struct workload {
    const char *name;
    const struct operation *op;
    const char *loss; /* of op_loss and op_fused_loss: its name in losses.c */
    int64_t rows, cols, dim;
    int32_t threads;
    int32_t isa; /* slg_isa: the library's, and that of the plain loops */
    input input;
    goal goals[MAX_GOALS];
} workload;

/* One workload being raced: what candidates may use. */
struct result;

typedef struct race {
    const workload *w;
    bool quick;
    int64_t rows, cols, dim;  /* of w, or less where quick */
    slg_ctx *ctx;             /* the library's, made for this workload */
    float *x, *y;             /* logits (or weights), and the output of all candidates */
    float *x_normal;          /* where x is not NORMAL: logits that are */
    int64_t *target;          /* [rows] */
    double *lse, *lse_normal; /* [rows] float64 reference for x and for x_normal */
    float *row_out;           /* [rows] */
    float *hidden, *weight, *dhidden, *dweight;
    float *teacher_hidden, *teacher_weight; /* [rows, teacher_dim], [cols, teacher_dim] */
    int64_t teacher_dim;
    float *prob, *row_tau;    /* of losses: distributions, and a number for each row */
    float *dother;            /* the gradient of a second matrix; NULL: none wanted */
    float *kept, *kept_other; /* y and dother as the library wrote them, loss_part rows */
    const struct candidate *checked; /* whose results a check looks at */
    float *grad, *m, *v, *start;     /* of optimizers */
    double loss;                     /* as the last candidate found it */
    const char *measure; /* what check finds, where that is no error: told of all */
    double *w64;     /* of logistic: [cols, dim + 1], weights and intercepts */
    double gradient; /* the norm that is to be reached */
    double passes;   /* over the data, of our last run: what the floor reads */
    int64_t tokens, layers;          /* of train_step: of a sequence, of the model */
    struct train_step *train;
    double flops; /* of a run, of multiplications and additions that count; 0: not told */
    void (*parts)(const struct race *r, struct result *res); /* NULL: not told */
    double memory;      /* as a candidate counted its scratch itself; NAN: peak RSS is taken */
    double own_outputs; /* bytes of outputs that it allocates itself: not extra memory */
    int64_t part;    /* set by prepare: so many rows alone are run, and times scaled; 0: all */
    const char *why; /* set by prepare that returns NULL because something is missing */
    void *buffers[MAX_BUFFERS];
    size_t sizes[MAX_BUFFERS];
    int num_buffers;
} race;

typedef struct candidate {
    const char *name;
    role role;
    const char *arg;
    /* State for this race; NULL: takes no part (with race->why set: it is missing). */
    void *(*prepare)(race *r, const char *arg);
    void (*run)(race *r, void *state, int64_t times);
    void (*fetch)(race *r,
                  void *state); /* puts results where the check looks; NULL: they are */
    void (*release)(race *r, void *state); /* NULL: nothing to do */
    double (*scale)(const race *r);        /* factor on its time; NULL: 1 */
} candidate;

typedef struct operation {
    const char *name;
    void (*setup)(race *r);   /* sizes (where quick), buffers, inputs */
    double (*check)(race *r); /* error of the results against float64; NAN: not numbers */
    void (*reset)(race *r);   /* before a candidate's first run; NULL: nothing */
    double tolerance;         /* a candidate beyond is wrong */
    double error_goal;        /* bar for ours; 0: none */
    const char *floor;        /* the one to show where no goal names another */
    const candidate *const *field;
} operation;

/* What came of a candidate. Times in nanoseconds a run. */
typedef struct entry {
    const candidate *c;
    void *state;
    int64_t inner;
    int trials;
    double sample[MAX_TRIALS], median, low, q1, q3;
    double ratio;        /* median over the trials of its time / ours */
    double error;        /* NAN: not checked */
    double memory;       /* bytes beyond inputs and outputs; NAN: not known */
    bool memory_counted; /* by the candidate; else growth of the peak RSS */
    double resident;     /* growth of the peak RSS; NAN: not known */
    int64_t part;        /* rows that it ran, where not all */
    bool checked, wrong;
} entry;

/* Where the library's time goes. */
typedef struct share {
    const char *name;
    double ns;
} share;

typedef struct result {
    const workload *w;
    int64_t rows, cols, dim;
    bool quick, failed;
    entry field[MAX_FIELD];
    int num_field;
    double goal_value[MAX_GOALS];
    double flops; /* as the race's */
    const char *measure;
    share parts[MAX_PARTS];
    int num_parts;
} result;

/* race.c. Clocks in nanoseconds: the one that the race is timed by, and the wall's. */
double race_clock(const race *r);
double wall_clock(void);
void race_run(const workload *w, bool quick, result *res);
const entry *result_find(const result *res, const char *name);

/* report.c */
void report_header(FILE *json, bool quick);
void report_line(const result *res);
void report_json(FILE *json, const result *res, bool first);
int report_met(const result *res, int *judged); /* goals met, of those that were judged */

/* missing.c keeps who is missing, each once. */
void missing_add(const char *name, const char *why);
void missing_print(void);

/* data.c: 2 MiB-aligned memory in huge pages, touched; freed with the race. Inputs. */
void *race_memory(race *r, size_t bytes);
float *race_floats(race *r, int64_t n);
void race_free(race *r);
void fill_normal(float *x, int64_t n, float sd, uint64_t seed);
void fill_logits(float *x, int64_t rows, int64_t cols, input kind, uint64_t seed);
void fill_targets(race *r);

/* workloads.c, ops.c */
extern const workload workloads[];
extern const operation op_softmax, op_log_softmax, op_logsumexp, op_cross_entropy, op_linear,
    op_adamw, op_update_chain;
void logits_setup(race *r);
void logits_reset(race *r);
double cross_entropy_check(race *r);
void linear_setup(race *r);
void linear_reset(race *r);
/* <dweight, weight> and <dhidden, hidden> are both the sum of dlogits * logits: their
   difference. */
double linear_products_error(const race *r);

/* losses.c: losses by name, on a matrix and with an output layer. */
extern const operation op_loss, op_fused_loss;

/* PyTorch's compositions take this many of the rows, so that a temporary fits the heap
   (torch.c) and memory stays modest. */
enum { LOSS_PART = 128 };
static inline int64_t loss_part(const race *r)
{
    return r->rows < LOSS_PART ? r->rows : LOSS_PART;
}

/* decode.c */
extern const operation op_decode, op_ls_decode;

/* attention.c: rows are tokens, cols heads */
extern const operation op_attention, op_attention_grad, op_ls_attention;
extern const candidate torch_attention, torch_attention_grad, torch_ls_attention;

/* train_step.c: rows are tokens of all sequences, cols words, dim the width */
extern const operation op_train_step;
extern const candidate torch_train, torch_train_kept, floor_peak; /* attention.c: the peak */
/* The sizes of the model's weights, in their order. Returns how many there are. */
int64_t train_sizes(const race *r, int64_t *sizes, int64_t max);

/* logistic.c: rows are samples, cols classes, dim features */
extern const operation op_logistic;
extern const candidate sklearn_f32, sklearn_f64, floor_read_data;

/* linear_peers.c: rows are tokens, cols heads */
extern const operation op_linear_attention, op_linear_attention_grad;
extern const candidate torch_linear_attention, torch_linear_attention_quadratic,
    torch_linear_attention_grad;

/* ours.c: ends the program, with the library's message, unless status is SLG_OK. */
void stop(race *r, slg_status status, const char *what);
/* fetch: the library's scratch as the memory that it took. */
void scratch_memory(race *r, void *state);

/* The tensors of an optimizer's workload: shapes of GPT-2 small, cut to r->cols weights. */
int64_t tensor_sizes(const race *r, int64_t *sizes, int64_t max);
enum { MAX_TENSORS = 160 };

/* Threads of OpenMP, OpenBLAS and torch. */
void set_peer_threads(int threads);
void torch_set_threads(int threads);

/* floors.c: as the issue limit takes it; NAN where it cannot be told. */
double clock_ghz(void);

/* Versions, for the header; NULL where the peer is not there. */
const char *onednn_version(void);
const char *xnnpack_version(void);
const char *torch_version(void);

/* Candidates, by file: ours.c, plain_peers.c, onednn.c and xnnpack.c, torch.c, floors.c. */
extern const candidate ours_softmax, ours_softmax_normal, ours_two_pass, ours_recompute,
    ours_reload, ours_log_softmax, ours_logsumexp, ours_cross_entropy,
    ours_cross_entropy_normal, ours_cross_entropy_in_place, ours_linear, ours_adamw,
    ours_update_chain, ours_adamw_half;
extern const candidate plain_softmax, plain_log_softmax, plain_logsumexp, plain_cross_entropy,
    plain_adamw;
extern const candidate onednn_softmax, onednn_log_softmax, xnnpack_softmax;
extern const candidate torch_softmax, torch_log_softmax, torch_logsumexp, torch_cross_entropy,
    torch_cross_entropy_kernels, torch_linear, torch_linear_kernels, torch_adamw,
    torch_adamw_foreach, torch_update_chain, torch_update_chain_foreach, torch_loss;
extern const candidate floor_read, floor_copy, floor_copy_nt, floor_fill_nt, floor_read_copy,
    floor_read_copy_nt, floor_copy_nt_2, floor_read_copy_nt_2, floor_issue, floor_stream28,
    floor_stream36, floor_gemms;

#endif
