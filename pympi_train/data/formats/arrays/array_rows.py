"""This rank's rows of stored arrays: side by side in a file, file after file."""

import os
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.array_texts import TEXT_KINDS
from pympi_train.data.formats.arrays.compressed import CompressedArray, share_rows
from pympi_train.data.formats.arrays.own_arrays import (
    FEATURES,
    OwnArrays,
    below,
    own_files,
)
from pympi_train.data.formats.arrays.stacked import StackedRows
from pympi_train.data.formats.arrays.streaming import ArrayBlocks
from pympi_train.data.formats.categories import agree_categories
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.rows import Categories, Rows
from pympi_train.data.partition import bounds
from pympi_train.errors import DataError


def rows_of_arrays(
    comm,
    tables,
    uses,
    name,
    *,
    names=None,
    others=(),
    filters=(),
    lacking="none",
    text_labels=None,
    is_streamed=False,
    **_,
):
    """Return this rank's rows of stored arrays. Collective.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that read together.
    tables : sequence of list of StoredArray
        The arrays of each file; equal on every rank.
    uses : list of str
        Use of each array: "feature", "category" or "date", then "label" or "target",
        "weights", "other" and "filter".
    name : str
        The data set, for messages.
    names : tuple of str, optional
        Names of the features' arrays.
    others : sequence of str
        Names of the arrays whose use is "other".
    filters : sequence of (str, str)
        Names and kinds of the arrays whose use is "filter", see `Selection`.
    lacking, text_labels
        See `read_rows` and `Selection`.

    Returns
    -------
    Rows
    """
    with together(comm):
        for table in tables:
            _require_alike(table, tables[0], uses)
        starts = [0, *accumulate(map(_common_length, tables))]
    cuts = np.array(bounds(starts[-1], comm.size))
    start, stop = cuts[comm.rank : comm.rank + 2].tolist()
    shared = _shared(tables, starts, cuts, comm)
    features = [
        [array for array, use in zip(table, uses) if use in FEATURES]
        for table in tables
    ]
    is_viewed = len(features[0]) == 1 and uses[0] == "feature" and all(
        array.is_mapped for table in features for array in table
    )
    blocks = None
    if is_streamed and not is_viewed:
        with together(comm):
            _require_seekable(features)
            numbers = [use == "feature" for use in uses[: len(features[0])]]
            blocks = ArrayBlocks(features, numbers, starts)
    own = OwnArrays(tables, uses, lacking, blocks)
    with together(comm):
        own.read(starts, (start, stop), shared)
        y, unlabelled = own.targets(text_labels)
        weights = own.numbers("weights")
        x, texts = own.features()
        filters = own.filters(filters)
    if isinstance(y, LabelColumn):
        y = y.agree(comm, name, text_labels, start)
    categories = []
    for place, column, found in texts:
        x[:, column], values = agree_categories(found, comm)
        categories.append(Categories(place, column, values))
    reach = None
    if is_viewed:
        there = [replace(a, path=os.path.abspath(a.path)) for (a,) in features]
        reach = partial(_reached, there, starts)
    elif blocks is not None:
        reach = None if x.resident else blocks.rows
    elif isinstance(x, StackedRows):
        x = x[:]
    return Rows(
        starts[-1],
        start,
        stop,
        x,
        y,
        feature_names=names,
        weights=None if weights is None else weights[:, 0],
        categories=tuple(categories),
        dates=own.dates,
        others=dict(zip(others, own.others())),
        unlabelled=unlabelled,
        filters=filters,
        reach=reach,
        remarks=own.remarks(name, comm),
    )


def _require_seekable(tables):
    """Raise DataError at an array whose rows cannot be fetched alone."""
    for table in tables:
        for array in table:
            if isinstance(array, CompressedArray):
                raise DataError(
                    f'{array.place}: memory = "stream" is for arrays that can be read '
                    "in parts; store it by numpy.savez, or convert it by `pympi-train "
                    "data convert`"
                )


def _shared(tables, starts, cuts, comm):
    """Return own rows of compressed arrays that have one reader each. Collective.

    With as many files as ranks, or more, each rank decompresses what it needs by
    itself; files are read about twice. With fewer, that would be many times.
    """
    shared = {}
    if len(tables) >= comm.size:
        return shared
    for i, table in enumerate(tables):
        for j, array in enumerate(table):
            if isinstance(array, CompressedArray):
                within = np.clip(cuts - starts[i], 0, array.n)
                shared[i, j] = share_rows(array, comm, within, reader=i)
    return shared


def _require_alike(table, first_table, uses):
    """Raise DataError unless a file's arrays fit those of the first file."""
    labels = [array for array, use in zip(table, uses) if use == "label"]
    if len(labels) > 1:
        raise DataError(
            f"{labels[1].place}: expected one target that holds class labels, got "
            f"{len(labels)} targets"
        )
    for array, first, use in zip(table, first_table, uses):
        is_number = use in ("feature", "target", "weights")
        if is_number and array.dtype.kind not in "biuf":
            tip = ""
            if use == "feature":
                kind = "dates" if array.dtype.kind == "M" else "categorical"
                tip = f"; name it in [data] {kind} or drop"
            found = "text" if array.dtype == object else f"dtype {array.dtype}"
            raise DataError(f"{array.place}: expected numbers, found {found}{tip}")
        if use == "weights" and array.width != 1:
            raise DataError(
                f"{array.place}: expected one weight a row, found shape {array.shape}"
            )
        if array.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{array.place}: rows of shape {array.shape[1:]}, but {first.place} "
                f"has {first.shape[1:]}; the files of a data set have the same columns"
            )
        if use == "label" and _kind(array) != _kind(first):
            raise DataError(
                f"{array.place}: labels of dtype {array.dtype}, but {first.place} has "
                f"{first.dtype}; store the same dtype in all files of a data set"
            )
        if is_number and array.width == 0:
            raise DataError(f"{array.place}: no columns, shape {array.shape}")


def _kind(array):
    """Return "text", "bool" or "number"."""
    return "text" if array.dtype.kind in TEXT_KINDS else {"b": "bool"}.get(
        array.dtype.kind, "number"
    )


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
    for i, (first, last) in own_files(starts, start, stop):
        part = arrays[i].fetch(first - starts[i], last - starts[i])
        found.append(part[:, None] if part.ndim == 1 else part)
    return below(found, [[array] for array in arrays])
