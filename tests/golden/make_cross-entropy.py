"""Golden vectors for cross-entropy over logits: the contract of include/softlogit/loss.h.

Inputs    logits [rows, cols], or hidden [rows, dim], weight [cols, dim] and perhaps bias [cols];
          mask [cols] (0 leaves a class out); index [rows] or prob [rows, cols]; row_weight [rows];
          class_weight [cols].
Scalars   temperature, softcap, reduction (0 none, 1 mean, 2 sum), label_smoothing, z_loss,
          ignore_index: those of the structs, at their defaults where absent.
Expected  loss, lse [rows]; value, sum, weight, count, correct [1]; dlogits, or dhidden, dweight and
          dbias: gradients of the reduced loss, of the sum where the reduction is none.

The reference is a closed form in long double; check() compares it with PyTorch's cross_entropy and
with automatic differentiation where those give finite numbers.
"""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from golden import Writer, f32

torch.set_num_threads(1)
L = np.longdouble
NONE, MEAN, SUM = 0, 1, 2
INF = np.inf
DEFAULTS = {"temperature": 1.0, "softcap": 0.0, "reduction": MEAN, "label_smoothing": 0.0, "z_loss": 0.0,
            "ignore_index": -100}


def times(w, v):
    """w * v, and 0 where w is, also of an infinite v."""
    return np.where(w == 0, 0, w * np.where(w == 0, 0, v))


def one_row(z, a, zw):
    """Loss of sum_k a[k] (-log p[k]) + zw lse^2, its gradient in z, and the log-sum-exp."""
    if np.isnan(z).any() or (z == INF).any():
        return L("nan"), np.full(len(z), L("nan")), L("nan") if np.isnan(z).any() else L(INF)
    live = z > -INF
    if not live.any():
        return L(INF), np.zeros(len(z), L), L(-INF)
    top = int(np.argmax(z))
    e = np.exp(z - z[top])                             # of the others, relative to the largest
    e[top] = 0
    others = e.sum()
    lse = z[top] + np.log1p(others)
    nlp = np.where(live, z[top] - np.where(live, z, 0) + np.log1p(others), INF)
    p = e / (1 + others)
    p[top] = 1 / (1 + others)
    total = a.sum()
    d = total * p - a
    if total > 0:                                      # the largest: -(others' share), not p - 1
        d[top] = (total - a[top]) - total * others / (1 + others)
    d = d + 2 * zw * lse * p
    return times(a, nlp).sum() + (zw * lse * lse if zw else 0), np.where(live, d, 0), lse


def transform(x, temperature, softcap, mask):
    """Logits as the loss sees them, and their derivative by those that were given."""
    x = np.asarray(x, L)
    slope = np.ones_like(x)
    if softcap > 0:
        t = np.tanh(x / L(softcap))
        x, slope = L(softcap) * t, 1 - t * t
    if mask is not None:
        x = np.where(np.asarray(mask) == 0, -INF, x)
        slope = np.where(np.asarray(mask) == 0, 0, slope)
    return x / L(temperature), slope / L(temperature)


def cross_entropy(s, x, mask=None, index=None, prob=None, row_weight=None, class_weight=None):
    """All results of one call; dx is the gradient in x."""
    rows, cols = x.shape
    z, slope = transform(x, s["temperature"], s["softcap"], mask)
    w = np.ones(rows, L) if row_weight is None else np.asarray(row_weight, L)
    cw = np.ones(cols, L) if class_weight is None else np.asarray(class_weight, L)
    eps = L(s["label_smoothing"])
    loss, lse, dx, share, correct = np.zeros(rows, L), np.zeros(rows, L), np.zeros(x.shape, L), np.zeros(rows, L), 0
    counted = np.ones(rows, bool) if index is None else np.asarray(index) != s["ignore_index"]
    for r in range(rows):
        live = ~(z[r] == -INF)
        q = np.zeros(cols, L)
        if prob is not None:
            q[:] = prob[r]
        elif counted[r]:
            q[index[r]] = 1
        even = np.where(live, eps / max(live.sum(), 1), 0)
        l, d, lse[r] = one_row(z[r], cw * ((1 - eps) * q + even), L(s["z_loss"]))
        if not counted[r]:
            continue
        loss[r] = times(w[r], l)
        dx[r] = w[r] * d * slope[r] if w[r] else 0
        share[r] = w[r] * (cw[index[r]] if prob is None else 1)
        if not np.isnan(lse[r]) and np.isfinite(lse[r]):
            best = int(np.argmax(z[r]))
            correct += best == (int(np.argmax(prob[r])) if prob is not None else index[r])
    weight, total = share.sum(), loss.sum()
    scale = L(1)
    value = total
    if s["reduction"] == MEAN:
        scale = 1 / weight if weight > 0 else L(0)
        value = total / weight if weight > 0 else L(0)
    if not counted.any():
        value = L(0)
    return {"loss": loss, "lse": lse, "value": value, "sum": total, "weight": weight, "count": int(counted.sum()),
            "correct": int(correct)}, dx * scale


