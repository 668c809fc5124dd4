"""Reader of sparse matrices in .npz files, in SciPy's form ``csr``."""

import math
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.checks import together
from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.data.formats.arrays.array_rows import rows_of_arrays
from pympi_train.data.formats.arrays.compressed import CompressedArray, share_rows
from pympi_train.data.formats.arrays.own_arrays import own_files
from pympi_train.data.formats.rows import Rows
from pympi_train.data.formats.sparse.sparse_rows import (
    MAX_COLUMNS,
    dense_rows,
    first_unsorted,
    require_sparse_rows,
    sorted_rows,
)
from pympi_train.data.partition import bounds
from pympi_train.errors import DataError

MATRIX = ("indptr", "indices", "data", "shape", "format")  # SciPy's names
RECIPE = (
    "numpy.savez(file, indptr=x.indptr, indices=x.indices, data=x.data, shape=x.shape, "
    'format=b"csr", y=y) stores a matrix and its target y'
)


class Stored(NamedTuple):
    """A sparse matrix in a file, and the arrays beside it.

    Attributes
    ----------
    place : str
        The file, for messages.
    shape : (int, int)
    pointers, indices, values : StoredArray
    beside : list of StoredArray
        Targets and weights.
    uses : list of str
        Use of each of these, as for `rows_of_arrays`.
    """

    place: str
    shape: tuple
    pointers: Any
    indices: Any
    values: Any
    beside: list
    uses: list


def holds_csr(arrays):
    """Return whether these StoredArrays, by name, are a sparse matrix of SciPy."""
    return set(MATRIX) <= set(arrays)


def choose_csr(path, arrays, selection):
    """Return the `Stored` of a file, with the targets and weights asked for.

    Raises
    ------
    DataError
        If the matrix is not in the form csr, or lacks a target.
    """
    kind = _small(arrays["format"], "SU", ()).item()
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    if kind != "csr":
        raise DataError(f"{path}: a sparse matrix of form {kind!r}; call .tocsr()")
    shape = tuple(_small(arrays["shape"], "iu", (2,)).tolist())
    if shape[0] < 0 or not 0 < shape[1] <= MAX_COLUMNS:
        raise DataError(f"{path}: a sparse matrix of shape {shape}")
    for name, kinds, count in (
        ("indptr", "iu", shape[0] + 1),
        ("indices", "iu", None),
        ("data", "biuf", arrays["indices"].shape[:1][0]),
    ):
        _require_vector(arrays[name], kinds, count)
    if not selection.any_names:
        selection.require_nameless(path, "a sparse .npz")
    others = [name for name in arrays if name not in MATRIX]
    if selection.need_target and not others:
        raise DataError(f"{path}: a sparse matrix without a target; {RECIPE}")
    chosen = replace(selection, features=None).choose(path, "array", others)
    of_target = "label" if selection.target_kind == "label" else "target"
    uses = [of_target] * len(chosen.targets) + ["weights"] * len(chosen.weights)
    beside = [arrays[name] for name in (*chosen.targets, *chosen.weights)]
    for array in beside:
        array.require_readable()
        if array.n != shape[0]:
            raise DataError(
                f"{array.place}: {array.n} rows, but the sparse matrix has {shape[0]}"
            )
    return Stored(path, shape, *(arrays[name] for name in MATRIX[:3]), beside, uses)


def _small(array, kinds, shape):
    """Return a small array of a file."""
    if array.dtype.kind not in kinds or array.shape != shape or array.dtype.hasobject:
        raise DataError(
            f"{array.place}: not as in a sparse matrix of SciPy: {array.dtype} of "
            f"shape {array.shape}"
        )
    flat = replace(array, shape=(math.prod(shape),), fortran=False)
    return flat.fetch(0, flat.n).reshape(shape)


def _require_vector(array, kinds, count):
    wrong = array.dtype.kind not in kinds or len(array.shape) != 1
    if wrong or count not in (None, array.shape[0]):
        wanted = "" if count is None else f" and length {count}"
        raise DataError(
            f"{array.place}: expected numbers in one dimension{wanted}, found "
            f"{array.dtype} of shape {array.shape}"
        )


