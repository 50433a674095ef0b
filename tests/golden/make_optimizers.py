"""Golden vectors for update rules: 200 steps of torch.optim in float64.

    case OPERATION/VARIANT              sgd, adamw, nadam, rmsprop, lion, egd or adafactor
    scalar ...                          options, by the names of the kind's options struct
    tensor w N                          weights at first
    tensor dw STEPS N                   gradient of each step
    tensor lr STEPS                     learning rate of each step (slg_optimizer_set_lr)
    tensor grad_scale STEPS             factor on each gradient (slg_optimizer_set_grad_scale)
    tensor expect.w STEPS/EVERY N       weights after steps EVERY, 2 EVERY, ...
    scalar every EVERY

For adafactor w is a tensor of any shape, dw [STEPS, shape], expect.w [STEPS/EVERY, shape]; the
clip_threshold is left out where it is infinite. Neither torch 1.13 nor this directory's tools have
that rule: it is the paper's formula in NumPy, as Hugging Face's transformers have it but for the
average of updates, which is taken before they are multiplied by the rate.

Torch knows no decoupled decay for SGD: there w is multiplied by (1 - lr decay) before its step.
It has neither Lion nor the exponentiated gradient: those are the papers' formulas in NumPy, in
float64. NAdam of torch 1.13 has mu_t once too often in the product up to t + 1 (its documentation
has not): that is NumPy here too, and compared with torch's with the slip put in.

Tolerance: 200 float32 roundings of a weight of about 1, and of the scalars of a step, of which
1 - lr decay is the same each time; measured, three times less.
"""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from golden import Writer, f32

STEPS, EVERY, N = 200, 20, 7
rng = np.random.default_rng(20240601)


def constant(t):
    return 1.0


def cosine(t):
    return 0.5 * (1 + np.cos(np.pi * t / STEPS))


def warm_up(t):
    return min(1.0, (t + 1) / 50) * (0.5 if t >= 120 else 1.0)


def lion(p, g, m, lr, o):
    """One step; the parameter and the momentum are arrays that change in place."""
    way = o["beta1"] * m + (1 - o["beta1"]) * g
    p *= 1 - lr * o["weight_decay"]
    p -= lr * np.sign(way)
    m *= o["beta2"]
    m += (1 - o["beta2"]) * g


def egd(p, g, e, lr, o):
    e *= o["momentum"]
    e -= lr * g * np.sign(p)
    p *= (1 - lr * o["weight_decay"]) * np.exp(e)
    live = p != 0
    p[live] = np.sign(p[live]) * np.clip(np.abs(p[live]), o["floor"], o["cap"])


def nadam_path(start, dw, lr, o, slip):
    p, m, v, product, path = start.astype(np.float64), 0, 0, 1.0, []
    for t, g in enumerate(dw, 1):
        mu, after = (o["beta1"] * (1 - 0.5 * 0.96 ** (s * o["momentum_decay"])) for s in (t, t + 1))
        g = g + o["weight_decay"] * p
        product *= mu
        m, v = o["beta1"] * m + (1 - o["beta1"]) * g, o["beta2"] * v + (1 - o["beta2"]) * g * g
        move = (1 - mu) / (1 - product) * g + after / (1 - product * after * (mu if slip else 1)) * m
        p = p - lr[t - 1] * move / (np.sqrt(v / (1 - o["beta2"] ** t)) + o["eps"])
        path.append(p)
    return np.array(path)[EVERY - 1::EVERY]


def torch_rule(operation, p, o):
    decay = 0 if operation == "sgd" and o["decoupled"] else o["weight_decay"]
    if operation == "sgd":
        return torch.optim.SGD([p], lr=1.0, momentum=o["momentum"], dampening=o["dampening"],
                               nesterov=bool(o["nesterov"]), weight_decay=decay)
    if operation == "rmsprop":
        return torch.optim.RMSprop([p], lr=1.0, alpha=o["alpha"], eps=o["eps"], momentum=o["momentum"],
                                   centered=bool(o["centered"]), weight_decay=decay)
    betas = (o["beta1"], o["beta2"])
    if operation == "nadam":
        return torch.optim.NAdam([p], lr=1.0, betas=betas, eps=o["eps"], weight_decay=decay,
                                 momentum_decay=o["momentum_decay"])
    rule = torch.optim.AdamW if o["decoupled"] else torch.optim.Adam
    return rule([p], lr=1.0, betas=betas, eps=o["eps"], weight_decay=decay, amsgrad=bool(o["amsgrad"]))


