"""Batches of sparse rows on a GPU."""

from itertools import islice

import numpy as np

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda.sparse import DeviceCSR
from pympi_train.backends.entry_runs import EntryRuns, runs_of_columns, runs_of_rows
from pympi_train.data.feeds.slots import Supply
from pympi_train.errors import DeviceMemoryError

N_ARRAYS = len(EntryRuns._fields) - 1


class SparseSupply(Supply):
    """Sparse rows in host memory or in a file: their entries are fetched.

    The entries of a batch are gathered, sorted by column, and copied to the device in
    both orders: 16 bytes an entry in float32. A slice of rows that is requested a
    second time, as by L-BFGS and by evaluation, is kept on the device if there is room.

    Parameters
    ----------
    source : Source
    ops : module
        The backend.
    least_free : float
        Bytes of device memory that slices must leave free.
    forward_only : bool, default False
        Whether the entries are needed by row alone, and not sorted by column.
    """

    def __init__(self, source, ops, least_free, forward_only=False):
        super().__init__(ops)
        self._source, self._least_free = source, least_free
        self._orders = [runs_of_rows]
        if not forward_only:
            self._orders.append(runs_of_columns)
        self._seen, self._kept = set(), {}

    def fetch(self, rows):
        """Gather and sort the entries of ``rows``, and start copying them."""
        place = (rows.start, rows.stop) if isinstance(rows, slice) else None
        if place in self._kept:
            return place
        batch = self._source.batch(rows)
        x = batch.x.compact()
        made = [order(x) for order in self._orders]
        arrays = [array for runs in made for array in runs.arrays]
        arrays += [a for a in (batch.y, batch.weights) if a is not None]
        slot = self._next([(a.shape, a.dtype) for a in arrays])
        for array, host in zip(arrays, slot.host):
            np.copyto(host, array)
        slot.send()
        return slot, place, x.shape, tuple(runs.n_pieces for runs in made)

    def take(self, fetched):
        """Return the arrays of fetched rows, the features as a DeviceCSR."""
        if fetched in self._kept:
            return self._kept[fetched]
        slot, place, shape, n_pieces = fetched
        arrays = self._hand_out(slot)
        if place in self._seen:
            self._keep(place, arrays, shape, n_pieces)
        elif place is not None:
            self._seen.add(place)
        return self._arranged(arrays, shape, n_pieces)

    def _keep(self, place, arrays, shape, n_pieces):
        """Copy arrays out of their slot, if there is room."""
        n_bytes = sum(a.nbytes for a in arrays)
        if cuda.free_bytes() - n_bytes < self._least_free:
            return
        try:
            copies = [self._ops.empty(a.shape, a.dtype) for a in arrays]
        except DeviceMemoryError:  # another process on the GPU took the memory first
            return
        for array, copied in zip(arrays, copies):
            self._ops.copy(array, copied)
        self._kept[place] = self._arranged(copies, shape, n_pieces)

    def _arranged(self, arrays, shape, n_pieces):
        there = iter(arrays)
        runs = [EntryRuns(*islice(there, N_ARRAYS), n) for n in n_pieces]
        rest = [kind and next(there) for kind in self._source.kinds[1:3]]
        return [DeviceCSR(shape, *runs), *rest]