# ---- Against PyTorch ------------------------------------------------------------------------------------------


def t64(a, grad=False):
    return torch.tensor(np.asarray(a, float), dtype=torch.float64, requires_grad=grad)


def by_autograd(s, x, index=None, prob=None, row_weight=None, class_weight=None):
    """The reduced loss and its gradient, rows without -inf, no mask."""
    t = t64(x, True)
    z = t if not s["softcap"] else s["softcap"] * torch.tanh(t / s["softcap"])
    z = z / s["temperature"]
    rows, cols = x.shape
    if prob is None:
        keep = torch.tensor(index) != s["ignore_index"]
        q = torch.nn.functional.one_hot(torch.where(keep, torch.tensor(index), 0), cols).double()
    else:
        keep, q = torch.ones(rows, dtype=torch.bool), t64(prob)
    cw = torch.ones(cols, dtype=torch.float64) if class_weight is None else t64(class_weight)
    w = torch.ones(rows, dtype=torch.float64) if row_weight is None else t64(row_weight)
    mixed = (1 - s["label_smoothing"]) * q + s["label_smoothing"] / cols
    rowloss = w * (-(cw * mixed * torch.log_softmax(z, 1)).sum(1) + s["z_loss"] * torch.logsumexp(z, 1) ** 2)
    total = rowloss[keep].sum()
    if s["reduction"] == MEAN:
        share = w * ((q * cw).sum(1) if prob is None else 1)
        total = total / share[keep].sum()
    (g,) = torch.autograd.grad(total, t)
    return total.item(), g.numpy()


def verify(name, s, x, mask, targets, out, dx):
    """Where automatic differentiation gives finite numbers, it must give these; so must PyTorch's own function."""
    if not (mask is None and np.isfinite(x).all() and out["count"] and out["weight"] > 0):
        return
    value, g = by_autograd(s, x, **targets)
    assert np.allclose(value, float(out["value"]), rtol=1e-9, atol=1e-10), (name, value, out["value"])
    assert np.allclose(g, dx.astype(float), rtol=1e-8, atol=1e-10), name
    if s["z_loss"] or "row_weight" in targets or s["softcap"]:
        return
    t = torch.tensor(targets["index"]) if "index" in targets else t64(targets["prob"])
    cw = t64(targets["class_weight"]) if "class_weight" in targets else None
    how = {NONE: "none", MEAN: "mean", SUM: "sum"}[s["reduction"]]
    extra = {"ignore_index": s["ignore_index"]} if "index" in targets else {}
    theirs = torch.nn.functional.cross_entropy(t64(x / s["temperature"]), t, cw, reduction=how,
                                               label_smoothing=s["label_smoothing"], **extra)
    ours = out["loss"] if s["reduction"] == NONE else out["value"]
    assert np.allclose(theirs.numpy(), np.asarray(ours, float), rtol=1e-9, atol=1e-10), name
    verify.count += 1


verify.count = 0

# ---- Cases ----------------------------------------------------------------------------------------------------


def size(a):
    """Largest finite magnitude."""
    a = np.abs(np.asarray(a, float))
    return float(a[np.isfinite(a)].max()) if np.isfinite(a).any() else 0.0


