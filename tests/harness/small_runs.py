"""A small training from a configuration, for tests of runs; what it has recorded."""

import json

import numpy as np

from pympi_train.config.config import parse
from pympi_train.runs import job, output

TEXT = """
[data]
train = "rows.npz"
validation = 0.2
standardize = true
[model]
kind = "mlp"
hidden = [6]
[train]
epochs = 4
batch_size = 16
backend = "numpy"
[output]
directory = "run"
"""
ADAM = [
    "optimizer.name=adam",
    "optimizer.learning_rate=0.01",
    "optimizer.schedule=cosine",
]
LBFGS = ["optimizer.name=lbfgs", "model.kind=softmax", "optimizer.schedule=constant"]


def make_rows(n=100):
    """Return (features, shape (n, 5), labels 0 to 2)."""
    kinds = np.arange(n) % 3
    return np.random.default_rng(3).standard_normal((n, 5)) + kinds[:, None], kinds


def write_rows(folder, n=100):
    """Write the rows that TEXT names."""
    x, y = make_rows(n)
    np.savez(folder / "rows.npz", x=x, y=y)


def train_small(folder, comm, *overrides, name="run", **how):
    """Train by TEXT with overrides into ``folder / name``; return the result.

    ``how`` are arguments of `job.train`. Collective.
    """
    where = f"output.directory={name}"
    config = parse(TEXT, folder=folder, overrides=[where, *overrides])
    return job.train(config, comm, **how)


def records(folder, name="run"):
    """Return what a run has recorded of epochs, without times and bytes sent."""
    lines = (folder / name / output.METRICS).read_text().splitlines()
    return [
        {k: v for k, v in record.items() if k[-2:] != "_s" and k != "sent_bytes"}
        for record in map(json.loads, lines)
    ]
