"""Messages and bytes on the critical path of a collective.

Formulas of R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective
Communication Operations in MPICH", Int. J. High Perform. Comput. Appl. 19 (2005), and
of E. Chan, M. Heimlich, A. Purkayastha and R. van de Geijn, "Collective communication:
theory, practice, and experience", Concurrency Computat. 19 (2007). Ranks are placed by
node, so partners at a distance below the ranks of a node share one.
"""

import math
from typing import NamedTuple

import numpy as np

from pympi_train.comm.sums.by_slices import piece_for
from pympi_train.parallel.trials import PIECE

SHORT_BYTES = 2048  # MPICH's Allreduce sends shorter blocks whole in every round
ITEM_BYTES = 4


class Place(NamedTuple):
    """Ranks, and how many of them share a node."""

    ranks: int
    per_node: int

    @property
    def shared(self):
        """Number of ranks on a full node."""
        return min(self.ranks, self.per_node)

    @property
    def nodes(self):
        return -(-self.ranks // self.per_node)


class Traffic(NamedTuple):
    """What `Links` multiplies, in its order.

    Attributes
    ----------
    inner, outer : float
        Messages of a rank in sequence, within its node and to others.
    inner_bytes : float
        Of a rank.
    shared_bytes : float
        ``inner_bytes`` times the other ranks of the node, which copy at the same time.
    outer_bytes : float
        Of a node: all its ranks send at the same time.
    calls : float
    """

    inner: float
    inner_bytes: float
    shared_bytes: float
    outer: float
    outer_bytes: float
    calls: float

    def seconds(self, links):
        """Return the time with such Links."""
        return float(np.dot(links.vector, self))


def _made(place, calls, inner, inner_bytes, outer, outer_bytes):
    """Return Traffic, for bytes of a rank."""
    shared = place.shared
    contended, port_bytes = inner_bytes * (shared - 1), outer_bytes * shared
    return Traffic(inner, inner_bytes, contended, outer, port_bytes, calls)


def _power(n):
    """Return the largest power of two up to ``n``."""
    return 1 << (n.bit_length() - 1)


def allreduce(place, n_bytes, *, calls=1):
    """Return the Traffic of MPI's Allreduce of a block.

    Short blocks: recursive doubling, ``log2 P`` rounds of ``n`` bytes. Others:
    Rabenseifner's reduce-scatter by recursive halving and allgather by doubling,
    ``2 log2 P`` rounds and ``2 n (P - 1) / P`` bytes. If P is no power of two, each
    rank beyond it first sends its block to a neighbour, and receives the sum at the end
    (Thakur et al., section 4.5): two more rounds of ``n`` bytes. With ``calls``, the
    block is summed in as many equal pieces.
    """
    power, inside = _power(place.ranks), min(_power(place.shared), _power(place.ranks))
    in_rounds, rounds = math.log2(inside), math.log2(power)
    if n_bytes <= SHORT_BYTES:
        inner, outer = in_rounds, rounds - in_rounds
        inner_bytes, outer_bytes = inner * n_bytes, outer * n_bytes
    else:
        inner, outer = 2 * in_rounds, 2 * (rounds - in_rounds)
        inner_bytes = 2 * n_bytes * (1 - 1 / inside)
        outer_bytes = 2 * n_bytes * (1 / inside - 1 / power)
    if power != place.ranks:
        if place.shared > 1:
            inner, inner_bytes = inner + 2, inner_bytes + 2 * n_bytes
        else:
            outer, outer_bytes = outer + 2, outer_bytes + 2 * n_bytes
    return _made(place, calls, calls * inner, inner_bytes, calls * outer, outer_bytes)


def in_pieces(place, n_bytes):
    """Return the Traffic of ``trials.sum_in_pieces``."""
    calls = max(1, math.ceil(n_bytes / (PIECE * ITEM_BYTES)))
    return allreduce(place, n_bytes, calls=calls)


def direct(place, n_bytes, n_phases=2, *, calls=None):
    """Return the Traffic of an exchange of slices, each sent straight to its owner.

    A phase, scatter or gather, takes ``P - 1`` messages and ``n (P - 1) / P`` bytes of
    a rank (Thakur et al., section 4; Chan et al., section 7), for each piece of
    ``by_slices.piece_for`` elements.
    """
    others, away = place.shared - 1, place.ranks - place.shared
    if calls is None:
        piece = piece_for(place.ranks) * ITEM_BYTES
        calls = n_phases * max(1, math.ceil(n_bytes / piece))
    part = n_phases * n_bytes / place.ranks
    return _made(place, calls, calls * others, part * others, calls * away, part * away)


def allgather(place, n_bytes):
    """Return the Traffic of an Allgather of ``n_bytes`` of each rank.

    Recursive doubling or Bruck: ``log2 P`` rounds, ``n (P - 1)`` bytes (Thakur et al.,
    section 4.1).
    """
    rounds, inside = math.ceil(math.log2(place.ranks)), math.log2(_power(place.shared))
    inner = min(inside, rounds)
    inner_bytes = n_bytes * (place.shared - 1)
    outer_bytes = n_bytes * (place.ranks - place.shared)
    return _made(place, 1, inner, inner_bytes, rounds - inner, outer_bytes)


def at_servers(place, push_bytes, pull_bytes, n_servers):
    """Return the Traffic of a step at parameter servers, on nodes of their own.

    A server receives and sends ``1 / S`` of a block for each of ``P - S`` workers, one
    after the other through one port (Li et al., OSDI 2014).
    """
    workers = place.ranks - n_servers
    n_bytes = workers * (push_bytes + pull_bytes) / n_servers
    if place.nodes == 1:
        shared = n_bytes * (n_servers - 1)
        return Traffic(2 * workers, n_bytes, shared, 0.0, 0.0, 2)
    servers = min(n_servers, place.per_node)  # that share a port
    return Traffic(0.0, 0.0, 0.0, 2 * workers, n_bytes * servers, 2)
