"""Text files as bytes: reads at offsets, line ends, and pieces of whole rows."""

import contextlib

import numpy as np

from pympi_train.data.formats.files import file_size
from pympi_train.data.formats.text.compressed_text import compression_of, plain
from pympi_train.errors import DataError
from pympi_train.paths import is_remote

CHUNK_BYTES = 4 << 20
LINE_FEED = 10
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@contextlib.contextmanager
def opened(path):
    """Open a text file for reading at offsets; system errors become DataError.

    So does the EOFError of `read_at`. The offsets of a compressed file are those of its
    text.
    """
    try:
        if is_remote(path):
            from pympi_train.data.formats.remote import open_remote

            with open_remote(path, exact=True) as file:
                yield file
        else:
            with compression_of(path)(path) as file:
                yield file
    except EOFError:
        raise DataError(f"{path}: became shorter while it was being read") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def text_size(path):
    """Return the size of a file's text in bytes; a compressed file is read for it."""
    size_bytes = file_size(path)
    if compression_of(path) is plain:
        return size_bytes
    with opened(path) as file:
        return file.seek(0, 2)


def read_at(file, offset, n_bytes):
    """Return exactly ``n_bytes`` from ``offset``, repeating short reads.

    Raises
    ------
    EOFError
        If the file ends before.
    """
    file.seek(offset)
    parts = []
    while n_bytes:
        part = file.read(n_bytes)
        if not part:
            raise EOFError
        parts.append(part)
        n_bytes -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def line_ends(data):
    """Return the position after each line; the last line may lack its line feed."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == LINE_FEED) + 1
    if len(data) and (ends.size == 0 or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    return ends


def line_start(file, at, start, stop):
    """Return the first start of a line at or after ``at``, at most ``stop``.

    A line must start at ``start``.
    """
    if at <= start:
        return start
    at -= 1  # a line feed at at - 1 means that a line starts at ``at``
    step = 1 << 12
    while at < stop:
        data = read_at(file, at, min(step, stop - at))
        found = data.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(data)
        step = min(2 * step, CHUNK_BYTES)
    return stop


def whole_lines(data):
    """Return the position after the last line feed, or 0 if there is none."""
    return data.rfind(b"\n") + 1


def row_pieces(file, start, stop, whole, chunk_bytes=CHUNK_BYTES):
    """Yield ``(offset, bytes)`` of the range in pieces of whole rows.

    ``whole(bytes)`` returns where the last complete row ends. A piece has about
    ``chunk_bytes``, or more if a single row is longer.
    """
    offset, rest = start, b""
    while offset < stop:
        at = offset + len(rest)
        data = rest + read_at(file, at, min(chunk_bytes, stop - at))
        end = len(data) if offset + len(data) == stop else whole(data)
        if end:
            yield offset, data[:end]
        else:
            chunk_bytes *= 2  # avoids scanning a very long row many times
        offset, rest = offset + end, data[end:]


def mark_bytes(path, size_bytes):
    """Return the length of the UTF-8 byte order mark of a file, or 0."""
    with opened(path) as file:
        head = read_at(file, 0, min(size_bytes, len(BYTE_ORDER_MARK)))
    return len(head) if head == BYTE_ORDER_MARK else 0