def tolerances(s, tensors, out, grads, precise):
    """What float32 inside and double across blocks can be asked for: errors of a term, times what it is multiplied by."""
    if precise:                                        # a target that dominates: relative alone
        return {k: (1e-30, 1e-5) for k in list(out) + list(grads)}
    w = max(size(tensors.get("row_weight", 1)), 1e-3) * max(size(tensors.get("class_weight", 1)), 1)
    w += 2 * s["z_loss"] * size(out["lse"]) * size(tensors.get("row_weight", 1))
    rows = len(out["loss"])
    scale = 1 if s["reduction"] != MEAN else 1 / float(out["weight"]) if out["weight"] > 0 else 1
    tol = {"loss": (2e-6 * w, 2e-6), "lse": (2e-6, 3e-7), "sum": (2e-6 * w * rows, 2e-6),
           "value": (2e-6 * w * rows * scale, 2e-6), "weight": (0, 1e-12), "count": (0, 0), "correct": (0, 0)}
    gap = 2e-7 * w * scale / s["temperature"]
    if "logits" in tensors:
        tol["dlogits"] = (gap, 5e-6)
    else:                                              # logits come out of a float32 product
        fused = max(1, size(tensors["hidden"]) * size(tensors["weight"]) / 4)
        for k in ("loss", "lse", "sum", "value"):
            tol[k] = (tol[k][0] * fused, 1e-5)
        tol["dhidden"] = (2 * gap * fused * size(tensors["weight"]), 1e-5)
        tol["dweight"] = (2 * gap * fused * size(tensors["hidden"]), 1e-5)
        tol["dbias"] = (2 * gap * fused, 1e-5)
    return tol


def case(w, name, tensors, precise=False, **scalars):
    scalars = {k: (float(f32(v)) if isinstance(v, float) else v) for k, v in scalars.items()}
    s = dict(DEFAULTS, **scalars)
    t = {k: (np.asarray(v, np.int64) if k in ("index", "mask") else f32(v)) for k, v in tensors.items()}
    targets = {k: t[k] for k in ("index", "prob", "row_weight", "class_weight") if k in t}
    if "logits" in t:
        x = t["logits"]
    else:
        x = np.asarray(t["hidden"], L) @ np.asarray(t["weight"], L).T + np.asarray(t.get("bias", 0), L)
    out, dx = cross_entropy(s, x, t.get("mask"), **targets)
    verify(name, s, np.asarray(x, float), t.get("mask"), targets, out, dx)
    if "logits" in t:
        grads = {"dlogits": dx}
    else:
        grads = {"dhidden": dx @ np.asarray(t["weight"], L), "dweight": dx.T @ np.asarray(t["hidden"], L)}
        if "bias" in t:
            grads["dbias"] = dx.sum(0)
    grads = {k: np.where(np.abs(v) < 2.0 ** -126, 0, v) for k, v in grads.items()}
    tol = tolerances(s, t, out, grads, precise)
    if precise:
        tol.update({"lse": (2e-6, 3e-7), "weight": (0, 1e-12), "count": (0, 0), "correct": (0, 0)})
    w.case("cross_entropy/" + name, scalars, t, {**out, **grads}, tol)


def distribution(rng, rows, cols, sharp=1.0, drop=()):
    """Rows whose entries are multiples of 2^-12, so that float32 holds them and they sum to 1 exactly."""
    p = np.exp(sharp * rng.standard_normal((rows, cols)))
    p[:, list(drop)] = 0
    q = np.floor(4096 * p / p.sum(1, keepdims=True))
    q[np.arange(rows), q.argmax(1)] += 4096 - q.sum(1)
    return q / 4096


def grid(rng, shape, scale=1.0):
    """Normal numbers rounded to 1/64, so that the file stays short."""
    return np.round(64 * scale * rng.standard_normal(shape)) / 64


