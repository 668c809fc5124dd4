"""Zarr stores as a table: each array is a column."""

import os

from pympi_train.comm.checks import together
from pympi_train.data.formats.files import of_each
from pympi_train.data.tables.readers.array_table import (
    ArrayTable,
    agreed_fields,
    array_field,
    is_wanted,
    plain_values,
    rows_side_by_side,
    steps_by_chunk,
)
from pympi_train.data.tables.readers.numpy_table import ONLY_ARRAY
from pympi_train.data.tables.source import explained, load_library
from pympi_train.errors import DataError

BROKEN = (ValueError, RuntimeError, KeyError, TypeError)


def open_zarr(files, comm, columns=None):
    """Return the Table of Zarr folders. Collective.

    A store of a single array has the column "x".
    """
    with together(comm):
        load_library("zarr", "reading Zarr")
    found = of_each(files.paths, lambda path: _look(path, columns), comm)
    with together(comm):
        fields = agreed_fields(files.paths, [fields for fields, *_ in found])

    def read(i, fields, start, stop, batch_rows):
        return _read(files.paths[i], fields, start, stop, batch_rows)

    remarks = [text for *_, texts in found for text in texts]
    return ArrayTable(files, fields, [n for _, n, _ in found], read, remarks)


def _arrays(path):
    """Return the arrays of a store, by name."""
    import zarr

    if not os.path.isdir(path):
        raise DataError(f"{path}: no such folder")
    with explained(path, *BROKEN):
        store = zarr.open(path, mode="r")
        if isinstance(store, zarr.Array):
            return {ONLY_ARRAY: store}
        members = dict(store.members(max_depth=None))
    is_array = {name: isinstance(one, zarr.Array) for name, one in members.items()}
    return {name: members[name] for name in sorted(members) if is_array[name]}


def _look(path, columns):
    """Return the Fields of a store, its number of rows, and remarks."""
    arrays = {
        name: array
        for name, array in _arrays(path).items()
        if is_wanted(name, array.shape, columns)
    }
    fields, remarks = [], []
    for name, array in arrays.items():
        place = f"{path}, array {name!r}"
        fields.append(array_field(place, name, array.dtype, array.shape))
        remarks += _absent_chunks(place, array)
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    return *rows_side_by_side(path, fields, lengths, columns), remarks


def _absent_chunks(place, array):
    """Return a remark if chunks are not there: Zarr does not write the fill value."""
    with explained(place, *BROKEN):
        n_there, n = array.nchunks_initialized, array.nchunks
    if n_there == n:
        return []
    return [
        f"{place}: {n - n_there} of {n} chunks are absent and read as "
        f"{array.fill_value}; were all copied?"
    ]


def _read(path, fields, start, stop, batch_rows):
    found = _arrays(path)
    with explained(path, *BROKEN):
        arrays = [found[field.name] for field in fields]
    chunk_rows = max((array.shards or array.chunks)[0] for array in arrays)
    for low, high in steps_by_chunk(start, stop, batch_rows, chunk_rows):
        batch = {}
        for field, array in zip(fields, arrays):
            place = f"{path}, array {field.name!r}, rows {low} to {high - 1}"
            with explained(place, *BROKEN):
                values = array[low:high]
            batch[field.name] = plain_values(values, field, place)
        yield batch
