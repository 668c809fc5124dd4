"""The obvious version of lanes: one Trainer after the other, with weights of 0."""

import numpy as np

import pympi_train as pt
from pympi_train.data.sources.sparse import SparseDataset

N, D = 103, 6


def rows_of(kind, is_sparse, weighted, dtype="float64", n=N):
    """Return x, y, weights and folds of all rows, equal on every rank."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((n, D)).astype(dtype)
    if is_sparse:
        x[rng.random((n, D)) < 0.6] = 0
    truth = x @ rng.standard_normal((D, 3))
    y = {
        "linear": (truth[:, :2] + rng.standard_normal((n, 2))).astype(dtype),
        "logistic": (truth[:, 0] + rng.standard_normal(n) > 0).astype(dtype),
        "softmax": truth.argmax(axis=1).astype(np.intp),
    }[kind]
    weights = rng.integers(0, 3, n).astype(dtype) if weighted else None
    return x, y, weights, rng.integers(-1, 3, n)


def model_of(kind, intercept=True, dtype="float64"):
    how = {"intercept": intercept, "dtype": dtype}
    if kind == "linear":
        return pt.Linear(D, 2, **how)
    return pt.Logistic(D, **how) if kind == "logistic" else pt.Softmax(D, 3, **how)


def data_set(x, y, weights, is_sparse, comm):
    """Return this rank's share of the rows; shares are uneven."""
    cuts = np.linspace(0, len(y), comm.size + 1).astype(int)
    cuts[1:-1] += np.arange(comm.size - 1) + 1
    own = slice(cuts[comm.rank], cuts[comm.rank + 1])
    weights = None if weights is None else weights[own]
    if not is_sparse:
        return pt.Dataset(x[own].copy(), y[own], weights=weights, comm=comm), own
    from scipy.sparse import csr_array

    made = SparseDataset(csr_array(x[own]), y[own], weights=weights, comm=comm)
    return made, own


def train_alone(optimizer, lane, arrays, is_sparse, comm, model, **how):
    """Return history and weights of a Trainer with the settings of a lane."""
    x, y, weights, folds = arrays
    held = None
    if lane.fold is not None:
        out = folds == lane.fold
        held, _ = data_set(
            x[out], y[out], None if weights is None else weights[out], is_sparse, comm
        )
        weights = (np.ones(len(y)) if weights is None else weights) * ~out
        weights = weights.astype(x.dtype)
    data, _ = data_set(x, y, weights, is_sparse, comm)
    epochs = how.pop("epochs")
    if lane.learning_rate is not None:
        optimizer.lr = lane.learning_rate
    with pt.Trainer(model, optimizer, l2=lane.l2, comm=comm, **how) as trainer:
        history = trainer.fit(data, held, epochs=epochs)
        return history, {n: w.copy() for n, w in trainer.weights().items()}
