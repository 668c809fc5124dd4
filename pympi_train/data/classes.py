"""Classes: labels are integers or strings as they come, indices inside."""

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.collectives import reduced
from pympi_train.errors import ConfigError, DataError


def find_classes(y, comm):
    """Return the sorted distinct labels over all ranks: int64 or str, shape (c,).

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    found = set().union(*comm.allgather(np.unique(y).tolist()))
    return np.array(sorted(found))


def encode(y, classes, where, first_row=0):
    """Return the index of each label in ``classes``, shape (k,), intp.

    Raises
    ------
    DataError
        If a label is not among ``classes``, naming it and its row in ``where``,
        which starts at ``first_row``.
    """
    if len(y) == 0:
        return np.zeros(0, dtype=np.intp)
    if (y.dtype.kind == "U") == (classes.dtype.kind == "U"):
        index = np.searchsorted(classes, y).clip(max=len(classes) - 1)
        unseen = np.flatnonzero(classes[index] != y)
    else:  # integers against text: none can match
        unseen = np.arange(len(y))
    if len(unseen):
        row = int(unseen[0])
        raise DataError(
            f"{where}: row {first_row + row} (from 0) has the label "
            f"{y[row].item()!r}, which no training row has; known: {_some(classes)}"
        )
    return index.astype(np.intp, copy=False)


def class_weights(setting, y, classes, comm):
    """Return the weight of each class, shape (c,), float64.

    Parameters
    ----------
    setting : "balanced" or dict of str to float
        "balanced": ``n / (c * n_class)``, as scikit-learn does; or the weight of
        each label, 1 where left out.
    y : ndarray, shape (k,), intp
        Class indices of this rank's training rows.
    classes : ndarray, shape (c,)
        The labels.
    comm : MPI.Comm
        The ranks that share the rows.

    Raises
    ------
    ConfigError
        On every rank, if a weight is given for a label that no row has, or all
        weights are 0.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    if setting == "balanced":
        counts = reduced(comm, np.bincount(y, minlength=len(classes)))
        return counts.sum() / (len(classes) * np.maximum(counts, 1))
    names = [str(label) for label in classes.tolist()]
    unknown = sorted(set(setting) - set(names))
    if unknown:
        raise agreed_within(
            comm,
            ConfigError(
                f"[model] class_weights: no row has the label {unknown[0]!r}; known: "
                f"{_some(classes)}"
            ),
        )
    weights = np.array([setting.get(name, 1.0) for name in names], dtype=np.float64)
    if not weights.any():
        text = "[model] class_weights must not be 0 for every label"
        raise agreed_within(comm, ConfigError(text))
    return weights


def _some(classes, most=12):
    names = [repr(label) for label in classes[:most].tolist()]
    more = len(classes) - most
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
