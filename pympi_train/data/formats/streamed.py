"""Features that are decoded from their files, block by block, when they are needed."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np

KEPT_BYTES = 1 << 25  # of decoded blocks, unless more are needed at once


class StreamedRows:
    """Successive rows of files that cannot be mapped, indexed as one array.

    A block is decoded when one of its rows is needed, or ahead, by a thread. Decoded
    blocks are kept as long as there is room; the least recently used one goes first.
    Provides the part of ndarray's interface that reading and loading use.

    Parameters
    ----------
    counts : sequence of int
        Rows of each block.
    decode : callable
        ``decode(i)`` returns the features of the i-th block, shape (counts[i], d), of
        this dtype. Called from two threads, of the same block once at a time.
    width : int
        Number of columns, d.
    dtype : dtype
    resident : dict of int to ndarray, shape (k,)
        Columns that are in memory; in the decoded blocks they have no meaning.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    ndim : int
        2.
    block_rows : int
        Rows of the largest block.
    n_decoded : int
        Number of blocks decoded so far.
    """

    ndim = 2

    def __init__(self, counts, decode, width, dtype, resident=None):
        self._starts = np.cumsum([0, *counts])
        self._decode, self.dtype = decode, np.dtype(dtype)
        self.resident = {} if resident is None else resident
        self.shape = int(self._starts[-1]), width
        self.block_rows = max([1, *counts])
        self._kept: OrderedDict = OrderedDict()  # block: array, or its future
        self._most = 2
        self.reserve(0, 0)
        self._thread = None
        self.n_decoded = 0

    def __len__(self):
        return self.shape[0]

    def reserve(self, n_ranges, n_rows):
        """Keep room for the blocks of so many ranges of successive rows at once."""
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        block_bytes = self.block_rows * row_bytes
        of_ranges = n_ranges * (-(-n_rows // self.block_rows) + 1)
        self._most = max(2, KEPT_BYTES // block_bytes, of_ranges)

    def __getitem__(self, index):
        """Return the rows of a slice, indices or a mask; ``[rows, columns]`` likewise.

        A column that is named by its number must be in memory.
        """
        if isinstance(index, tuple):
            rows, columns = index
            if isinstance(columns, slice):
                return self[rows][:, columns]
            return self.resident[columns][rows]
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            return self._run(start, max(start, stop))
        rows = np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        for i in np.unique(blocks).tolist():
            mine = blocks == i
            out[mine] = self._block(i)[rows[mine] - self._starts[i]]
        return self._overlaid(out, rows)

    def __setitem__(self, index, values):
        """Replace a whole column that is in memory: ``rows[:, column] = values``."""
        rows, column = index
        self.resident[column][rows] = values

    def _run(self, start, stop):
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        for i in self._blocks_of(start, stop):
            at = int(self._starts[i])
            low, high = max(start, at), min(stop, int(self._starts[i + 1]))
            out[low - start : high - start] = self._block(i)[low - at : high - at]
        return self._overlaid(out, slice(start, stop))

    def _overlaid(self, out, rows):
        for column, values in self.resident.items():
            out[:, column] = values[rows]
        return out

    def _blocks_of(self, start, stop):
        """Return the blocks that hold some rows."""
        if start >= stop:
            return range(0)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        return range(first, int(np.searchsorted(self._starts, stop, side="left")))

    def _block(self, i):
        """Return a decoded block; wait for it if the thread decodes it."""
        found = self._kept.pop(i, None)
        if found is None:
            found = self._decoded(i)
        elif not isinstance(found, np.ndarray):
            found = found.result()
        self._keep(i, found)
        return found

    def _decoded(self, i):
        self.n_decoded += 1
        return self._decode(i)

    def _keep(self, i, block):
        self._kept[i] = block
        while len(self._kept) > self._most:
            _, gone = self._kept.popitem(last=False)
            if not isinstance(gone, np.ndarray):
                gone.cancel()

    def read_ahead(self, ranges):
        """Let the thread decode the blocks of some ranges of rows, shape (m, 2)."""
        for start, stop in ranges.tolist():
            for i in self._blocks_of(start, stop):
                if i not in self._kept:
                    if self._thread is None:
                        self._thread = ThreadPoolExecutor(1, "read-ahead")
                    self._keep(i, self._thread.submit(self._decoded, i))
                else:
                    self._kept.move_to_end(i)
