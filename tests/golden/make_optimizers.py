"""Golden vectors for update rules: 200 steps of torch.optim in float64.

    case OPERATION/VARIANT              sgd or adamw
    scalar ...                          options, by the names of slg_sgd_opts and slg_adamw_opts
    tensor w N                          weights at first
    tensor dw STEPS N                   gradient of each step
    tensor lr STEPS                     learning rate of each step (slg_optimizer_set_lr)
    tensor grad_scale STEPS             factor on each gradient (slg_optimizer_set_grad_scale)
    tensor expect.w STEPS/EVERY N       weights after steps EVERY, 2 EVERY, ...
    scalar every EVERY

Torch knows no decoupled decay for SGD: there w is multiplied by (1 - lr decay) before its step.

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


def run(w, operation, name, o, schedule=constant, scales=None, noise=1.0, base=0.05):
    start = f32(rng.normal(size=N))
    # A slope that stays, and noise; one weight has no gradient, one a tiny one, one a large one.
    size = np.array([1, 1, 0.3, 3, 0, 1e-5, 10.0])
    dw = f32((rng.normal(size=N) * 0.3 + noise * rng.normal(size=(STEPS, N))) * size)
    lr = np.array([base * schedule(t) for t in range(STEPS)])
    scale = f32(np.ones(STEPS) if scales is None else scales)
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    decoupled, decay = o["decoupled"], o["weight_decay"]
    if operation == "sgd":
        optimizer = torch.optim.SGD([p], lr=1.0, momentum=o["momentum"], dampening=o["dampening"],
                                    nesterov=bool(o["nesterov"]), weight_decay=0 if decoupled else decay)
    else:
        rule = torch.optim.AdamW if decoupled else torch.optim.Adam
        optimizer = rule([p], lr=1.0, betas=(o["beta1"], o["beta2"]), eps=o["eps"], weight_decay=decay)
    path = []
    for t in range(STEPS):
        optimizer.param_groups[0]["lr"] = float(lr[t])
        if operation == "sgd" and decoupled:
            with torch.no_grad():
                p.mul_(1 - float(lr[t]) * decay)
        p.grad = torch.tensor(dw[t] * scale[t], dtype=torch.float64)
        optimizer.step()
        if (t + 1) % EVERY == 0:
            path.append(p.detach().numpy().copy())
    w.case(f"{operation}/{name}", {**o, "every": EVERY}, {"w": start, "dw": dw, "lr": lr, "grad_scale": scale},
           {"w": np.array(path)}, {"w": (1e-5, 1e-5)})


def sgd(w, name, schedule=constant, scales=None, **options):
    o = {"momentum": 0.0, "dampening": 0.0, "nesterov": 0, "decoupled": 0, "weight_decay": 0.0, **options}
    run(w, "sgd", name, o, schedule, scales, base=0.01)


def adamw(w, name, schedule=constant, scales=None, **options):
    o = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decoupled": 1, "weight_decay": 0.01, **options}
    run(w, "adamw", name, o, schedule, scales, base=0.01)


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
    w.close()


main()