def run(w, operation, name, o, schedule=constant, scales=None, noise=1.0, base=0.05, error=1e-5):
    start = f32(rng.normal(size=N))
    # A slope that stays, and noise; one weight has no gradient, one a tiny one, one a large one.
    size = np.array([1, 1, 0.3, 3, 0, 1e-5, 10.0])
    dw = f32((rng.normal(size=N) * 0.3 + noise * rng.normal(size=(STEPS, N))) * size)
    lr = np.array([base * schedule(t) for t in range(STEPS)])
    scale = f32(np.ones(STEPS) if scales is None else scales)
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    own = {"lion": lion, "egd": egd}.get(operation)
    optimizer = None if own else torch_rule(operation, p, o)
    kept, path = np.zeros(N), []
    for t in range(STEPS):
        g = dw[t].astype(np.float64) * scale[t]
        if own:
            own(p.detach().numpy(), g, kept, lr[t], o)
        else:
            optimizer.param_groups[0]["lr"] = float(lr[t])
            if operation == "sgd" and o["decoupled"]:
                with torch.no_grad():
                    p.mul_(1 - float(lr[t]) * o["weight_decay"])
            p.grad = torch.tensor(g, dtype=torch.float64)
            optimizer.step()
        if (t + 1) % EVERY == 0:
            path.append(p.detach().numpy().copy())
    if operation == "nadam":
        assert np.allclose(path, nadam_path(start, dw * scale[:, None], lr, o, True), atol=1e-6)
        path = nadam_path(start, dw * scale[:, None], lr, o, False)
    o = {k: v for k, v in o.items() if np.isfinite(v)}
    w.case(f"{operation}/{name}", {**o, "every": EVERY}, {"w": start, "dw": dw, "lr": lr, "grad_scale": scale},
           {"w": np.array(path)}, {"w": (error, error)})


def sgd(w, name, schedule=constant, scales=None, **options):
    o = {"momentum": 0.0, "dampening": 0.0, "nesterov": 0, "decoupled": 0, "weight_decay": 0.0, **options}
    run(w, "sgd", name, o, schedule, scales, base=0.01)


def adamw(w, name, schedule=constant, scales=None, **options):
    o = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": 1, "weight_decay": 0.01, "amsgrad": 0, **options}
    run(w, "adamw", name, o, schedule, scales, base=0.01)


def nadam(w, name, schedule=constant, **options):
    o = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "momentum_decay": 4e-3, **options}
    run(w, "nadam", name, o, schedule, base=0.01)


def rmsprop(w, name, schedule=constant, **options):
    o = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": 0, "weight_decay": 0.0, **options}
    run(w, "rmsprop", name, o, schedule, base=0.003, error=2e-5)


def lion_case(w, name, schedule=constant, **options):
    o = {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0, **options}
    run(w, "lion", name, o, schedule, base=0.003)


def egd_case(w, name, schedule=constant, **options):
    o = {"momentum": 0.0, "floor": 0.0, "cap": np.inf, "weight_decay": 0.0, **options}
    run(w, "egd", name, o, schedule, base=0.01, error=2e-5)


def adafactor_path(start, dw, lr, o):
    """The last dimension is the columns; vectors have no factors."""
    w, flat, path = start.astype(np.float64), start.ndim == 1, []
    shape = (1, w.size) if flat else (-1, w.shape[-1])
    w = w.reshape(shape)
    row, column, full, mean = np.zeros((w.shape[0], 1)), np.zeros((1, w.shape[1])), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(dw, 1):
        g = g.reshape(shape)
        beta2 = 1 - t ** -o["decay_rate"]
        square = g * g + o["eps1"]
        row = beta2 * row + (1 - beta2) * square.mean(1, keepdims=True)
        column = beta2 * column + (1 - beta2) * square.mean(0, keepdims=True)
        full = beta2 * full + (1 - beta2) * square
        u = g / np.sqrt(full if flat else row * column / row.mean())
        u = u / max(1, np.sqrt(np.mean(u * u)) / o["clip_threshold"])
        rate = min(lr[t - 1], t ** -0.5) if o["relative_step"] else lr[t - 1]
        if o["scale_parameter"]:
            rate *= max(o["eps2"], np.sqrt(np.mean(w * w)))
        mean = o["beta1"] * mean + (1 - o["beta1"]) * u
        w = w * (1 - rate * o["weight_decay"]) - rate * mean
        path.append(w.reshape(start.shape))
    return np.array(path)[EVERY - 1::EVERY]


