"""Model training that scales, for people who live on MPI clusters.

Importing this package does not import NumPy, MPI or Numba: every public name is
imported from its module on first use (PEP 562).
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "AdaGrad": "optim.adagrad",
    "Adam": "optim.adam",
    "AdamW": "optim.adam",
    "Batch": "data.batch",
    "Dataset": "data.sources.dataset",
    "Exchange": "comm.exchange",
    "FunctionModel": "models.function",
    "GD": "optim.sgd",
    "LBFGS": "optim.lbfgs",
    "Lane": "lanes.lane",
    "Layout": "flat.memory",
    "Linear": "models.linear",
    "Logistic": "models.logistic",
    "MLP": "models.mlp",
    "Model": "models.base",
    "NeuralNGram": "models.neural_ngram",
    "Parallel": "parallel.settings",
    "Pool": "pool.pool",
    "Ranks": "comm.ranks",
    "SGD": "optim.sgd",
    "Softmax": "models.softmax",
    "SparseDataset": "data.sources.sparse",
    "TokenDataset": "data.sources.tokens",
    "Tensor": "flat.memory",
    "Trainer": "train.trainer",
    "WindowOrder": "data.windows.choice",
    "check_model": "models.check",
    "load": "data.loading.load",
    "load_model": "runs.inference",
    "train_lanes": "lanes.train",
}
_MODULES = ("data", "errors")
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name):
    if name in _HOME:
        module = importlib.import_module(f"pympi_train.{_HOME[name]}")
        value = getattr(module, name)
    elif name in _MODULES:
        value = importlib.import_module(f"pympi_train.{name}")
    else:
        raise AttributeError(f"module 'pympi_train' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
