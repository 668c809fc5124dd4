"""A small search, for its tests: 61 rows of three classes, and a softmax model."""

from functools import partial

import numpy as np

from pympi_train.config import config as configuration
from pympi_train.search.run import search

N_ROWS = 61
TEXT = """
[data]
train = "rows.npz"
standardize = {standardize}
[model]
kind = "softmax"
dtype = "float64"
[optimizer]
name = "{optimizer}"
[train]
epochs = {epochs}
batch_size = 8
backend = "numpy"
[output]
directory = "{directory}"
[parallel]
reduction = "{reduction}"
"""
DEFAULTS = {
    "standardize": "true",
    "optimizer": "adam",
    "epochs": 2,
    "directory": "out",
    "reduction": "fast",
}


def write_rows(folder, comm):
    """Write the rows. Collective."""
    if comm.rank == 0:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((N_ROWS, 3)), np.arange(N_ROWS) % 3
        np.savez(folder / "rows.npz", X=x + 2 * np.eye(3)[y], y=y)
    comm.Barrier()


def configure(folder, set=(), **values):
    """A function as `search` takes it."""
    text = TEXT.format(**{**DEFAULTS, **values})
    return partial(configuration.parse, text, folder=folder, overrides=set)


def searched(comm, folder, *param, set=(), resume=False, stop=None, **how):
    """Search; ``how`` are values of ``TEXT``, and settings of the search."""
    values = {name: how.pop(name) for name in DEFAULTS if name in how}
    settings = {"folds": 3, "lanes": "off", "param": list(param), **how}
    settings = configuration.SearchConfig(**settings)
    made = configure(folder, set, **values)
    return search(made, comm, settings=settings, resume=resume, stop=stop)
