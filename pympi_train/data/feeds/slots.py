"""Memory of batches on their way to a GPU, with the events that guard it."""

import contextlib

from pympi_train.backends.cuda import device as cuda


class Supply:
    """Fetches batches into two slots in turn and hands them out."""

    def __init__(self, ops):
        self._ops, self._slots = ops, (Slot(), Slot())
        self._turn, self._last = 0, None

    def _next(self, shapes):
        self._turn = 1 - self._turn
        slot = self._slots[self._turn]
        slot.reserve(shapes, self._ops)
        return slot

    def _hand_out(self, slot):
        # The caller has queued all work on the previous batch by now.
        if self._last is not None:
            self._last.finish()
        slot.arrive()
        self._last = slot
        return slot.device


class Slot:
    """Host and device memory for one batch, with events that guard its reuse.

    Attributes
    ----------
    host, device : list of array
        Memory for the rows that were reserved last.
    """

    def __init__(self):
        self._buffers, self.host, self.device = [], [], []
        self._sent = self._used = None
        self._is_out = False  # handed out; work that reads it may still be queued

    def __del__(self):
        # A copy may be in flight: the memory's next user must wait for it.
        if self._sent is not None:
            with contextlib.suppress(Exception):  # the interpreter may be exiting
                cuda.stream().wait_event(self._sent)

    def reserve(self, shapes, ops):
        """Reserve memory for arrays of these (shape, dtype).

        Dtypes, and shapes but for the first number, are the same in each call.
        """
        self.finish()
        if self._sent is not None:
            cuda.wait_for(self._sent)  # the host's side has been read
        for i, (shape, dtype) in enumerate(shapes):
            if i == len(self._buffers):
                self._buffers.append(None)
            if self._buffers[i] is None or shape[0] > len(self._buffers[i][0]):
                # With a margin: a rank's share differs by a few rows.
                size = (max(1, shape[0] + shape[0] // 8), *shape[1:]), dtype
                self._buffers[i] = cuda.pinned(*size), ops.empty(*size)
                self._used = cuda.record()  # queued work may still use the new memory
        sizes = [shape[0] for shape, _ in shapes]
        self.host = [host[:k] for k, (host, _) in zip(sizes, self._buffers)]
        self.device = [device[:k] for k, (_, device) in zip(sizes, self._buffers)]

    def send(self):
        """Queue copies to the device on a separate stream."""
        side = cuda.side_stream("batches")
        if self._used is not None:
            side.wait_event(self._used)
        for host, device in zip(self.host, self.device):
            cuda.queue_to_device(host, device, side)
        self._sent = cuda.record(side)

    def arrive(self):
        """Make work that is queued from now on wait for the copies."""
        cuda.stream().wait_event(self._sent)
        self._is_out = True

    def finish(self):
        """Mark the slot as free: work queued from now on does not read it."""
        if self._is_out:
            self._used, self._is_out = cuda.record(), False
