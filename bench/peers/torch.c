/*
 * torch.c - PyTorch, through an interpreter of Python inside of this process, so that it works
 * on the same buffers and in turn with the others. What it does is in torch_peer.py.
 */
#ifdef PEERS_PYTHON
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif

#include <malloc.h>
#include <string.h>

#include "race.h"

#ifdef PEERS_PYTHON

static PyObject *module;
static char why[160] = "";

/* The text of Python's error, its first line. */
static void take_error(void)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8) snprintf(why, sizeof why, "%.*s", (int)strcspn(utf8, "\n"), utf8);
    if (!utf8) snprintf(why, sizeof why, "an error in Python");
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    PyErr_Clear();
}

/* Debian's interpreter, whatever comes first in PATH: it has Debian's torch. */
static bool start_python(void)
{
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    PyStatus status =
        PyConfig_SetBytesString(&config, &config.program_name, "/usr/bin/python3");
    if (!PyStatus_Exception(status)) status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (!PyStatus_Exception(status)) return true;
    snprintf(why, sizeof why, "Python does not start: %s",
             status.err_msg ? status.err_msg : "");
    return false;
}

/* Once. Where it fails, why says so. */
static bool start(void)
{
    static bool tried;
    if (tried) return module != NULL;
    tried = true;
    if (!start_python()) return false;
    PyObject *path = PySys_GetObject("path"), *dir = PyUnicode_FromString(PEERS_DIR);
    PySys_SetObject("dont_write_bytecode", Py_True);
    if (path && dir) PyList_Append(path, dir);
    Py_XDECREF(dir);
    module = PyImport_ImportModule("torch_peer");
    if (!module) take_error();
    return module != NULL;
}

void torch_set_threads(int threads)
{
    if (!start()) return;
    PyObject *done = PyObject_CallMethod(module, "set_threads", "i", threads);
    if (!done) PyErr_Print();
    Py_XDECREF(done);
}

const char *torch_version(void)
{
    static char text[64];
    if (!start()) {
        missing_add("torch", why);
        return NULL;
    }
    PyObject *v = PyObject_CallMethod(module, "version", NULL);
    const char *utf8 = v ? PyUnicode_AsUTF8(v) : NULL;
    snprintf(text, sizeof text, "%s", utf8 ? utf8 : "?");
    Py_XDECREF(v);
    return text;
}

static PyObject *address(const void *p) { return PyLong_FromVoidPtr((void *)(uintptr_t)p); }

/* The race's buffers by name. */
static PyObject *describe(const race *r)
{
    int64_t size[MAX_TENSORS];
    const int64_t count =
        r->train ? train_sizes(r, size, MAX_TENSORS) : tensor_sizes(r, size, MAX_TENSORS);
    PyObject *sizes = PyList_New((Py_ssize_t)count);
    for (int64_t i = 0; i < count; i++) PyList_SetItem(sizes, i, PyLong_FromLongLong(size[i]));
    return Py_BuildValue(
        "{sL sL sL sL sL sL sd sN sN sN sN sN sN sN sN sN sN sN sN sN sN}", "rows",
        (long long)r->rows, "part", (long long)loss_part(r), "cols", (long long)r->cols, "dim",
        (long long)r->dim, "tokens", (long long)r->tokens, "layers", (long long)r->layers,
        "gradient", r->gradient, "w64", address(r->w64), "sizes", sizes, "x", address(r->x),
        "y", address(r->y), "row_out", address(r->row_out), "target", address(r->target),
        "grad", address(r->grad), "hidden", address(r->hidden), "weight", address(r->weight),
        "dhidden", address(r->dhidden), "dweight", address(r->dweight), "prob",
        address(r->prob), "tau", address(r->row_tau), "dother", address(r->dother));
}

static void *prepare(race *r, const char *name)
{
    if (!start()) {
        r->why = why;
        return NULL;
    }
    PyObject *peer = PyObject_CallMethod(module, "make", "sN", name, describe(r));
    if (peer) return peer;
    take_error();
    r->why = why;
    return NULL;
}

/* The scores of all heads at once: gigabytes for long sequences. */
static void *prepare_attention(race *r, const char *name)
{
    return r->rows > 4096 ? NULL : prepare(r, name);
}

static void *prepare_attention_grad(race *r, const char *name)
{
    r->own_outputs = 3.0 * (double)(r->rows * r->cols * r->dim) * sizeof(float);
    return prepare_attention(r, name);
}

static void *prepare_linear_attention_grad(race *r, const char *name)
{
    r->own_outputs = 3.0 * (double)(r->rows * r->cols * r->dim) * sizeof(float);
    return prepare(r, name);
}