def plain_cases(w, rng):
    x, y = grid(rng, (6, 11), 2), rng.integers(0, 11, 6)
    y[1] = x[1].argmax()
    case(w, "plain", {"logits": x, "index": y})
    case(w, "sum", {"logits": x, "index": y}, reduction=SUM)
    case(w, "none", {"logits": x, "index": y}, reduction=NONE)
    case(w, "prob", {"logits": x, "prob": distribution(rng, 6, 11)})
    case(w, "prob_sum", {"logits": x, "prob": distribution(rng, 6, 11, 3.0)}, reduction=SUM)
    case(w, "prob_one_hot", {"logits": x, "prob": np.eye(11)[y]}, reduction=NONE)
    case(w, "one_class", {"logits": [[3.0], [-1e4]], "index": [0, 0]})
    case(w, "two_classes", {"logits": grid(rng, (5, 2)), "index": [0, 1, 1, 0, 1]})
    case(w, "one_row", {"logits": grid(rng, (1, 67)), "index": [66]})
    case(w, "many_classes", {"logits": grid(rng, (1, 259), 3), "index": [258]}, label_smoothing=0.125)
    case(w, "many_classes_prob", {"logits": grid(rng, (1, 259), 3), "prob": distribution(rng, 1, 259)})
    case(w, "no_rows", {"logits": np.zeros((0, 5)), "index": np.zeros(0)})
    case(w, "ties", {"logits": [[1.0, 2, 2, 0], [2, 2, 1, 2], [0, 0, 0, 0]], "index": [1, 1, 0]})


def weighted_cases(w, rng):
    x, y = grid(rng, (7, 9), 2), rng.integers(0, 9, 7)
    cw, rw = np.round(rng.uniform(0.1, 3, 9) * 16) / 16, np.round(rng.uniform(0, 2, 7) * 16) / 16
    cw0, rw0 = cw.copy(), rw.copy()
    cw0[y[2]] = 0
    rw0[[0, 4]] = 0
    q = distribution(rng, 7, 9)
    gone = y.copy()
    gone[[0, 3, 6]] = -100
    case(w, "class_weight", {"logits": x, "index": y, "class_weight": cw})
    case(w, "class_weight_zero", {"logits": x, "index": y, "class_weight": cw0})
    case(w, "class_weight_smooth", {"logits": x, "index": y, "class_weight": cw}, label_smoothing=0.25)
    case(w, "class_weight_prob", {"logits": x, "prob": q, "class_weight": cw}, label_smoothing=0.1)
    case(w, "row_weight", {"logits": x, "index": y, "row_weight": rw})
    case(w, "row_weight_zero_sum", {"logits": x, "index": y, "row_weight": rw0}, reduction=SUM)
    case(w, "row_weight_prob", {"logits": x, "prob": q, "row_weight": rw0})
    case(w, "both_weights", {"logits": x, "index": gone, "row_weight": rw, "class_weight": cw}, label_smoothing=0.1)
    case(w, "ignore", {"logits": x, "index": gone})
    case(w, "ignore_a_class", {"logits": x, "index": [0, 3, 8, 0, 2, 0, 1]}, ignore_index=0)
    case(w, "ignore_255_sum", {"logits": x, "index": [255, 3, 8, 0, 255, 4, 1]}, ignore_index=255, reduction=SUM)
    case(w, "all_ignored", {"logits": x, "index": np.full(7, -100)}, label_smoothing=0.1, z_loss=0.01)
    case(w, "all_ignored_sum", {"logits": x, "index": np.full(7, -1)}, ignore_index=-1, reduction=SUM)


