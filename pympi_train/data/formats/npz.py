"""Reader of .npz arrays: mapped if uncompressed, streamed if compressed."""

import contextlib
import math
import os
import struct
import zipfile
import zlib

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.npy import (
    StoredArray,
    map_rows,
    read_npy_header,
    require_complete,
    rows_of_arrays,
)
from pympi_train.data.formats.rows import choose_names, listed, on_root
from pympi_train.data.moving import moved
from pympi_train.data.partition import own_range
from pympi_train.errors import DataError

LOCAL_HEADER_BYTES = 30  # .ZIP File Format Specification 6.3.10, section 4.3.7
PIECE_BYTES = 1 << 20
SHARED_BYTES = 1 << 24  # size of a piece that one rank decompresses for all
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError)


def read_npz(
    path, comm, *, features, target, need_target, any_names=False, **options
):
    """Read arrays of an .npz. Collective."""
    names, chosen, targets = on_root(
        comm, lambda: _choose(path, features, target, need_target, any_names)
    )
    return rows_of_arrays(comm, chosen, targets, fetch_rows, names=names, **options)


def fetch_rows(array, start, stop, comm):
    """Return this rank's rows ``start`` to ``stop - 1`` of a member. Collective.

    The result is a view of the file if the member is not compressed.
    """
    if array.member is not None and comm.size > 1:
        return share_rows(array, comm)
    with together(comm):
        if array.member is None:
            return map_rows(array, start, stop)
        return decompress_rows(array, start, stop)


