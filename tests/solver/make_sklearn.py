"""Writes sklearn.golden: the solutions of scikit-learn's LogisticRegression on its digits, wine and breast_cancer.

The data go along (digits 8 pixels a number, base 17, the first one lowest), so the test needs neither scikit-learn nor a
download. They are as scikit-learn distributes them, out of the UCI repository. Columns are used as they are, or (wine and
breast_cancer, `scaled`) less their means over their standard deviations. The solvers are scikit-learn's Newton methods with
tol=1e-12: its lbfgs stops where values differ by 2e-9 relatively, which is up to 0.07 from the solution. A few Newton
steps follow here, which must move coefficients by less than 1e-7; intercepts, which no penalty holds, by less than 1e-5
(digits at C = 1: 3e-6).
"""
import os
import sys

import numpy as np
import sklearn
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "golden"))
import golden  # noqa: E402

# As short as they are read again: the data have few digits.
golden._num = lambda v: repr(float(v)) if v != int(v) else str(int(v))


def newton(X, y, classes, coef, intercept, fit_intercept, c):
    """Steps on C sum of losses + |coef|^2 / 2; returns coef and intercept."""
    A = np.hstack([X, np.ones((len(X), 1))]) if fit_intercept else X
    W = np.hstack([coef, intercept[:, None]]) if fit_intercept else coef
    k, d = W.shape
    ridge = np.ones((k, d))
    if fit_intercept:
        ridge[:, -1] = 0
    for _ in range(5):
        Z = A @ W.T
        if classes == 2:
            p = 1 / (1 + np.exp(-Z[:, 0]))
            g = c * (p - y)[None, :] @ A + ridge * W
            H = c * (A * (p * (1 - p))[:, None]).T @ A
        else:
            P = np.exp(Z - Z.max(1, keepdims=True))
            P /= P.sum(1, keepdims=True)
            R = P.copy()
            R[np.arange(len(y)), y] -= 1
            g = c * R.T @ A + ridge * W
            H = np.zeros((k, d, k, d))
            for a in range(k):
                for b in range(k):
                    H[a, :, b, :] = c * (A * (P[:, a] * ((a == b) - P[:, b]))[:, None]).T @ A
            H = H.reshape(k * d, k * d)
        H = H + np.diag(ridge.ravel())
        W = W - np.linalg.lstsq(H, g.ravel(), rcond=1e-14)[0].reshape(k, d)
    return (W[:, :-1], W[:, -1]) if fit_intercept else (W, np.zeros(k))


def fits(out, name, X, y, scaled):
    classes = int(y.max()) + 1
    binary = classes == 2
    Z = StandardScaler().fit_transform(X) if scaled else X
    for fit_intercept in (True, False):
        for c in (1.0, 0.1):
            model = LogisticRegression(C=c, tol=1e-12, max_iter=1000, fit_intercept=fit_intercept,
                                       solver="newton-cholesky" if binary else "newton-cg",
                                       multi_class="auto" if binary else "multinomial").fit(Z, y)
            coef, intercept = model.coef_, model.intercept_ + np.zeros(len(model.coef_))
            near, near_intercept = newton(Z, y, classes, coef, intercept, fit_intercept, c)
            apart = near_intercept - intercept
            if not binary:
                apart -= apart.mean()
            moved, shifted = abs(near - coef).max(), abs(apart).max()
            print(name, "scaled" if scaled else "raw", fit_intercept, c, "moved by", moved, shifted)
            assert moved < 1e-7 and shifted < 1e-5
            case = f"{name}/{'scaled' if scaled else 'raw'}_{'intercept' if fit_intercept else 'plain'}_{c:g}"
            out.case(case, {"C": c, "intercept": fit_intercept, "scaled": scaled},
                     expect={"coef": near, "intercept": near_intercept}, tol={"coef": (1e-6, 0), "intercept": (1e-6, 0)})


out = golden.Writer(os.path.join(here, "sklearn.golden"), f"scikit-learn {sklearn.__version__}: see make_sklearn.py")
X, y = load_digits(return_X_y=True)
packed = X.reshape(len(X), 8, 8) @ 17.0 ** np.arange(8)
out.case("digits/data", tensors={"packed": packed.astype(np.int64), "y": y})
fits(out, "digits", X, y, False)
for name, load in (("wine", load_wine), ("breast_cancer", load_breast_cancer)):
    X, y = load(return_X_y=True)
    out.case(f"{name}/data", tensors={"x": X, "y": y})
    fits(out, name, X, y, False)
    fits(out, name, X, y, True)
out.close()
