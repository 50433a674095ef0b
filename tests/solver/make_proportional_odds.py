"""Proportional odds fits in double for tests/solver: prints a C table. By scipy alone."""
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit


def data(n, p, K, seed):
    """The numbers of a small generator, so that C can make the same."""
    s = seed
    out = []
    for _ in range(n * (p + 1)):
        s = (s * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((s >> 11) / 2**53)
    u = np.array(out).reshape(n, p + 1)
    x = 2 * u[:, :p] - 1
    beta = np.array([0.8 * (-1) ** j / (1 + j) for j in range(p)])
    eta = (x @ beta)[:, None] + np.arange(K - 1) * 1.5 - 1
    return x, (u[:, p:] > expit(eta)).sum(1)


def loss(t, x, y, K):
    m, p = K - 1, x.shape[1]
    alpha = np.cumsum(np.concatenate([t[:1], np.exp(t[1:m])]))
    eta = alpha + (x @ t[m:])[:, None]
    c = np.hstack([np.zeros((len(x), 1)), expit(eta), np.ones((len(x), 1))])
    i = np.arange(len(x))
    return -np.log(c[i, y + 1] - c[i, y]).mean()


def fit(n, p, K, seed):
    x, y = data(n, p, K, seed)
    t = np.zeros(K - 1 + p)
    for _ in range(8):
        t = minimize(loss, t, (x, y, K), method="BFGS", options={"gtol": 1e-12}).x
    # Newton by central differences, to the last digits.
    for _ in range(6):
        d = len(t)
        h = 1e-4
        e = np.eye(d) * h
        g = np.array([(8 * (loss(t + v, x, y, K) - loss(t - v, x, y, K)) -
                       (loss(t + 2 * v, x, y, K) - loss(t - 2 * v, x, y, K))) / (12 * h) for v in e])
        H = np.array([[(loss(t + a + b, x, y, K) - loss(t + a - b, x, y, K) - loss(t - a + b, x, y, K) +
                        loss(t - a - b, x, y, K)) / (4 * h * h) for a in e] for b in e])
        t = t - np.linalg.solve(H, g)
    m = K - 1
    alpha = np.cumsum(np.concatenate([t[:1], np.exp(t[1:m])]))
    return loss(t, x, y, K), alpha, t[m:]


for n, p, K, seed in ((200, 3, 4, 1), (300, 2, 3, 7), (150, 4, 2, 3), (400, 1, 5, 11)):
    f, a, b = fit(n, p, K, seed)
    nums = ", ".join("%.12g" % v for v in [*a, *b])
    print("    { %d, %d, %d, %d, %.14g, { %s } }," % (n, p, K, seed, f, nums))
