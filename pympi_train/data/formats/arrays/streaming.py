"""Features in arrays that are fetched block by block, when they are needed."""

import numpy as np

from pympi_train.data.formats.streamed import StreamedRows
from pympi_train.errors import DataError

BLOCK_BYTES = 1 << 22  # of features, at most, unless a chunk has more


class ArrayBlocks:
    """Blocks of whole chunks of the features' arrays, in files one below the other.

    Parameters
    ----------
    tables : sequence of list of StoredArray
        The arrays of each file that are features.
    is_number : list of bool
        Which of them hold numbers; the columns of the others stay empty.
    starts : list of int
        First row of each file, and the number of all rows.
    """

    def __init__(self, tables, is_number, starts):
        self._tables, self._is_number, self._starts = tables, is_number, starts
        dtypes = {
            array.dtype
            for table in tables
            for array, is_one in zip(table, is_number)
            if is_one
        }
        self.dtype = np.result_type(*dtypes or {np.float64})
        if not all(is_number):
            self.dtype = np.result_type(self.dtype, np.float64)
        self.width = sum(array.width for array in tables[0])
        self._n_absent: dict = {}  # chunks of a block, when it was checked

    def ranges(self, start, stop):
        """Return (file, first row, last row + 1) in the file, of each block."""
        found = []
        first = max(0, int(np.searchsorted(self._starts, start, side="right")) - 1)
        for i in range(first, len(self._tables)):
            begin, end_of_file = self._starts[i : i + 2]
            low, high = max(start, begin) - begin, min(stop, end_of_file) - begin
            step = self._step(self._tables[i])
            while low < high:
                end = min(high, (low // step + 1) * step)
                found.append((i, low, end))
                low = end
        return found

    def _step(self, table):
        """Return the rows of a block: whole chunks of the array with the largest."""
        rows = max(1, BLOCK_BYTES // max(1, self.width * self.dtype.itemsize))
        chunk = max((*getattr(array, "chunks", ()), 1)[0] for array in table)
        return max(1, rows // chunk) * chunk

    def parts(self, block):
        """Yield each array of numbers of a block: array, columns, and values (k, w)."""
        i, start, stop = block
        column = 0
        for array, is_number in zip(self._tables[i], self._is_number):
            columns = slice(column, column + array.width)
            if is_number:
                values = array.fetch(start, stop)
                yield array, columns, values.reshape(stop - start, array.width)
            column = columns.stop

    def count_absent(self, block):
        """Return the absent chunks of a block, and keep their number."""
        self._n_absent[block] = n_absent = self._absent(block)
        return n_absent

    def _absent(self, block):
        i, start, stop = block
        pairs = zip(self._tables[i], self._is_number)
        return sum(a.count_absent(start, stop) for a, is_number in pairs if is_number)

    def _decode(self, block):
        # An absent chunk is read as its fill value, without an error.
        if self._absent(block) > self._n_absent.get(block, np.inf):
            place = self._tables[block[0]][0].place
            raise DataError(f"{place}: chunks disappeared while they were being read")
        out = np.empty((block[2] - block[1], self.width), self.dtype)
        for _, columns, values in self.parts(block):
            out[:, columns] = values
        return out

    def rows(self, start, stop, resident=None):
        """Return the features of any rows as StreamedRows."""
        blocks = self.ranges(start, stop)
        counts = [last - first for _, first, last in blocks]
        return StreamedRows(
            counts, lambda i: self._decode(blocks[i]), self.width, self.dtype, resident
        )
