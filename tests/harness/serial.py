"""Small trainings that take the steps of one process, or say where they do not.

Every strategy is held against the same cases: unequal partitions, batches of which a
rank has no row, a last batch of one row.
"""

import numpy as np
import pytest
from spread import dataset, require_empty_shares

import pympi_train as pt
from pympi_train.optim.schedule import Cosine, StepDecay

N, N_FEATURES, N_CLASSES, N_TARGETS = 103, 5, 3, 2
BATCH, EPOCHS, SEED = 17, 3, 7  # 103 = 6 * 17 + 1: the last batch has one row
CLOSE = 1e-10


def make_data(kind):
    """Return x and y, the same on every rank."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, N_FEATURES))
    noise = rng.standard_normal((N, N_CLASSES))
    if kind == "classes":
        return x, (x[:, :N_CLASSES] + noise).argmax(axis=1)
    if kind == "binary":
        return x, (x[:, 0] + noise[:, 0] > 0).astype(float)
    return x, x[:, :N_TARGETS] @ [[1, 2], [-1, 0.5]] + noise[:, :N_TARGETS]


def mlp(activation="relu", task="classification"):
    n_outputs = N_CLASSES if task == "classification" else N_TARGETS
    return pt.MLP(
        N_FEATURES, [8, 6], n_outputs, activation=activation, task=task, dtype="float64"
    )


def softmax(**kwargs):
    return pt.Softmax(N_FEATURES, N_CLASSES, dtype="float64", **kwargs)


# name: (kind of data, model, optimizer, arguments of the Trainer)
CASES = {
    "mlp-adam": ("classes", mlp, lambda: pt.Adam(0.01), {}),
    "mlp-tanh-adamw": (
        "classes",
        lambda: mlp("tanh"),
        lambda: pt.AdamW(0.01, weight_decay=0.1),
        {"l2": 0.01},
    ),
    "mlp-gelu-regression-clipped": (
        "numbers",
        lambda: mlp("gelu", "regression"),
        lambda: pt.Adam(0.01, weight_decay=0.01),
        {"clip_norm": 0.3, "l2": 0.1},
    ),
    "mlp-accumulated": (
        "classes",
        mlp,
        lambda: pt.SGD(0.1, momentum=0.9),
        {"micro_batch_size": 3},
    ),
    "mlp-cosine": (
        "classes",
        mlp,
        lambda: pt.Adam(0.01),
        {"schedule": Cosine(floor=0.1, warmup_epochs=0.7)},
    ),
    "mlp-cosine-to-0": ("classes", mlp, lambda: pt.SGD(0.1), {"schedule": Cosine()}),
    "softmax-nesterov-step": (
        "classes",
        softmax,
        lambda: pt.SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
        {"schedule": StepDecay(2, gamma=0.3, warmup_epochs=1)},
    ),
    "softmax-no-intercept": (
        "classes",
        lambda: softmax(intercept=False),
        lambda: pt.Adam(0.02),
        {},
    ),
    "logistic-l2": (
        "binary",
        lambda: pt.Logistic(N_FEATURES, dtype="float64"),
        lambda: pt.SGD(0.5),
        {"l2": 0.1},
    ),
    "linear-targets": (
        "numbers",
        lambda: pt.Linear(N_FEATURES, N_TARGETS, dtype="float64"),
        lambda: pt.SGD(0.05, momentum=0.5),
        {},
    ),
}
FULL_BATCH = {
    "gd": (lambda: pt.GD(0.5), {"l2": 0.01}),
    "gd-accumulated": (lambda: pt.GD(0.5), {"micro_batch_size": 7}),
    "gd-clipped": (lambda: pt.GD(0.5), {"clip_norm": 0.05}),
    "lbfgs": (lambda: pt.LBFGS(tolerance=0), {"l2": 0.01}),
}


def train(comm, model, optimizer, data, validation=None, *, epochs=EPOCHS, **kwargs):
    """Return the parameters and the records of a training. Collective."""
    fit = {key: kwargs.pop(key) for key in ("patience", "monitor") if key in kwargs}
    kwargs = {"batch_size": BATCH, "seed": SEED, "backend": "numpy", **kwargs}
    with pt.Trainer(model, optimizer, comm=comm, **kwargs) as trainer:
        records = trainer.fit(data, validation, epochs=epochs, **fit)
        return trainer.params.copy(), records


def assert_close(params, want):
    assert np.abs(params - want).max() < CLOSE * np.abs(want).max()


def assert_same_records(records, want):
    """Compare all but times."""
    assert len(records) == len(want) > 0
    for mine, other in zip(records, want):
        assert mine.keys() == other.keys()
        for key in mine:
            if not key.endswith(("_s", "_bytes")) and mine[key] != other[key]:
                assert mine[key] == pytest.approx(other[key], rel=1e-9), key


def require_serial(comm, name, spread, parallel=None, *, backend="numpy", **more):
    """Assert that a case on the ranks of ``comm`` equals itself on one. Collective.

    Parameters
    ----------
    name : str
        Of CASES.
    spread : str
        How the rows lie, of ``spread.SPREADS``.
    parallel : pympi_train.Parallel, optional
        How ``comm`` shares the training; the serial one is without.
    backend : str
        Of the ranks; the serial training is NumPy's.
    more : dict
        Arguments of the Trainer beside the case's own.

    Returns
    -------
    list of dict
        The records.
    """
    from mpi4py import MPI

    kind, make_model, make_optimizer, kwargs = CASES[name]
    kwargs = {**kwargs, **more}
    x, y = make_data(kind)
    data, alone = dataset(comm, spread, x, y), dataset(MPI.COMM_SELF, "even", x, y)
    if comm.size > 1:
        require_empty_shares(comm, data, BATCH, seed=SEED, epochs=EPOCHS)
    how = {"parallel": parallel, "backend": backend, **kwargs}
    params, records = train(comm, make_model(), make_optimizer(), data, data, **how)
    want, want_records = train(
        MPI.COMM_SELF, make_model(), make_optimizer(), alone, alone, **kwargs
    )
    assert_close(params, want)
    assert_same_records(records, want_records)
    assert (records[-1]["step"], records[-1]["samples"]) == (EPOCHS * 7, EPOCHS * N)
    return records
