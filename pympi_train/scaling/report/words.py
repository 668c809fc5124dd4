"""The paragraph at the top of the report."""

from pympi_train.scaling.analysis.advice import WHY, advise
from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.fits import amdahl, gustafson
from pympi_train.scaling.analysis.losses import EITHER, losses_of
from pympi_train.scaling.analysis.stragglers import slowest_rank

GOOD = 0.9  # efficiency above which nothing has to be explained
LEAST_LOST = 0.01  # of the time by the serial part: of less, nothing is said
WIDE = 0.5  # width of an interval, in times the value, that leaves the result open
ASIDE = ("local",)  # strategies whose result is another than that of one process


def subject_of(series):
    """Return the Series and the StudyPoint that the paragraph is about.

    The largest number of ranks with a core each, of the mode that loses most there.
    Only oversubscribed ones, if there are no others beyond the first. Of several
    strategies the fastest one with the result of one process: what the others lose,
    nobody has to lose.
    """
    best = None
    for one in fastest_of(series):
        fitted = [p for p in one.compared if not p.is_oversubscribed]
        points = fitted or one.compared
        if not points:
            continue
        point = points[-1]
        value = efficiencies(one)[one.points.index(point)].value
        key = (not fitted, value)
        if best is None or key < best[0]:
            best = key, one, point
    return None if best is None else best[1:]


def fastest_of(series):
    """Return the Series of the fastest strategy of each mode, by its last fitted point.

    Strategies of another result count only if there are no others.
    """
    found: dict = {}
    for one in series:
        point = (one.fitted or one.points)[-1]
        speed = point.batch_size / point.step_s
        key = point.ranks > 1, one.strategy not in ASIDE, point.ranks, speed
        if one.mode not in found or key > found[one.mode][0]:
            found[one.mode] = key, one
    return [one for _, one in found.values()]


def weak_of(series, strategy):
    """Return the weak Series of a strategy, or None."""
    found = (s for s in series if s.mode == "weak" and s.strategy == strategy)
    return next(found, None)


def explain(series):
    """Return what the study says, as a list of sentences."""
    subject = subject_of(series)
    if not series:
        return ["No launch has succeeded, so there is nothing to compare."]
    if subject is None:
        return ["Only one number of ranks was measured, so nothing can be compared."]
    one, point = subject
    value = efficiencies(one)[one.points.index(point)]
    base, losses = one.base, losses_of(one, point, weak_of(series, one.strategy))
    of = "" if one.strategy == "as configured" else f", strategy {one.strategy}"
    text = (
        f"On {_place(point)} the efficiency is {100 * value.value:.0f} % "
        f"({100 * value.low:.0f} to {100 * value.high:.0f} %; {one.mode} scaling{of}): "
    )
    if one.mode == "strong":
        are = "is" if base.ranks == 1 else "are"
        text += f"{value.speedup / base.ranks:.2f} times as fast as {_base(one)} {are}"
    else:
        text += f"a step takes {point.step_s / base.step_s:.2f} times as long as on "
        text += _base(one)
    found = [text + "."]
    if 1 in (len(base.steps_s), len(point.steps_s)):
        found.append(
            "One launch does not show how much launches differ, so the interval is "
            "that of its steps alone: give more --repeats."
        )
    if value.high - value.low > WIDE * value.value:
        found.append(
            "Launches or steps differ too much for a judgement: measure again on a "
            "quiet machine, with more --steps or --repeats."
        )
    if point.rows_per_rank < 1:
        found.append(
            f"A batch of {point.batch_size:,} rows is too small for {point.ranks:,} "
            "ranks: some have none."
        )
    found += _strategies(series, one, point)
    if point.is_oversubscribed:
        found.append(
            "There were more ranks than cores, so this says nothing of the program."
        )
    found += _causes(one, point, losses)
    found += _straggler(point)
    found += _advice(one, point, losses, value.value)
    return found + _serial(one)


def caveats(study):
    """Return what has to be known of how a study was measured, as sentences."""
    if not study.get("jobs"):
        return []
    return [
        "Numbers of ranks were measured in SLURM jobs of their own, so their repeats "
        "do not alternate: other nodes, or another hour, can look like an effect of "
        "the ranks. A study within one job (--launcher srun) does not have this error."
    ]


