"""The paragraph at the top of the report."""

from pympi_train.scaling.analysis.advice import WHY, advise
from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.fits import amdahl, gustafson
from pympi_train.scaling.analysis.losses import EITHER, losses_of
from pympi_train.scaling.analysis.stragglers import slowest_rank

GOOD = 0.9  # efficiency above which nothing has to be explained


def subject_of(series):
    """Return the Series and the StudyPoint that the paragraph is about.

    The largest number of ranks with a core each, of the series that loses most there.
    Only oversubscribed ones, if there are no others beyond the first.
    """
    best = None
    for one in series:
        fitted = [p for p in one.fitted if p is not one.base]
        points = fitted or [p for p in one.points if p is not one.base]
        if not points:
            continue
        point = points[-1]
        value = efficiencies(one)[one.points.index(point)].value
        key = (not fitted, value)
        if best is None or key < best[0]:
            best = key, one, point
    return None if best is None else best[1:]


def weak_of(series, strategy):
    """Return the weak Series of a strategy, or None."""
    found = (s for s in series if s.mode == "weak" and s.strategy == strategy)
    return next(found, None)


def explain(series):
    """Return what the study says, as a list of sentences."""
    subject = subject_of(series)
    if subject is None:
        return ["Only one number of ranks was measured, so nothing can be compared."]
    one, point = subject
    value = efficiencies(one)[one.points.index(point)]
    base, losses = one.base, losses_of(one, point, weak_of(series, one.strategy))
    of = "" if one.strategy == "as configured" else f", strategy {one.strategy}"
    text = (
        f"On {_ranks(point.ranks)} the efficiency is {100 * value.value:.0f} % "
        f"({100 * value.low:.0f} to {100 * value.high:.0f} %; {one.mode} scaling{of}): "
    )
    if one.mode == "strong":
        text += f"{value.speedup:.2f} times as fast as {_ranks(base.ranks)} would be"
        text = text.replace(" would be", " is" if base.ranks == 1 else " are")
    else:
        text += f"a step takes {point.step_s / base.step_s:.2f} times as long as on "
        text += _ranks(base.ranks)
    found = [text + "."]
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
    if not lost:
        return ["Nothing of it is lost."]
    parts = [f"{100 * share:.0f} % ({WHY[cause]})" for cause, share in lost]
    found = [f"Of all rank-seconds are lost: {', '.join(parts)}."]
    if any(cause == EITHER for cause, _ in lost):
        found.append(
            "Whether small batches or the memory of the node slow down computing, a "
            "study with --mode both tells."
        )
    gained = sum(share for _, share in ordered if share < -0.005)
    if gained < 0:
        found.append(f"{-100 * gained:.0f} % are gained, as by larger caches.")
    return found


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
    if advice is None or value > GOOD:
        return ["No change of the configuration would gain much."]
    gain = 100 * (advice.times - 1)
    return [
        f"What would gain most: {advice.change}; by the parts of a step, at most "
        f"{gain:.0f} % more rows a second."
    ]


def _serial(series):
    """Return a sentence on the serial part, from fits to three points or more."""
    points = series.fitted
    if len(points) < 3:
        return []
    ranks = [p.ranks for p in points]
    if series.mode == "strong":
        share = amdahl(ranks, [p.step_s for p in points])
        if share < 1e-3:
            return ["By Amdahl's law nothing is serial."]
        return [
            f"By Amdahl's law {100 * share:.1f} % of the work is serial, which allows "
            f"a speed-up of at most {1 / share:.0f}."
        ]
    values = [e.value for e, p in zip(efficiencies(series), series.points)
              if not p.is_oversubscribed]
    share = gustafson(ranks, values)
    return [f"By Gustafson's law {100 * share:.1f} % of the work is serial."]


def _ranks(n):
    return "1 rank" if n == 1 else f"{n:,} ranks"
