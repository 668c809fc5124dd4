""".npy, .npz and token files as a table."""

import contextlib
import math
import zipfile
from dataclasses import replace

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.compressed import BROKEN, CompressedArray
from pympi_train.data.formats.arrays.npz import stored_arrays
from pympi_train.data.formats.arrays.stored import (
    FileArray,
    read_npy_header,
    require_complete,
)
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.formats.token_files import stored_tokens
from pympi_train.data.tables.readers.array_table import (
    ArrayTable,
    agreed_fields,
    array_field,
    is_wanted,
    plain_values,
    rows_side_by_side,
)
from pympi_train.data.tables.source import explained, recut
from pympi_train.errors import DataError

SKIP_BYTES = 1 << 20
ONLY_ARRAY, TOKEN = "x", "token"  # names of the columns of an .npy and of tokens


def open_numpy(files, comm, columns=None, token_dtype=None):
    """Return the Table of .npy, .npz or token files. Collective.

    The array of an .npy is the column "x", that of a token file the column "token".
    """

    def look(path):
        if files.format == "tokens":
            arrays = {TOKEN: stored_tokens(path, np.dtype(token_dtype))}
        elif files.format == "npz":
            arrays = stored_arrays(path)
        else:
            arrays = {ONLY_ARRAY: whole_npy(path)}
        wanted = {
            name: array
            for name, array in arrays.items()
            if is_wanted(name, array.shape, columns)
        }
        fields = [_field(array, name) for name, array in wanted.items()]
        lengths = {name: array.n for name, array in wanted.items()}
        fields, n = rows_side_by_side(path, fields, lengths, columns)
        return fields, n, [wanted[field.name] for field in fields]

    found = of_each(files.paths, look, comm)
    with together(comm):
        fields = agreed_fields(files.paths, [fields for fields, _, _ in found])

    def read(i, fields, start, stop, batch_rows):
        arrays = found[i][2]
        return side_by_side(fields, arrays, start, stop, batch_rows)

    return ArrayTable(files, fields, [n for _, n, _ in found], read)


def whole_npy(path):
    """Return the StoredArray of an .npy file; raise DataError if it is not whole."""
    size_bytes = file_size(path)
    with explained(path), open(path, "rb") as file:
        shape, fortran, dtype = read_npy_header(file, path)
        array = FileArray(path, path, shape, dtype, fortran, file.tell())
        if not dtype.hasobject:
            require_complete(array, size_bytes)
    return array


def _field(array, name):
    if array.dtype.hasobject:
        array.require_readable()  # says why
    if array.fortran and len(array.shape) > 2:
        raise DataError(
            f"{array.place}: an array of {len(array.shape)} dimensions in Fortran "
            "order; store it in C order (numpy.ascontiguousarray)"
        )
    return array_field(array.place, name, array.dtype, array.shape)


def side_by_side(fields, arrays, start, stop, batch_rows):
    """Yield rows of StoredArrays, one for each Field, in batches."""
    sizes = [min(batch_rows, stop - at) for at in range(start, stop, batch_rows)]
    streams = [
        recut(_stream(array, field, start, stop, batch_rows), sizes)
        for field, array in zip(fields, arrays)
    ]
    for parts in zip(*streams):
        yield {field.name: part["x"] for field, part in zip(fields, parts)}


def _stream(array, field, start, stop, batch_rows):
    """Yield rows of one array in batches {"x": values}."""
    # The functions that read arrays know one or two dimensions.
    width = math.prod(array.shape[1:])
    flat = replace(array, shape=(array.n, width)) if len(array.shape) > 2 else array
    if not isinstance(array, CompressedArray) or array.fortran:
        for at in range(start, stop, batch_rows):
            end = min(at + batch_rows, stop)
            with explained(array.place, *BROKEN):
                part = np.array(flat.fetch(at, end)).reshape(end - at, *array.shape[1:])
            yield {"x": plain_values(part, field, array.place)}
        return
    row_bytes = array.dtype.itemsize * width
    with _decompressed(array) as stream:
        _read(stream, array, start * row_bytes, is_kept=False)
        for at in range(start, stop, batch_rows):
            end = min(at + batch_rows, stop)
            data = _read(stream, array, (end - at) * row_bytes)
            part = np.frombuffer(data, array.dtype).reshape(end - at, *array.shape[1:])
            yield {"x": plain_values(part, field, array.place)}


@contextlib.contextmanager
def _decompressed(array):
    with explained(array.place, *BROKEN):
        archive = zipfile.ZipFile(array.path)
    with archive, archive.open(array.member) as stream:
        read_npy_header(stream, array.place)
        yield stream


def _read(stream, array, n_bytes, is_kept=True):
    """Return the next bytes of a member, or only pass over them."""
    parts = []
    with explained(array.place, *BROKEN):
        while n_bytes:
            part = stream.read(min(n_bytes, SKIP_BYTES))
            if not part:
                raise EOFError("it ends early")
            n_bytes -= len(part)
            if is_kept:
                parts.append(part)
    return b"".join(parts)
