"""Arrays side by side as a table: .npy, .npz, HDF5, Zarr and token files."""

from itertools import accumulate

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.arrays.array_texts import StoredPart, utf8_texts
from pympi_train.data.formats.arrays.own_arrays import own_files
from pympi_train.data.formats.arrays.stored import ABSENT, FileArray
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.rows import listed
from pympi_train.data.formats.token_files import stored_tokens
from pympi_train.data.partition import own_range
from pympi_train.data.tables.source import (
    LEAVE_OUT,
    Field,
    Table,
    choose_fields,
    require_filled,
)
from pympi_train.errors import DataError

# Names of the column of an .npy or of a Zarr that is an array, and of tokens.
ONLY_ARRAY, TOKEN = "x", "token"


def open_arrays(files, comm, columns=None, token_dtype=None):
    """Return the Table of .npy, .npz, HDF5, Zarr or token files. Collective.

    Each array is a column. A data set of a group is called ``group/name``.
    """

    def look(path):
        if files.format == "tokens":
            every = {TOKEN: stored_tokens(path, np.dtype(token_dtype))}
        else:
            every = _arrays(path, files.format, columns or ())
        arrays = {
            name: array
            for name, array in every.items()
            if (array.shape or array.flaw if columns is None else name in columns)
        }
        fields = choose_fields(path, [*map(_field, arrays, arrays.values())], columns)
        return fields, _side_by_side(path, {f.name: arrays[f.name] for f in fields})

    found = of_each(files.paths, look, comm)
    with together(comm):
        fields = _agreed(files.paths, [fields for fields, _ in found])
        table = ArrayTable(files, fields, [arrays for _, arrays in found])
    table.remarks = _remarks(table, comm)
    return table


def _arrays(path, format_, wanted):
    """Return the StoredArrays of a file by name; imports only its format's module."""
    if format_ == "h5":
        from pympi_train.data.formats.arrays.hdf5 import datasets

        return datasets(path, wanted)
    if format_ == "zarr":
        from pympi_train.data.formats.arrays.zarr_store import zarr_arrays

        return zarr_arrays(path, wanted, ONLY_ARRAY)
    if format_ == "npz":
        from pympi_train.data.formats.arrays.npz import stored_arrays

        return stored_arrays(path)
    from pympi_train.data.formats.arrays.npy import npy_array

    return {ONLY_ARRAY: npy_array(path)}


def _field(name, array):
    """Return the Field of an array; raise DataError if it is not read."""
    place, dtype, shape = array.place, array.dtype, array.shape
    try:
        array.require_plain()
    except DataError as error:
        raise DataError(f"{error}; {LEAVE_OUT}") from None
    if not shape:
        raise DataError(f"{place}: expected an array of rows, found a single value")
    if len(shape) > 2 and isinstance(array, FileArray) and array.fortran:
        raise DataError(
            f"{place}: an array of {len(shape)} dimensions in Fortran order; store it "
            "in C order (numpy.ascontiguousarray)"
        )
    inner = tuple(int(length) for length in shape[1:])
    if dtype.kind in "USO":
        if inner:
            raise DataError(f"{place}: texts with the shape {shape}; expected (rows,)")
        return Field(name, "text")
    is_number = dtype.kind in "biuf" and dtype.itemsize <= 8 and not dtype.names
    if not is_number and not (dtype.kind == "M" and dtype.str[3:]):
        raise DataError(
            f"{place}: expected numbers, booleans, texts or dates, found dtype "
            f"{dtype}; {LEAVE_OUT}"
        )
    return Field(name, str(dtype.newbyteorder("=")), inner)


def _side_by_side(path, arrays):
    """Return the arrays of a file as a list.

    Raises
    ------
    DataError
        If they differ in their number of rows, or have none.
    """
    if not arrays:
        raise DataError(f"{path}: no array in this file")
    first = next(iter(arrays))
    for name, array in arrays.items():
        if array.n != arrays[first].n:
            raise DataError(
                f"{path}: {name!r} has {array.n} rows, but {first!r} "
                f"{arrays[first].n}; name those of one length (--columns); there are "
                f"{listed(list(arrays))}"
            )
    require_filled(path, arrays[first].n)
    return list(arrays.values())


