"""Reader of .npy arrays: each rank maps its own rows."""

import math
import os
import tokenize
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.label_column import LabelColumn, labels_of_array
from pympi_train.data.formats.rows import Rows, on_root
from pympi_train.data.partition import own_range
from pympi_train.data.values import require_finite
from pympi_train.errors import DataError

# Exceptions that NumPy may raise for a header, which is a Python literal.
_MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    RecursionError,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class StoredArray:
    """The place of an array in a file, with its shape and dtype.

    Attributes
    ----------
    path : str
        The file.
    place : str
        File and array, for messages.
    shape : tuple of int
        One or two dimensions, rows first.
    dtype : dtype
        Of plain numbers or text.
    fortran : bool
        Whether columns, not rows, are contiguous.
    offset_bytes : int
        Offset of the first element in the file, or in the decompressed member.
    member : str or None
        Name of the .npz member, if it is compressed.
    """

    path: str
    place: str
    shape: tuple
    dtype: Any
    fortran: bool
    offset_bytes: int
    member: str | None = None

    @property
    def n(self):
        """Number of rows."""
        return self.shape[0]

    def require_readable(self):
        """Raise DataError unless the array is 1-d or 2-d, of numbers or text."""
        dtype = self.dtype
        if dtype.hasobject:
            raise DataError(
                f"{self.place}: holds Python objects, which would have to be unpickled "
                "and never are; store numbers, or text with a dtype such as U10"
            )
        if dtype.names or dtype.kind not in "biufUS" or not dtype.itemsize:
            raise DataError(
                f"{self.place}: expected real numbers or text, found dtype {dtype}"
            )
        if len(self.shape) not in (1, 2):
            raise DataError(
                f"{self.place}: expected shape (rows,) or (rows, columns), found "
                f"{self.shape}; reshape it to two dimensions"
            )


