"""Compressed text files, read as if they were not compressed.

Such a file cannot be entered in its middle: each rank decompresses all text before its
own rows, once to count rows and once to parse them. `pympi-train data convert` makes
files that ranks can read in parts.
"""

import gzip
import io
import os
import zlib

from pympi_train.data.formats.libraries import load_library
from pympi_train.errors import DataError

SKIP_BYTES = 1 << 20  # decompressed at once to get to an offset


def compression_of(path):
    """Return the function that opens the text of a file, by the file's suffix."""
    suffix = os.path.splitext(path)[1].lower()
    return {".gz": Inflated, ".zst": Inflated}.get(suffix, plain)


def plain(path):
    """Open a file that is not compressed."""
    return open(path, "rb", buffering=0)


class Inflated(io.RawIOBase):
    """The text of a .gz or .zst file, for reading at offsets.

    Seeking backwards starts again at the beginning.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path):
        self._path, self._stream, self._at = path, None, 0
        self._reopen()

    def _reopen(self):
        if self._stream is not None:
            self._stream.close()
        is_gzip = self._path.lower().endswith(".gz")
        self._stream = gzip.open(self._path) if is_gzip else _open_zstd(self._path)
        self._at = 0

    def readable(self):
        """Return True."""
        return True

    def seekable(self):
        """Return True."""
        return True

    def read(self, n_bytes=-1):
        """Return at most ``n_bytes``, or all that is left; b"" at the end."""
        if n_bytes is None or n_bytes < 0:
            return b"".join(iter(lambda: self.read(SKIP_BYTES), b""))
        try:
            data = self._stream.read(n_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
            raise DataError(
                f"{self._path}: cannot be decompressed: {error}; the file is damaged "
                "or incomplete"
            ) from None
        self._at += len(data)
        return data

    def seek(self, offset, whence=0):
        """Go to an offset of the text, or with ``whence`` 2 to its end; return it."""
        if whence == 0 and offset < self._at:
            self._reopen()
        while whence == 2 or self._at < offset:
            step = SKIP_BYTES if whence == 2 else min(SKIP_BYTES, offset - self._at)
            if not self.read(step):
                break
        return self._at

    def close(self):
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
        super().close()


def _open_zstd(path):
    """Open a .zst file by pyarrow; raise DataError if it is not installed."""
    pyarrow = load_library("pyarrow", f"{path}: reading .zst files")
    return pyarrow.CompressedInputStream(pyarrow.OSFile(path), "zstd")