def _agreed(paths, found):
    """Return the Fields of all files; raise DataError if one differs."""
    for path, fields in zip(paths, found):
        if fields != found[0]:
            raise DataError(
                f"{path}: the columns are {_described(fields)}, unlike in {paths[0]}, "
                f"{_described(found[0])}; the files of a table have the same columns"
            )
    return found[0]


def _described(fields, limit=8):
    some = [f"{f.name} ({f.type} {f.shape or ''})".replace(" )", ")") for f in fields]
    return ", ".join(some[:limit]) + (" ..." if len(some) > limit else "")


def _remarks(table, comm):
    """Return a remark on each column that lacks chunks: tuple of str. Collective.

    Each rank looks for the chunks of its rows.
    """
    if not any(array.may_lack_chunks for array in table.arrays[0]):
        return ()
    with together(comm):
        counts = table.count_absent(*own_range(table.n, comm.rank, comm.size))
    return tuple(
        f"{table.name}, array {field.name!r}: {int(count):,} {ABSENT}"
        for field, count in zip(table.fields, reduced(comm, counts))
        if count
    )


class ArrayTable(Table):
    """Rows of arrays of equal length, in one or more files.

    Parameters
    ----------
    files : Files
    fields : sequence of Field
    arrays : list of list of StoredArray
        Of each file, one for each field.
    """

    def __init__(self, files, fields, arrays):
        self._starts = [0, *accumulate(own[0].n for own in arrays)]
        self.arrays = arrays
        super().__init__(files.name, files.paths, self._starts[-1], fields)

    def count_absent(self, start, stop):
        """Return the number of absent chunks that begin in some rows, by column."""
        counts = np.zeros(len(self.fields))
        for i, (first, last) in own_files(self._starts, start, stop):
            rows = first - self._starts[i], last - self._starts[i]
            counts += [array.count_absent(*rows) for array in self.arrays[i]]
        return counts

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1``; see `Table`."""
        for i, (first, last) in own_files(self._starts, start, stop):
            at = self._starts[i]
            for values in self._rows_of(i, first - at, last - at, self.fields):
                yield dict(zip(self.names, values))

    def _rows_of(self, i, start, stop, fields):
        """Yield the next rows of each array of a file, in the form of its Field."""
        arrays = self.arrays[i]
        chunk_rows = max((*getattr(array, "chunks", ()), 1)[0] for array in arrays)
        ranges = [*steps_by_chunk(start, stop, self.batch_rows, chunk_rows)]
        streams = [array.pieces(ranges) for array in arrays]
        for (first, _), parts in zip(ranges, zip(*streams)):
            yield [
                plain_values(part, field, array.place, first)
                for part, field, array in zip(parts, fields, arrays)
            ]


def plain_values(values, field, place, first_row=0):
    """Return values in the form of a Field; an empty text is missing."""
    if not field.is_text:
        return np.array(values, dtype=field.dtype, order="C")  # no view of a file
    texts = utf8_texts(values, StoredPart(values, place, first_row))
    out = np.array(texts, dtype=object).reshape(len(values))
    out[out == ""] = None
    return out


def steps_by_chunk(start, stop, batch_rows, chunk_rows):
    """Yield ranges of rows that begin and end with chunks, where possible.

    Examples
    --------
    >>> list(steps_by_chunk(3, 20, 7, 4))
    [(3, 4), (4, 8), (8, 12), (12, 16), (16, 20)]
    """
    step = max(chunk_rows, batch_rows // chunk_rows * chunk_rows)
    while start < stop:
        end = min(stop, (start // step + 1) * step)
        yield start, end
        start = end
