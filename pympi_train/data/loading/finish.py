"""Conversion of rows as read from a file to rows as the model takes them."""

from dataclasses import replace

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.data import classes as labels
from pympi_train.data.formats.arrays.stacked import StackedRows
from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.data.groups import balanced_rows, is_uneven, regrouped_rows
from pympi_train.data.loading.sparse import sparse_features
from pympi_train.data.moving import moved
from pympi_train.data.sources.base import Units
from pympi_train.data.sources.dataset import Dataset
from pympi_train.data.sources.mapped import MappedDataset, MappedRows
from pympi_train.data.sources.sparse import SparseDataset
from pympi_train.data.standardise import row_chunks
from pympi_train.data.windows.choice import set_order
from pympi_train.errors import ConfigError, DataError

RESIDENT_BYTES = 2**28  # by default, a rank's features stay mapped if they are larger


def placed(*parts, dtype, virtual_shards, comm, memory="auto"):
    """Return ``parts`` with each row on the rank that owns its group. Collective.

    A part is (rows, mask of the kept rows). Without ``virtual_shards`` rows move only
    if some ranks keep many more than others. Features stay in their file as ``memory``
    says; "auto": if they are large.
    """
    if _stays(parts[0][0], dtype, comm, memory):
        parts = [_in_file(*part) for part in parts]
    else:
        parts = [(_resident(rows), keep) for rows, keep in parts]
    if virtual_shards is None:
        return [balanced_rows(*part, comm) for part in parts]
    parts = [regrouped_rows(*part, virtual_shards, comm) for part in parts]
    return [(rows, np.ones(len(rows.x), dtype=bool)) for rows in parts]


def moved_with(values, placed_rows, comm):
    """Return a value per kept row, where `placed` has moved the row. Collective.

    Parameters
    ----------
    values : ndarray, shape (k,)
        Of the rows that this rank had and kept.
    placed_rows : (Rows, ndarray of bool)
        As `placed` returns them.
    """
    counts = numbers_of_ranks(comm, len(values), np.count_nonzero(placed_rows[1])).T
    old, new = (np.cumsum([0, *count]).tolist() for count in counts)
    return values if old == new else moved(values, old, new, comm)


def require_memory(rows, options, name, comm):
    """Raise DataError on all ranks if features cannot be where they should. Collective.
    """
    if options.virtual_shards is not None and _is_streamed(rows) and not rows.reach:
        text = (
            f'{name}: in exact mode, memory = "stream" is for numeric columns of '
            "Parquet, HDF5 and Zarr alone; remove categorical, ordinal and dates, or "
            'set memory = "auto"'
        )
        raise agreed_within(comm, DataError(text))
    if options.memory == "mapped" and rows.reach is None:
        text = (
            f'{name}: memory = "mapped" is for features in one array that is neither '
            "compressed nor chunked, in an .npy, .npz or .h5 file; `pympi-train data "
            'convert` writes .npy files, and memory = "auto" keeps the rows in memory'
        )
        raise agreed_within(comm, DataError(text))


def _stays(rows, dtype, comm, memory):
    """Return whether features stay in their file: the same answer on every rank."""
    if _is_streamed(rows):
        return True
    if memory != "auto":
        return memory in ("mapped", "stream") and rows.reach is not None
    row_bytes = rows.x.shape[1] * np.dtype(dtype).itemsize
    return rows.reach is not None and rows.n * row_bytes > RESIDENT_BYTES * comm.size


def _is_streamed(rows):
    return isinstance(rows.x, StreamedRows)


def _resident(rows):
    """Return rows with features in one array."""
    is_stack = isinstance(rows.x, StackedRows)
    return replace(rows, x=rows.x[:]) if is_stack else rows


def _in_file(rows, keep):
    """Return only the kept rows, with features in the file, and an all-True mask."""
    how = {"reach": rows.reach, "first": rows.start}
    x = MappedRows(rows.x, keep, None, rows.x.dtype, **how)
    y, weights = (
        values if values is None or keep.all() else values[keep]
        for values in (rows.y, rows.weights)
    )
    return replace(rows, x=x, y=y, weights=weights), np.ones(len(x), dtype=bool)


def encode_labels(rows, classes, path, comm, used=None):
    """Replace the labels of ``rows``, if any, by class indices. Collective.

    Labels of rows outside the mask ``used`` may be unknown. Call this before rows move
    between ranks: error messages give row numbers of the file.
    """
    with together(comm):
        if classes is not None and rows.y is not None:
            rows.y = labels.encode(rows.y, classes, path, rows.start, used)


def require_row_weights(rows, used, path):
    """Raise DataError at the first weight of a used row that is negative."""
    if rows.weights is not None:
        wrong = used & ~(rows.weights >= 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{path}: row {rows.start + row} (from 0) has the weight "
                f"{rows.weights[row]:g}; expected 0 or more"
            )


