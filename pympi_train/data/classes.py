"""Classes: labels (integers or strings) and their class indices."""

import numbers
import operator
import sys
from collections.abc import Mapping

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.label_column import BOOLEANS, as_integer
from pympi_train.data.formats.text_column import TextLabels
from pympi_train.errors import ConfigError, DataError

FEW_ROWS = 20  # with so few rows, each may be a class of its own


def find_classes(y, comm):
    """Return the sorted distinct labels over all ranks: int64 or str, shape (c,).

    ``y`` is a column of integers, shape (k,), or TextLabels.

    Notes
    -----
    Collective.
    """
    own = y.values[np.unique(y.codes)] if _is_text(y) else np.unique(y)
    found = comm.allreduce(set(own.tolist()), op=operator.or_)
    return np.array(sorted(found))


def encode(y, classes, where, first_row=0, used=None):
    """Return the index of each label in ``classes``, shape (k,), intp.

    ``y`` is as for `find_classes`. Rows outside the mask ``used`` get index 0 if their
    label is unknown.

    Raises
    ------
    DataError
        If a label is not among ``classes``. The message names the label and its row
        in the file ``where``; ``y`` begins at row ``first_row`` of that file.
    """
    if len(y) == 0:
        return np.zeros(0, dtype=np.intp)
    if _is_text(y) != (classes.dtype.kind == "U"):
        # Integers against text: none can match.
        index, is_known = np.zeros(len(y), np.intp), np.zeros(len(y), bool)
    elif _is_text(y):
        index, is_known = (found[y.codes] for found in _look_up(y.values, classes))
    else:
        index, is_known = _look_up(y, classes)
    if used is not None:
        index, is_known = np.where(is_known, index, 0), is_known | ~used
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
    if not len(classes):
        return np.zeros(len(labels), np.intp), np.zeros(len(labels), bool)
    index = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return index, classes[index] == labels


def class_weights(setting, y, classes, comm):
    """Return the weight of each class, shape (c,), float64.

    Parameters
    ----------
    setting : "balanced" or dict of label to float
        "balanced": ``n / (c * n_class)``, as in scikit-learn. A dict gives the weight
        of each label; omitted labels have weight 1. The label 1 may be written 1, "1"
        or True.
    y : ndarray, shape (k,), intp
        Class indices of this rank's training rows.
    classes : ndarray, shape (c,)
        The labels.
    comm : MPI.Comm
        The ranks that share the rows.

    Raises
    ------
    ConfigError
        On every rank, if a weight is given for a label that no row has, a label has
        two weights, or all weights are 0.

    Notes
    -----
    Collective.
    """
    if setting == "balanced":
        counts = count_rows(y, classes, comm)
        return counts.sum() / (len(classes) * np.maximum(counts, 1))
    known, given = dict.fromkeys(classes.tolist(), 1.0), {}
    for label, weight in setting.items():
        same = _as_label(label, classes.dtype.kind == "U")
        if same not in known:
            text = f"class_weights: no row has the label {label!r}; known: "
            raise agreed_within(comm, ConfigError(text + _some(classes)))
        if same in given:
            text = f"class_weights: the label {same!r} has two weights"
            raise agreed_within(comm, ConfigError(text))
        given[same] = float(weight)
    weights = np.array(list({**known, **given}.values()))
    if not weights.any():
        text = "class_weights must not be 0 for every label"
        raise agreed_within(comm, ConfigError(text))
    return weights


def require_setting(setting, task):
    """Raise ConfigError unless ``setting`` is valid for class_weights, or None."""
    if setting is None:
        return
    if task == "regression":
        raise ConfigError("class_weights are for classification")
    if not isinstance(setting, Mapping):
        if not isinstance(setting, str) or setting != "balanced":
            raise ConfigError(
                'class_weights must be "balanced" or a table of label = weight, got '
                f"{setting!r}"
            )
        return
    for label, weight in setting.items():
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not (is_number and 0 <= weight <= sys.float_info.max):
            raise ConfigError(
                "class_weights must be finite and not negative, got "
                f"{weight!r} for the label {label!r}"
            )


def _as_label(label, is_text):
    """Return a user's label as the readers return labels: int or str."""
    if is_text:
        return str(label).strip()
    if isinstance(label, str):
        text = label.strip()
        return BOOLEANS.get(text.casefold(), as_integer(text))
    return label  # 1, 1.0, True and NumPy's 1 are one key


def count_rows(y, classes, comm):
    """Return how many rows of all ranks each class has, shape (c,), int64. Collective.

    ``y`` holds the class indices of this rank's rows.
    """
    counts = reduced(comm, np.bincount(y, minlength=len(classes)))
    return counts.astype(np.int64)


def remarks(counts, n_rows):
    """Return a list of one remark if labels look like quantities, else []."""
    if n_rows <= FEW_ROWS or 4 * len(counts) <= n_rows:
        return []
    return [
        f"{len(counts):,} classes for {n_rows:,} rows. If the target is a quantity, "
        'choose a regression ([model] kind = "linear", or mlp with task = "regression")'
    ]


def _some(classes, most=12):
    names = [repr(label) for label in classes[:most].tolist()]
    more = len(classes) - most
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
