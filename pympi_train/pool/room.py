"""The ranks of a pool, and which of them have room for a job."""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from pympi_train.errors import ConfigError

GB = 1e9  # bytes


@dataclass(frozen=True)
class Machine:
    """The ranks of a pool.

    Attributes
    ----------
    nodes : list of int
        The node of each rank.
    gpus : list of (str or None)
        The GPU of each rank; ranks of a node may have the same one.
    memory : list of float
        Bytes that jobs may use on each node.
    """

    nodes: list
    gpus: list
    memory: list

    @property
    def n_ranks(self):
        return len(self.nodes)


class Needs(NamedTuple):
    """What a job needs to run.

    Attributes
    ----------
    least, most : int
        Ranks on which it can run.
    priority : int
        The higher one goes first.
    number : int
        The lower one goes first, of equal priority.
    gpus : int
        1 if each of its ranks needs a GPU of its own, else 0.
    memory : float
        Bytes that each of its ranks needs.
    """

    least: int
    most: int
    priority: int = 0
    number: int = 0
    gpus: int = 0
    memory: float = 0.0

    @property
    def turn(self):
        """Sort jobs by this to know whose turn it is."""
        return -self.priority, self.number


class Room:
    """The free ranks, GPUs and memory of a machine.

    Parameters
    ----------
    machine : Machine
    free : iterable of int
        Ranks without work.
    running : iterable of Running

    Attributes
    ----------
    free : set of int
    nodes : list of int
        The node of each rank of the machine.

    Notes
    -----
    Rank 0 is the last choice: while it trains, its program cannot submit jobs.
    """

    def __init__(self, machine, free, running=()):
        self._machine, self.free, self.nodes = machine, set(free), machine.nodes
        self._memory = list(machine.memory)
        self._gpus = set()  # those in use
        self._of_node: dict = {}  # free ranks, the next one to be taken last
        for rank in sorted(self.free, key=_turn, reverse=True):
            self._of_node.setdefault(self.nodes[rank], []).append(rank)
        for job in running:
            self._use(job.needs, job.ranks)

    def _use(self, needs, ranks):
        for rank in ranks:
            self._memory[self.nodes[rank]] -= needs.memory
            if needs.gpus:
                self._gpus.add(self._machine.gpus[rank])

    def fitting(self, needs, node):
        """Return the free ranks of a node that could work for a job together."""
        ranks = self._of_node.get(node, [])
        if needs.gpus:
            ranks = self._with_own_gpu(ranks)
        n = self._n_in_memory(needs, node, len(ranks))
        return ranks[: -n - 1 : -1]

    def n_fitting(self, needs, node):
        """Return how many ranks `fitting` returns."""
        if needs.gpus:
            return len(self.fitting(needs, node))
        return self._n_in_memory(needs, node, len(self._of_node.get(node, ())))

    def sizes(self, needs):
        """Return how many ranks of each node could work for a job, without zeros."""
        found = {node: self.n_fitting(needs, node) for node in self._of_node}
        return {node: n for node, n in found.items() if n}

    def _with_own_gpu(self, ranks):
        gpus, found = set(self._gpus), []
        for rank in reversed(ranks):
            gpu = self._machine.gpus[rank]
            if gpu is not None and gpu not in gpus:
                found.append(rank)
                gpus.add(gpu)
        return found[::-1]

    def _n_in_memory(self, needs, node, most):
        """Return the largest n up to ``most`` for which n ranks fit in memory."""
        each, left = needs.memory, self._memory[node]
        if each * most <= left:
            return most
        n = min(most, max(0, int(left / each))) if each else 0
        # The quotient may be rounded to the next integer.
        while n < most and each * (n + 1) <= left:
            n += 1
        while n and each * n > left:
            n -= 1
        return n

    def choose(self, needs, n_ranks, near=()):
        """Return ``n_ranks`` free ranks for a job, on as few nodes as possible.

        Parameters
        ----------
        needs : Needs
        n_ranks : int
        near : sequence of int
            Ranks that the job has already; ranks of their nodes go first.

        Returns
        -------
        list of int or None
            None if there are not enough.
        """
        sizes = self.sizes(needs)
        if sum(sizes.values()) < n_ranks:
            return None
        own = Counter(self.nodes[rank] for rank in near)
        nodes = sorted(sizes, key=lambda k: (-own[k], -sizes[k], k))
        chosen: list = []
        for i, node in enumerate(nodes):
            n_left = n_ranks - len(chosen)
            if n_left == 0:
                break
            if sizes[node] >= n_left:
                alike = [k for k in nodes[i:] if own[k] == own[node]]
                enough = [k for k in alike if sizes[k] >= n_left]
                node = min(enough, key=lambda k: (sizes[k], k))
            chosen += self.fitting(needs, node)[:n_left]
        return chosen

    def take(self, needs, ranks):
        """Note that free ranks work for a job now."""
        self.free -= set(ranks)
        for rank in ranks:
            of_node = self._of_node[self.nodes[rank]]
            if of_node[-1] == rank:
                of_node.pop()
            else:
                of_node.remove(rank)
        self._use(needs, ranks)

    def release(self, needs, ranks):
        """Note that ranks are free, which have worked for a job."""
        self.free |= set(ranks)
        for rank in ranks:
            node = self.nodes[rank]
            self._memory[node] += needs.memory
            if needs.gpus:
                self._gpus.discard(self._machine.gpus[rank])
            self._of_node.setdefault(node, []).append(rank)
        for node in {self.nodes[rank] for rank in ranks}:
            self._of_node[node].sort(key=_turn, reverse=True)

    def copy(self):
        """Return a room whose ranks can be taken without a trace in this one."""
        other = copy.copy(self)
        other.free, other._gpus = set(self.free), set(self._gpus)
        other._memory = list(self._memory)
        other._of_node = {node: list(ranks) for node, ranks in self._of_node.items()}
        return other


def _turn(rank):
    """Sort ranks by this: those to be taken first come first."""
    return rank == 0, rank


def require_room(machine, needs, name):
    """Raise ConfigError if a job can never start, even on the empty machine."""
    empty = Room(machine, range(machine.n_ranks))
    if empty.choose(needs, needs.least) is not None:
        return
    n_gpus = len(set(machine.gpus) - {None})
    if needs.gpus and n_gpus < needs.least:
        raise ConfigError(
            f"job {name}: each of its ranks needs a GPU, at least {needs.least}, but "
            f"the ranks of this program have {n_gpus}: start it on nodes with GPUs, or "
            "lower gpus or min_ranks, or take another [train] backend"
        )
    raise ConfigError(
        f"job {name}: there is no room for {needs.least} of its ranks, even on the "
        "empty machine: lower its memory_gb, gpus or min_ranks"
    )
