"""A plan, as people and programs read it."""

from typing import NamedTuple

from pympi_train.runs.speech import counted, say
from pympi_train.scaling.model.recommend import Option, gigabytes_text
from pympi_train.scaling.model.step_model import ModelError
from pympi_train.scaling.model.ways import DIFFERS, SAME

N_SHOWN = 8


class StrategyPlan(NamedTuple):
    """What ``pympi-train plan`` has found.

    Attributes
    ----------
    ranks, per_node : int
    mode : str
    best : Option
        The fastest that fits, with the result of one process.
    fastest : Option
        The fastest that fits, whatever its result.
    options : list of Option
        The fastest first.
    why : str
    error : ModelError or None
    unknown : str
        Why there is no error.
    """

    ranks: int
    per_node: int
    mode: str
    best: Option
    fastest: Option
    options: list
    why: str
    error: ModelError | None
    unknown: str = ""


def say_plan(plan):
    """Print a plan."""
    best = plan.best.prediction
    ranks = counted(plan.ranks, "rank")
    say(f"{ranks}, {plan.per_node} on a node, {plan.mode} scaling")
    say(f"use       {best.way}")
    for key, value in best.way.settings().items():
        text = f'"{value}"' if isinstance(value, str) else value
        say(f"          [parallel] {key} = {text}")
    say(f"step      {1e3 * best.step_s:.3f} ms, efficiency {best.efficiency:.1%}")
    say(f"memory    {gigabytes_text(plan.best.memory_bytes)} GB a rank, at most")
    say(f"why       {plan.why}")
    other = plan.fastest.prediction
    if other.way.result != SAME:  # else "why" tells it
        result = other.way.result
        result = result if result == DIFFERS else f"is {result}"
        say(f"faster    {other.way}: {1e3 * other.step_s:.3f} ms; its result {result}")
    say(f"error     {plan.error or f'unknown: {plan.unknown}'}")
    say("")
    say(f"{'strategy':28}{'ms a step':>10}{'efficiency':>12}{'GB a rank':>11}  result")
    for one in plan.options[:N_SHOWN]:
        p = one.prediction
        memory = gigabytes_text(one.memory_bytes) + ("" if one.fits else " !")
        say(
            f"{str(p.way):28}{1e3 * p.step_s:>10.3f}{p.efficiency:>12.1%}{memory:>11}"
            f"  {p.way.result}"
        )
    if not all(one.fits for one in plan.options[:N_SHOWN]):
        say("! does not fit")


def plan_as_json(plan):
    """Return a plan as it is written for programs."""
    return {
        "ranks": plan.ranks,
        "ranks_per_node": plan.per_node,
        "mode": plan.mode,
        "best": _row(plan.best),
        "fastest": _row(plan.fastest),
        "why": plan.why,
        "error": None if plan.error is None else plan.error._asdict(),
        "options": [_row(one) for one in plan.options],
    }


def _row(option):
    p = option.prediction
    return {
        "strategy": p.way.strategy,
        "compression": p.way.compression,
        "settings": p.way.settings(),
        "step_s": p.step_s,
        "efficiency": p.efficiency,
        "parts_s": p.parts_s,
        "memory_bytes": option.memory_bytes,
        "fits": option.fits,
        "result": p.way.result,
    }
