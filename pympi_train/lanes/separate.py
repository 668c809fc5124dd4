"""One lane's rows for a Trainer: the obvious version of its fold."""

import copy

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.ranks import resolve
from pympi_train.errors import ConfigError


def held_out(data, folds, fold, comm=None):
    """Return training and validation rows of a fold, for a `Trainer`.

    The training rows are all rows, and those of the fold have weight 0: the batches are
    then those of the other folds, and of lanes. A Trainer on them gives what a lane
    gives.

    Parameters
    ----------
    data : Dataset
        In memory, or mapped.
    folds : ndarray of int, shape (len(data),)
        The fold of each of this rank's rows.
    fold : int
    comm : Ranks or MPI.Comm, optional

    Returns
    -------
    train, validation : Dataset

    Notes
    -----
    Collective.
    """
    comm = resolve(comm)
    with together(comm):
        if not hasattr(data, "repeated") or len(folds) != len(data):
            raise ConfigError(
                "held_out: expected a Dataset and the fold of each of its rows, got "
                f"{type(data).__name__} and {len(folds)} folds for {len(data)} rows"
            )
        is_out = np.asarray(folds) == fold
    validation = data.repeated(np.flatnonzero(is_out), comm)
    train, weights = copy.copy(data), data.weights
    if weights is None:
        weights = np.ones(len(data), data.kinds.x[1] if data.kinds.x else np.float64)
    train.weights = np.where(is_out, weights.dtype.type(0), weights)
    return train, validation
