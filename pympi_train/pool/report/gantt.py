"""A picture of who used which rank when. Imports matplotlib when it draws."""

import itertools
import re
from pathlib import Path

from pympi_train.errors import DataError
from pympi_train.pool.report.chart import bars_of, session_starts
from pympi_train.pool.report.utilisation import measure_utilisation
from pympi_train.runs.curves import require_figure
from pympi_train.runs.output import replacing
from pympi_train.runs.speech import counted

PICTURE = "ranks.png"
# Okabe and Ito's colours, which people with colour blindness can tell apart:
# https://jfly.uni-koeln.de/color/
COLOURS = "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"
FAILED_COLOUR = "#CCCCCC"  # in the legend
DARK = ("#0072B2", "#009E73", "#D55E00")  # below white letters
MOST_NODES = 40  # whose borders are drawn
FONT_POINTS = 7
WIDTH, LEAST_HEIGHT, MOST_HEIGHT = 10, 2.6, 12  # inches


def draw_gantt(history, now_s, path):
    """Write a PNG of the ranks of each job over time; return its path.

    Parameters
    ----------
    history : History
    now_s : float
        The present, in seconds since 1970: the end of what still runs.
    path : path

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    DataError
        If the picture cannot be written, or its name does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: expected a name that ends in .png for the picture")
    require_figure(path.name)
    with replacing(path) as temporary:
        _figure(history, now_s).savefig(temporary, dpi=150, format="png")
    return path


def _figure(history, now_s):
    from matplotlib.figure import Figure

    n_ranks = max(session.n_ranks for session in history.sessions)
    height = min(max(1.6 + 0.28 * n_ranks, LEAST_HEIGHT), MOST_HEIGHT)
    figure = Figure(figsize=(WIDTH, height), layout="tight")
    axes = figure.subplots()
    starts = session_starts(history, now_s)
    unit, unit_s = time_unit(starts[-1])
    axes.set(
        xlim=(0, (starts[-1] or 1.0) / unit_s),
        ylim=(n_ranks - 0.5, -0.5),
        xlabel=f"time since the start of the pool / {unit}",
        ylabel=_rank_label(history),
        title=_title(history, now_s),
    )
    axes.yaxis.get_major_locator().set_params(integer=True)
    groups = job_groups(history.jobs)
    colours, bars = job_colours(groups), bars_of(history, now_s)
    _draw_borders(axes, history, starts, unit_s)
    _draw_bars(axes, bars, colours, unit_s)
    _write_names(axes, bars, colours, unit_s)
    _add_legend(axes, colours, groups, any(bar.has_failed for bar in bars))
    return figure


def _title(history, now_s):
    use = measure_utilisation(history, now_s)
    jobs = counted(len(history.jobs), "job")
    ranks = counted(history.sessions[-1].n_ranks, "rank")
    what, share = "utilisation", use["training"]
    if use["is_partial"]:
        what, share = "given to jobs", use["assigned"]
    return f"{jobs} on {ranks}: {what} {100 * share:.1f} %"


def time_unit(seconds):
    """Return the unit of an axis of so many seconds, and its length in seconds."""
    for limit, unit, unit_s in ((600, "s", 1), (36000, "min", 60)):
        if seconds < limit:
            return unit, unit_s
    return "h", 3600


def job_groups(names):
    """Return the group of each job: the name of its sweep, or its own.

    >>> job_groups(["rate-1", "rate-2", "last"])
    {'rate-1': 'rate', 'rate-2': 'rate', 'last': 'last'}
    """
    return {name: re.sub(r"-\d+$", "", name) for name in names}


def job_colours(groups):
    """Return the colour of each job: that of its group; colours are used in turn."""
    unique = dict.fromkeys(groups.values())
    by_group = dict(zip(unique, itertools.cycle(COLOURS)))
    return {job: by_group[group] for job, group in groups.items()}


def _draw_bars(axes, bars, colours, unit_s):
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    for has_failed in (False, True):
        chosen = [bar for bar in bars if bar.has_failed is has_failed]
        patches = [
            Rectangle(
                (bar.start_s / unit_s, bar.first_rank - 0.5),
                (bar.stop_s - bar.start_s) / unit_s,
                bar.n_ranks,
            )
            for bar in chosen
        ]
        axes.add_collection(
            PatchCollection(
                patches,
                facecolors=[colours[bar.job] for bar in chosen],
                edgecolors="white",
                linewidths=0.6,
                hatch="///" if has_failed else None,
            )
        )


def _write_names(axes, bars, colours, unit_s):
    """Write the name of a job into each of its bars that has room for it."""
    box = axes.get_window_extent()  # before the layout: a little wider than it will be
    points = 72 / axes.figure.dpi
    per_unit = 0.9 * box.width * points / (axes.get_xlim()[1] or 1.0)
    per_rank = 0.9 * box.height * points / abs(axes.get_ylim()[0] - axes.get_ylim()[1])
    for bar in bars:
        width = (bar.stop_s - bar.start_s) / unit_s
        needed = 0.62 * FONT_POINTS * (len(bar.job) + 1)
        if width * per_unit < needed or bar.n_ranks * per_rank < 1.2 * FONT_POINTS:
            continue
        axes.text(
            bar.start_s / unit_s + width / 2,
            bar.first_rank + (bar.n_ranks - 1) / 2,
            bar.job,
            ha="center",
            va="center",
            fontsize=FONT_POINTS,
            color="white" if colours[bar.job] in DARK else "black",
        )


def _node_borders(history):
    """Return the ranks at which another node begins; none if there are very many."""
    nodes = history.sessions[-1].nodes
    borders = [i for i in range(1, len(nodes)) if nodes[i] != nodes[i - 1]]
    return borders if len(borders) < MOST_NODES else []


def _rank_label(history):
    return "rank (lines: nodes)" if _node_borders(history) else "rank"


def _draw_borders(axes, history, starts, unit_s):
    """Draw where the pool was started again, and where nodes end."""
    for start_s in starts[1:-1]:
        axes.axvline(start_s / unit_s, color="black", linestyle=":", linewidth=1)
    for rank in _node_borders(history):
        axes.axhline(rank - 0.5, color="black", linewidth=0.5)


def _add_legend(axes, colours, groups, has_failures):
    """Name the colours, unless some stand for several groups."""
    from matplotlib.patches import Patch

    members = {}
    for job, group in groups.items():
        members.setdefault(group, []).append(job)
    entries = []
    for group, jobs in members.items() if len(members) <= len(COLOURS) else ():
        label = group if len(jobs) == 1 else f"{group} ({len(jobs):,} jobs)"
        entries.append(Patch(color=colours[jobs[0]], label=label))
    if has_failures:
        entries.append(Patch(facecolor=FAILED_COLOUR, hatch="///", label="failed"))
    if entries:
        axes.legend(
            handles=entries,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            fontsize=FONT_POINTS,
            frameon=False,
        )