def adafactor(w, name, shape, schedule=constant, scales=None, base=0.01, **options):
    o = {"beta1": 0.0, "decay_rate": 0.8, "eps1": 1e-30, "eps2": 1e-3, "clip_threshold": 1.0, "weight_decay": 0.0,
         "relative_step": 1, "scale_parameter": 1, **options}
    start = f32(rng.normal(size=shape))
    size = 10.0 ** rng.integers(-4, 2, size=shape[-1])
    dw = f32((0.3 * rng.normal(size=shape) + rng.normal(size=(STEPS, *shape))) * size)
    lr = np.array([base * schedule(t) for t in range(STEPS)])
    scale = f32(np.ones(STEPS) if scales is None else scales)
    path = adafactor_path(start, dw.astype(np.float64) * scale.reshape(-1, *[1] * len(shape)), lr, o)
    w.case(f"adafactor/{name}", {**{k: v for k, v in o.items() if np.isfinite(v)}, "every": EVERY},
           {"w": start, "dw": dw, "lr": lr, "grad_scale": scale}, {"w": path}, {"w": (1e-5, 1e-5)})


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "optimizers.golden")
    w = Writer(path, "Written by make_optimizers.py, which says what each name means; torch " + torch.__version__)
    scales = np.where(np.arange(STEPS) % 3 == 0, 0.25, rng.uniform(0.5, 2, STEPS))
    sgd(w, "plain")
    sgd(w, "momentum", momentum=0.9)
    sgd(w, "dampening", momentum=0.9, dampening=0.5)
    sgd(w, "nesterov", momentum=0.95, nesterov=1)
    sgd(w, "coupled_decay", weight_decay=0.1)
    sgd(w, "coupled_decay_momentum", momentum=0.9, dampening=0.1, weight_decay=0.1, schedule=cosine)
    sgd(w, "coupled_decay_nesterov", momentum=0.9, nesterov=1, weight_decay=0.3)
    sgd(w, "decoupled_decay", decoupled=1, weight_decay=0.3)
    sgd(w, "decoupled_decay_nesterov", decoupled=1, momentum=0.9, nesterov=1, weight_decay=0.3, schedule=warm_up)
    sgd(w, "grad_scale", momentum=0.9, dampening=1.0, weight_decay=0.2, scales=scales, schedule=warm_up)
    adamw(w, "defaults")
    adamw(w, "no_decay", weight_decay=0.0)
    adamw(w, "decay", weight_decay=0.5, schedule=cosine)
    adamw(w, "adam_l2", decoupled=0, weight_decay=0.1)
    adamw(w, "adam_l2_schedule", decoupled=0, weight_decay=0.3, schedule=warm_up, scales=scales)
    adamw(w, "betas", beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0.1)
    adamw(w, "no_memory", beta1=0.0, beta2=0.0, eps=1e-2)
    adamw(w, "grad_scale", scales=scales, schedule=warm_up, weight_decay=0.1)
    adamw(w, "amsgrad", amsgrad=1, schedule=cosine)
    adamw(w, "amsgrad_l2", amsgrad=1, decoupled=0, weight_decay=0.1, beta2=0.9)
    nadam(w, "defaults")
    nadam(w, "decay", weight_decay=0.1, schedule=cosine)
    nadam(w, "momentum_decay", momentum_decay=0.1, beta1=0.95, beta2=0.99, schedule=warm_up)
    rmsprop(w, "defaults")
    rmsprop(w, "momentum", momentum=0.9, alpha=0.95, schedule=cosine)
    rmsprop(w, "centered", centered=1, weight_decay=0.1, eps=1e-3)
    rmsprop(w, "centered_momentum", centered=1, momentum=0.5, alpha=0.9, eps=1e-2, schedule=warm_up)
    lion_case(w, "defaults")
    lion_case(w, "decay", weight_decay=0.5, schedule=cosine)
    egd_case(w, "plain")
    egd_case(w, "momentum", momentum=0.5, schedule=cosine)
    egd_case(w, "floor_cap", floor=0.25, cap=1.5, weight_decay=0.1)
    adafactor(w, "matrix", (4, 5))
    adafactor(w, "vector", (7,))
    adafactor(w, "row", (1, 6))
    adafactor(w, "column", (6, 1), decay_rate=0.5)
    adafactor(w, "three_dimensions", (2, 2, 3), clip_threshold=0.5)
    adafactor(w, "momentum", (5, 3), beta1=0.9, schedule=cosine)
    adafactor(w, "fixed_rate", (3, 4), relative_step=0, scale_parameter=0, weight_decay=0.1, schedule=warm_up)
    adafactor(w, "relative_step", (3, 4), base=1.0, weight_decay=0.1, scales=scales, beta1=0.5)
    adafactor(w, "not_clipped", (6, 2), clip_threshold=np.inf, eps1=1e-3, eps2=0.5, relative_step=0, schedule=cosine)
    w.close()


main()
