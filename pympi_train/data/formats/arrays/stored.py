"""Arrays in files: where they are, and maps of their rows."""

import math
import os
import tokenize
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pympi_train.errors import MALFORMED, DataError

ABSENT = (
    "chunks are absent and read as their fill value; Zarr does not write a chunk that "
    "is equal to it, but were all copied?"
)
# Exceptions that NumPy may raise for a header, which is a Python literal.
_WRONG_HEADER = (*MALFORMED, SyntaxError, tokenize.TokenError)


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, with its shape and dtype.

    Attributes
    ----------
    path : str
        The file.
    place : str
        File and array, for messages.
    shape : tuple of int
        Rows first; one or two dimensions where rows are trained on.
    dtype : dtype
        Of plain numbers, text or dates; object for text of any length.
    flaw : str or None
        Why the array cannot be read, if that is known.
    is_mapped : bool
        Whether `fetch` returns a view of the file.
    may_lack_chunks : bool
        Whether `count_absent` may return more than 0.
    """

    path: str
    place: str
    shape: tuple
    dtype: Any
    flaw: str | None = field(default=None, kw_only=True)

    is_mapped = False
    may_lack_chunks = False

    @property
    def n(self):
        """Number of rows."""
        return self.shape[0]

    @property
    def width(self):
        """Number of values of a row: of columns, if there are two dimensions."""
        return math.prod(self.shape[1:])

    def fetch(self, start, stop):
        """Return the rows ``start`` to ``stop - 1``: ndarray, shape (k, ...)."""
        raise NotImplementedError

    def pieces(self, ranges):
        """Yield the rows of successive ranges, each ``(start, stop)``."""
        for start, stop in ranges:
            yield self.fetch(start, stop)

    def count_absent(self, start, stop):
        """Return the number of absent chunks that begin in these rows."""
        return 0

    def require_plain(self):
        """Raise DataError if it is known that the array cannot be read."""
        if self.flaw is not None:
            raise DataError(f"{self.place}: {self.flaw}")

    def require_readable(self):
        """Raise DataError unless the array is 1-d or 2-d, of numbers or text."""
        self.require_plain()
        dtype = self.dtype
        if dtype.names or dtype.kind not in "biufUSM" or not dtype.itemsize:
            raise DataError(
                f"{self.place}: expected real numbers, text or dates, found dtype "
                f"{dtype}"
            )
        self.require_table()

    def require_table(self):
        """Raise DataError unless the array has one or two dimensions."""
        if len(self.shape) not in (1, 2):
            raise DataError(
                f"{self.place}: expected shape (rows,) or (rows, columns), found "
                f"{self.shape}; reshape it to two dimensions"
            )


@dataclass(frozen=True)
class FileArray(StoredArray):
    """An array whose elements lie one after the other in a file.

    Attributes
    ----------
    fortran : bool
        Whether columns, not rows, are contiguous.
    offset_bytes : int
        Offset of the first element in the file, or in the decompressed member.
    """

    fortran: bool
    offset_bytes: int

    is_mapped = True

    def fetch(self, start, stop):
        """Return the rows ``start`` to ``stop - 1`` as a view of the file."""
        return map_rows(self, start, stop)

    def require_plain(self):
        """Raise DataError if the elements are Python objects."""
        if self.dtype.hasobject:
            raise DataError(
                f"{self.place}: holds Python objects, which would have to be unpickled "
                "and never are; store numbers, or text with a dtype such as U10"
            )


def read_npy_header(stream, place):
    """Return ``(shape, fortran, dtype)`` and leave ``stream`` at the first element.

    Raises
    ------
    DataError
        If the stream does not begin with a valid .npy header.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return _possible(np.lib.format.read_array_header_1_0(stream))
        if version == (2, 0):
            return _possible(np.lib.format.read_array_header_2_0(stream))
    except _WRONG_HEADER as error:
        raise DataError(f"{place}: not an .npy array: {error}") from None
    # Version 3 only adds Unicode field names of records.
    raise DataError(
        f"{place}: .npy version {version[0]}.{version[1]} (a table of records) is not "
        "read; expected an array of numbers or text"
    )


def _possible(header):
    shape, _, dtype = header
    size_bytes = dtype.itemsize * math.prod(max(1, count) for count in shape)
    if min(shape, default=0) < 0 or size_bytes >= 2**63:
        raise ValueError("a dimension in the header is negative or too large")
    return header


def map_rows(array, start, stop):
    """Return rows ``start`` to ``stop - 1`` as a read-only view of the file.

    Pages of other rows are not read. A Fortran-ordered array is mapped whole, and here
    too only the requested rows are read.

    Raises
    ------
    DataError
        If the file is gone, or shorter than when its header was read.
    """
    shape = (stop - start, *array.shape[1:])
    if 0 in shape:
        return np.empty(shape, dtype=array.dtype)
    if array.fortran and len(array.shape) == 2:
        return _mapped(array, 0, array.shape, "F")[start:stop]
    row_bytes = array.dtype.itemsize * array.width
    return _mapped(array, start * row_bytes, shape)


def _mapped(array, skipped_bytes, shape, order="C"):
    try:
        found = np.memmap(
            array.path,
            dtype=array.dtype,
            mode="r",
            offset=array.offset_bytes + skipped_bytes,
            shape=shape,
            order=order,
        )
    except OSError as error:
        text = error.strerror or error
        raise DataError(f"{array.place}: cannot be read: {text}") from None
    except ValueError:  # the map would be longer than the file
        require_complete(array, os.path.getsize(array.path))
        raise
    return np.asarray(found)


def require_complete(array, size_bytes):
    """Raise DataError if a file of ``size_bytes`` is too short for the array.

    Reading a map beyond the end of the file would kill the process (SIGBUS).
    """
    end = array.offset_bytes + array.dtype.itemsize * math.prod(array.shape)
    if end > size_bytes:
        raise DataError(
            f"{array.place}: the file ends early: expected {end} bytes for shape "
            f"{array.shape} of {array.dtype}, found {size_bytes}"
        )
