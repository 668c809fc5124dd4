"""Seconds of the gradient exchange, compared with MPI's Allreduce of the same block."""

import math
import statistics
from contextlib import suppress
from functools import partial
from time import perf_counter

import numpy as np

from pympi_train.backends.select import select
from pympi_train.comm import collectives
from pympi_train.comm.mesh import share_nodes
from pympi_train.comm.sums.compress import COMPRESSIONS, compressed_sum
from pympi_train.errors import ConfigError
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.optim.adam import Adam
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.hierarchical import Hierarchical
from pympi_train.parallel.local import Local
from pympi_train.parallel.sharded.strategy import Sharded
from pympi_train.parallel.trials import SUMS

SIZES = (4, 256, 2**12, 2**16, 2**20, 2**22, 25_000_000, 100_000_000, 400_000_000)
BUDGET_S = 3.0  # for one size
BURST_BYTES = 2**20  # small exchanges are timed so many bytes at once ...
BURST = 100  # ... but no more calls than that
COMPRESSED_BYTES = 2**16  # least of a block that is compressed


def measure(comm, *, max_bytes=100_000_000, rounds=20, sizes=SIZES):
    """Time the sum of a float32 block over the ranks in all ways there are.

    Parameters
    ----------
    comm : MPI.Comm
    max_bytes : int
        Larger blocks of ``sizes`` are left out.
    rounds : int
        Most times that each way is timed; at least 3.
    sizes : sequence of int
        Bytes of the blocks.

    Returns
    -------
    dict
        ``ranks``, ``dtype``, ``library`` and ``sizes``: for each block its ``bytes``,
        the ``rounds``, the ``exchange`` that strategy allreduce chose, and ``ways``: by
        name, ``median_s`` of the slowest rank's seconds, ``bytes_per_s`` (of the block
        by the median), ``bus_bytes_per_s`` (what an ideal ring sends a rank for that,
        ``2 (P - 1) / P`` times as much) and ``times_plain``: the median over the rounds
        of its seconds by those of ``plain`` in the same round. ``plain`` is MPI's
        Allreduce in place, ``plain again`` the same once more: how far apart its
        ``times_plain`` is from 1 says what can be told here at all. Compressions tell
        the ``sent_bytes`` a rank, in the mean; their block is one matrix of normal
        numbers, as square as can be. ``updates``: the same of strategies with the
        update by Adam, which belongs to the exchange in some; ``times_allreduce`` in
        place of ``times_plain``. Local with an exchange in each step, sharded in its
        first stage, hierarchical where ranks share a node.

    Notes
    -----
    Collective.
    All but the compressions sum the same block. Each round has another random order.
    """
    from mpi4py import MPI

    found, library = [], MPI.Get_library_version().splitlines()[0]
    for n_bytes in sizes:
        if n_bytes <= max_bytes:
            found.append(_measure_size(comm, n_bytes // 4, rounds))
    return {
        "ranks": comm.size,
        "dtype": "float32",
        "library": " ".join(library.strip("\0").split()),
        "sizes": found,
    }


def _measure_size(comm, n, rounds):
    layout, ops = Layout([Tensor("weight", (n,))], "float32"), select("auto").ops
    strategy = Allreduce(comm, layout, None, ops)
    strategy.measure()
    calls = _ways(comm, strategy, n)
    ways = _timed(comm, calls, "plain", 4 * n, rounds)
    n_rounds = ways.pop("rounds")
    if 4 * n >= COMPRESSED_BYTES:
        # Apart: they leave nothing of the block in the caches for who comes next.
        packed = _compressions(comm, n, ops)
        beside = {"plain": calls["plain"], **packed}
        found = _timed(comm, beside, "plain", 4 * n, rounds)
        for name, call in packed.items():
            (sent_bytes,) = collectives.reduced(comm, [call.sent_bytes])
            ways[name] = {**found[name], "sent_bytes": float(sent_bytes) / comm.size}
    return {
        "bytes": 4 * n,
        "rounds": n_rounds,
        "exchange": strategy.chosen["exchange"],
        "ways": ways,
        "updates": _measure_updates(comm, layout, ops, rounds),
    }


def _measure_updates(comm, layout, ops, rounds):
    """Time exchange and update of each strategy whose ranks are all alike."""
    whole = Allreduce(comm, layout, Adam(), ops)
    whole.measure()
    alone = Local(comm, layout, Adam(), ops, local_steps=1, outer="average")
    strategies = [whole, Sharded(comm, layout, Adam(), ops), alone]
    calls = {
        "allreduce": _step(whole),
        "sharded": _step(strategies[1]),
        "local": partial(
            alone.advance,
            lr=1e-3,
            weight=1,
            loss=0,
            l2=0,
            clip_norm=None,
            error=None,
            stop=False,
        ),
    }
    if share_nodes(comm):
        with suppress(ConfigError):  # too little shared memory
            strategies.append(Hierarchical(comm, layout, Adam(), ops))
            calls["hierarchical"] = _step(strategies[-1])
    found = _timed(comm, calls, "allreduce", layout.size * 4, rounds)
    for strategy in strategies:
        strategy.free()
    found.pop("rounds")
    return found


def _step(strategy):
    def step():
        strategy.combine()
        strategy.update(lr=1e-3, weight=1.0, l2=0.0)

    return step


def _timed(comm, ways, first, n_bytes, rounds):
    """Return what is told of each way, and the ``rounds``."""
    burst = max(1, min(BURST, BURST_BYTES // n_bytes))
    history = _in_turn(comm, ways, burst, rounds)
    bus = 2 * (comm.size - 1) / comm.size
    reference = history[:, list(ways).index(first)]
    found = {"rounds": len(history)}
    for name, seconds in zip(ways, history.T):
        median = statistics.median(seconds.tolist())
        found[name] = {
            "median_s": median,
            "bytes_per_s": n_bytes / median,
            "bus_bytes_per_s": bus * n_bytes / median,
            f"times_{first}": float(np.median(seconds / reference)),
        }
    return found


def _ways(comm, strategy, n):
    """Return the candidates by name, the plain call first."""
    from mpi4py import MPI

    block = strategy.grads[:n]  # without padding

    def plain():
        comm.Allreduce(MPI.IN_PLACE, block, op=MPI.SUM)

    return {
        "plain": plain,
        "allreduce": strategy.combine,
        **{way: partial(SUMS[way], comm, block) for way in ("pieces", "slices")},
        "plain again": plain,
    }


def _compressions(comm, n, ops):
    """Return the compressed sums of a block of about ``n`` elements by name."""
    n_rows = math.isqrt(n)
    layout = Layout([Tensor("weight", (n_rows, n // n_rows))], "float32")
    rng = np.random.default_rng(comm.rank)
    values = rng.standard_normal(layout.size, dtype=np.float32)
    block = np.empty_like(values)
    return {
        kind: Compressed(compressed_sum(kind, comm, layout, ops), values, block)
        for kind in COMPRESSIONS
    }


class Compressed:
    """A compressed sum, of the same values each time that it is called.

    Parameters
    ----------
    wire : object with ``sum`` and ``sent_bytes``
    values, block : ndarray, shape (n,)
        The block is filled before each call, in no one's time.
    """

    def __init__(self, wire, values, block):
        self._wire, self._values, self._block = wire, values, block
        self._calls = 0

    def prepare(self):
        """Fill the block."""
        self._block[:] = self._values

    def __call__(self):
        self._wire.sum(self._block)
        self._calls += 1

    @property
    def sent_bytes(self):
        """Payload a call."""
        return self._wire.sent_bytes / self._calls


def _in_turn(comm, ways, burst, rounds):
    """Return the slowest rank's seconds of one call, shape (rounds, ways)."""
    names, history, spent_s = list(ways), [], 0.0
    bursts = {name: 1 if hasattr(ways[name], "prepare") else burst for name in names}
    for call in ways.values():  # connections, first touch of memory
        getattr(call, "prepare", int)()
        call()
    while len(history) < rounds and (len(history) < 3 or spent_s < BUDGET_S):
        order = np.random.default_rng(len(history)).permutation(len(names)).tolist()
        seconds = dict.fromkeys(names, 0.0)
        for name in (names[i] for i in order):  # the same on every rank
            call, n_calls = ways[name], bursts[name]
            getattr(call, "prepare", int)()
            comm.Barrier()
            started = perf_counter()
            for _ in range(n_calls):
                call()
            seconds[name] = (perf_counter() - started) / n_calls
        slowest = collectives.reduced(comm, list(seconds.values()), op="MAX")
        history.append(slowest)
        spent_s += float(slowest @ list(bursts.values()))
    return np.array(history)
