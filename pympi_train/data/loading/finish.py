"""From rows as they are in a file to rows as the model takes them."""

from dataclasses import replace

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data import classes as labels
from pympi_train.data.groups import regrouped_rows
from pympi_train.data.sources.base import Units
from pympi_train.data.sources.dataset import Dataset
from pympi_train.data.sources.mapped import MappedDataset, MappedRows
from pympi_train.data.standardise import row_chunks
from pympi_train.errors import ConfigError, DataError

RESIDENT_BYTES = 2**28  # of a rank's features: more of them stay mapped


def placed(*parts, dtype, virtual_shards, comm):
    """Parts, (rows, which are kept), with rows where their groups are. Collective.

    Where they are if there is no ``virtual_shards``. Large features stay in their file.
    """
    if _stays(parts[0][0], dtype, comm):
        parts = [_in_file(*part) for part in parts]
    if virtual_shards is None:
        return parts
    parts = [regrouped_rows(*part, virtual_shards, comm) for part in parts]
    return [(rows, np.ones(len(rows.x), dtype=bool)) for rows in parts]


def _stays(rows, dtype, comm):
    """Whether features stay in their file: the same on every rank."""
    row_bytes = rows.x.shape[1] * np.dtype(dtype).itemsize
    return rows.reach is not None and rows.n * row_bytes > RESIDENT_BYTES * comm.size


def _in_file(rows, keep):
    """Rows of which all are kept, their features in the file, and that all are."""
    how = {"reach": rows.reach, "first": rows.start}
    x = MappedRows(rows.x, keep, None, rows.x.dtype, **how)
    y = rows.y if rows.y is None or keep.all() else rows.y[keep]
    return replace(rows, x=x, y=y), np.ones(len(x), dtype=bool)


def encode_labels(rows, classes, path, comm):
    """Put class indices in place of the labels of ``rows``, if there are. Collective.

    Before rows move between ranks: row numbers are those of the file then.
    """
    with together(comm):
        if classes is not None and rows.y is not None:
            rows.y = labels.encode(rows.y, classes, path, rows.start)


def data_set(rows, keep, schema, path, comm, class_weights=None):
    """The kept rows, as the model takes them. Collective."""
    with together(comm):
        x = _features(rows.x, keep, schema, path)
        y = rows.y
        if y is not None:
            y = y[keep]
            if schema.target_scaling is not None:
                y = schema.target_scaling.apply(y)
            if schema.classes is None:
                y = y.astype(schema.dtype)
    weights = None
    if class_weights is not None:
        of_class = labels.class_weights(class_weights, y, schema.classes, comm)
        with together(comm):
            weights = _cast_weights(of_class, schema)[y]
    kind = MappedDataset if isinstance(x, MappedRows) else Dataset
    dataset = kind(x, y, weights=weights, comm=comm)
    if schema.target_names is not None:
        scaling = schema.target_scaling
        scale = None if scaling is None else scaling.scale
        dataset.units = Units(tuple(schema.target_names), scale)
    return dataset


def _cast_weights(of_class, schema):
    with np.errstate(over="ignore"):
        weights = of_class.astype(schema.dtype)
    if not np.isfinite(weights).all():
        raise ConfigError(
            f"class_weights: {of_class.max()} is too large for {schema.dtype}"
        )
    return weights


def _features(x, keep, schema, path):
    """The kept rows of ``x``, scaled and cast: in memory, or in their file if there."""
    stays = isinstance(x, MappedRows)
    if stays:
        rows = x.scaled(schema.scaling, schema.dtype)
    else:  # in chunks as well, so that no copy of all is made in between
        rows = MappedRows(x, keep, schema.scaling, schema.dtype)
    out = rows if stays else np.empty(rows.shape, rows.dtype)
    for chunk in row_chunks(rows):
        part = rows[chunk]
        if not np.isfinite(part).all():
            raise DataError(f"{path}: {_why_not_finite(schema)}")
        if not stays:
            out[chunk] = part
    return out


def _why_not_finite(schema):
    tips = ['[model] dtype = "float64"'] if schema.dtype == "float32" else []
    tips += ["[data] standardize = true"] if schema.scaling is None else []
    return f"a feature is not finite, or too large for {schema.dtype}" + (
        f"; try {' or '.join(tips)}" if tips else ""
    )
