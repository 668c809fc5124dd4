"""Chooses among candidates by timing them in turn on all ranks."""

import copy
import statistics
from functools import partial
from time import perf_counter

from pympi_train.comm import collectives
from pympi_train.comm.sums.by_slices import sum_by_slices
from pympi_train.errors import ConfigError
from pympi_train.flat.memory import Layout, Tensor

PIECE = 2**21  # elements: 8 or 16 MB, which fit into the cache of a node
LEAST_BYTES = 2**20  # smaller blocks gain less than the measurement costs
FIRST_BYTES = 2**20  # sent first, to estimate how many bytes fit into BUDGET_S
BUDGET_S = 0.3  # per measurement
ROUNDS = 5
MARGIN = 0.95  # a candidate must take less than this share of the default's time


def sum_in_pieces(comm, block):
    """As ``collectives.sum_in_place``, in calls of PIECE elements. Collective.

    MPI's algorithms for long blocks traverse the whole block several times: within a
    node, pieces halved the time for 100 MB (2 ranks, MPICH and Open MPI).
    """
    collectives.sum_in_place(comm, block, PIECE)


SUMS = {
    "mpi": collectives.sum_in_place,
    "pieces": sum_in_pieces,
    "slices": sum_by_slices,
}


def time_candidates(comm, candidates, *, rounds=ROUNDS):
    """Return the seconds of each candidate, equal on every rank.

    Parameters
    ----------
    comm : MPI.Comm
    candidates : dict of str to callable
        Collective, without arguments.
    rounds : int
        Maximum number of calls of each, in turn. No round starts after ``BUDGET_S``.

    Returns
    -------
    dict of str to float
        Median over the rounds of the slowest rank's seconds.

    Notes
    -----
    Collective. All ranks stop after the same round, because they see the same times.
    """
    history, spent_s = [], 0.0
    while len(history) < rounds and (not history or spent_s < BUDGET_S):
        seconds = []
        for call in candidates.values():
            comm.Barrier()
            started = perf_counter()
            call()
            seconds.append(perf_counter() - started)
        history.append(collectives.reduced(comm, seconds, op="MAX").tolist())
        spent_s += sum(history[-1])
    return dict(zip(candidates, map(statistics.median, zip(*history))))


def fastest(seconds, default):
    """Return the name of the fastest; the default unless another is clearly faster."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < MARGIN * seconds[default] else default


def choose_sum(comm, block):
    """Return the fastest method to sum such blocks: by MPI, in pieces or by slices.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (n,), contiguous
        Set to zero by the measurement. On a slow network only its beginning is summed,
        so that the measurement takes about twice ``BUDGET_S``. Blocks of less than
        ``LEAST_BYTES`` are left to MPI without measuring.

    Returns
    -------
    str
        A key of SUMS.
    dict
        ``exchange_bytes`` that were summed, and the ``exchange_seconds`` by name; empty
        if nothing was measured.

    Notes
    -----
    Collective.
    """
    if comm.size == 1 or block.nbytes < LEAST_BYTES:
        return "mpi", {}
    block[:] = 0  # the first write maps the pages
    first = block[: max(1, FIRST_BYTES // block.itemsize)]
    pace = time_candidates(comm, _sums(comm, first), rounds=2)
    size = int(first.size * BUDGET_S / sum(pace.values()))
    sample = block[: min(block.size, max(first.size, size))]
    seconds = time_candidates(comm, _sums(comm, sample))
    told = {"exchange_seconds": seconds, "exchange_bytes": sample.nbytes}
    return fastest(seconds, "mpi"), told


def _sums(comm, block):
    return {name: partial(add, comm, block) for name, add in SUMS.items()}


def choose_strategy(comm, layout, optimizer, makers, *, sample_size=2**22):
    """Time exchange and update of a zero gradient; return the fastest strategy.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
        Of the model; at most ``sample_size`` elements are timed.
    optimizer : Optimizer
        A copy of it is used.
    makers : dict of str to callable
        ``maker(layout, optimizer)`` returns a strategy, or raises ConfigError on every
        rank if the strategy is impossible. The first is the default.
    sample_size : int
        Elements.

    Returns
    -------
    str
        Name of the strategy.
    dict
        ``strategy_seconds`` by name, of the possible ones; empty if there is only one.

    Notes
    -----
    Collective.
    """
    size = min(layout.size, sample_size)
    sample = Layout([Tensor("weight", (size,))], layout.dtype)
    strategies = {}
    for name, maker in makers.items():
        try:
            strategies[name] = maker(sample, copy.copy(optimizer))
        except ConfigError:
            continue
    default = next(iter(makers))
    try:
        if len(strategies) < 2:
            return next(iter(strategies), default), {}
        calls = {name: _step(s, optimizer.lr) for name, s in strategies.items()}
        time_candidates(comm, calls, rounds=1)
        seconds = time_candidates(comm, calls)
        return fastest(seconds, default), {"strategy_seconds": seconds}
    finally:
        for strategy in strategies.values():
            strategy.free()


def _step(strategy, lr):
    def step():
        strategy.combine()
        strategy.update(lr=lr, weight=1.0, l2=0.0)

    return step


class Trial:
    """Two ways to take a step, used in turn until one is chosen.

    Parameters
    ----------
    comm : MPI.Comm
    names : tuple of str
        The default first.
    steps : int
        Timed steps of each way, after one untimed step of each.

    Attributes
    ----------
    name : str
        The way of the next step.
    seconds : dict or None
        Median of the slowest rank's seconds by name, once a way is chosen.
    """

    def __init__(self, comm, names, steps=8):
        self._comm, self._names, self._steps = comm, names, steps
        self._history, self.name, self.seconds = [], names[0], None

    def record(self, seconds):
        """Record this rank's time of a step; return whether it was the last step.

        Notes
        -----
        Collective, in the last step of the trial.
        """
        n = len(self._names)
        self._history.append(seconds)
        self.name = self._names[len(self._history) % n]
        if len(self._history) < (self._steps + 1) * n:
            return False
        slowest = collectives.reduced(self._comm, self._history[n:], op="MAX").tolist()
        self.seconds = {
            name: statistics.median(slowest[i::n]) for i, name in enumerate(self._names)
        }
        self.name = fastest(self.seconds, self._names[0])
        return True