def stored_arrays(path):
    """Return ``{name: StoredArray}`` for the .npy members, in the file's order.

    Raises
    ------
    DataError
        If the file is not a zip archive, or a member is not an .npy array.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    name = info.filename.removesuffix(".npy")
                    arrays[name] = _stored(path, archive, info, name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except _BROKEN as error:
        raise DataError(f"{path}: not a complete .npz archive: {error}") from None
    return arrays


def _stored(path, archive, info, name):
    place = f"{path}, array {name!r}"
    if info.flag_bits & 1:
        raise DataError(f"{place}: encrypted; store it without a password")
    with archive.open(info) as stream:
        shape, fortran, dtype = read_npy_header(stream, place)
        header_bytes = stream.tell()
    if info.compress_type != zipfile.ZIP_STORED:
        array = StoredArray(
            path, place, shape, dtype, fortran, header_bytes, info.filename
        )
        if not dtype.hasobject:
            require_complete(array, info.file_size)
        return array
    # The extra field here may be longer than the copy in the central directory.
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(LOCAL_HEADER_BYTES)
        n_name, n_extra = struct.unpack("<HH", local[26:30])
        start = info.header_offset + LOCAL_HEADER_BYTES + n_name + n_extra
        array = StoredArray(path, place, shape, dtype, fortran, start + header_bytes)
        if not dtype.hasobject:
            require_complete(array, min(start + info.file_size, _size(file)))
    return array


def _size(file):
    return os.fstat(file.fileno()).st_size


def _choose(path, features, target, need_target, any_names):
    """Return the names of the features, and the StoredArrays of both."""
    arrays = stored_arrays(path)
    present = list(arrays)
    names, targets = choose_names(
        path, "array", present, features, target, need_target, any_names
    )
    for name in targets:
        arrays[name].require_readable()
    if names is None:
        given = [target] if isinstance(target, str) else list(target or ())
        others = [name for name in present if name not in given]
        names = _fitting(path, arrays, others, targets)
    for name in names:
        arrays[name].require_readable()
    stored = [[arrays[name] for name in group] for group in (names, targets)]
    return tuple(names), *stored


def _fitting(path, arrays, others, targets):
    """Return the names of the arrays whose first dimension is the number of rows."""
    shapes = [arrays[name].shape for name in others]
    lengths = {shape[0] for shape in shapes if shape}
    if targets:
        lengths = {arrays[targets[0]].n}
    elif len(lengths) > 1:
        raise DataError(
            f"{path}: arrays of different lengths, so it is not clear which hold the "
            f"features; set features to some of {listed(others)}"
        )
    names = [name for name, shape in zip(others, shapes) if lengths & {*shape[:1]}]
    unequal = [name for name, shape in zip(others, shapes) if shape]
    if unequal and not names:
        raise DataError(
            f"{path}: features and target must have the same number of rows: "
            f"{unequal[0]!r} has {arrays[unequal[0]].n} rows, {targets[0]!r} "
            f"{arrays[targets[0]].n}"
        )
    if not names:
        raise DataError(
            f"{path}: no array for the features beside {listed(targets)}; present: "
            f"{listed(list(arrays))}"
        )
    return names


def decompress_rows(array, start, stop):
    """Return rows of a compressed member, using memory for these rows alone.

    Everything before them must be decompressed too, and is discarded in small blocks.
    """
    count = stop - start
    own, by_columns = _room(array, count)
    if own.size == 0:
        return own
    item_bytes = array.dtype.itemsize
    with _explained(array), _member(array) as stream:
        if by_columns:
            for column in own.T:
                _skip(stream, start * item_bytes)
                _fill(stream, column)
                _skip(stream, (array.n - stop) * item_bytes)
        else:
            _skip(stream, start * (own.nbytes // count))
            _fill(stream, own)
    return own


def share_rows(array, comm, reader=0, piece_bytes=SHARED_BYTES):
    """Return this rank's rows of a compressed member, which one rank decompresses.

    If each rank decompressed everything before its own rows, P ranks would do
    (P + 1) / 2 times the work.

    Parameters
    ----------
    array : StoredArray
    comm : MPI.Comm
    reader : int
        The rank that reads the file and sends each rank its rows. It needs memory for
        one piece besides its own rows.
    piece_bytes : int
        Maximum size of a piece.

    Notes
    -----
    Collective.
    """
    n, size, rank = array.n, comm.size, comm.rank
    cuts = np.array([own_range(n, r, size)[0] for r in range(size)] + [n])
    start, stop = cuts[rank : rank + 2].tolist()
    with together(comm):
        own, by_columns = _room(array, stop - start)
    if array.dtype.itemsize * math.prod(array.shape) == 0:
        return own
    with contextlib.ExitStack() as stack:
        stream = None
        with together(comm):
            if rank == reader:
                with _explained(array):
                    stream = stack.enter_context(_member(array))
        for columns, first, count in _pieces(array, by_columns, piece_bytes):
            rows = own[:, columns] if by_columns else own
            with together(comm):
                piece = np.empty((0, *rows.shape[1:]), array.dtype)
                if stream is not None:
                    with _explained(array):
                        piece = _read_piece(stream, rows, count, by_columns)
            old = [0] * (reader + 1) + [count] * (size - reader)
            new = np.clip(cuts - first, 0, count).tolist()
            part = moved(piece, old, new, comm)
            at = max(first - start, 0)
            rows[at : at + len(part)] = part
    return own


def _pieces(array, by_columns, piece_bytes):
    """Yield (columns, first row, rows) of successive pieces of a member.

    If columns are contiguous, a piece is several whole columns or a part of one.
    """
    n, item_bytes = array.n, array.dtype.itemsize
    if not by_columns:
        step = max(1, piece_bytes // (item_bytes * math.prod(array.shape[1:])))
        for first in range(0, n, step):
            yield slice(None), first, min(step, n - first)
        return
    n_columns = max(1, piece_bytes // (item_bytes * n))
    step = n if n_columns > 1 else max(1, piece_bytes // item_bytes)
    for column in range(0, array.shape[1], n_columns):
        for first in range(0, n, step):
            columns = slice(column, column + n_columns)
            yield columns, first, min(step, n - first)


def _read_piece(stream, like, count, by_columns):
    """Read ``count`` rows with the dtype and width of ``like``."""
    if by_columns:
        piece = np.empty((like.shape[1], count), like.dtype)
        _fill(stream, piece)
        return piece.T
    piece = np.empty((count, *like.shape[1:]), like.dtype)
    _fill(stream, piece)
    return piece


def _room(array, count):
    """Return memory for ``count`` rows, and whether columns are contiguous."""
    by_columns = array.fortran and len(array.shape) == 2
    order = "F" if by_columns else "C"
    return np.empty((count, *array.shape[1:]), array.dtype, order=order), by_columns


@contextlib.contextmanager
def _member(array):
    """Open the decompressed member as a stream, at its first element."""
    with zipfile.ZipFile(array.path) as archive, archive.open(array.member) as stream:
        read_npy_header(stream, array.place)
        yield stream


@contextlib.contextmanager
def _explained(array):
    """Convert the errors of reading a compressed member into DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{array.place}: cannot be read: {error.strerror}") from error
    except _BROKEN as error:
        why = str(error) or "it ends early"
        raise DataError(f"{array.place}: damaged: {why}") from None


def _skip(stream, n_bytes):
    while n_bytes:
        piece = len(stream.read(min(n_bytes, PIECE_BYTES)))
        if not piece:
            raise EOFError
        n_bytes -= piece


def _fill(stream, out):
    """Fill a contiguous array in blocks: the stream makes a copy of each block."""
    view = memoryview(out.reshape(-1).view(np.uint8))
    while len(view):
        piece = stream.readinto(view[:PIECE_BYTES])
        if not piece:
            raise EOFError
        view = view[piece:]
