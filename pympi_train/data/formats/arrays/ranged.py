"""Arrays in remote files: own rows, by byte ranges."""

from dataclasses import dataclass

import numpy as np

from pympi_train.data.formats.arrays.stored import FileArray
from pympi_train.data.formats.remote import open_remote
from pympi_train.errors import DataError
from pympi_train.paths import is_remote

RANGE_BYTES = 1 << 25  # of a request


@dataclass(frozen=True)
class RangedArray(FileArray):
    """An array whose elements lie one after the other in a remote file."""

    is_mapped = False

    def fetch(self, start, stop):
        """Return the rows ``start`` to ``stop - 1`` in memory."""
        by_columns = self.fortran and len(self.shape) == 2
        shape = (stop - start, *self.shape[1:])
        out = np.empty(shape, self.dtype, order="F" if by_columns else "C")
        if not out.size:
            return out
        item_bytes = self.dtype.itemsize
        with open_remote(self.path, exact=True) as file:
            for j, part in enumerate(out.T if by_columns else [out]):
                at = start if by_columns else start * self.width
                at += j * self.n
                self._fill(file, self.offset_bytes + at * item_bytes, part)
        return out

    def _fill(self, file, at, part):
        """Fill a contiguous array with the bytes from ``at`` on."""
        view = memoryview(part.reshape(-1).view(np.uint8))
        file.seek(at)
        while len(view):
            found = file.read(min(len(view), RANGE_BYTES))
            if not found:
                raise DataError(f"{self.place}: the file ends early")
            view[: len(found)] = found
            view = view[len(found) :]


def file_array(path, *rest):
    """Return a FileArray, or a RangedArray if the file is remote."""
    return (RangedArray if is_remote(path) else FileArray)(path, *rest)
