"""Rounds of timings of many benchmarks, in a new order in each round."""

import math
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Callable

import numpy as np

from pympi_train.backends.energy import joules_between
from pympi_train.comm.collectives import barrier, reduced

LEAST_S = 1e-3  # shorter calls are timed in bursts, so that the clock costs nothing
MAX_BURST = 1000
MAX_SAMPLES = 20  # of a round


@dataclass(frozen=True)
class Benchmark:
    """Something to time, which all ranks do at the same moment.

    Attributes
    ----------
    name : str
        "group/what".
    make : callable
        Returns the function to time, which takes no arguments. It is called in each
        round, so that large arrays need not live from one round to the next.
    settings : dict
        Sizes and the like. Timings are compared only between equal settings.
    n_bytes, n_flops, n_rows : int or None
        Bytes moved, floating-point operations and rows of a call, on one rank.
    beside : str or None
        Name of the benchmark that shows the limit: its bytes or operations a second.
    prepare : callable or None
        Called before each call of the function, outside of the timing.
    """

    name: str
    make: Callable[[], Callable[[], Any]]
    settings: dict = field(default_factory=dict)
    n_bytes: int | None = None
    n_flops: int | None = None
    n_rows: int | None = None
    beside: str | None = None
    prepare: Callable[[], Any] | None = None


@dataclass
class Timings:
    """What was measured of one benchmark.

    Attributes
    ----------
    rounds : list of list of float
        Seconds of a call of the slowest rank: samples by round.
    joules : list of float or None
        By round, joules of a call on all nodes; None where a node counts none.
    """

    rounds: list = field(default_factory=list)
    joules: list = field(default_factory=list)


def time_benchmarks(comm, benchmarks, *, rounds, round_s, meter=None, wait=None):
    """Time all benchmarks in each round.

    Parameters
    ----------
    comm : MPI.Comm
    benchmarks : list of Benchmark
        The same on all ranks.
    rounds : int
    round_s : float
        Seconds that each benchmark gets in a round; at least one sample is taken.
    meter : EnergyMeter, optional
        On one rank of each node.
    wait : callable, optional
        Waits for the work of a GPU.

    Returns
    -------
    dict of str to Timings
        By name. A sample is the mean of a burst of calls, at least 1 ms together.

    Notes
    -----
    Collective. A round measures everything once, in an order of its own. What disturbs
    the machine for seconds therefore hits a few samples of each benchmark, instead of
    all samples of one.
    """
    wait = wait or (lambda: None)
    plans = [_plan(comm, one, round_s, wait) for one in benchmarks]
    found = {one.name: Timings() for one in benchmarks}
    for number in range(rounds):
        order = np.random.default_rng(number).permutation(len(benchmarks)).tolist()
        for i in order:  # the same on all ranks
            one = benchmarks[i]
            seconds, joules = _round(comm, one, *plans[i], meter, wait)
            found[one.name].rounds.append(seconds)
            found[one.name].joules.append(joules)
    return found


def _plan(comm, one, round_s, wait):
    """Return (samples of a round, calls of a sample), equal on all ranks."""
    call = one.make()
    _prepare(one)
    call()  # compilation, connections, first touch of memory
    wait()
    _prepare(one)
    barrier(comm)
    began_s = perf_counter()
    call()
    wait()
    (taken_s,) = reduced(comm, [perf_counter() - began_s], op="MAX")
    return planned(float(taken_s), round_s, one.prepare is not None)


def planned(call_s, round_s, alone):
    """Return (samples of a round, calls of a sample).

    Parameters
    ----------
    call_s : float
        Seconds of a call.
    round_s : float
        Seconds to spend in a round.
    alone : bool
        Whether each call must be timed by itself.
    """
    call_s = max(call_s, 1e-9)
    burst = 1 if alone else min(MAX_BURST, max(1, math.ceil(LEAST_S / call_s)))
    samples = int(round_s / (call_s * burst))
    return min(MAX_SAMPLES, max(1, samples)), burst


def _round(comm, one, n_samples, burst, meter, wait):
    """Return the slowest rank's seconds of the samples, and the joules of a call."""
    call = one.make()
    if one.prepare is None:
        call()  # first touch of memory, and the caches as in a loop of calls
        wait()
    seconds = np.empty(n_samples)
    before = meter.read() if meter else None
    for i in range(n_samples):
        _prepare(one)
        barrier(comm)
        began_s = perf_counter()
        for _ in range(burst):
            call()
        wait()
        seconds[i] = (perf_counter() - began_s) / burst
    barrier(comm)  # the meter counts until the slowest rank is ready
    joules = joules_between(before, meter.read()) if meter else 0.0
    slowest = reduced(comm, seconds, op="MAX").tolist()
    # NaN of one node makes the sum NaN.
    (total,) = reduced(comm, [math.nan if joules is None else joules])
    # What prepares a call needs energy, too, that is not the call's.
    known = math.isfinite(total) and one.prepare is None
    return slowest, float(total) / (n_samples * burst) if known else None


def _prepare(one):
    if one.prepare is not None:
        one.prepare()
