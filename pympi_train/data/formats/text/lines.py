"""Text files as bytes: reads at offsets, line ends, and pieces of whole rows."""

import contextlib
import io

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


def read_into(file, offset, view):
    """Fill a memoryview with the bytes from ``offset``; errors as for `read_at`."""
    if not isinstance(file, io.FileIO):
        view[:] = read_at(file, offset, len(view))
        return
    file.seek(offset)
    while view:
        n_bytes = file.readinto(view)
        if not n_bytes:
            raise EOFError
        view = view[n_bytes:]


def count_lines(data):
    """Return the number of line feeds in ``data``, in a third of bytes.count's time."""
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == LINE_FEED))


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
    offset, n_rest, buffer = start, 0, bytearray(min(chunk_bytes, stop - start))
    while offset < stop:
        n_new = min(chunk_bytes, stop - offset - n_rest)
        n = n_rest + n_new
        if n > len(buffer):
            buffer.extend(bytes(n - len(buffer)))
        with memoryview(buffer) as view:
            read_into(file, offset + n_rest, view[n_rest:n])
            is_last = offset + n == stop
            # Rows end at a line feed. A piece is copied once: a copy takes as long as
            # a tenth of parsing.
            end = n if is_last else buffer.rfind(b"\n", 0, n) + 1
            data = bytes(view[:end])
            if not is_last and end and whole(data) < end:
                end = whole(data)
                data = data[:end]
            if end:
                yield offset, data
            else:
                chunk_bytes *= 2  # avoids scanning a very long row many times
            n_rest = n - end
            view[:n_rest] = view[end:n]
        offset += end


def mark_bytes(path, size_bytes):
    """Return the length of the UTF-8 byte order mark of a file, or 0."""
    with opened(path) as file:
        head = read_at(file, 0, min(size_bytes, len(BYTE_ORDER_MARK)))
    return len(head) if head == BYTE_ORDER_MARK else 0
