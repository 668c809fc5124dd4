"""Batches on a GPU: from resident rows, or copied while the GPU computes."""

import numpy as np

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda.arrays import narrow
from pympi_train.data.batch import Batch
from pympi_train.data.feeds.feed import Feed
from pympi_train.data.feeds.slots import Supply
from pympi_train.data.feeds.sparse_supply import SparseSupply
from pympi_train.data.sources.base import n_rows
from pympi_train.errors import DeviceMemoryError

RESIDENT_SHARE = 0.5  # largest share of the free memory for a resident data set
CHUNK_BYTES = 64 * 2**20  # rows converted at once while copying them to the device


class DeviceFeed(Feed):
    """A `Feed` whose batches are on the device.

    A source that takes at most half of the free device memory is copied there once,
    and batches are gathered on the device. Rows of a larger source are gathered into
    pinned memory and copied on a separate stream. If the next rows were announced,
    they are copied while the device computes. Sparse rows are copied too, as
    `SparseSupply` says.

    Parameters
    ----------
    source, most, y_dtype
        As for `Feed`.
    ops : module
        The backend.
    dtype : dtype, optional
        Dtype of the features in batches: that of the model's computations. By default
        that of the source.
    resident : bool, optional
        Whether to keep all rows on the device. By default, if they fit as above.
    forward_only : bool, default False
        Whether nobody will compute gradients: sparse rows need not be sorted then.

    Attributes
    ----------
    scale : float
        Factor on the weights of samples, and so on the loss and all gradients.
    """

    def __init__(
        self,
        source,
        most,
        ops,
        y_dtype=None,
        dtype=None,
        resident=None,
        forward_only=False,
    ):
        super().__init__(source, most, y_dtype)
        self._ops, source = ops, self._source
        self._x_dtype = source.kinds.x[1]
        self._dtype = self._x_dtype if dtype is None else np.dtype(dtype)
        if resident is None:
            resident = source.nbytes <= RESIDENT_SHARE * cuda.free_bytes()
        self._scaled, self._weight = None, 0.0
        self._supply = self._make_supply(resident, forward_only)
        self._upcoming = self._fetched = None

    @property
    def is_resident(self):
        """Whether the rows are kept on the device."""
        return isinstance(self._supply, _Resident)

    def _make_supply(self, resident, forward_only):
        if self._source.is_sparse:
            least_free = (1 - RESIDENT_SHARE) * cuda.free_bytes()
            return SparseSupply(self._source, self._ops, least_free, forward_only)
        made_of = self._source, self._dtype, self._ops
        try:
            if resident:
                return _Resident(*made_of)
        except DeviceMemoryError:  # another process on the GPU took the memory first
            pass
        return _Streamed(*made_of)

    def announce(self, rows):
        """Announce the rows that follow the next requested rows, or None."""
        self._upcoming = rows

    def fetch_ahead(self):
        """Start copying the first batch of the announced rows."""
        rows, self._upcoming = self._upcoming, None
        if rows is None or self._fetched is not None:
            return
        try:
            self._fetched = rows, self._supply.fetch(self._piece(rows, 0))
        except Exception:  # an unreadable file: it raises again when its turn comes
            self._fetched = None

    def weight_of(self, batch):
        """Return the total sample weight of the last batch, without ``scale``."""
        return self._weight

    def batches(self, rows, n_batches=None):
        """Yield batches over ``rows``; see `Feed.batches`."""
        for index in range(n_batches or self.count(rows)):
            piece = self._piece(rows, index)
            fetched, self._fetched = self._fetched, None
            if index == 0 and fetched is not None and fetched[0] is rows:
                slot = fetched[1]
            else:
                slot = self._supply.fetch(piece)
            x, y, weights = self._supply.take(slot)
            self._weight = self._source.weight_of(piece)
            weights = self._times_scale(weights, len(x))
            yield Batch(x, y, weights, self._source.numbers(piece))

    def _times_scale(self, weights, k):
        """Return ``weights`` times the scale; None means that all are 1."""
        if self.scale == 1.0:
            return weights
        if self._scaled is None or len(self._scaled) < k:
            self._scaled = self._ops.empty(k + k // 8, self._x_dtype)
        scaled = self._scaled[:k]
        if weights is None:
            self._ops.fill(scaled, self.scale)
        else:
            self._ops.copy(weights, scaled)
            self._ops.scale(scaled, self.scale)
        return scaled


class _Resident(Supply):
    """Rows kept on the device: only row numbers are fetched."""

    def __init__(self, source, dtype, ops):
        super().__init__(ops)
        self._arrays = _put(source, dtype, ops)
        self._taken, self._capacity = None, -1

    def fetch(self, rows):
        """Start copying the numbers of ``rows``; a slice needs no copy."""
        if isinstance(rows, slice):
            return rows
        slot = self._next([((len(rows),), np.dtype(np.int64))])
        np.copyto(slot.host[0], rows)
        slot.send()
        return slot

    def take(self, slot):
        """Return the arrays of fetched rows."""
        if isinstance(slot, slice):
            return [None if a is None else a[slot] for a in self._arrays]
        (rows,) = self._hand_out(slot)
        k = len(rows)
        if k > self._capacity:
            self._capacity = k + k // 8
            self._taken = [self._room(a) for a in self._arrays]
        found = [None if a is None else a[:k] for a in self._taken]
        for source, target in zip(self._arrays, found):
            if source is not None:
                self._ops.take_rows(source, rows, target)
        return found

    def _room(self, array):
        if array is None:
            return None
        return self._ops.empty((self._capacity, *array.shape[1:]), array.dtype)


class _Streamed(Supply):
    """Rows in host memory or in a file: the rows themselves are fetched."""

    def __init__(self, source, dtype, ops):
        super().__init__(ops)
        self._source, self._dtype, self._narrowed = source, dtype, None

    def fetch(self, rows):
        """Gather ``rows`` in pinned memory, and start copying them."""
        k, kinds = n_rows(rows), self._source.kinds[:3]
        slot = self._next([((k, *kind[0]), kind[1]) for kind in kinds if kind])
        host = iter(slot.host)
        self._source.batch(rows, Batch(*(kind and next(host) for kind in kinds)))
        slot.send()
        return slot

    def take(self, slot):
        """Return the arrays of fetched rows."""
        there = iter(self._hand_out(slot))
        x, *rest = [kind and next(there) for kind in self._source.kinds[:3]]
        if x.dtype != self._dtype:
            x = self._narrow(x)
        return [x, *rest]

    def _narrow(self, x):
        if self._narrowed is None or len(self._narrowed) < len(x):
            shape = (len(x) + len(x) // 8, *x.shape[1:])
            self._narrowed = self._ops.empty(shape, self._dtype)
        out = self._narrowed[: len(x)]
        narrow(x, out)
        return out


def _put(source, dtype, ops):
    """Return all rows of a source on the device, with features as ``dtype``."""
    kinds, n = source.kinds[:3], len(source)
    found = [kind and ops.empty((n, *kind[0]), kind[1]) for kind in kinds[1:]]
    found.insert(0, ops.empty((n, *kinds[0][0]), dtype))
    for rows in source.pieces(CHUNK_BYTES):
        for part, out in zip(source.batch(rows), found):
            if part is None:
                continue
            part = np.ascontiguousarray(part)
            if part.dtype == out.dtype:
                ops.from_host(part, out[rows])
            else:
                whole = ops.empty(part.shape, part.dtype)
                ops.from_host(part, whole)
                narrow(whole, out[rows])
    return found
