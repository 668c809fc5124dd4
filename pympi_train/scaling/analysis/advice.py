"""The one change that would gain most, and how much, by the parts of a step."""

from typing import NamedTuple

import numpy as np

from pympi_train.scaling.analysis.losses import CONTENTION, EITHER, SMALL
from pympi_train.scaling.analysis.stragglers import slowest_rank

LITTLE = 0.02  # of a step: less is not worth a change
INT8_BYTES = 0.26  # of float32, with the scales: what compression = "int8" sends
BATCH = 4  # times the batch, for the gain of a larger one
SECTION = "[parallel] "
LARGER = f"a global batch {BATCH} times as large, if the training bears it"
OTHERS = "look for other programs on the nodes: the ranks are late in turn"
INT8, SHARDED = 'compression = "int8"', 'strategy = "sharded"'
# Keys of [parallel] that a study proposes, if the configuration allows them.
PROPOSED = (INT8, SHARDED)
UNSURE = LARGER, OTHERS  # it may need more epochs; there may be no other program
MORE = 1.2  # times the gain of other changes that an unsure one has to have
WHY = {
    "imbalance": "ranks wait for the slowest one",
    "transfer": "the exchange of gradients",
    "pack": "packing of what is sent",
    "update": "the update, which each rank does for all parameters",
    "input": "waiting for rows",
    CONTENTION: "ranks of a node that share its memory and slow each other down",
    SMALL: "small batches: each rank has fewer rows, but as many calls",
    EITHER: "computing, which does not shrink as the ranks grow",
}


class Advice(NamedTuple):
    """A change of the configuration or of the launch.

    Attributes
    ----------
    cause : str
        Of the loss, a key of ``WHY``.
    change : str
        What to do, in words.
    times : float
        By how much steps become faster for the same number of rows, by the parts.
    """

    cause: str
    change: str
    times: float


def advise(series, point, losses):
    """Return the Advice with the largest gain for a point; None if nothing helps."""
    found = [
        Advice(cause, change, point.step_s / left_s)
        for cause, change, left_s in _changes(series, point, losses)
        if losses.by_cause.get(cause, 0.0) > 0
        and not (change == LARGER and point.is_full_batch)  # there is no larger one
        and change.removeprefix(SECTION) not in series.refused
    ]
    found = [one for one in found if one.times > 1 + LITTLE]
    weight = lambda one: one.times / (MORE if one.change in UNSURE else 1)  # noqa: E731
    return max(found, key=weight, default=None)


def _changes(series, point, losses):
    """Yield cause, change, and the seconds that a step would take then."""
    step_s, parts = point.step_s, {name: point.part_s(name) for name in point.parts_s}
    wait_s, transfer_s = parts["wait"], parts["transfer"]
    straggler = slowest_rank(point)
    if straggler is not None:
        where = straggler.place if straggler.is_node else (
            f"rank {straggler.rank} on {straggler.place}"
        )
        yield (
            "imbalance",
            f"exclude or repair {where}, or give it fewer rows by [elastic] balance = "
            "true",
            # They may also wait for other ranks in turn, or for its late steps.
            step_s - min(_others_wait_s(point, straggler), straggler.excess_s),
        )
        wait_s = 0.0  # of a larger batch, the rank has more rows too
    else:
        yield "imbalance", OTHERS, step_s - wait_s
    saved_s = (1 - INT8_BYTES) * transfer_s
    yield "transfer", SECTION + INT8, step_s - saved_s
    fixed_s = transfer_s + wait_s + parts["update"] + parts["pack"]
    larger_s = step_s - fixed_s * (1 - 1 / BATCH)  # for as many rows
    yield "transfer", LARGER, larger_s
    small_s = max(0.0, losses.by_cause.get(SMALL, losses.by_cause.get(EITHER, 0.0)))
    # Of n ranks, the loss is 1 - 1 / n of the calls that do not shrink.
    part = max(1 - series.base.ranks / point.ranks, 0.5)
    small_s *= step_s * (1 - 1 / BATCH) / part
    for cause in (SMALL, EITHER):
        yield cause, LARGER, larger_s - small_s
    rest_s = parts["update"] * (1 - 1 / point.ranks)
    yield "update", SECTION + SHARDED, step_s - rest_s
    convert = "convert the files to .npy (pympi-train data convert), or memory"
    yield "input", f'{convert} = "in-memory"', step_s - parts["input"]
    lost_s = max(0.0, losses.by_cause.get(CONTENTION, 0.0)) * step_s
    yield CONTENTION, "fewer ranks on each node, with more cores each", step_s - lost_s


def _others_wait_s(point, straggler):
    """Return the seconds a step that the ranks beside a Straggler wait, a mean."""
    waits_s = point.parts_s["wait"]  # (repeats, workers)
    is_late = np.arange(waits_s.shape[1]) == straggler.rank
    if straggler.is_node:
        nodes = np.array(point.node_of[: waits_s.shape[1]])
        is_late = nodes == straggler.node
    return float(waits_s[:, ~is_late].mean())