def read_npy_header(stream, place):
    """Return ``(shape, fortran, dtype)`` and leave ``stream`` at the first element.

    Raises
    ------
    DataError
        If the stream does not begin with a valid .npy header.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return _possible(np.lib.format.read_array_header_1_0(stream))
        if version == (2, 0):
            return _possible(np.lib.format.read_array_header_2_0(stream))
    except _MALFORMED as error:
        raise DataError(f"{place}: not an .npy array: {error}") from None
    # Version 3 only adds Unicode field names of records.
    raise DataError(
        f"{place}: .npy version {version[0]}.{version[1]} (a table of records) is not "
        "read; expected an array of numbers or text"
    )


def _possible(header):
    shape, _, dtype = header
    size_bytes = dtype.itemsize * math.prod(max(1, count) for count in shape)
    if min(shape, default=0) < 0 or size_bytes >= 2**63:
        raise ValueError("a dimension in the header is negative or too large")
    return header


def map_rows(array, start, stop):
    """Return rows ``start`` to ``stop - 1`` as a read-only view of the file.

    Pages of other rows are not read. A Fortran-ordered array is mapped whole, and here
    too only the requested rows are read.
    """
    count = stop - start
    shape = (count, *array.shape[1:])
    if 0 in shape:
        return np.empty(shape, dtype=array.dtype)
    if array.fortran and len(array.shape) == 2:
        whole = np.memmap(
            array.path,
            dtype=array.dtype,
            mode="r",
            offset=array.offset_bytes,
            shape=array.shape,
            order="F",
        )
        return np.asarray(whole)[start:stop]
    row_bytes = array.dtype.itemsize * (array.shape[1] if len(array.shape) == 2 else 1)
    own = np.memmap(
        array.path,
        dtype=array.dtype,
        mode="r",
        offset=array.offset_bytes + start * row_bytes,
        shape=shape,
    )
    return np.asarray(own)


def require_complete(array, size_bytes):
    """Raise DataError if a file of ``size_bytes`` is too short for the array.

    Reading a map beyond the end of the file would kill the process (SIGBUS).
    """
    end = array.offset_bytes + array.dtype.itemsize * math.prod(array.shape)
    if end > size_bytes:
        raise DataError(
            f"{array.place}: the file ends early: expected {end} bytes for shape "
            f"{array.shape} of {array.dtype}, found {size_bytes}"
        )


def read_npy(path, comm, *, features, target, need_target, **options):
    """Read features from ``path`` and the target from a second file. Collective."""
    features_at, target_at = on_root(
        comm, lambda: _headers(path, features, target, need_target)
    )
    targets = [] if target_at is None else [target_at]
    return rows_of_arrays(comm, [features_at], targets, _map_own, **options)


def _map_own(array, start, stop, comm):
    with together(comm):
        return map_rows(array, start, stop)


def _headers(path, features, target, need_target):
    """Return the StoredArrays of features and target, or of features and None."""
    if features is not None:
        raise DataError(
            f"{path}: a .npy file holds one array without names, so features = "
            f"{features!r} cannot be chosen; leave features out"
        )
    if not need_target:
        return stored_npy(path), None
    if target is None:
        raise DataError(f"{path}: no target; set target to the .npy file that holds it")
    if not isinstance(target, (str, os.PathLike)):
        raise DataError(f"{path}: expected one .npy file as target, got {target!r}")
    target = os.path.join(os.path.dirname(path), os.fspath(target))
    return stored_npy(path), stored_npy(target)


def stored_npy(path):
    """Return the StoredArray of an .npy file; raise DataError if it is not one."""
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file, path)
            array = StoredArray(path, path, shape, dtype, fortran, file.tell())
            array.require_readable()
            require_complete(array, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return array


def rows_of_arrays(
    comm, features, targets, fetch, *, target_kind, text_labels=None, names=None, **_
):
    """Return this rank's rows of stored arrays, side by side. Collective.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that read together.
    features, targets : list of StoredArray
        Equal on every rank; ``targets`` may be empty.
    fetch : callable
        ``fetch(array, start, stop, comm)`` returns rows of an array. Collective.
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
        n = _common_length(features + targets)
        if target_kind == "label" and len(targets) > 1:
            raise DataError(
                f"{targets[1].place}: expected one target that holds class labels, got "
                f"{len(targets)} targets"
            )
        for array in [*features, *(targets if target_kind == "number" else ())]:
            _require_numbers(array)
    start, stop = own_range(n, comm.rank, comm.size)
    y = None
    parts = [fetch(array, start, stop, comm) for array in features + targets]
    of_target = parts[len(features) :]
    with together(comm):
        x = _side_by_side(features, parts[: len(features)], start)
        if targets and target_kind == "number":
            y = _side_by_side(targets, of_target, start).astype(np.float64)
        elif targets:
            labels = _one_column(targets[0], of_target[0])
            y = labels_of_array(labels, targets[0].place, start, text_labels)
    if isinstance(y, LabelColumn):
        y = y.agree(comm, targets[0].place, text_labels, start)
    reach = None
    if len(features) == 1 and features[0].member is None:
        there = replace(features[0], path=os.path.abspath(features[0].path))
        reach = partial(_two_dimensional, there)
    return Rows(n, start, stop, x, y, feature_names=names, reach=reach)


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


def _two_dimensional(array, start, stop):
    """Return rows of an uncompressed array as a view of the file.

    Raises
    ------
    DataError
        If the file was removed or truncated meanwhile.
    """
    try:
        require_complete(array, os.stat(array.path).st_size)
        part = map_rows(array, start, stop)
    except OSError as error:
        raise DataError(f"{array.place}: cannot be read: {error.strerror}") from error
    return part[:, None] if part.ndim == 1 else part


def _require_numbers(array):
    if array.dtype.kind not in "biuf":
        raise DataError(f"{array.place}: expected numbers, found dtype {array.dtype}")


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
