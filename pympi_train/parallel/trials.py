"""Chooses among candidates by timing them in turn on all ranks."""

import copy
import statistics
from functools import partial
from time import perf_counter

from pympi_train.comm import collectives
from pympi_train.comm.sums.by_slices import sum_by_slices
from pympi_train.errors import ConfigError
from pympi_train.flat.memory import Layout, Tensor

PIECE = 2**21  # elements: 8 or 16 MB, which stay in the cache of a node
LEAST_BYTES = 2**20  # of a block: below, no choice saves what finding it out costs
FIRST_BYTES = 2**20  # sent first, to see how much can be sent in the time there is
BUDGET_S = 0.3  # for one measurement
ROUNDS = 5
MARGIN = 0.95  # of the default's seconds: what is hardly faster is not taken


def sum_in_pieces(comm, block):
    """As ``collectives.sum_in_place``, in calls of PIECE elements. Collective.

    MPI's algorithms for long blocks go over all of the block several times: within a
    node, pieces took half the seconds for 100 MB (2 ranks, MPICH and Open MPI).
    """
    collectives.sum_in_place(comm, block, PIECE)


SUMS = {
    "mpi": collectives.sum_in_place,
    "pieces": sum_in_pieces,
    "slices": sum_by_slices,
}


def time_candidates(comm, candidates, *, rounds=ROUNDS):
    """Return the seconds of each candidate, the same on every rank.

    Parameters
    ----------
    comm : MPI.Comm
    candidates : dict of str to callable
        Collective, without arguments.
    rounds : int
        Most times that each is called, in turn; once ``BUDGET_S`` are gone, there is no
        further round.

    Returns
    -------
    dict of str to float
        Median over the rounds of the slowest rank's seconds.

    Notes
    -----
    Collective.
    All decide by the same numbers, MAX of float64, and so alike.
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
    """Return the name with the fewest seconds; the default unless it clearly loses."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < MARGIN * seconds[default] else default


def choose_sum(comm, block):
    """Choose how blocks like this one are summed: by MPI, in pieces or by slices.

    Parameters
    ----------
    comm : MPI.Comm
    block : ndarray, shape (n,), contiguous
        Zero, and zero afterwards. On a slow network its beginning is enough, so that
        all of this takes about twice ``BUDGET_S``. Less than ``LEAST_BYTES`` are MPI's,
        unmeasured.

    Returns
    -------
    str
        Of SUMS.
    dict
        ``exchange_bytes`` that were summed in how many ``exchange_seconds`` by name;
        empty where nothing was measured.

    Notes
    -----
    Collective.
    """
    if comm.size == 1 or block.nbytes < LEAST_BYTES:
        return "mpi", {}
    block[:] = 0  # memory that nobody has written to has no pages yet
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
    """Choose among strategies by their exchange and update of a gradient of zeros.

    Parameters
    ----------
    comm : MPI.Comm
    layout : Layout
        Of the model; larger ones than ``sample_size`` are taken as that large.
    optimizer : Optimizer
        A copy of it is used.
    makers : dict of str to callable
        ``maker(layout, optimizer)`` returns a strategy, or raises ConfigError on every
        rank where it cannot be. The first is the default.
    sample_size : int
        Elements.

    Returns
    -------
    str
        Name of the strategy.
    dict
        ``strategy_seconds`` by name, for those that can be; empty if that is one.

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
    """Two ways to take a step, taken in turn until one of them is chosen.

    Parameters
    ----------
    comm : MPI.Comm
    names : tuple of str
        The default first.
    steps : int
        Timed steps of each; one of each before them is not.

    Attributes
    ----------
    name : str
        The way that the next step takes.
    seconds : dict or None
        Medians of the slowest rank's seconds by name, once chosen.
    """

    def __init__(self, comm, names, steps=8):
        self._comm, self._names, self._steps = comm, names, steps
        self._history, self.name, self.seconds = [], names[0], None

    def record(self, seconds):
        """Take note of what the step took on this rank; return whether it was the last.

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
