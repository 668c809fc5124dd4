"""Features that are decoded from their files, block by block, when they are needed."""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pympi_train.backends.numpy.arrays import take_rows

KEPT_BYTES = 1 << 25  # of decoded blocks, unless more are needed at once


class StreamedRows:
    """Successive rows of files that cannot be mapped, indexed as one array.

    A block is decoded when one of its rows is needed, or ahead, by a thread. Decoded
    blocks are kept in slots of one array, so that the rows of a batch are taken from
    all of them by one call. The block that was announced first makes room for the next,
    or, if none ever was, the least recently used one.
    Provides the part of ndarray's interface that reading and loading use.

    Parameters
    ----------
    counts : sequence of int
        Rows of each block.
    decode : callable
        ``decode(i)`` returns the features of the i-th block, shape (counts[i], d), of
        this dtype; or, with ``fills``, ``decode(i, out)`` stores them in ``out``.
        Called from two threads, of the same block once at a time.
    width : int
        Number of columns, d.
    dtype : dtype
    resident : dict of int to ndarray, shape (k,)
        Columns that are in memory; in the decoded blocks they have no meaning.
    fills : bool, default False

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

    def __init__(self, counts, decode, width, dtype, resident=None, *, fills=False):
        self._starts = np.cumsum([0, *counts])
        self._decode, self._fills, self.dtype = decode, fills, np.dtype(dtype)
        self.resident = {} if resident is None else resident
        self.shape = int(self._starts[-1]), width
        self.block_rows = max([1, *counts])
        self._kept: OrderedDict = OrderedDict()  # block: its future; None if decoded
        self._first_rows = np.zeros(len(counts), np.intp)  # of its slot, if it is kept
        self._thread = None
        self.n_decoded = 0
        self.reserve(0, 0)

    def __len__(self):
        return self.shape[0]

    def reserve(self, n_ranges, n_rows, n_more=0):
        """Keep room for the blocks of so many ranges of successive rows at once.

        ``n_more`` of them may be longer by half.
        Blocks that are decoded already are dropped.
        """
        row_bytes = max(1, self.shape[1] * self.dtype.itemsize)
        block_bytes = self.block_rows * row_bytes
        of_ranges = n_ranges * (-(-n_rows // self.block_rows) + 1)
        of_more = n_more * -(-n_rows // (2 * self.block_rows))
        most = max(2, KEPT_BYTES // block_bytes, of_ranges + of_more)
        for future in filter(None, self._kept.values()):
            future.cancel()
        self._kept.clear()
        self._most = min(most, max(2, len(self._first_rows)))
        self._pool = None  # allocated when the first block is decoded
        self._free = [i * self.block_rows for i in range(self._most)][::-1]

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
        self.take_into(rows, out)
        return out

    def __setitem__(self, index, values):
        """Replace a whole column that is in memory: ``rows[:, column] = values``."""
        rows, column = index
        self.resident[column][rows] = values

    def take_into(self, rows, out):
        """Store the rows of an index array in ``out``, of the same dtype."""
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        needed = np.unique(blocks)
        places = rows - self._starts[blocks]
        for first in range(0, len(needed), self._most):
            together = needed[first : first + self._most]
            self._require(together.tolist())
            if len(together) == len(needed):
                take_rows(self._pool, self._first_rows[blocks] + places, out)
                break
            mine = (blocks >= together[0]) & (blocks <= together[-1])
            out[mine] = self._pool[self._first_rows[blocks[mine]] + places[mine]]
        self._overlay(out, rows)

    def _run(self, start, stop):
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        for i in self._blocks_of(start, stop):
            self._require([i])
            at, in_pool = int(self._starts[i]), int(self._first_rows[i])
            low, high = max(start, at), min(stop, int(self._starts[i + 1]))
            part = self._pool[in_pool + low - at : in_pool + high - at]
            out[low - start : high - start] = part
        self._overlay(out, slice(start, stop))
        return out

    def _overlay(self, out, rows):
        for column, values in self.resident.items():
            out[:, column] = values[rows]

    def _blocks_of(self, start, stop):
        """Return the blocks that hold some rows."""
        if start >= stop:
            return range(0)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        return range(first, int(np.searchsorted(self._starts, stop, side="left")))

    def _require(self, blocks):
        """Have these blocks, at most ``_most``, in their slots.

        Blocks that the thread has not begun are decoded here.
        """
        if self._thread is None:  # otherwise blocks make room as they were announced
            for i in blocks:
                if i in self._kept:
                    self._kept.move_to_end(i)
        wanted = set(blocks)
        for i in blocks:
            while i not in self._kept:
                self._place(i, wanted)
            future = self._kept[i]
            try:
                if future is None:
                    continue
                if future.cancel():
                    self._fill(i, self._slot(i))
                else:
                    future.result()
            except BaseException:
                self._drop(i)
                raise
            self._kept[i] = None

    def _place(self, i, wanted=()):
        """Give a block a slot, if one is free or can be freed without ``wanted``."""
        if self._pool is None:
            shape = self._most * self.block_rows, self.shape[1]
            self._pool = np.empty(shape, self.dtype)
        running = None
        if not self._free:
            for block, future in self._kept.items():
                if block not in wanted:
                    if future is None or future.done() or future.cancel():
                        self._drop(block)
                        break
                    running = future
        if self._free:
            self._first_rows[i] = self._free.pop()
            self._kept[i] = Future()  # as long as no thread has it
        elif wanted:
            running.exception()  # waits

    def _drop(self, i):
        del self._kept[i]
        self._free.append(int(self._first_rows[i]))

    def _slot(self, i):
        first = self._first_rows[i]
        return self._pool[first : first + self._starts[i + 1] - self._starts[i]]

    def _fill(self, i, slot):
        if self._fills:
            self._decode(i, slot)
        else:
            slot[...] = self._decode(i)
        self.n_decoded += 1

    def read_ahead(self, ranges):
        """Let the thread decode the blocks of some ranges of rows, shape (m, 2)."""
        for start, stop in ranges.tolist():
            for i in self._blocks_of(start, stop):
                if i in self._kept:
                    self._kept.move_to_end(i)
                    continue
                self._place(i)
                if i in self._kept:
                    if self._thread is None:
                        self._thread = ThreadPoolExecutor(1, "read-ahead")
                    self._kept[i] = self._thread.submit(self._fill, i, self._slot(i))
