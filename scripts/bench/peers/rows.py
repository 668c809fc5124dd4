"""The rows of ``fits.py`` in files, and the losses of weights on them.

NumPy and SciPy alone: workers in other environments read and compare with it too.
"""

import numpy as np

WIDTH, DENSE_ROWS = 50, 100_000
TOLERANCES = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # each solver's own scale


def make_dense(folder, n=DENSE_ROWS):
    """Write ``dense`` and ``dense_held``, a fifth as many rows, as .npz and .vw."""
    rng = np.random.default_rng(1)
    truth = rng.standard_normal(WIDTH) / 4
    for name, n_rows in (("dense", n), ("dense_held", n // 5)):
        x = rng.standard_normal((n_rows, WIDTH)).astype(np.float32)
        y = (x @ truth + rng.logistic(size=n_rows) > 0).astype(np.int64)
        np.savez(folder / f"{name}.npz", X=x, y=y)
        line = " ".join(f"{j}:%.6g" for j in range(WIDTH))
        with open(folder / f"{name}.vw", "w", encoding="ascii") as file:
            for label, row in zip(y.tolist(), x.tolist()):
                file.write(f"{2 * label - 1} | {line % tuple(row)}\n")


def load(folder, name):
    """Return (x, y): float32, dense or CSR, and integers 0 or 1."""
    path = folder / f"{name}.npz"
    with np.load(path) as file:
        y = file["y"]
        if "X" in file:
            return file["X"], y
    from scipy import sparse

    return sparse.load_npz(path), y


def objective(x, y, weights):
    """Return the log loss sum plus half the square of the weights, in float64."""
    w = np.ravel(weights).astype(np.float64)
    return float(log_losses(x @ w, y).sum() + 0.5 * w @ w)


def log_losses(scores, y):
    """Return the log loss of each row, in float64, given linear outputs."""
    margins = np.where(y == 1, 1.0, -1.0) * np.ravel(scores).astype(np.float64)
    return np.logaddexp(0.0, -margins)


def solved(fit, x, y, limit):
    """Return {"s", "excess"} of the loosest tolerance that reaches ``limit``.

    ``fit(tolerance)`` returns (seconds, weights). ``excess`` is the objective over
    ``limit`` minus 1, of the last tolerance if none reaches it; "s" is then None.
    """
    for tolerance in TOLERANCES:
        seconds, weights = fit(tolerance)
        excess = objective(x, y, weights) / limit - 1
        if excess <= 0:
            return {"s": seconds, "excess": excess}
    return {"s": None, "excess": excess}
