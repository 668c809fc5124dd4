"""The fastest way that fits the memory, and why."""

import math
from typing import NamedTuple

from pympi_train.errors import ConfigError
from pympi_train.scaling.model.counts import Place
from pympi_train.scaling.model.memory import rank_bytes
from pympi_train.scaling.model.predict import Prediction, is_possible, predict_step
from pympi_train.scaling.model.ways import SAME, Way

PLAIN = str(Way("allreduce"))
MARGIN = 0.05  # by which another way has to be faster than PLAIN: the model errs more
NOTED = 0.005  # of a step: less is shown as 0 %
WORDS = {
    "input": "waiting for rows",
    "compute": "computing",
    "wait": "waiting for the slowest rank",
    "transfer": "the exchange",
    "update": "the update",
}


class Option(NamedTuple):
    """A way that is possible.

    Attributes
    ----------
    prediction : Prediction
    memory_bytes : float
        Of a rank.
    fits : bool
    """

    prediction: Prediction
    memory_bytes: float
    fits: bool


def options_for(model, needs, ways, ranks, *, per_node, mode, memory_bytes=None):
    """Return an Option for each way, the fastest first.

    Parameters
    ----------
    model : ScalingModel
    needs : MemoryNeeds
    ways : list of Way
    ranks, per_node : int
    mode : {"strong", "weak"}
    memory_bytes : float, optional
        Of a rank; without it, everything fits.
    """
    found = []
    for way in ways:
        if not is_possible(way, ranks):
            continue
        one = predict_step(model, way, ranks, per_node=per_node, mode=mode)
        workers = ranks - (way.servers if way.strategy == "server" else 0)
        rows = model.batch_size / (workers if mode == "strong" else 1)
        held = rank_bytes(needs, way, Place(ranks, per_node), rows)
        fits = memory_bytes is None or held <= memory_bytes
        found.append(Option(one, held, fits))
    return sorted(found, key=_speed)


def _speed(option):
    return option.prediction.step_s, str(option.prediction.way)


def fastest_option(options, *, any_result=False):
    """Return the fastest Option that fits, and trains what one process would.

    That of the plain ``allreduce``, if the fastest one gains at most ``MARGIN``.

    Parameters
    ----------
    options : list of Option
        Of `options_for`.
    any_result : bool
        Also ways whose result differs.

    Raises
    ------
    ConfigError
        If none fits.
    """
    wanted = [
        one for one in options if any_result or one.prediction.way.result == SAME
    ]
    fitting = [one for one in wanted if one.fits]
    if fitting:
        most_s = (1 + MARGIN) * fitting[0].prediction.step_s
        plain = (
            one
            for one in fitting
            if str(one.prediction.way) == PLAIN and one.prediction.step_s <= most_s
        )
        return fitting[0] if any_result else next(plain, fitting[0])
    least = min(wanted or options, key=lambda one: one.memory_bytes)
    raise ConfigError(
        f"no strategy fits: {least.prediction.way} needs least memory, "
        f"{gigabytes_text(least.memory_bytes)} GB a rank: give more by --memory-gb, "
        "use more ranks, or a smaller model"
    )


def gigabytes_text(n_bytes):
    """Return bytes in GB as text, rounded up: that much by --memory-gb is enough.

    >>> gigabytes_text(201_200_000)
    '0.21'
    """
    return f"{math.ceil(n_bytes / 1e7) / 100:.2f}"


def reason(best, options):
    """Return why an Option was chosen, as a sentence or two."""
    chosen = best.prediction
    part = max(chosen.parts_s, key=chosen.parts_s.__getitem__)
    share = chosen.parts_s[part] / chosen.step_s
    text = f"{share:.0%} of a step is {WORDS[part]}."
    others = [
        one
        for one in options
        if one.prediction.way.result == SAME and one.prediction.way != chosen.way
    ]
    too_large = [one for one in others if not one.fits and _is_faster(one, best)]
    faster = [one for one in others if one.fits and _is_faster(one, best)]
    much_s = (1 + NOTED) * chosen.step_s
    slower = [one for one in others if one.fits and one.prediction.step_s > much_s]
    if too_large:
        first = too_large[0]
        text += (
            f" {first.prediction.way} would be faster, but needs "
            f"{gigabytes_text(first.memory_bytes)} GB a rank."
        )
    if faster:
        gain = chosen.step_s / faster[0].prediction.step_s - 1
        text += (
            f" {faster[0].prediction.way} is {gain:.0%} faster by the model, which is "
            "less than it can tell."
        )
    elif slower:
        more = slower[0].prediction.step_s / chosen.step_s - 1
        text += f" Next is {slower[0].prediction.way}, {more:.0%} slower."
    return text


def _is_faster(one, other):
    return one.prediction.step_s < other.prediction.step_s
