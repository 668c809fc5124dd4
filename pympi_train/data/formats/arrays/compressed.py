"""Rows of compressed .npz members, which are streams."""

import contextlib
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.stored import FileArray, read_npy_header
from pympi_train.data.formats.files import open_binary
from pympi_train.data.moving import moved
from pympi_train.errors import DataError

PIECE_BYTES = 1 << 20
SHARED_BYTES = 1 << 24  # size of a piece that one rank decompresses for all
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError)


@dataclass(frozen=True)
class CompressedArray(FileArray):
    """A compressed member of an .npz file.

    Attributes
    ----------
    member : str
        Its name in the archive.
    """

    member: str

    is_mapped = False

    def fetch(self, start, stop):
        """Return the rows ``start`` to ``stop - 1`` in memory."""
        return decompress_rows(self, start, stop)

    def pieces(self, ranges):
        """Yield the rows of successive ranges; the member is decompressed once."""
        if self.fortran and len(self.shape) > 1:
            yield from super().pieces(ranges)
            return
        at, row_bytes = 0, self.dtype.itemsize * self.width
        with _explained(self), _member(self) as stream:
            for start, stop in ranges:
                own, _ = _room(self, stop - start)
                _skip(stream, (start - at) * row_bytes)
                _fill(stream, own)
                at = stop
                yield own


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


def share_rows(array, comm, cuts, reader=0, piece_bytes=SHARED_BYTES):
    """Return this rank's rows of a compressed member, which one rank decompresses.

    If each rank decompressed everything before its own rows, P ranks would do
    (P + 1) / 2 times the work.

    Parameters
    ----------
    array : CompressedArray
    comm : MPI.Comm
    cuts : ndarray of int, shape (P + 1,)
        Rank r gets the rows from ``cuts[r]`` to ``cuts[r + 1] - 1``.
    reader : int
        The rank that reads the file and sends each rank its rows. It needs memory for
        one piece besides its own rows.
    piece_bytes : int
        Maximum size of a piece.

    Notes
    -----
    Collective.
    """
    size, rank = comm.size, comm.rank
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
    with (
        open_binary(array.path) as file,
        zipfile.ZipFile(file) as archive,
        archive.open(array.member) as stream,
    ):
        read_npy_header(stream, array.place)
        yield stream


@contextlib.contextmanager
def _explained(array):
    """Convert the errors of reading a compressed member into DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{array.place}: cannot be read: {error.strerror}") from error
    except BROKEN as error:
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
