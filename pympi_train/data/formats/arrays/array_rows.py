"""This rank's rows of stored arrays: side by side in a file, file after file."""

import os
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.compressed import decompress_rows, share_rows
from pympi_train.data.formats.arrays.stacked import StackedRows
from pympi_train.data.formats.arrays.stored import map_rows, require_complete
from pympi_train.data.formats.label_column import (
    LabelColumn,
    StoredLabels,
    labels_of_parts,
)
from pympi_train.data.formats.rows import Rows
from pympi_train.data.partition import bounds
from pympi_train.data.values import require_finite
from pympi_train.errors import DataError


def rows_of_arrays(
    comm, tables, name, *, target_kind, text_labels=None, names=None, **_
):
    """Return this rank's rows of stored arrays. Collective.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that read together.
    tables : sequence of (list of StoredArray, list of StoredArray)
        Features and targets of each file; equal on every rank. The targets may be
        empty.
    name : str
        The data set, for messages.
    target_kind : {"number", "label"}
        See `read_rows`.
    text_labels : bool, optional
        See `read_rows`.
    names : tuple of str, optional
        Names of the feature arrays.

    Returns
    -------
    Rows
    """
    with together(comm):
        for table in tables:
            _require_alike(*table, *tables[0], target_kind)
        starts = [0, *accumulate(_common_length(sum(table, [])) for table in tables)]
    cuts = np.array(bounds(starts[-1], comm.size))
    start, stop = cuts[comm.rank : comm.rank + 2].tolist()
    shared = _shared(tables, starts, cuts, comm)
    with together(comm):
        x, y = _own_rows(tables, starts, (start, stop), shared, target_kind)
        if target_kind == "label" and y is not None:
            y = labels_of_parts(y, tables[0][1][0].dtype, text_labels)
    if isinstance(y, LabelColumn):
        y = y.agree(comm, name, text_labels, start)
    arrays = [array for features, _ in tables for array in features]
    reach = None
    if len(arrays) == len(tables) and not any(array.member for array in arrays):
        there = [replace(a, path=os.path.abspath(a.path)) for a in arrays]
        reach = partial(_reached, there, starts)
    elif isinstance(x, StackedRows):
        x = x[:]
    return Rows(starts[-1], start, stop, x, y, feature_names=names, reach=reach)


def _own_rows(tables, starts, rows, shared, target_kind):
    """Return own features, and targets: an array, a list of StoredLabels or None."""
    x, numbers, labels = [], [], []
    for i, (first, last) in _own_files(starts, *rows):
        (features, targets), at = tables[i], first - starts[i]
        parts = []
        for j, array in enumerate(features + targets):
            if (i, j) in shared:
                parts.append(shared[i, j])
            else:
                parts.append(fetch_rows(array, at, last - starts[i]))
        of_target = parts[len(features) :]
        x.append(_side_by_side(features, parts[: len(features)], at))
        if targets and target_kind == "number":
            numbers.append(_side_by_side(targets, of_target, at))
        elif targets:
            values = _one_column(targets[0], of_target[0])
            labels.append(StoredLabels(values, targets[0].place, at))
    features, targets = zip(*tables)
    x = _below(x, features)
    if not targets[0]:
        return x, None
    if target_kind == "label":
        return x, labels
    return x, _below(numbers, targets)[:].astype(np.float64)


def _own_files(starts, start, stop):
    """Yield the index of each file with rows in a range, and the range of these."""
    first = max(0, int(np.searchsorted(starts, start, side="right")) - 1)
    for i in range(first, len(starts) - 1):
        if starts[i] >= stop:
            return
        yield i, (max(start, starts[i]), min(stop, starts[i + 1]))


def _shared(tables, starts, cuts, comm):
    """Return own rows of compressed arrays that have one reader each. Collective.

    With as many files as ranks, or more, each rank decompresses what it needs by
    itself; files are read about twice. With fewer, that would be many times.
    """
    shared = {}
    if len(tables) >= comm.size:
        return shared
    for i, table in enumerate(tables):
        for j, array in enumerate(sum(table, [])):
            if array.member is not None:
                within = np.clip(cuts - starts[i], 0, array.n)
                shared[i, j] = share_rows(array, comm, within, reader=i)
    return shared


