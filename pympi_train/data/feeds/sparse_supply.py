"""Batches of sparse rows on a GPU."""

import numpy as np

from pympi_train.backends.cuda.sparse import DeviceCSR
from pympi_train.backends.runs import Runs, runs_of_columns, runs_of_rows
from pympi_train.data.feeds.slots import Supply

N_ARRAYS = len(Runs._fields) - 1


class SparseSupply(Supply):
    """Sparse rows in host memory or in a file: their entries are fetched.

    The entries of a batch are gathered, sorted by column, and copied to the device in
    both orders: 16 bytes an entry in float32. The device has those of two batches.
    """

    def __init__(self, source, ops):
        super().__init__(ops)
        self._source = source

    def fetch(self, rows):
        """Gather and sort the entries of ``rows``, and start copying them."""
        batch = self._source.batch(rows)
        x = batch.x.compact()
        by_row, by_column = runs_of_rows(x), runs_of_columns(x)
        others = [a for a in (batch.y, batch.weights) if a is not None]
        arrays = [*by_row.arrays, *by_column.arrays, *others]
        slot = self._next([(a.shape, a.dtype) for a in arrays])
        for array, host in zip(arrays, slot.host):
            np.copyto(host, array)
        slot.send()
        return slot, x.shape, by_row.n_pieces, by_column.n_pieces

    def take(self, fetched):
        """Return the arrays of fetched rows, the features as a DeviceCSR."""
        slot, shape, *n_pieces = fetched
        there = iter(self._hand_out(slot))
        by_row, by_column = (
            Runs(*(next(there) for _ in range(N_ARRAYS)), n) for n in n_pieces
        )
        rest = [kind and next(there) for kind in self._source.kinds[1:3]]
        return [DeviceCSR(shape, by_row, by_column), *rest]