def data_set(rows, keep, schema, path, comm, class_weights=None):
    """Return the kept rows as a data set for the model. Collective."""
    with together(comm):
        x = _features(rows.x, keep, schema, path)
        y = rows.y
        if y is not None:
            y = y if keep.all() else y[keep]
            if schema.target_scaling is not None:
                y = schema.target_scaling.apply(y)
            if schema.classes is None:
                y = _cast_targets(y, schema, path)
    weights = None if rows.weights is None else rows.weights[keep]
    if class_weights is not None:
        of_class = labels.class_weights(class_weights, y, schema.classes, comm)[y]
        weights = of_class if weights is None else weights * of_class
    if weights is not None:
        with together(comm):
            weights = _cast_weights(weights, schema)
    kind = Dataset
    if isinstance(x, CSR):
        kind = SparseDataset
    elif isinstance(x, MappedRows):
        kind = MappedDataset
    dataset = kind(x, y, weights=weights, comm=comm)
    if schema.target_names is not None:
        scaling = schema.target_scaling
        scale = None if scaling is None else scaling.scale
        dataset.units = Units(tuple(schema.target_names), scale)
    return dataset


def order_rows(train, options, comm):
    """Set the order of the training rows; return warnings about it. Collective."""
    if options.order == "full":
        return []
    chosen = options.order, options.order_window, options.order_shards
    block_rows = int(reduced(comm, [train.block_rows], op="MAX")[0])
    remarks = set_order(train, comm, *chosen, block_rows)
    if train.order is not None:
        train.reserve(train.order)
    return remarks + _uneven(train, comm)


def _uneven(train, comm):
    """Return a remark if a rank has most rows, and they cannot move. Collective."""
    if not isinstance(train, MappedDataset) or train.x.can_move:
        return []  # `balanced_rows` has seen to it
    counts = numbers_of_ranks(comm, len(train)).tolist()
    if not is_uneven(counts):
        return []
    return [
        f"rank {np.argmax(counts)} has {max(counts):,} of {train.n:,} rows: rows of a "
        "stream of text, and those with categories or dates, stay with the rank that "
        'reads them; memory = "in-memory" moves them'
    ]


def _cast_targets(y, schema, path):
    with np.errstate(over="ignore"):
        cast = y.astype(schema.dtype)
    finite = np.isfinite(cast)
    if not finite.all():
        target = schema.target_names[int(np.argwhere(~finite)[0][1])]
        raise DataError(
            f"{path}: target {target!r} is too large for {schema.dtype}: "
            f"{y[~finite][0]}; try [data] standardize_target = true"
        )
    return cast


def _cast_weights(weights, schema):
    with np.errstate(over="ignore"):
        cast = weights.astype(schema.dtype)
    if not np.isfinite(cast).all():
        raise ConfigError(
            f"weights: {weights.max()} is too large for {schema.dtype}"
        )
    return cast


def _features(x, keep, schema, path):
    """Return the kept rows of ``x``, prepared and cast; mapped rows stay mapped."""
    if isinstance(x, CSR):
        why = f"{path}: {_why_not_finite(schema)}"
        made_of = schema.preparation, schema.dtype, RESIDENT_BYTES
        return sparse_features(x[keep], *made_of, why)
    stays = isinstance(x, MappedRows)
    if stays:
        rows = x.prepared(schema.preparation, schema.dtype)
    else:  # in chunks as well, to avoid an intermediate copy of all rows
        rows = MappedRows(x, keep, schema.preparation, schema.dtype)
    if stays and _is_known_finite(x, schema):
        return rows
    out = rows if stays else np.empty(rows.shape, rows.dtype)
    for chunk in row_chunks(rows):
        part = rows[chunk]
        if not np.isfinite(part).all():
            raise DataError(f"{path}: {_why_not_finite(schema)}")
        if not stays:
            out[chunk] = part
    return out


def _is_known_finite(x, schema):
    """Return whether rows are finite because the reader of a stream checked them.

    It checks all values in the dtype in which it returns them, and decoding them once
    more would take as long as an epoch.
    """
    prepared = schema.preparation
    is_kept = prepared.scaling is None and prepared.fill is None
    return x.where == "streamed" and is_kept and x.dtype == schema.dtype


def _why_not_finite(schema):
    tips = ['[model] dtype = "float64"'] if schema.dtype == "float32" else []
    tips += ["[data] standardize = true"] if schema.preparation.scaling is None else []
    return f"a feature is not finite, or too large for {schema.dtype}" + (
        f"; try {' or '.join(tips)}" if tips else ""
    )