def _causes(series, point, losses):
    ordered = sorted(losses.by_cause.items(), key=lambda item: -item[1])
    lost = [(cause, share) for cause, share in ordered if share >= 0.005]
    parts = [f"{100 * share:.0f} % ({WHY[cause]})" for cause, share in lost]
    found = [f"The loss has these causes: {', '.join(parts)}."]
    if not lost:
        found = ["Nothing of it is lost."]
    if any(cause == EITHER for cause, _ in lost):
        found.append(
            "Whether small batches or the memory of the node slow down computing, a "
            "study with --mode both tells."
        )
    gained = [(cause, share) for cause, share in reversed(ordered) if share < -0.005]
    if gained:
        parts = [f"{-100 * share:.0f} % ({WHY[cause]})" for cause, share in gained]
        found.append(
            f"These take less time than on {_base(series)}: "
            f"{', '.join(parts)}."
        )
    return found


def _strategies(series, subject, point):
    """Return a sentence that compares the strategies at the ranks of a point."""
    rows = [
        (other.batch_size / other.step_s, one.strategy)
        for one in series
        for other in one.points
        if one.mode == subject.mode
        and (other.ranks, other.nodes) == (point.ranks, point.nodes)
    ]
    if len(rows) < 2:
        return []
    parts = [
        f"{name} {speed:,.0f}" + (" (another result)" if name in ASIDE else "")
        for speed, name in sorted(rows, reverse=True)
    ]
    return [f"Rows a second by strategy, the fastest first: {', '.join(parts)}."]


def _straggler(point):
    straggler = slowest_rank(point)
    if straggler is None:
        return []
    who = f"Rank {straggler.rank} on {straggler.place}"
    if straggler.is_node:
        who = f"All ranks of {straggler.place} are slow; the slowest, rank "
        who += f"{straggler.rank},"
    return [
        f"{who} needs {straggler.times:.2f} times the work time of the median rank, "
        f"most of it for {straggler.part}."
    ]


def _advice(series, point, losses, value):
    advice = advise(series, point, losses)
    if value > GOOD:
        return ["Little is lost, so no change of the configuration is proposed."]
    if advice is None:
        return ["No change that is known here would win back much of the loss."]
    gain = 100 * (advice.times - 1)
    return [
        f"What would gain most: {advice.change}; by the parts of a step, at most "
        f"{gain:.0f} % more rows a second."
    ]


def _serial(series):
    """Return a sentence on the serial part, from fits to three points or more.

    Waiting for the slowest rank is no work, so it is left out of the step times.
    """
    points = [p for p in series.packed if not p.is_oversubscribed]
    if len(points) < 3:
        return []
    ranks = [p.ranks for p in points]
    seconds = [p.step_s - p.part_s("wait") for p in points]
    if series.mode == "weak":
        share = gustafson(ranks, [seconds[0] / s for s in seconds])
        return [
            f"By Gustafson's law {100 * share:.1f} % of the work is serial, waiting "
            "for the slowest rank left out."
        ]
    share = amdahl(ranks, seconds)
    if share < 1e-3 and share * max(ranks) < LEAST_LOST:
        return [
            "By Amdahl's law nothing is serial, waiting for the slowest rank left out."
        ]
    told = f"{100 * share:.1f}" if share >= 1e-3 else f"{100 * share:.1g}"
    return [
        f"By Amdahl's law {told} % of the work is serial, waiting for the "
        f"slowest rank left out, which allows a speed-up of at most {1 / share:.0f}."
    ]


def _base(series):
    """Return the base of a Series in words."""
    place = _place(series.base)
    if series.base_strategy == series.strategy:
        return place
    return f"{place} with {series.base_strategy}"


def references(series):
    """Return what all strategies are compared with, a sentence; "" of one strategy."""
    found = {one.mode: one for one in series if one.base_strategy != one.strategy}
    if not found:
        return ""
    one = next(iter(found.values()))
    return (
        "Speed-up and efficiency of all strategies are relative to "
        f"{one.base_strategy} on {_place(one.base)}."
    )


def _place(point):
    ranks = "1 rank" if point.ranks == 1 else f"{point.ranks:,} ranks"
    return ranks if point.nodes == 1 else f"{ranks} ({point.nodes:,} nodes)"
