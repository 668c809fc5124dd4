"""Batches on a GPU: rows that lie there, or that are copied while it computes."""

import contextlib

import numpy as np

from pympi_train.backends.cuda import device as cuda
from pympi_train.backends.cuda.arrays import narrow
from pympi_train.data.batch import Batch
from pympi_train.data.feeds.feed import Feed
from pympi_train.data.sources.base import n_rows
from pympi_train.errors import DeviceMemoryError

RESIDENT_SHARE = 0.5  # of the free memory that a data set may take to lie there whole
CHUNK_BYTES = 64 * 2**20  # of rows converted at once when they are put there


class DeviceFeed(Feed):
    """As `Feed`, of batches on the device.

    A source that takes at most half of the free memory is put there once, and its
    rows are gathered there. Of another one the rows are gathered into pinned memory
    and copied on a stream of their own: those of the next batch while the device works
    on this one, if they were announced.

    Parameters
    ----------
    source, most, y_dtype
        As for `Feed`.
    ops : module
        The backend.
    dtype : dtype, optional
        That the model computes in: of features, where it is not the source's.
    resident : bool, optional
        Whether the rows are put on the device; left out: if they are few enough.

    Attributes
    ----------
    scale : float
        Factor on the weights of samples, and so on the loss and all gradients.
    """

    def __init__(self, source, most, ops, y_dtype=None, dtype=None, resident=None):
        super().__init__(source, most, y_dtype)
        self._ops, source = ops, self._source
        self._x_dtype = source.kinds.x[1]
        self._dtype = self._x_dtype if dtype is None else np.dtype(dtype)
        if resident is None:
            resident = source.nbytes <= RESIDENT_SHARE * cuda.free_bytes()
        self._scaled, self._weight = None, 0.0
        self._supply = self._make_supply(resident)
        self._upcoming = self._fetched = None

    @property
    def is_resident(self):
        """Whether the rows lie on the device."""
        return isinstance(self._supply, _Resident)

    def _make_supply(self, resident):
        made_of = self._source, self._dtype, self._ops
        try:
            if resident:
                return _Resident(*made_of)
        except DeviceMemoryError:  # another process on the GPU was faster
            pass
        return _Streamed(*made_of)

    def announce(self, rows):
        """Say which rows come after those that are asked for next, or None."""
        self._upcoming = rows

    def fetch_ahead(self):
        """Begin to copy the first batch of the rows that were announced."""
        rows, self._upcoming = self._upcoming, None
        if rows is None or self._fetched is not None:
            return
        try:
            self._fetched = rows, self._supply.fetch(self._piece(rows, 0))
        except Exception:  # a file that cannot be read: found again when it is its turn
            self._fetched = None

    def weight_of(self, batch):
        """Return the total sample weight of the last batch, without its scale."""
        return self._weight

    def batches(self, rows, n_batches=None):
        """Yield batches over ``rows``; as `Feed.batches`."""
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
        """Return ``weights`` times the scale; None for all 1."""
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


class _Supply:
    """Where batches come from: fetched into one of two slots, then handed out."""

    def __init__(self, ops):
        self._ops, self._slots = ops, (_Slot(), _Slot())
        self._turn, self._last = 0, None

    def _next(self, shapes):
        self._turn = 1 - self._turn
        slot = self._slots[self._turn]
        slot.reserve(shapes, self._ops)
        return slot

    def _hand_out(self, slot):
        # Whoever asks for this batch has queued all there is to do with the last one.
        if self._last is not None:
            self._last.finish()
        slot.arrive()
        self._last = slot
        return slot.device


class _Resident(_Supply):
    """Rows that lie on the device: what is fetched is their numbers."""

    def __init__(self, source, dtype, ops):
        super().__init__(ops)
        self._arrays = _put(source, dtype, ops)
        self._taken, self._capacity = None, -1

    def fetch(self, rows):
        """Begin to copy the numbers of ``rows``; a slice needs no numbers."""
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


class _Streamed(_Supply):
    """Rows that lie in host memory, or in a file: they are fetched."""

    def __init__(self, source, dtype, ops):
        super().__init__(ops)
        self._source, self._dtype, self._narrowed = source, dtype, None

    def fetch(self, rows):
        """Gather ``rows`` in pinned memory, and begin to copy them."""
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


class _Slot:
    """Memory for one batch on both sides, and when each side may be written again.

    Attributes
    ----------
    host, device : list of array
        Of the rows that were reserved last.
    """

    def __init__(self):
        self._buffers, self.host, self.device = None, [], []
        self._sent = self._used = None
        self._is_out = False  # handed out, and what is still to be queued reads it

    def __del__(self):
        # One that nobody has taken: what gets its memory next comes after the copy.
        if self._sent is not None:
            with contextlib.suppress(Exception):  # the interpreter may be leaving
                cuda.stream().wait_event(self._sent)

    def reserve(self, shapes, ops):
        """Make room for arrays of these (shape, dtype)."""
        self.finish()
        if self._sent is not None:
            cuda.wait_for(self._sent)  # the host's side has been read
        k = shapes[0][0][0]
        if self._buffers is None or k > len(self._buffers[0][0]):
            most = max(1, k + k // 8)  # a rank's share differs by a few rows
            sizes = [((most, *shape[1:]), dtype) for shape, dtype in shapes]
            self._buffers = [
                (cuda.pinned(*size), ops.empty(*size)) for size in sizes
            ]
            self._used = cuda.record()  # the memory may be some that is in use yet
        self.host = [host[:k] for host, _ in self._buffers]
        self.device = [device[:k] for _, device in self._buffers]

    def send(self):
        """Queue copies to the device, on their own stream."""
        side = cuda.side_stream("batches")
        if self._used is not None:
            side.wait_event(self._used)
        for host, device in zip(self.host, self.device):
            cuda.queue_to_device(host, device, side)
        self._sent = cuda.record(side)

    def arrive(self):
        """Let what is queued from now on come after the copies."""
        cuda.stream().wait_event(self._sent)
        self._is_out = True

    def finish(self):
        """Nothing that is queued from now on reads the device's side."""
        if self._is_out:
            self._used, self._is_out = cuda.record(), False


def _put(source, dtype, ops):
    """Return all rows of a source on the device, features as ``dtype``."""
    kinds, n = source.kinds[:3], len(source)
    found = [kind and ops.empty((n, *kind[0]), kind[1]) for kind in kinds[1:]]
    found.insert(0, ops.empty((n, *kinds[0][0]), dtype))
    step = max(1, CHUNK_BYTES // max(1, source.nbytes // max(1, n)))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
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
