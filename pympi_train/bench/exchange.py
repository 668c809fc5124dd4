"""Time of the gradient exchange, compared with MPI's Allreduce of the same block."""

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
BUDGET_S = 3.0  # time limit per size
BURST_BYTES = 2**20  # calls on small blocks are timed together, up to this size
BURST = 100  # and up to this number of calls
COMPRESSED_BYTES = 2**16  # smaller blocks are not compressed


def measure(comm, *, max_bytes=100_000_000, rounds=20, sizes=SIZES):
    """Time every way to sum a float32 block over the ranks.

    Parameters
    ----------
    comm : MPI.Comm
    max_bytes : int
        Larger blocks in ``sizes`` are skipped.
    rounds : int
        Maximum number of timings of each way; after 3, a size may reach its time limit.
    sizes : sequence of int
        Sizes of the blocks in bytes.

    Returns
    -------
    dict
        ``ranks``, ``dtype``, ``library``, and ``sizes``: for each block its ``bytes``,
        the ``rounds``, the ``exchange`` that strategy allreduce chose, ``ways`` and
        ``updates``.

        ``ways`` has by name: ``seconds`` of the slowest rank in each round;
        ``median_s``, their median;
        ``bytes_per_s``, the block's bytes over the median; ``bus_bytes_per_s``, the
        bytes that a rank of an ideal ring sends, ``2 (P - 1) / P`` times as many; and
        ``times_plain``, the median over the rounds of the ratio to ``plain``.
        ``plain`` is MPI's Allreduce in place. ``plain again`` repeats it: the distance
        of its ``times_plain`` from 1 is the noise. Compressions also have
        ``sent_bytes``, the mean over the ranks; their block is a nearly square matrix
        of normal numbers.

        ``updates`` has the same for strategies, with the Adam update included, because
        some strategies combine it with the exchange; ``times_allreduce`` takes the
        place of ``times_plain``. Local exchanges in every step, sharded is at stage 1,
        and hierarchical is included if ranks share a node.

    Notes
    -----
    Collective.
    All ways but the compressions sum the same block. The order is random in each round.
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
    calls = ways_to_sum(comm, strategy, n)
    ways = _timed(comm, calls, "plain", 4 * n, rounds)
    n_rounds = ways.pop("rounds")
    if 4 * n >= COMPRESSED_BYTES:
        # Timed separately, because compressions evict the block from the caches.
        packed = compressed_ways(comm, n, ops)
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
    """Time exchange and update of each strategy that has no servers."""
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
    """Return the figures of each way by name, and the number of ``rounds``."""
    burst = max(1, min(BURST, BURST_BYTES // n_bytes))
    history = _in_turn(comm, ways, burst, rounds)
    bus = 2 * (comm.size - 1) / comm.size
    reference = history[:, list(ways).index(first)]
    found = {"rounds": len(history)}
    for name, seconds in zip(ways, history.T):
        median = statistics.median(seconds.tolist())
        found[name] = {
            "median_s": median,
            "seconds": seconds.tolist(),
            "bytes_per_s": n_bytes / median,
            "bus_bytes_per_s": bus * n_bytes / median,
            f"times_{first}": float(np.median(seconds / reference)),
        }
    return found


def ways_to_sum(comm, strategy, n):
    """Return the ways to sum by name, ``plain`` first."""
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


def compressed_ways(comm, n, ops):
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
    """A compressed sum of the same values in every call.

    Parameters
    ----------
    wire : object with ``sum`` and ``sent_bytes``
    values, block : ndarray, shape (n,)
        `prepare` copies the values to the block before each call, outside the timing.
    """

    def __init__(self, wire, values, block):
        self._wire, self._values, self._block = wire, values, block
        self._calls = 0

    def prepare(self):
        """Copy the values to the block."""
        self._block[:] = self._values

    def __call__(self):
        self._wire.sum(self._block)
        self._calls += 1

    @property
    def sent_bytes(self):
        """Payload per call in bytes."""
        return self._wire.sent_bytes / self._calls


def _in_turn(comm, ways, burst, rounds):
    """Return the slowest rank's seconds per call, shape (rounds, ways)."""
    names, history, spent_s = list(ways), [], 0.0
    bursts = {name: 1 if hasattr(ways[name], "prepare") else burst for name in names}
    for call in ways.values():  # warm-up: connections, first touch of memory
        getattr(call, "prepare", int)()
        call()
    while len(history) < rounds and (len(history) < 3 or spent_s < BUDGET_S):
        order = np.random.default_rng(len(history)).permutation(len(names)).tolist()
        seconds = dict.fromkeys(names, 0.0)
        for name in (names[i] for i in order):  # the same order on every rank
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
