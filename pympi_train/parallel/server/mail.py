"""The messages between workers and servers."""

from typing import NamedTuple

import numpy as np

from pympi_train.comm.collectives import MAX_COUNT
from pympi_train.flat.parts import even_cuts

# Kinds of requests.
LOAD = 0  # worker 0: the parameters to start from follow
PUSH = 1  # a gradient follows; send parameters after ``want`` updates
FAIL = 2  # as PUSH, but this worker failed and has no gradient for the step
FETCH = 3  # send parameters after ``want`` updates
LEAVE = 4  # this worker's training ends
KEEP = 5  # worker 0: copy the optimizer state, replacing the previous copy
BACK = 6  # worker 0: restore that copy

# Verdicts.
GOOD, DIVERGED, FAILED = range(3)

# Tags.
REQUEST, GRADIENT, REPLY, PARAMETERS, REASON = range(1, 6)


class Request(NamedTuple):
    """From a worker to each server, as float64: 80 bytes.

    ``step`` counts the worker's batches from 1. ``want`` is the minimum number of
    updates in the parameters that are returned. The servers sum ``weight`` and ``loss``
    over the workers. ``clip_norm`` is 0 without clipping. ``stop`` is not 0 if the
    worker requests to stop. ``goes_on`` is not 0 if another step of the epoch follows:
    the worker's next request is then due within the timeout.
    """

    kind: float
    step: float = 0
    want: float = 0
    lr: float = 0
    weight: float = 0
    loss: float = 0
    l2: float = 0
    clip_norm: float = 0
    stop: float = 0
    goes_on: float = 0


class Reply(NamedTuple):
    """From a server to a worker, as float64, before the parameters.

    ``version`` is the number of updates in them. ``n_reason`` is the number of bytes of
    the error message that follows. ``stops_at`` is the batch after which all workers
    stop; that of the first server counts.
    """

    verdict: float
    version: float
    n_reason: float
    stops_at: float


def slices(layout, n_servers):
    """Return each server's slice of the flat block."""
    cuts = even_cuts(0, layout.size, n_servers)
    return [slice(a, b) for a, b in zip(cuts, cuts[1:])]


def pieces(block, count=MAX_COUNT):
    """Return ``block`` as views of at most ``count`` elements, one per message."""
    return [block[i : i + count] for i in range(0, block.size, count)]


def wire(compression, ops):
    """Return the Wire that encodes gradients, or None without compression."""
    if compression == "none":
        return None
    from pympi_train.comm.sums.wires import Wire

    return Wire(compression, ops)


def encoded(message):
    """Return a Request or Reply as the array that is sent."""
    return np.array(message, dtype=np.float64)
