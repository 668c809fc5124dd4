"""Sends buckets of gradients while backward computes the earlier layers."""

from collections.abc import Sequence

import numpy as np

from pympi_train.comm.collectives import MAX_COUNT
from pympi_train.comm.watch.guard import wait_all
from pympi_train.flat.buckets import layer_bounds, make_buckets

MANY = 8  # buckets of a block, or more
FEW_BYTES = 2**20  # but buckets no smaller than this for that reason


def useful_buckets(layout, spans, block, bucket_bytes):
    """Return the buckets of a block of gradients, [(start, stop), ...], last first.

    None where there is nothing to send before the first layer's are written.
    """
    # A block that fills few buckets has little to send before backward ends.
    most_bytes = min(bucket_bytes, max(FEW_BYTES, block.nbytes // MANY))
    layers = layer_bounds(layout, spans)
    buckets = make_buckets(layers, min(most_bytes // block.itemsize, MAX_COUNT))
    useful = len(layers) > 1 and buckets[0][0] >= layers[0][1]
    return buckets if useful else []


class Flight:
    """Starts the sum of each bucket once it is filled, and sees to its progress.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
    spans : sequence of slice
        The model's ``layer_spans``.
    block : ndarray, shape (layout.size,)
        Of gradients; summed in place.
    bucket_bytes : int
        Most of a bucket.
    laps : Laps
        Time in MPI's calls is communication, the rest compute.

    Attributes
    ----------
    start : int
        The elements from here on have been started.

    Notes
    -----
    Neither MPICH nor Open MPI works on a message while the program computes, so each
    layer's boundary calls Testall.
    """

    def __init__(self, comm, layout, spans, block, bucket_bytes, laps):
        self._comm, self._block, self._laps = comm, block, laps
        self._offsets = layout.offsets
        layers = layer_bounds(layout, spans)
        self._second_layer = layers[0][1] if layers else layout.size
        self._buckets = useful_buckets(layout, spans, block, bucket_bytes)
        self.is_useful = bool(self._buckets)
        self._reset()

    def _reset(self):
        self._requests, self._next, self.start = [], 0, self._block.size

    def advance(self, final):
        """Start what is filled, now that elements from ``final`` on are final.

        Notes
        -----
        Collective: every rank starts the same buckets in the same order.
        """
        from mpi4py import MPI

        self._laps.lap("compute")
        buckets = self._buckets
        while self._next < len(buckets) and buckets[self._next][0] >= final:
            start, stop = buckets[self._next]
            self._requests.append(
                self._comm.Iallreduce(MPI.IN_PLACE, self._block[start:stop], op=MPI.SUM)
            )
            self._next, self.start = self._next + 1, start
        MPI.Request.Testall(self._requests)
        self._laps.lap("communication")

    def poison(self, views):
        """Start all other buckets that ranks start while backward computes, as NaN.

        On a rank whose backward failed: what it has not sent is not finite in the sum
        then. Padding stays zero.

        Parameters
        ----------
        views : sequence of ndarray
            The tensors of the block.

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
        """Wait for all that was started.

        Notes
        -----
        Collective.
        """
        wait_all(self._comm, self._requests)
        self._reset()


class Watched(Sequence):
    """Views of tensors that tell when the gradients of a layer are final.

    Parameters
    ----------
    views : sequence of ndarray
        Of all tensors.
    layout : Layout
    final : callable
        ``final(start, stop)``: this stretch of the block is written, and what lies
        after it was before.

    Notes
    -----
    A model with ``layer_spans`` takes ``views[span]`` from the last layer to the first,
    and has written all later layers' gradients by then.
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
        """The model has written everything."""
        self._reach(0)