def read_csr(
    stored, comm, selection, *, name, dtype="float64", sparse=False, **options
):
    """Return this rank's Rows of the sparse matrices of some files. Collective.

    Parameters
    ----------
    stored : list of Stored
        One a file; equal on every rank.
    comm, selection, name, dtype, sparse, options
        As for `read_rows`.
    """
    with together(comm):
        if options.pop("is_streamed", False):
            raise DataError(
                f'{name}: memory = "stream" is not for sparse rows: large ones stay in '
                'an .npz that is not compressed; set memory = "auto"'
            )
        for other in stored[1:]:
            if other.shape[1] != stored[0].shape[1] or other.uses != stored[0].uses:
                raise DataError(
                    f"{other.place}: {other.shape[1]} columns, but {stored[0].place} "
                    f"has {stored[0].shape[1]}; the files of a data set have the same"
                )
        starts = [0, *accumulate(one.shape[0] for one in stored)]
        if starts[-1] == 0:
            raise DataError(f"{name}: no rows")
    cuts = bounds(starts[-1], comm.size)
    start, stop = cuts[comm.rank : comm.rank + 2]
    rows = Rows(starts[-1], start, stop, None)
    if stored[0].uses:
        tables, uses = [one.beside for one in stored], stored[0].uses
        how = {"lacking": selection.lacking, **options}
        rows = rows_of_arrays(comm, tables, uses, name, **how)
    parts = _shared(stored, starts, cuts, comm)
    with together(comm):
        for i, (first, last) in own_files(starts, start, stop):
            if i not in parts:
                parts[i] = _own(stored[i], first - starts[i], last - starts[i])
        x = _joined(parts, stored[0].shape[1])
        x = x if sparse else dense_rows(x, name, dtype)
    return replace(rows, x=x, feature_names=None, reach=None)


def _own(one, start, stop):
    """Return the rows ``start`` to ``stop`` of a file, as views of it if possible."""
    pointers = _pointers(one, start, stop)
    low, high = int(pointers[0]), int(pointers[-1])
    entries = (array.fetch(low, high) for array in (one.indices, one.values))
    return _checked(one, pointers, *entries, start)


def _pointers(one, start, stop):
    """Return where the rows ``start`` to ``stop`` and the next begin, as int64."""
    pointers = one.pointers.fetch(start, stop + 1).astype(np.int64)
    n_entries = one.indices.n
    if pointers[0] < 0 or pointers[-1] > n_entries or (start == 0 and pointers[0] != 0):
        raise DataError(
            f"{one.pointers.place}: expected numbers from 0 to {n_entries}, found "
            f"{pointers[0]} to {pointers[-1]}"
        )
    falls = pointers[1:] < pointers[:-1]
    if falls.any():
        row = start + int(np.argmax(falls))
        place = one.pointers.place
        raise DataError(f"{place}: row {row} (from 0) ends before its start")
    return pointers


def _checked(one, pointers, indices, values, first_row):
    """Return the CSR of entries as stored: in order of columns, and all checked."""
    pointers = pointers - pointers[0]
    if indices.dtype != np.int32:
        if indices.size and not 0 <= indices.min() <= indices.max() < one.shape[1]:
            worst = indices.min() if indices.min() < 0 else indices.max()
            raise DataError(
                f"{one.indices.place}: expected columns from 0 to {one.shape[1] - 1}, "
                f"found {worst}"
            )
        indices = indices.astype(np.int32)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    x = CSR.of_pointers(pointers, indices, values, one.shape[1])
    if first_unsorted(x) is not None:
        x = sorted_rows(x)
    require_sparse_rows(x, one.place, first_row)
    return x


def _shared(stored, starts, cuts, comm):
    """Return own rows of compressed files, each of which one rank reads. Collective.

    With as many files as ranks, or more, each rank decompresses what it needs by
    itself.
    """
    parts = {}
    if len(stored) >= comm.size:
        return parts
    for i, one in enumerate(stored):
        if not any(map(_is_compressed, (one.indices, one.values))):
            continue
        within = np.clip(np.array(cuts) - starts[i], 0, one.shape[0])
        start, stop = within[comm.rank : comm.rank + 2].tolist()
        with together(comm):
            pointers = _pointers(one, start, stop)
        at = np.array([*numbers_of_ranks(comm, pointers[0]), 0])
        at[-1] = comm.bcast(int(pointers[-1]), root=comm.size - 1)
        with together(comm):
            if (np.diff(at) < 0).any():
                raise DataError(f"{one.pointers.place}: a row ends before its start")
        own, entries = at[comm.rank : comm.rank + 2].tolist(), []
        for array in (one.indices, one.values):
            if _is_compressed(array):
                entries.append(share_rows(array, comm, at, reader=i))
                continue
            with together(comm):
                entries.append(array.fetch(*own))
        with together(comm):
            if stop > start:
                parts[i] = _checked(one, pointers, *entries, start)
    return parts


def _is_compressed(array):
    return isinstance(array, CompressedArray)


def _joined(parts, n_columns):
    """Return the rows of several files, by number, as one CSR."""
    parts = [parts[i] for i in sorted(parts)]
    if len(parts) == 1:
        return parts[0]
    counts = [np.zeros(0, np.int64), *(part.counts for part in parts)]
    dtype = np.result_type(*{part.dtype for part in parts}, np.bool_)
    indices = [np.zeros(0, np.int32), *(part.indices for part in parts)]
    values = [np.zeros(0, dtype), *(part.values for part in parts)]
    pointers = np.concatenate(([0], np.cumsum(np.concatenate(counts))))
    whole = np.concatenate(indices), np.concatenate(values)
    return CSR.of_pointers(pointers, *whole, n_columns)
