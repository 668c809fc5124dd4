"""What workers and servers write to each other."""

from typing import NamedTuple

import numpy as np

from pympi_train.comm.collectives import MAX_COUNT
from pympi_train.flat.parts import even_cuts

# Kinds of requests.
LOAD = 0  # here are the parameters to start from
PUSH = 1  # here is a gradient; send parameters when ``want`` are done
FAIL = 2  # there is no gradient of this step, and there will be none
FETCH = 3  # send parameters when ``want`` are done
LEAVE = 4  # this worker's training ends
KEEP = 5  # keep a copy of the optimizer's state, in place of the one before
BACK = 6  # go back to it

# Verdicts.
GOOD, DIVERGED, FAILED = range(3)

# Tags.
REQUEST, GRADIENT, REPLY, PARAMETERS, REASON = range(1, 6)


class Request(NamedTuple):
    """From a worker to each server, as float64: 72 bytes.

    ``step`` counts the worker's batches from 1; ``want`` is the least number of
    updates in the parameters that come back. ``weight`` and ``loss`` are sums that
    the servers add up over the workers; ``clip_norm`` 0 is none. ``stop`` is not 0
    where the worker wants the training to end.
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


class Reply(NamedTuple):
    """From a server to a worker, as float64, before the parameters.

    ``version`` is the number of updates in them; ``n_reason`` the bytes of text that
    follow, on what went wrong; ``stops_at`` the batch after which all workers stop, by
    the first server's word.
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
    """Return ``block`` as views of at most ``count`` elements: a message each."""
    return [block[i : i + count] for i in range(0, block.size, count)]


def wire(compression, ops):
    """Return the Wire that gradients travel by, None where they travel as they are."""
    if compression == "none":
        return None
    from pympi_train.comm.sums.wires import Wire

    return Wire(compression, ops)


def encoded(message):
    """Return a Request or Reply as the array that travels."""
    return np.array(message, dtype=np.float64)
