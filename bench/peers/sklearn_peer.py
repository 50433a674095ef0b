"""scikit-learn's side of the race, started by torch_peer.make: LogisticRegression with lbfgs.

It stops by the largest element of a gradient, the race by its norm. So tol is lowered until the solution's norm is
below; then a run is a fit with that tol.
"""
import ctypes

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits


def array(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype=dtype).reshape(shape)


class Fit:
    def __init__(self, name, b, threads):
        rows, classes, dim = b["rows"], b["cols"], b["dim"]
        self.x32, self.y = array(b["x"], (rows, dim), np.float32), array(b["target"], (rows,), np.int64)
        self.x = self.x32 if name.endswith("f32") else self.x32.astype(np.float64)
        self.w = array(b["w64"], (classes, dim + 1), np.float64)
        self.threads = threads
        self.tol = 0.2 * b["gradient"] * rows
        self.run(1)
        while self.norm() > b["gradient"]:
            self.tol *= 0.85
            self.run(1)

    def run(self, times):
        with threadpool_limits(self.threads):
            for _ in range(times):
                self.model = LogisticRegression(C=1.0, solver="lbfgs", tol=self.tol, max_iter=5000).fit(self.x, self.y)

    def norm(self):
        """Of the gradient of the mean loss with its penalty, in float64, a block of rows at a time."""
        w, b = self.model.coef_.astype(np.float64), self.model.intercept_.astype(np.float64)
        g, gb = w.copy(), np.zeros_like(b)
        for i in range(0, len(self.y), 4096):
            x, y = self.x32[i:i + 4096].astype(np.float64), self.y[i:i + 4096]
            z = x @ w.T + b
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(y)), y] -= 1
            g += p.T @ x
            gb += p.sum(0)
        return np.sqrt((g ** 2).sum() + (gb ** 2).sum()) / len(self.y)

    def fetch(self):
        self.w[:, :-1] = self.model.coef_
        self.w[:, -1] = self.model.intercept_
