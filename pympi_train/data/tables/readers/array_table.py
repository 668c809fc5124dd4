"""Arrays side by side as a table: what .npy, .npz, HDF5 and Zarr have in common."""

from bisect import bisect_right
from itertools import accumulate

import numpy as np

from pympi_train.data.formats.rows import listed
from pympi_train.data.tables.source import (
    Field,
    Table,
    choose_fields,
    require_filled,
)
from pympi_train.errors import DataError


class ArrayTable(Table):
    """Rows of arrays of equal length, in one or more files.

    Parameters
    ----------
    files : Files
    fields : list of Field
    counts : list of int
        Number of rows of each file.
    read : callable
        ``read(i, fields, start, stop, batch_rows)`` yields rows of file i in batches.
    remarks : sequence of str
        What may be wrong with the files.
    """

    def __init__(self, files, fields, counts, read, remarks=()):
        self.remarks = tuple(remarks)
        self._starts = [0, *accumulate(counts)]
        self._read = read
        super().__init__(files.name, files.paths, self._starts[-1], fields)

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1``; see `Table`."""
        i = max(bisect_right(self._starts, start) - 1, 0)
        while start < stop:
            first, end = self._starts[i : i + 2]
            own = min(stop, end)
            if start < own:
                own_rows = start - first, own - first
                yield from self._read(i, self.fields, *own_rows, self.batch_rows)
            start, i = own, i + 1


def array_field(place, name, dtype, shape):
    """Return the Field of an array of rows; raise DataError for other dtypes.

    ``shape`` includes the number of rows.
    """
    if not shape:
        raise DataError(f"{place}: expected an array of rows, found a single value")
    inner = tuple(int(length) for length in shape[1:])
    if dtype.kind in "USTO":
        if inner:
            raise DataError(f"{place}: texts with the shape {shape}; expected (rows,)")
        return Field(name, "text")
    if dtype.kind == "M" and dtype.str[3:]:
        return Field(name, str(dtype.newbyteorder("=")), inner)
    if dtype.names or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise DataError(
            f"{place}: expected numbers, booleans, texts or dates, found dtype "
            f"{dtype}; leave it out by naming the other columns (--columns)"
        )
    return Field(name, str(dtype.newbyteorder("=")), inner)


def is_wanted(name, shape, columns):
    """Return whether an array is read: if it is named, or none is and it has rows."""
    return bool(shape) if columns is None else name in columns


def plain_values(values, field, place):
    """Return values in the form of a Field; an empty text is missing."""
    if not field.is_text:
        return np.ascontiguousarray(values, dtype=field.dtype)
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: a text is not UTF-8: {error}") from None
    out = np.array(values.tolist(), dtype=object).reshape(len(values))
    out[out == ""] = None
    return out


def rows_side_by_side(path, fields, lengths, columns):
    """Return the chosen Fields of a file and its number of rows.

    Parameters
    ----------
    path : str
    fields : list of Field
        Every array of the file.
    lengths : dict of str to int
        Their rows.
    columns : list of str or None

    Raises
    ------
    DataError
        If the lengths differ, or there is no row.
    """
    if not fields:
        raise DataError(f"{path}: no array in this file")
    chosen = choose_fields(path, fields, columns)
    first = chosen[0].name
    for field in chosen:
        if lengths[field.name] != lengths[first]:
            raise DataError(
                f"{path}: {field.name!r} has {lengths[field.name]} rows, but {first!r} "
                f"{lengths[first]}; name those of one length (--columns); there are "
                f"{listed(list(lengths))}"
            )
    require_filled(path, lengths[first])
    return list(chosen), lengths[first]


def agreed_fields(paths, found):
    """Return the Fields of all files; raise DataError if one differs.

    ``found`` has the Fields of each file.
    """
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
