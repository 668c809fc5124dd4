"""The ranks of a pool, and which of them are free for a job."""

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
        The GPU of each rank; ranks may have the same one.
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
    """

    def __init__(self, machine, free, running=()):
        self._machine, self.free = machine, set(free)
        self._memory = list(machine.memory)
        self._gpus = set()  # those in use
        for job in running:
            self._use(job.needs, job.ranks)

    def _use(self, needs, ranks):
        for rank in ranks:
            self._memory[self._machine.nodes[rank]] -= needs.memory
            if needs.gpus:
                self._gpus.add(self._machine.gpus[rank])

    def fit(self, needs):
        """Return the free ranks that could work for a job together, by node.

        Rank 0 comes last: while it trains, its program cannot submit jobs.
        """
        machine, fit, gpus = self._machine, {}, set(self._gpus)
        for rank in sorted(self.free, key=lambda rank: (rank == 0, rank)):
            node, gpu = machine.nodes[rank], machine.gpus[rank]
            of_node = fit.setdefault(node, [])
            if needs.gpus and (gpu is None or gpu in gpus):
                continue
            if needs.memory * (len(of_node) + 1) > self._memory[node]:
                continue
            of_node.append(rank)
            gpus.add(gpu)
        return fit

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
        fit = self.fit(needs)
        if sum(map(len, fit.values())) < n_ranks:
            return None
        own = Counter(self._machine.nodes[rank] for rank in near)
        chosen = []
        while len(chosen) < n_ranks:
            n_left = n_ranks - len(chosen)
            # The node with the fewest ranks that suffice, or else with the most ranks.
            node = min(
                fit,
                key=lambda k: (
                    -own[k],
                    len(fit[k]) < n_left,
                    len(fit[k]) if len(fit[k]) >= n_left else -len(fit[k]),
                    k,
                ),
            )
            chosen += fit.pop(node)[:n_left]
        return chosen

    def take(self, needs, ranks):
        """Note that free ranks work for a job now."""
        self.free -= set(ranks)
        self._use(needs, ranks)

    def copy(self):
        """Return a room whose ranks can be taken without a trace in this one."""
        other = copy.copy(self)
        other.free, other._gpus = set(self.free), set(self._gpus)
        other._memory = list(self._memory)
        return other


def require_room(machine, needs, name):
    """Raise ConfigError if a job can never start, even on the empty machine."""
    empty = Room(machine, range(machine.n_ranks))
    if empty.choose(needs, needs.least) is None:
        raise ConfigError(
            f"job {name}: there is no room for {needs.least} of its ranks, even on the "
            "empty machine: lower its memory_gb, gpus or min_ranks"
        )
