"""Messages and bytes on the critical path of a collective.

Formulas of R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of Collective
Communication Operations in MPICH", Int. J. High Perform. Comput. Appl. 19 (2005), and
of E. Chan, M. Heimlich, A. Purkayastha and R. van de Geijn, "Collective communication:
theory, practice, and experience", Concurrency Computat. 19 (2007). Which algorithm is
taken is that of MPICH 5.0.2, whose library contains its tables of choices as text
(``strings libmpi.so``).
"""

import math
from typing import NamedTuple

import numpy as np

from pympi_train.comm.node_sums import LEAST_BYTES, LINE_BYTES, READ_BYTES
from pympi_train.comm.sums.by_slices import CHUNK, piece_for
from pympi_train.parallel.trials import PIECE

ITEM_BYTES = 4
SHORT_BYTES = 8  # MPICH's Allreduce sends shorter blocks whole in every round
SHORT_REDUCE_BYTES = 2048
RING_BYTES = 2**19, 81920  # of an Allgather on a power of two of ranks, and on others
BINOMIAL_RANKS = 8  # fewer ranks broadcast whole blocks


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
    crossed_bytes : float
        Of ``outer_bytes``, those that go to several nodes at the same time, times the
        share ``(N - 1) / N`` of the wait for crossing messages on many nodes. This
        holds within 2 % for N ports with queues at their inputs, by Karol, Hluchyj and
        Morgan, IEEE Trans. Commun. 35 (1987), table I.
    calls : float
    """

    inner: float
    inner_bytes: float
    shared_bytes: float
    outer: float
    outer_bytes: float
    crossed_bytes: float
    calls: float

    def seconds(self, links):
        """Return the time with such Links."""
        return float(np.dot(links.vector, self))


def _made(place, calls, inner, inner_bytes, outer, outer_bytes, *, crosses=False):
    """Return Traffic, for bytes of a rank."""
    shared = place.shared
    contended, port_bytes = inner_bytes * (shared - 1), outer_bytes * shared
    others = 1 - 1 / place.nodes if crosses and place.nodes > 2 else 0.0
    out = outer, port_bytes, port_bytes * others
    return Traffic(inner, inner_bytes, contended, *out, calls)


def _power(n):
    """Return the largest power of two up to ``n``."""
    return 1 << (n.bit_length() - 1)


def allreduce(place, n_bytes, *, calls=1):
    """Return the Traffic of MPI's Allreduce of a block.

    On one node, or with one rank on each: `_flat_allreduce`. Else the ranks of a node
    reduce to one of them, these ranks sum over the nodes, and broadcast. With
    ``calls``, the block is summed in as many equal pieces.
    """
    piece, shared, nodes = n_bytes / calls, place.shared, place.nodes
    if nodes == 1 or shared == 1:
        messages, sent = _flat_allreduce(place.ranks, piece)
        inner, outer = ((messages, sent), (0, 0))[:: 1 if nodes == 1 else -1]
    else:
        outer = _flat_allreduce(nodes, piece)
        inner = np.add(_reduce(shared, piece), _broadcast(shared, piece))
    total = [calls * number for number in (*inner, *outer)]
    # One rank of a node sends to others.
    contended = total[1] * (shared - 1)
    return Traffic(*total[:2], contended, *total[2:], 0.0, calls)


def _flat_allreduce(n_ranks, n_bytes):
    """Return messages and bytes of a rank.

    Short blocks: recursive doubling, ``log2 P`` rounds of ``n`` bytes. Others:
    Rabenseifner's reduce-scatter by recursive halving and allgather by doubling,
    ``2 log2 P`` rounds and ``2 n (P - 1) / P`` bytes. If P is no power of two, each
    rank beyond it first sends its block to a neighbour, and receives the sum at the end
    (Thakur et al., section 4.5): two more rounds of ``n`` bytes. Meanwhile another rank
    may send half a block to this neighbour, whose port both share: 3.5 n instead of 3 n
    on 3 ranks, as measured over TCP.
    """
    power = _power(n_ranks)
    rounds, more = math.log2(power), 2 * (power != n_ranks)
    if n_bytes <= SHORT_BYTES or n_bytes < power * ITEM_BYTES:
        return rounds + more, n_bytes * (rounds + more)
    # The neighbours' partners are others from the round on in which bits differ.
    beyond = n_ranks - power
    early = 0.5 / (beyond & -beyond) if more else 0.0
    return 2 * rounds + more, n_bytes * (2 * (1 - 1 / power) + more + early)


def _reduce(n_ranks, n_bytes):
    """Return messages and bytes of a rank, as in `_flat_allreduce`, without the end."""
    power = _power(n_ranks)
    rounds, more = math.log2(power), power != n_ranks
    if n_bytes <= SHORT_REDUCE_BYTES:
        return rounds + more, n_bytes * (rounds + more)
    return 2 * rounds + more, n_bytes * (2 * (1 - 1 / power) + more)


def _broadcast(n_ranks, n_bytes):
    """Return messages and bytes: a binomial tree, or scatter and ring (section 4.2)."""
    rounds = math.ceil(math.log2(n_ranks))
    if n_ranks < BINOMIAL_RANKS or n_bytes <= SHORT_REDUCE_BYTES:
        return rounds, n_bytes * rounds
    return rounds + n_ranks - 1, 2 * n_bytes * (1 - 1 / n_ranks)


def fits_flags(place, n_bytes):
    """Return whether a sum takes `node_sums.NodeSums`, with room for a control message.
    """
    most = max(LEAST_BYTES, READ_BYTES // place.ranks) // LINE_BYTES * LINE_BYTES
    return place.nodes == 1 < place.ranks and n_bytes <= most - 2 * LINE_BYTES


def by_flags(place, n_bytes):
    """Return the Traffic of a sum in the node's shared memory.

    A rank waits for the flags of the others, and reads the blocks of all.
    """
    return _made(place, 1, place.ranks - 1, n_bytes * place.ranks, 0, 0)


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
    inner = calls * others, part * others
    return _made(place, calls, *inner, calls * away, part * away, crosses=True)


def halved(place, n_bytes):
    """Return the Traffic of `TreeByHalving`, with a power of two of ranks or not.

    A rank halves with its neighbours first: within R ranks of a node ``2 log2 R``
    messages and ``2 n (R - 1) / R`` bytes, between nodes what is left, ``2 n / R`` at
    most. If P is no power of two, a neighbour's block is received before, and its sum
    sent after that, mostly within the node.
    """
    power, shared = _power(place.ranks), _power(place.shared)
    rounds, inside = math.log2(power), math.log2(shared)
    more = 2 * (power != place.ranks)
    inner_bytes = n_bytes * (2 * (1 - 1 / shared) + more)
    outer_bytes = n_bytes * 2 * (1 / shared - 1 / power)
    calls = max(1, math.ceil(n_bytes / (CHUNK * ITEM_BYTES)))
    inner, outer = calls * (2 * inside + more), calls * 2 * (rounds - inside)
    if place.shared == 1:
        outer, inner = outer + inner, 0
        outer_bytes, inner_bytes = outer_bytes + n_bytes * more, 0.0
    return _made(place, calls, inner, inner_bytes, outer, outer_bytes)


def allgather(place, n_bytes):
    """Return the Traffic of an Allgather of ``n_bytes`` of each rank.

    Recursive doubling or Bruck: ``log2 P`` rounds, ``n (P - 1)`` bytes (Thakur et al.,
    section 4.1). Long blocks: a ring of ``P - 1`` rounds, in which one rank of a node
    sends to another node.
    """
    others, is_power = place.ranks - 1, place.ranks == _power(place.ranks)
    if n_bytes * place.ranks >= RING_BYTES[0 if is_power else 1]:
        if place.nodes == 1:
            return _made(place, 1, others, n_bytes * others, 0, 0)
        return Traffic(0.0, 0.0, 0.0, others, n_bytes * others, 0.0, 1)
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
        return Traffic(2 * workers, n_bytes, shared, 0.0, 0.0, 0.0, 2)
    servers = min(n_servers, place.per_node)  # that share a port
    return Traffic(0.0, 0.0, 0.0, 2 * workers, n_bytes * servers, 0.0, 2)