/* Autograd makes its gradients itself. */
static void *prepare_linear(race *r, const char *name)
{
    r->own_outputs = (double)((r->rows + r->cols) * r->dim) * sizeof(float);
    return prepare(r, name);
}

/*
 * The composition for the workload's loss, on some of the rows, and with an allocator that
 * gives nothing back: else most of PyTorch's time is the kernel's, for pages that it clears.
 * A user who runs all rows at once pays for those as well.
 */
static void *prepare_loss(race *r, const char *name)
{
    (void)name;
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, INT32_MAX);
#endif
    r->part = loss_part(r);
    return prepare(r, r->w->loss);
}

static void run(race *r, void *peer, int64_t times)
{
    (void)r;
    PyObject *done = PyObject_CallMethod(peer, "run", "L", (long long)times);
    if (!done) PyErr_Print();
    Py_XDECREF(done);
}

static void fetch(race *r, void *peer)
{
    PyObject *loss = PyObject_CallMethod(peer, "fetch", NULL);
    if (!loss) PyErr_Print();
    if (loss && PyFloat_Check(loss)) r->loss = PyFloat_AsDouble(loss);
    Py_XDECREF(loss);
}

/* With an allocator that keeps what is freed: no page is cleared twice. */
static void run_kept(race *r, void *peer, int64_t times)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, INT32_MAX);
#endif
    run(r, peer, times);
#ifdef __GLIBC__
    mallopt(M_MMAP_MAX, 65536);
#endif
}

static void release(race *r, void *peer)
{
    (void)r;
    Py_DECREF((PyObject *)peer);
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

#else

static const char why[] = "not there when this was built (libpython3-dev, python3-torch)";

static void *prepare(race *r, const char *arg)
{
    (void)arg;
    r->why = why;
    return NULL;
}
#define prepare_linear prepare
#define prepare_loss prepare
#define prepare_attention prepare
#define prepare_linear_attention_grad prepare
#define prepare_attention_grad prepare
#define run NULL
#define run_kept NULL
#define fetch NULL
#define release NULL

void torch_set_threads(int threads) { (void)threads; }

const char *torch_version(void)
{
    missing_add("torch", why);
    return NULL;
}

#endif

#define TORCH_RUN(id, name, arg, prepare, run, fetch)                                          \
    const candidate torch_##id = { name, PEER, arg, prepare, run, fetch, release, NULL };
#define TORCH(id, name, arg, prepare, fetch) TORCH_RUN(id, name, arg, prepare, run, fetch)

TORCH(softmax, "torch", "softmax", prepare, NULL)
TORCH(log_softmax, "torch", "log_softmax", prepare, NULL)
TORCH(logsumexp, "torch", "logsumexp", prepare, NULL)
TORCH(cross_entropy, "torch-autograd", "cross_entropy", prepare, fetch)
TORCH(cross_entropy_kernels, "torch-kernels", "cross_entropy_kernels", prepare, fetch)
TORCH(linear, "torch-autograd", "linear", prepare_linear, fetch)
TORCH(linear_kernels, "torch-kernels", "linear_kernels", prepare, fetch)
TORCH(loss, "torch", NULL, prepare_loss, fetch)
TORCH(attention, "torch", "attention", prepare_attention, NULL)
TORCH(attention_grad, "torch", "attention_grad", prepare_attention_grad, fetch)
TORCH(ls_attention, "torch", "ls_attention", prepare_attention, NULL)
TORCH(linear_attention, "torch-chunks", "linear_attention", prepare, NULL)
TORCH(linear_attention_quadratic, "torch-quadratic", "linear_attention_quadratic",
      prepare_attention, NULL)
TORCH(linear_attention_grad, "torch-chunks", "linear_attention_grad",
      prepare_linear_attention_grad, fetch)
TORCH(adamw, "torch", "adamw", prepare, NULL)
TORCH(adamw_foreach, "torch-foreach", "adamw_foreach", prepare, NULL)
TORCH(update_chain, "torch", "adamw_chain", prepare, NULL)
TORCH(update_chain_foreach, "torch-foreach", "adamw_chain_foreach", prepare, NULL)
TORCH(train, "torch", "train_step", prepare, fetch)
TORCH_RUN(train_kept, "torch-kept", "train_step", prepare, run_kept, fetch)

/* The same interpreter: see sklearn_peer.py. */
#define SKLEARN(id, name)                                                                      \
    const candidate sklearn_##id = { name, PEER, name, prepare, run, fetch, release, NULL };
SKLEARN(f32, "sklearn-f32")
SKLEARN(f64, "sklearn-f64")
