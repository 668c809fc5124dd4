"""Predicted steps: seconds, efficiency, and the ranks beyond which it does not pay."""

import math
from dataclasses import replace
from typing import NamedTuple

from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.draws import expected_maximum
from pympi_train.scaling.model.ways import Way, all_ways, exchange_s

LEAST_EFFICIENCY = 0.8
TIMES = tuple(2**k for k in range(1, 13))  # 2 x ... 4096 x
BACKWARD = 2 / 3  # of computing: two matrix products of the three of a layer
N_BUCKETS = 8  # of the gradient at least: the last is sent when backward has ended
LEAST_BUCKET = 2**20  # bytes: a smaller gradient is sent in one piece
MAX_RANKS = 2**22
FINE = 64  # numbers of ranks that are tried from one power of two to the next


class Prediction(NamedTuple):
    """A step as it would be.

    Attributes
    ----------
    ranks, per_node : int
    way : Way
    step_s : float
    efficiency : float
        Rows a second and rank, relative to one rank.
    parts_s : dict of str to float
        ``input``, ``compute``, ``wait``, ``transfer`` and ``update``; they sum to
        ``step_s``. ``transfer`` is what overlap does not hide.
    """

    ranks: int
    per_node: int
    way: Way
    step_s: float
    efficiency: float
    parts_s: dict


def predict_step(model, way, ranks, *, per_node=None, mode="strong", batch_size=None):
    """Return the Prediction for a number of ranks.

    Parameters
    ----------
    model : ScalingModel
    way : Way
    ranks : int
        With servers, these are included; at least one rank computes.
    per_node : int, optional
        Ranks of a full node; as in the study by default.
    mode : {"strong", "weak"}
        weak: ``batch_size`` is that of each rank that computes.
    batch_size : int, optional
        That of the study by default.
    """
    per_node = per_node or model.per_node
    batch_size = batch_size or model.batch_size
    parts_s = _parts(model, way, Place(ranks, per_node), mode, batch_size)
    step_s = sum(parts_s.values())
    alone = _parts(model, Way("allreduce"), Place(1, 1), mode, batch_size)
    workers = ranks - (way.servers if way.strategy == "server" else 0)
    times = sum(alone.values()) / step_s
    efficiency = times / ranks if mode == "strong" else times * workers / ranks
    return Prediction(ranks, per_node, way, step_s, efficiency, parts_s)


def _parts(model, way, place, mode, batch_size):
    is_served = way.strategy == "server"
    workers = max(1, place.ranks - way.servers) if is_served else place.ranks
    rows = batch_size / workers if mode == "strong" else batch_size
    input_s = model.input.seconds(rows, place.shared)
    compute_s = model.compute.seconds(rows, place.shared)
    update_s = model.update.seconds(0, place.shared)
    late = expected_maximum(model.factors, workers) - 1
    # Ranks that meet once in H steps wait for sums of H draws, which vary less.
    n_steps = steps_between(way, model.rows, batch_size)
    wait_s = compute_s * late / math.sqrt(n_steps)
    one = replace(way, local_steps=n_steps)
    transfer_s = exchange_s(model.costs, one, place, model.gradient)
    if place.ranks > 1:
        transfer_s += model.entry_s / n_steps
    if way.overlap and place.ranks > 1 and model.gradient.n_bytes > LEAST_BUCKET:
        hidden_s = min(transfer_s * (1 - 1 / N_BUCKETS), BACKWARD * compute_s)
        transfer_s -= hidden_s
    return {
        "input": input_s,
        "compute": compute_s,
        "wait": wait_s,
        "transfer": transfer_s,
        "update": update_s / update_shares(way, place),
    }


def steps_between(way, rows, batch_size):
    """Return the mean number of steps from one exchange to the next.

    Ranks with local steps meet at the end of an epoch too. In weak scaling, the rows
    grow like the batch.

    Parameters
    ----------
    way : Way
    rows : int or None
        Of an epoch; None: many.
    batch_size : int

    Examples
    --------
    >>> steps_between(Way("local", local_steps=8), 1000, 100)
    5.0
    """
    if way.strategy != "local":
        return 1
    if rows is None:
        return way.local_steps
    n_steps = math.ceil(rows / batch_size)
    return n_steps / math.ceil(n_steps / way.local_steps)


def update_shares(way, place):
    """Return the number of ranks that share the update of all parameters."""
    shares = {"sharded": place.ranks, "hierarchical": place.shared}
    shares["server"] = way.servers
    return shares.get(way.strategy, 1)


def is_possible(way, ranks):
    """Return whether ``ranks`` are enough for a way."""
    return ranks > way.servers if way.strategy == "server" else ranks >= 1


def predictions(model, mode="strong", *, ways=None, times=TIMES, per_node=None):
    """Return a Prediction for each way and multiple of the study's largest ranks.

    Parameters
    ----------
    model : ScalingModel
    mode : {"strong", "weak"}
    ways : list of Way, optional
        All by default.
    times : sequence of int
        2, 4, ... 4096 by default.
    per_node : int, optional

    Returns
    -------
    list of Prediction
        By way, then by ranks.
    """
    return [
        predict_step(model, way, k * model.ranks, per_node=per_node, mode=mode)
        for way in ways or all_ways()
        for k in times
        if is_possible(way, k * model.ranks)
    ]


def rank_limit(model, way, mode="strong", *, least=LEAST_EFFICIENCY, per_node=None):
    """Return the first number of ranks at which efficiency is below ``least``.

    Returns
    -------
    int or None
        None if it is not below ``least`` up to ``MAX_RANKS``.

    Notes
    -----
    Efficiency does not always fall with the ranks: many sums take longer on 33 than on
    64. Every number up to twice ``FINE`` is tried, beyond it ``FINE`` numbers between
    two powers of two; the limit is found by bisection before the first that is below.
    A single number below, between two that are tried, can be missed.
    """

    def is_below(ranks):
        if not is_possible(way, ranks):
            return False
        how = {"per_node": per_node, "mode": mode}
        return predict_step(model, way, ranks, **how).efficiency < least

    low, high = 1, 2
    while not is_below(high):
        power = 2 ** (high.bit_length() - 1)
        low, high = high, high + max(1, power // FINE)
        if high > MAX_RANKS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_below(middle) else (middle, high)
    return high
