"""The library from another language, with nothing but ctypes: struct layouts, a softmax, an error.

    LD_LIBRARY_PATH=build/src python3 test_ctypes.py
"""
import ctypes as c
import math
import sys


class Tensor(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("dtype", c.c_int32),
        ("ndim", c.c_int32),
        ("shape", c.c_int64 * 4),
        ("stride", c.c_int64 * 4),
    ]


class CtxOpts(c.Structure):
    _fields_ = [
        ("size", c.c_uint32),
        ("isa", c.c_int32),
        ("num_threads", c.c_int32),
        ("verbose", c.c_int32),
        ("alloc", c.c_void_p),
        ("free", c.c_void_p),
        ("alloc_user", c.c_void_p),
        ("parallel_for", c.c_void_p),
        ("parallel_user", c.c_void_p),
        ("log", c.c_void_p),
        ("log_user", c.c_void_p),
    ]


class SoftmaxOpts(c.Structure):
    _fields_ = [
        ("size", c.c_uint32),
        ("algorithm", c.c_int32),
        ("reread", c.c_int32),
        ("reserved", c.c_int32),
        ("temperature", c.c_double),
    ]


OK, ERR_NULL, ERR_SHAPE, ERR_RANGE = 0, -1, -2, -5
F32 = 0

lib = c.CDLL("libsoftlogit.so.0")
lib.slg_struct_size.argtypes = [c.c_char_p]
lib.slg_struct_size.restype = c.c_size_t
lib.slg_version_string.restype = c.c_char_p
lib.slg_ctx_message.argtypes = [c.c_void_p]
lib.slg_ctx_message.restype = c.c_char_p
lib.slg_ctx_opts_init.argtypes = [c.POINTER(CtxOpts), c.c_size_t]
lib.slg_ctx_opts_init.restype = None
lib.slg_ctx_create.argtypes = [c.POINTER(CtxOpts), c.POINTER(c.c_void_p)]
lib.slg_ctx_free.argtypes = [c.c_void_p]
lib.slg_ctx_free.restype = None
lib.slg_softmax_opts_init.argtypes = [c.POINTER(SoftmaxOpts), c.c_size_t]
lib.slg_softmax_opts_init.restype = None
lib.slg_softmax.argtypes = [c.c_void_p, c.POINTER(Tensor), c.POINTER(SoftmaxOpts),
                            c.POINTER(Tensor), c.POINTER(Tensor)]

failures = 0


def check(what, got, want):
    global failures
    if got != want:
        failures += 1
        print(f"FAIL {what}: got {got!r}, want {want!r}")


def view(array, rows, cols):
    return Tensor(c.cast(array, c.c_void_p), F32, 2, (rows, cols, 1, 1), (cols, 1, 1, 1))


def softmax(row, temperature):
    top = max(row)
    e = [math.exp((v - top) / temperature) for v in row]
    return [v / sum(e) for v in e]


for name, struct in (("slg_tensor", Tensor), ("slg_ctx_opts", CtxOpts),
                     ("slg_softmax_opts", SoftmaxOpts)):
    check(f"sizeof({name})", c.sizeof(struct), lib.slg_struct_size(name.encode()))
check("unknown struct", lib.slg_struct_size(b"slg_nothing"), 0)

ctx_opts = CtxOpts()
lib.slg_ctx_opts_init(c.byref(ctx_opts), c.sizeof(ctx_opts))
check("ctx_opts.size", ctx_opts.size, c.sizeof(ctx_opts))
ctx_opts.num_threads = 1
ctx = c.c_void_p()
check("slg_ctx_create", lib.slg_ctx_create(c.byref(ctx_opts), c.byref(ctx)), OK)
if not ctx:
    sys.exit("no context")

# Two rows, one with a masked class, at temperature 2.
rows = [[1.0, 2.0, 3.0, -1.0, 0.5], [0.0, -math.inf, 88.0, 87.0, -88.0]]
x = (c.c_float * 10)(*rows[0], *rows[1])
y = (c.c_float * 10)(*[7.0] * 10)
opts = SoftmaxOpts()
lib.slg_softmax_opts_init(c.byref(opts), c.sizeof(opts))
check("opts.size", opts.size, c.sizeof(opts))
check("opts.temperature", opts.temperature, 1.0)
opts.temperature = 2.0
tx, ty = view(x, 2, 5), view(y, 2, 5)
check("slg_softmax", lib.slg_softmax(ctx, c.byref(tx), c.byref(opts), c.byref(ty), None), OK)
for i, row in enumerate(rows):
    for j, want in enumerate(softmax(row, 2.0)):
        got = y[5 * i + j]
        if not (abs(got - want) <= 1e-6 * want or (got == 0.0 and want < 2.0**-126)):
            check(f"softmax[{i}][{j}]", got, want)

# Errors say what is wrong, and touch nothing.
y = (c.c_float * 10)(*[7.0] * 10)
ty = view(y, 2, 4)
check("shape", lib.slg_softmax(ctx, c.byref(tx), None, c.byref(ty), None), ERR_SHAPE)
message = lib.slg_ctx_message(ctx).decode()
check("message names the function", message.startswith("slg_softmax: "), True)
ty = view(y, 2, 5)
opts.temperature = 0.0
check("range", lib.slg_softmax(ctx, c.byref(tx), c.byref(opts), c.byref(ty), None), ERR_RANGE)
check("null", lib.slg_softmax(ctx, None, None, c.byref(ty), None), ERR_NULL)
check("null context", lib.slg_softmax(None, c.byref(tx), None, c.byref(ty), None), ERR_NULL)
check("output after errors", list(y), [7.0] * 10)

lib.slg_ctx_free(ctx)
print(f"libsoftlogit {lib.slg_version_string().decode()}: {failures} failures; said: {message}")
sys.exit(1 if failures else 0)