def fetch_rows(array, start, stop):
    """Return rows of an array: a view of the file if it is not compressed."""
    if array.member is None:
        return map_rows(array, start, stop)
    return decompress_rows(array, start, stop)


def _require_alike(features, targets, first_features, first_targets, target_kind):
    """Raise DataError unless a file's arrays fit those of the first file."""
    if target_kind == "label" and len(targets) > 1:
        raise DataError(
            f"{targets[1].place}: expected one target that holds class labels, got "
            f"{len(targets)} targets"
        )
    for array in [*features, *(targets if target_kind == "number" else ())]:
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"{array.place}: expected numbers, found dtype {array.dtype}"
            )
    for array, first in zip(features + targets, first_features + first_targets):
        if array.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{array.place}: rows of shape {array.shape[1:]}, but {first.place} "
                f"has {first.shape[1:]}; the files of a data set have the same columns"
            )
    if target_kind == "label" and targets:
        if _kind(targets[0]) != _kind(first_targets[0]):
            raise DataError(
                f"{targets[0].place}: labels of dtype {targets[0].dtype}, but "
                f"{first_targets[0].place} has {first_targets[0].dtype}; store the "
                "same dtype in all files of a data set"
            )


def _kind(array):
    """Return "text", "bool" or "number"."""
    return {"U": "text", "S": "text", "b": "bool"}.get(array.dtype.kind, "number")


def _below(parts, groups):
    """Return rows of several files as one array or StackedRows of one dtype.

    Parameters
    ----------
    parts : list of ndarray, shape (k_i, d)
        From some of the files, or none.
    groups : list of list of StoredArray
        The arrays that are side by side in each file.
    """
    dtype = np.result_type(*{array.dtype for group in groups for array in group})
    if not parts:
        return np.empty((0, sum(array.width for array in groups[0])), dtype)
    if len(parts) == 1 and parts[0].dtype == dtype:
        return parts[0]
    return StackedRows(parts, dtype)


def _common_length(arrays):
    first = arrays[0]
    for other in arrays[1:]:
        if other.n != first.n:
            raise DataError(
                f"{other.place}: {other.n} rows, but {first.place} has {first.n}; "
                "features and target must have the same number of rows"
            )
    if first.n == 0:
        raise DataError(f"{first.place}: no rows")
    return first.n


def _reached(arrays, starts, start, stop):
    """Return any rows of uncompressed arrays, one a file, as views of the files.

    Raises
    ------
    DataError
        If a file was removed or truncated meanwhile.
    """
    found = []
    for i, (first, last) in _own_files(starts, start, stop):
        array = arrays[i]
        try:
            require_complete(array, os.stat(array.path).st_size)
            part = map_rows(array, first - starts[i], last - starts[i])
        except OSError as error:
            raise DataError(
                f"{array.place}: cannot be read: {error.strerror}"
            ) from error
        found.append(part[:, None] if part.ndim == 1 else part)
    return _below(found, [[array] for array in arrays])


def _side_by_side(arrays, found, start):
    """Return own rows of numeric arrays as one array; a single one stays a view."""
    parts = []
    for array, part in zip(arrays, found):
        part = part[:, None] if part.ndim == 1 else part
        require_finite(part, array.place, start)
        parts.append(part)
    x = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if x.shape[1] == 0:
        raise DataError(f"{arrays[0].place}: no columns, shape {arrays[0].shape}")
    return x


def _one_column(array, values):
    if values.ndim == 2:
        if values.shape[1] != 1:
            raise DataError(
                f"{array.place}: expected one class label a row, found shape "
                f"{array.shape}; one-hot targets become labels by argmax(axis=1)"
            )
        values = values[:, 0]
    return values
