"""The picture of a search: score over each parameter, with the folds' spread."""

import math
import os

from pympi_train.runs.curves import require_figure
from pympi_train.runs.output import replacing
from pympi_train.search.results.files import PICTURE

LOG_RATIO = 30  # values of a list that span more are drawn on a log axis
MAX_COLUMNS = 4


def draw_search(plan, results, best):
    """Write a PNG of the scores over each parameter; return its path.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    DataError
        If the picture cannot be written.
    """
    figure_class = require_figure(PICTURE)
    n = len(plan.space)
    n_columns = min(n, MAX_COLUMNS)
    n_rows = math.ceil(n / n_columns)
    figure = figure_class(figsize=(4.2 * n_columns, 3.4 * n_rows), layout="tight")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    scored = [result for result in results if result.mean is not None]
    for axis, parameter in zip(axes, plan.space):
        _draw_parameter(axis, parameter, scored, best, plan.settings.metric)
    for axis in axes[n:]:
        axis.set_axis_off()
    path = os.path.join(plan.directory, PICTURE)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path


def _draw_parameter(axis, parameter, results, best, metric):
    key = parameter.key
    values = [result.parameters[key] for result in results]
    is_number = all(type(value) in (int, float) for value in values)
    if is_number and _is_log(parameter, values):
        axis.set_xscale("log")
    names = list(dict.fromkeys(map(str, values)))
    places = values if is_number else [names.index(str(value)) for value in values]
    if not is_number:
        axis.set_xticks(range(len(names)), names)
    means = [result.mean for result in results]
    spreads = [result.std or 0.0 for result in results]
    if is_number:  # the best of each value
        lowest = _best_by_place(places, results, metric)
        axis.plot(list(lowest), list(lowest.values()), color="C0", alpha=0.4, lw=1)
    axis.errorbar(places, means, spreads, fmt="o", ms=4, capsize=2, lw=1)
    for place, result in zip(places, results):
        scores = result.scores
        axis.plot([place] * len(scores), scores, ".", color="0.6", ms=3, zorder=1)
        if best is not None and result.number == best.number:
            axis.plot(place, result.mean, "*", color="C3", ms=12)
    axis.set(xlabel=key.partition(".")[2], ylabel=metric)


def _best_by_place(places, results, metric):
    """Return the best mean score of each value, in ascending order of the values."""
    found: dict = {}
    for place, result in sorted(zip(places, results), key=lambda pair: pair[0]):
        best = found.get(place)
        if best is None or result.cost(metric) < best.cost(metric):
            found[place] = result
    return {place: result.mean for place, result in found.items()}


def _is_log(parameter, values):
    """Return whether the axis is logarithmic: it is if the range was."""
    if parameter.scale is not None:
        return parameter.scale == "log"
    return bool(values) and min(values) > 0 and max(values) >= LOG_RATIO * min(values)
