"""Collectives as rounds of messages, and the clocks of ranks that take part.

A round is a set of messages that do not wait for each other. A rank that receives one
goes on when it and the sender have arrived and the message has been sent; a rank that
only sends does not wait. The algorithms are those of [1]_.

References
----------
.. [1] R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of collective
   communication operations in MPICH", IJHPCA 19 (2005).
"""

from typing import NamedTuple

import numpy as np

SHORT_BYTES = 2048  # MPIR_CVAR_ALLREDUCE_SHORT_MSG_SIZE of MPICH
LONG_BYTES = 2**19  # MPIR_CVAR_ALLGATHER_LONG_MSG_SIZE; rings from here on
MOST_REPEATS = 2**12  # of equal rounds that are simulated one by one


class Round(NamedTuple):
    """Messages of one round.

    Attributes
    ----------
    targets, sources : ndarray of int, shape (m,)
        No target occurs twice.
    seconds : ndarray of float64, shape (m,)
    repeats : int
        Times that the round takes place.
    """

    targets: np.ndarray
    sources: np.ndarray
    seconds: np.ndarray
    repeats: int = 1


def advance(clocks_s, rounds):
    """Return the clocks of the ranks, shape (P,), after ``rounds``.

    A ring of more than MOST_REPEATS rounds ends for all ranks at its upper bound: the
    last rank's arrival plus the slowest message in every round. If a group of nodes has
    R ranks, the bound is too late by at most R times the difference between the slowest
    and the fastest message, because each rank is within R rounds of a slowest link.
    """
    clocks_s = np.array(clocks_s, float)
    for targets, sources, seconds, repeats in rounds:
        if repeats > MOST_REPEATS:
            latest_s = max(clocks_s[targets].max(), clocks_s[sources].max())
            clocks_s[targets] = latest_s + repeats * seconds.max()
            continue
        for _ in range(repeats):
            later_s = np.maximum(clocks_s[targets], clocks_s[sources])
            clocks_s[targets] = later_s + seconds
    return clocks_s


class Collectives:
    """The rounds of collectives that equal groups of ranks call at the same time.

    Parameters
    ----------
    network : Fabric
    members : ndarray of int, shape (groups, P)
        The ranks of each group.
    """

    def __init__(self, network, members):
        self._network, self._members = network, np.atleast_2d(members)
        self.size = self._members.shape[1]

    def allreduce(self, n_bytes):
        """Return the rounds of a sum, by the algorithm that MPICH chooses."""
        if n_bytes <= SHORT_BYTES or n_bytes < 4 * self.size:  # of float32
            return self.recursive_doubling(n_bytes)
        return self.halving_doubling(n_bytes)

    def recursive_doubling(self, n_bytes):
        r"""Return the rounds of a sum: :math:`\log_2 P` rounds of all bytes."""
        power, at = self._power()
        rounds = [self._pairs(at, 1 << k, n_bytes) for k in range(power)]
        return self._folded(rounds, n_bytes)

    def halving_doubling(self, n_bytes):
        r"""Return the rounds of a reduce-scatter and an allgather.

        A rank sends :math:`2 n (P - 1) / P` bytes in :math:`2 \log_2 P` rounds if P is
        a power of two; otherwise two more rounds send all bytes.
        """
        power, at = self._power()
        halves = [self._pairs(at, 1 << k, n_bytes / (2 << k)) for k in range(power)]
        return self._folded(halves + halves[::-1], n_bytes)

    def ring(self, n_bytes):
        """Return the rounds of a sum around a ring: 2 (P - 1) rounds of n / P bytes."""
        ranks = np.arange(self.size)
        each = self._round(ranks, ranks - 1, n_bytes / self.size)
        return [each._replace(repeats=2 * (self.size - 1))]

    def allgather(self, n_bytes):
        """Return the rounds of an allgather of ``n_bytes`` in total, as MPICH's."""
        if n_bytes >= LONG_BYTES:
            return self.half_ring(n_bytes)
        return self.bruck(n_bytes)

    def reduce_scatter(self, n_bytes):
        """Return the rounds of a reduce-scatter of ``n_bytes``, as Open MPI's."""
        if n_bytes >= LONG_BYTES:
            return self.half_ring(n_bytes)
        return self.bruck_reversed(n_bytes)

    def half_ring(self, n_bytes):
        """Return P - 1 rounds around a ring, of n / P bytes each."""
        return [each._replace(repeats=self.size - 1) for each in self.ring(n_bytes)]

    def bruck(self, n_bytes):
        r"""Return the :math:`\lceil \log_2 P \rceil` rounds of Bruck's allgather."""
        ranks, rounds, step = np.arange(self.size), [], 1
        while step < self.size:
            blocks = min(step, self.size - step)
            sources = (ranks + step) % self.size
            rounds.append(self._round(ranks, sources, n_bytes * blocks / self.size))
            step *= 2
        return rounds

    def bruck_reversed(self, n_bytes):
        """Return the rounds of a reduce-scatter: `bruck` backwards in time."""
        ranks, rounds, step = np.arange(self.size), [], 1
        while step < self.size:
            blocks = min(step, self.size - step)
            sources = (ranks - step) % self.size
            rounds.append(self._round(ranks, sources, n_bytes * blocks / self.size))
            step *= 2
        return rounds[::-1]

    def _power(self):
        """Return log2 of the largest power of two, and the positions that stay."""
        power = self.size.bit_length() - 1
        rest = self.size - (1 << power)
        low = np.arange(1, 2 * rest, 2)
        return power, np.concatenate((low, np.arange(2 * rest, self.size)))

    def _folded(self, rounds, n_bytes):
        """Return rounds with those before and after for what exceeds the power."""
        rest = self.size - (1 << (self.size.bit_length() - 1))
        if not rest:
            return rounds
        odd = np.arange(1, 2 * rest, 2)
        before = self._round(odd, odd - 1, n_bytes)
        return [before, *rounds, self._round(odd - 1, odd, n_bytes)]

    def _pairs(self, at, distance, n_bytes):
        partners = at[np.arange(len(at)) ^ distance]
        return self._round(at, partners, n_bytes)

    def _round(self, targets, sources, n_bytes):
        """Return the Round of positions within each group, for all groups."""
        targets = self._members[:, targets].ravel()
        sources = self._members[:, sources].ravel()
        return Round(targets, sources, self._network.seconds(sources, targets, n_bytes))


def queued(arrivals_s, service_s):
    """Return when each request ends that one server takes in order of arrival.

    Parameters
    ----------
    arrivals_s : ndarray, shape (m,)
    service_s : float
        Seconds of each.
    """
    order = np.argsort(arrivals_s, kind="stable")
    turns_s = service_s * np.arange(len(order))
    begins_s = np.maximum.accumulate(arrivals_s[order] - turns_s) + turns_s
    ends_s = np.empty(len(order))
    ends_s[order] = begins_s + service_s
    return ends_s