def option_cases(w, rng):
    x, y = grid(rng, (5, 10), 3), rng.integers(0, 10, 5)
    q = distribution(rng, 5, 10)
    mask = [1, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    alive = np.where(np.asarray(mask)[y] == 0, 0, y)
    qm = distribution(rng, 5, 10, drop=(1, 5, 6))
    case(w, "smooth", {"logits": x, "index": y}, label_smoothing=0.1)
    case(w, "smooth_whole", {"logits": x, "index": y}, label_smoothing=1.0)
    case(w, "smooth_prob", {"logits": x, "prob": q}, label_smoothing=0.3)
    case(w, "z_loss", {"logits": x + 3, "index": y}, z_loss=1e-2)
    case(w, "z_loss_prob", {"logits": x - 3, "prob": q}, z_loss=0.5)
    case(w, "softcap", {"logits": 10 * x, "index": y}, softcap=30.0)
    case(w, "softcap_tight", {"logits": x, "index": y}, softcap=2.0, temperature=0.5)
    case(w, "cold", {"logits": x, "index": y}, temperature=0.25)
    case(w, "hot", {"logits": x, "index": y}, temperature=7.0, reduction=SUM)
    case(w, "mask", {"logits": x, "mask": mask, "index": alive})
    case(w, "mask_smooth", {"logits": x, "mask": mask, "index": alive}, label_smoothing=0.2)
    case(w, "mask_prob", {"logits": x, "mask": mask, "prob": qm}, label_smoothing=0.2)
    case(w, "mask_softcap", {"logits": x, "mask": mask, "index": alive}, softcap=5.0)
    under = x.copy()
    under[0, 1], under[1, 5], under[2, 6] = np.nan, INF, -INF
    case(w, "mask_over_nan", {"logits": under, "mask": mask, "index": alive})
    more = {"row_weight": [1.0, 0.5, 0, 2, 1], "class_weight": [1.0, 2, 0.5, 1, 1, 3, 1, 0.25, 1, 1.5], "mask": mask}
    alive[3] = 4
    rest = {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 8.0, "temperature": 0.5}
    case(w, "everything", {"logits": x, "index": alive, **more}, ignore_index=4, **rest)
    case(w, "everything_prob", {"logits": x, "prob": qm, **more}, **rest)


def edge_cases(w, rng):
    x = grid(rng, (4, 8), 2)
    sure = x.copy()
    sure[np.arange(4), [0, 7, 3, 4]] = [30.0, 33, 29, 40]
    sure[3] -= 12
    case(w, "confident", {"logits": sure, "index": [0, 7, 3, 4]}, precise=True)
    case(w, "confident_weighted", {"logits": sure, "index": [0, 7, 3, 4], "row_weight": [1.0, 2, 0.5, 1],
                                   "class_weight": [1.0, 1, 1, 0.25, 3, 1, 1, 2]}, precise=True)
    case(w, "confident_cold", {"logits": sure / 8, "index": [0, 7, 3, 4]}, precise=True, temperature=0.125,
         reduction=SUM)
    case(w, "confident_offset", {"logits": sure + 4096, "index": [0, 7, 3, 4]}, precise=True)
    case(w, "sure_and_wrong", {"logits": sure, "index": [1, 0, 2, 7]})
    out = x.copy()
    out[0, ::2] = out[1, 1:] = out[2, 5:] = -INF
    case(w, "minus_inf", {"logits": out, "index": [1, 0, 4, 7]})
    case(w, "minus_inf_smooth", {"logits": out, "index": [1, 0, 4, 7]}, label_smoothing=0.1)
    case(w, "minus_inf_prob", {"logits": out, "prob": np.where(out > -INF, 1, 0) * 0.125
                               + np.eye(8)[[1, 0, 4, 7]] * [[0.5], [0.875], [0.375], [0.0]]}, label_smoothing=0.25)
    case(w, "target_minus_inf", {"logits": out, "index": [0, 3, 4, 7]}, reduction=SUM)
    case(w, "target_masked", {"logits": x, "mask": [1, 1, 0, 1, 1, 1, 1, 0], "index": [2, 7, 3, 4]}, reduction=NONE)
    case(w, "target_masked_smooth", {"logits": x, "mask": [1, 1, 0, 1, 1, 1, 1, 0], "index": [2, 7, 3, 4]},
         label_smoothing=0.1)
    none = x.copy()
    none[1] = -INF
    case(w, "row_masked", {"logits": none, "index": [0, 3, 5, 6]}, reduction=NONE)
    case(w, "row_masked_ignored", {"logits": none, "index": [0, -100, 5, 6]}, label_smoothing=0.1)
    case(w, "row_masked_z_loss", {"logits": none, "index": [0, 3, 5, 6]}, z_loss=0.25)
    bad = x.copy()
    bad[0, 3], bad[2, 5] = np.nan, INF
    case(w, "nan_and_inf_rows", {"logits": bad, "index": [0, 1, 2, 3]}, reduction=NONE)
    case(w, "nan_and_inf_rows_mean", {"logits": bad, "index": [0, 1, 2, 3]})
    case(w, "nan_rows_ignored", {"logits": bad, "index": [-100, 1, -100, 3]})
    case(w, "large_offset", {"logits": x + 1e5, "index": [0, 7, 2, 2]}, label_smoothing=0.1)
    case(w, "large_offset_prob", {"logits": x - 1e5, "prob": distribution(rng, 4, 8)})
    case(w, "huge", {"logits": [[3e38, 3e38, -3e38], [2.5e7, 2.5e7 - 2, 2.5e7 - 4], [-3e38, -3.2e38, -3.4e38]],
                     "index": [1, 2, 0]})
    case(w, "wide_spread", {"logits": grid(rng, (3, 20), 300), "index": [3, 0, 19]}, reduction=SUM)


def fused_cases(w, rng):
    h, k, b = grid(rng, (7, 5)), grid(rng, (12, 5)), grid(rng, (12,), 0.5)
    y = rng.integers(0, 12, 7)
    gone = y.copy()
    gone[[1, 6]] = -100
    mask = (np.arange(12) % 5 != 1).astype(int)
    q = distribution(rng, 7, 12)
    qm = distribution(rng, 7, 12, drop=(1, 6, 11))
    alive = np.where(mask[y] == 0, 0, y)
    case(w, "fused", {"hidden": h, "weight": k, "index": y})
    case(w, "fused_bias", {"hidden": h, "weight": k, "bias": b, "index": gone}, label_smoothing=0.1)
    case(w, "fused_bias_sum", {"hidden": h, "weight": k, "bias": b, "index": y}, reduction=SUM, z_loss=1e-2)
    case(w, "fused_prob", {"hidden": h, "weight": k, "bias": b, "prob": q}, temperature=0.5)
    case(w, "fused_softcap_mask", {"hidden": h, "weight": k, "mask": mask, "index": alive}, softcap=4.0)
    case(w, "fused_everything", {"hidden": h, "weight": k, "bias": b, "mask": mask, "index": alive,
                                 "row_weight": [1.0, 0, 0.5, 2, 1, 1, 1],
                                 "class_weight": 0.5 + np.arange(12) / 8}, softcap=6.0, temperature=0.5, z_loss=1e-2,
         label_smoothing=0.1)
    case(w, "fused_everything_prob", {"hidden": h, "weight": k, "bias": b, "mask": mask, "prob": qm,
                                      "row_weight": [1.0, 0, 0.5, 2, 1, 1, 1],
                                      "class_weight": 0.5 + np.arange(12) / 8}, softcap=6.0, temperature=2.0,
         z_loss=1e-2, label_smoothing=0.1, reduction=SUM)
    case(w, "fused_all_ignored", {"hidden": h, "weight": k, "bias": b, "index": np.full(7, -100)})
    case(w, "fused_no_rows", {"hidden": np.zeros((0, 5)), "weight": k, "bias": b, "index": np.zeros(0)})
    case(w, "fused_one_row", {"hidden": h[:1], "weight": k, "bias": b, "index": y[:1]}, reduction=NONE)
    case(w, "fused_bias_minus_inf", {"hidden": h, "weight": k, "bias": np.where(mask == 0, -INF, b), "index": alive},
         label_smoothing=0.1)


def build(path, seed):
    rng = np.random.default_rng(seed)
    w = Writer(path, "cross-entropy over logits: targets, weights, options, masks, edge cases, fused output layer\n"
               "make_cross-entropy.py says what each name means")
    plain_cases(w, rng)
    weighted_cases(w, rng)
    option_cases(w, rng)
    edge_cases(w, rng)
    fused_cases(w, rng)
    w.close()


if __name__ == "__main__":
    build(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cross-entropy.golden"), 1)
    assert verify.count >= 20, verify.count
    print(f"{verify.count} cases agree with torch.nn.functional.cross_entropy")
