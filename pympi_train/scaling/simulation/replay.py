"""Replay of a recorded step on many simulated ranks."""

from typing import NamedTuple

import numpy as np

from pympi_train.errors import ConfigError, DataError
from pympi_train.scaling.simulation.strategies import STRATEGIES
from pympi_train.trace.chrome import PHASE_KINDS
from pympi_train.tracetools.read import find_trace, read_tracks
from pympi_train.tracetools.sampling import without_first_step
from pympi_train.tracetools.summary import FORWARD


class Replay(NamedTuple):
    """What a replay found; means over its steps.

    Attributes
    ----------
    step_s : float
        Seconds of a step.
    compute_s : float
        Seconds of compute of a rank.
    transfer_s : float
        Seconds of the exchange of ranks that begin it together.
    wait_s : float
        The rest: waiting for slower ranks.
    efficiency : float
        ``compute_s / step_s``.
    """

    step_s: float
    compute_s: float
    transfer_s: float
    wait_s: float
    efficiency: float


def compute_times(study):
    """Return the recorded seconds of compute, one a step and rank, and gradient bytes.

    Parameters
    ----------
    study : dict
        A study's JSON; its measurement with the most ranks on their own cores is used.

    Returns
    -------
    compute_s : ndarray, shape (n,)
    gradient_bytes : int

    Raises
    ------
    DataError
        If no measurement has times of compute, or one is not a positive number.
    """
    usable = [
        each
        for each in study.get("measurements", [])
        if each.get("compute_s") and not each.get("error")
    ]
    if not usable:
        raise DataError(
            "a replay needs times of compute, and no measurement of this study has any "
            "(compute_s): measure it again with `pympi-train scaling`"
        )
    one = max(usable, key=lambda m: (not m.get("oversubscribed"), m["ranks"]))
    times_s = np.array([s for row in one["compute_s"] for s in row], float)
    if not (np.isfinite(times_s).all() and (times_s > 0).all()):
        raise DataError("compute_s of a study: expected positive numbers of seconds")
    return times_s, int(one["gradient_bytes"])


def traced_times(path):
    """Return what `compute_times` does, of a trace: a run's directory or its file.

    The seconds are those of input, forward, backward, packing and update. The first
    step of each rank counts only if there is no other: in it ranks compile. A rank
    without forward, which is a parameter server, computes nothing.

    Raises
    ------
    DataError
        As `find_trace` and `read_tracks`; or if no rank has recorded a step.
    """
    path = find_trace(path)
    about, tracks = read_tracks(path)
    found = []
    for track in map(without_first_step, tracks):
        is_own = np.isin(track.kinds, PHASE_KINDS)
        if FORWARD not in track.kinds:
            continue
        _, at = np.unique(track.steps[is_own], return_inverse=True)
        seconds = (track.ends_s - track.starts_s)[is_own]
        found.append(np.bincount(at, seconds))
    times_s = np.concatenate(found or [np.empty(0)])
    times_s = times_s[times_s > 0]
    if not times_s.size or not about.get("gradient_bytes", 0) > 0:
        raise DataError(f"{path}: a replay needs steps and gradient_bytes: trace again")
    return times_s, int(about["gradient_bytes"])


def replay_step(
    compute_s,
    n_bytes,
    network,
    n_ranks,
    strategy,
    *,
    n_steps=16,
    seed=0,
    own_s=0.0,
    **more,
):
    """Return the `Replay` of a step on ``n_ranks`` simulated ranks.

    Each rank draws its seconds of compute in each step from ``compute_s``,
    independently.

    Parameters
    ----------
    compute_s : ndarray, shape (n,)
        Recorded seconds of compute.
    n_bytes : int
        Bytes of the gradient.
    network : Fabric
    n_ranks : int
        Ranks that train.
    strategy : str
        A key of `STRATEGIES`.
    n_steps, seed : int
    own_s : float
        Further seconds of each rank in each step: of the program's own bookkeeping.
    **more
        ``period`` of local steps, ``n_servers``, ``n_leaves`` of exact sums.

    Raises
    ------
    ConfigError
        If there is no such strategy, or it cannot have so many ranks.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"strategy: expected one of {', '.join(STRATEGIES)}; got {strategy!r}"
        )
    if n_ranks < 1 or n_steps < 1:
        found = f"{n_ranks}, {n_steps}"
        raise ConfigError(f"expected at least 1 rank and step, got {found}")
    step = STRATEGIES[strategy](network, n_ranks, n_bytes, **more)
    random = np.random.default_rng(seed)
    clocks_s, alone_s, computed_s = np.zeros(n_ranks), np.zeros(n_ranks), 0.0
    for index in range(n_steps):
        drawn_s = random.choice(compute_s, n_ranks)
        computed_s += drawn_s.mean()
        clocks_s = step.exchange(clocks_s + drawn_s + own_s, index)
        alone_s = step.exchange(alone_s, index)
    spent_s, compute_mean_s = clocks_s.max() / n_steps, computed_s / n_steps
    transfer_s = alone_s.max() / n_steps
    wait_s = spent_s - compute_mean_s - own_s - transfer_s
    return Replay(spent_s, compute_mean_s, transfer_s, wait_s, compute_mean_s / spent_s)
