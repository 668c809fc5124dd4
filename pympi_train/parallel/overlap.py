"""Sends buckets of gradients while backward computes the earlier layers."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from pympi_train.comm.collectives import MAX_COUNT
from pympi_train.comm.watch.guard import wait_all, wait_some
from pympi_train.flat.buckets import layer_bounds, make_buckets
from pympi_train.trace.events import bucket_codes

MANY = 8  # minimum number of buckets of a block
FEW_BYTES = 2**20  # but no bucket is made smaller than this to get MANY


def useful_buckets(layout, spans, block, bucket_bytes):
    """Return the buckets of a block of gradients, [(start, stop), ...], last first.

    The list is empty if no bucket is complete before the first layer's gradients are.
    """
    # With few buckets, little could be sent before backward ends.
    most_bytes = min(bucket_bytes, max(FEW_BYTES, block.nbytes // MANY))
    layers = layer_bounds(layout, spans)
    buckets = make_buckets(layers, min(most_bytes // block.itemsize, MAX_COUNT))
    useful = len(layers) > 1 and buckets[0][0] >= layers[0][1]
    return buckets if useful else []


class Flight:
    """Starts the sum of each bucket once it is filled, and progresses the sums.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
    spans : sequence of slice
        The model's ``layer_spans``.
    block : ndarray, shape (layout.size,)
        The gradients; summed in place.
    bucket_bytes : int
        Maximum size of a bucket.
    laps : Laps
        Time in MPI calls counts as communication, the rest as compute. While it
        appends to a trace, the beginning and end of each sum are recorded too.

    Attributes
    ----------
    start : int
        The sums of all elements from this one on have been started.

    Notes
    -----
    Neither MPICH nor Open MPI progresses messages while the program computes, so
    Testall is called at each layer boundary.
    """

    def __init__(self, comm, layout, spans, block, bucket_bytes, laps):
        self._comm, self._block, self._laps = comm, block, laps
        self._offsets = layout.offsets
        layers = layer_bounds(layout, spans)
        self._second_layer = layers[0][1] if layers else layout.size
        self._buckets = useful_buckets(layout, spans, block, bucket_bytes)
        self._codes = [bucket_codes(i) for i in range(len(self._buckets))]
        self.is_useful = bool(self._buckets)
        self._reset()

    def _reset(self):
        self._requests, self._next, self.start = [], 0, self._block.size

    def advance(self, final):
        """Start the sums of filled buckets: elements from ``final`` on are final.

        Notes
        -----
        Collective: every rank starts the same buckets in the same order.
        """
        from mpi4py import MPI

        self._laps.lap("compute")
        buckets, is_traced = self._buckets, self._laps.append is not None
        while self._next < len(buckets) and buckets[self._next][0] >= final:
            start, stop = buckets[self._next]
            if is_traced:
                self._record([self._next], 0)
            self._requests.append(
                self._comm.Iallreduce(MPI.IN_PLACE, self._block[start:stop], op=MPI.SUM)
            )
            self._next, self.start = self._next + 1, start
        if is_traced:
            self._record(MPI.Request.Testsome(self._requests), 1)
        else:
            MPI.Request.Testall(self._requests)
        self._laps.lap("communication")

    def _record(self, buckets, is_end):
        """Record that the sums of buckets begin or have ended; None: of no bucket."""
        append = self._laps.append
        for bucket in buckets or ():
            append(self._codes[bucket][is_end])
            append(perf_counter())

    def poison(self, views):
        """Start the sums of the remaining buckets of backward, with NaN.

        For a rank whose backward failed: the sum of all elements that it has not sent
        becomes NaN. Padding stays zero.

        Parameters
        ----------
        views : sequence of ndarray
            Of the block's tensors.

        Notes
        -----
        Collective: every rank starts the same buckets in the same order.
        """
        self._block[: self.start] = 0
        for view, first in zip(views, self._offsets):
            if first < self.start:
                view.reshape(-1)[: self.start - first] = np.nan
        self.advance(self._second_layer)

    def land(self):
        """Wait for all sums that were started.

        Notes
        -----
        Collective.
        """
        if self._laps.append is None:
            wait_all(self._comm, self._requests)
        while any(self._requests):  # those that are complete are false
            self._record(wait_some(self._comm, self._requests), 1)
        self._reset()


class Watched(Sequence):
    """Views of tensors that report when the gradients of a layer are final.

    Parameters
    ----------
    views : sequence of ndarray
        Of all tensors.
    layout : Layout
    final : callable
        ``final(start, stop)`` is called when this stretch of the block is written;
        later stretches were reported before.

    Notes
    -----
    A model with ``layer_spans`` takes ``views[span]`` from the last layer to the first.
    When it takes a layer, it has written the gradients of all later layers.
    """

    def __init__(self, views, layout, final):
        self._views, self._final = views, final
        self._ends = [*layout.offsets, layout.size]
        self._stop = layout.size

    def __len__(self):
        return len(self._views)

    def __getitem__(self, index):
        if isinstance(index, slice) and index.stop is not None:
            self._reach(self._ends[index.stop])
        return self._views[index]

    def _reach(self, start):
        if start > self._stop:
            raise RuntimeError(
                "gradient: a model with layer_spans takes the gradients of its layers "
                "from the last to the first, got a later one again"
            )
        if start < self._stop:
            self._final(start, self._stop)
            self._stop = start

    def close(self):
        """Report that the model has written all gradients."""
        self._reach(0)
