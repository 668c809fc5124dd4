"""Classes: labels are integers or strings as they come, indices inside."""

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.label_column import TextLabels
from pympi_train.errors import ConfigError, DataError


def find_classes(y, comm):
    """Return the sorted distinct labels over all ranks: int64 or str, shape (c,).

    ``y`` is a column of integers, shape (k,), or TextLabels.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    own = y.values[np.unique(y.codes)] if _is_text(y) else np.unique(y)
    found = set().union(*comm.allgather(own.tolist()))
    return np.array(sorted(found))


def encode(y, classes, where, first_row=0):
    """Return the index of each label in ``classes``, shape (k,), intp.

    ``y`` as for `find_classes`.

    Raises
    ------
    DataError
        If a label is not among ``classes``, naming it and its row in ``where``,
        which starts at ``first_row``.
    """
    if len(y) == 0:
        return np.zeros(0, dtype=np.intp)
    if _is_text(y) != (classes.dtype.kind == "U"):
        is_known = np.zeros(len(y), bool)  # integers against text: none can match
    elif _is_text(y):
        index, is_known = (found[y.codes] for found in _look_up(y.values, classes))
    else:
        index, is_known = _look_up(y, classes)
    if not is_known.all():
        row = int(np.argmin(is_known))
        label = y[row] if _is_text(y) else y[row].item()
        raise DataError(
            f"{where}: row {first_row + row} (from 0) has the label {label!r}, which "
            f"no training row has; known: {_some(classes)}"
        )
    return index.astype(np.intp, copy=False)


def _is_text(y):
    return isinstance(y, TextLabels)


def _look_up(labels, classes):
    """Return the index of each label in ``classes``, and whether it is there."""
    index = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return index, classes[index] == labels


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
