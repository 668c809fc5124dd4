"""Arrays in chunks: own rows are read in blocks of whole chunks."""

import math
from dataclasses import dataclass

import numpy as np

from pympi_train.data.formats.arrays.stored import StoredArray
from pympi_train.errors import DataError

PIECE_BYTES = 1 << 25  # read at once, besides the array that is filled
TEXT_BYTES = 64  # assumed of a text of any length


@dataclass(frozen=True)
class SlabArray(StoredArray):
    """An array of an HDF5 file or a Zarr store.

    Attributes
    ----------
    name : str
        In the file or store; groups are separated by "/".
    chunks : tuple of int
        Shape of a chunk; as many dimensions as ``shape``.
    """

    name: str
    chunks: tuple

    def require_readable(self):
        """Raise DataError unless the array is 1-d or 2-d, of numbers or text."""
        if self.dtype == object:
            self.require_plain()
            self.require_table()
        else:
            super().require_readable()

    def require_unchanged(self, shape, dtype):
        """Raise DataError if the array has changed since it was listed."""
        if (tuple(shape), dtype) != (self.shape, self.dtype):
            raise DataError(
                f"{self.place}: changed while it was read: shape {tuple(shape)} of "
                f"{dtype}, before {self.shape} of {self.dtype}"
            )

    def gather(self, source, start, stop):
        """Return rows of ``source``, an h5py data set or a Zarr array.

        Raises
        ------
        DataError
            If a text is neither str nor bytes.
        """
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        item_bytes = TEXT_BYTES if self.dtype == object else self.dtype.itemsize
        # Further dimensions are read whole.
        item_bytes *= math.prod(self.shape[2:])
        width, known = (*self.shape, 1)[1], {}
        for rows, columns in slab_pieces(
            start, stop, width, self.chunks[:2], item_bytes, PIECE_BYTES
        ):
            index = (rows, columns)[: len(self.shape)]
            piece = source[index]
            if self.dtype == object:
                piece = self._shared_texts(piece, known)
            out[(slice(rows.start - start, rows.stop - start), *index[1:])] = piece
        return out

    def _shared_texts(self, piece, known):
        """Return texts as objects, of which equal ones are the same."""
        texts = np.asarray(piece, dtype=object)
        found = [known.setdefault(text, text) for text in texts.ravel().tolist()]
        odd = next((t for t in found if not isinstance(t, (str, bytes))), None)
        if odd is not None:
            raise DataError(
                f"{self.place}: expected text, found {type(odd).__name__} objects"
            )
        shared = np.empty(len(found), dtype=object)
        shared[:] = found
        return shared.reshape(texts.shape)


def slab_pieces(start, stop, width, chunks, item_bytes, max_bytes):
    """Yield (rows, columns), slices of successive pieces of some rows.

    Inner borders of pieces are borders of chunks, so that no chunk is decompressed
    twice. A piece has at most ``max_bytes``, or is part of a single chunk.

    Parameters
    ----------
    start, stop : int
        The rows.
    width : int
        Number of columns.
    chunks : tuple of int
        Rows, and columns if there are two dimensions, of a chunk.
    item_bytes, max_bytes : int

    Examples
    --------
    >>> from pympi_train.data.formats.arrays.slabs import slab_pieces
    >>> [rows for rows, _ in slab_pieces(3, 11, 1, (4,), 8, 32)]
    [slice(3, 4, None), slice(4, 8, None), slice(8, 11, None)]
    """
    n_rows, n_columns = max(1, chunks[0]), max(1, (*chunks, 1)[1])
    items = max(1, max_bytes // item_bytes)
    columns = min(math.ceil(max(1, width) / n_columns) * n_columns, _whole(
        items // n_rows, n_columns
    ))
    rows = _whole(items // min(columns, max(1, width)), n_rows)
    while start < stop:
        end = min(stop, (start // n_rows) * n_rows + rows)
        for column in range(0, width, columns):
            yield slice(start, end), slice(column, min(column + columns, width))
        start = end


def _whole(count, unit):
    """Return the largest multiple of ``unit`` up to ``count``, at least one unit."""
    return max(1, count // unit) * unit
