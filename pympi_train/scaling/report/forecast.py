"""What the fitted model says of more ranks: the best way at each number."""

from pympi_train.errors import ConfigError
from pympi_train.scaling.model.fit import fit_model
from pympi_train.scaling.model.predict import (
    LEAST_EFFICIENCY,
    MAX_RANKS,
    predictions,
    rank_limit,
)
from pympi_train.scaling.model.usable import is_predictable
from pympi_train.scaling.model.ways import SAME, Way
from pympi_train.scaling.report.svg import Chart

COLUMNS = ("ranks", "allreduce", "efficiency", "fastest way", "step ms", "efficiency")
N_LINES = 4  # of the chart: more could not be told apart
EVERY = 3  # ticks of the chart have a name: wide numbers need the room


class Forecast:
    """Predictions from a study.

    Parameters
    ----------
    study : dict
        The content of its file.

    Attributes
    ----------
    rows : list of list of str
        In the order of ``COLUMNS``, ascending ranks; step times in milliseconds. The
        fastest way is one whose result is that of one process.
    lines : list of (str, list of float)
        At most ``N_LINES`` ways with the result of one process, and their efficiency
        (%) at the ranks of the rows: allreduce, then those with the highest mean.
    sentences : list of str
        The ranks at which efficiency falls below 80 %, and the error of the model.

    Notes
    -----
    Of steps on a single number of ranks there is nothing but a sentence: what of a step
    shrinks with the ranks is not known then.
    """

    def __init__(self, study):
        self.rows, self.lines, self.sentences, self._ranks = [], [], [], []
        modes = {m["mode"] for m in study["measurements"] if m["error"] is None}
        mode = "strong" if "strong" in modes else "weak"
        try:
            model = fit_model(study)
        except ConfigError:
            return
        if not is_predictable(study):
            self.sentences = [
                "More ranks are not predicted: that needs steps on two numbers of "
                "ranks, with a core for each."
            ]
            return
        by_ranks: dict = {}
        for one in predictions(model, mode):
            by_ranks.setdefault(one.ranks, []).append(one)
        plain = Way("allreduce")
        for ranks, found in sorted(by_ranks.items()):
            own = next(one for one in found if str(one.way) == str(plain))
            same = [one for one in found if one.way.result == SAME]
            best = min(same, key=lambda one: one.step_s)
            self.rows.append([
                f"{ranks:,}",
                f"{1e3 * own.step_s:.3f}",
                f"{100 * own.efficiency:.0f} %",
                str(best.way),
                f"{1e3 * best.step_s:.3f}",
                f"{100 * best.efficiency:.0f} %",
            ])
        self._ranks = sorted(by_ranks)
        self.lines = _best_lines(by_ranks, plain)
        limit = rank_limit(model, plain, mode)
        where = f"at {limit:,} ranks" if limit else f"at no number up to {MAX_RANKS:,}"
        self.sentences = [
            f"By the model, the efficiency of {mode} scaling with allreduce falls "
            f"below 80 % {where}.",
            f"The model: {model.error}.",
        ]

    def chart(self):
        """Return the SVG of the lines over the ranks, with the limit of 80 %."""
        names = [f"{n:,}" for n in self._ranks]
        shown = range(len(names) - 1, -1, -EVERY)
        names = [name if i in shown else "" for i, name in enumerate(names)]
        most = max(100.0, *(max(heights) for _, heights in self.lines))
        labels = "Predicted efficiency", "ranks", "efficiency (%)"
        chart = Chart(*labels, self._ranks, most, names)
        limit = 100 * LEAST_EFFICIENCY
        chart.dotted(f"{limit:.0f} %", self._ranks, [limit] * len(self._ranks))
        for number, (name, heights) in enumerate(self.lines):
            chart.line(name, self._ranks, heights, number)
        return chart.text()


def _best_lines(by_ranks, plain):
    found: dict = {}
    for ranks in sorted(by_ranks):
        for one in by_ranks[ranks]:
            if one.way.result == SAME:
                found.setdefault(str(one.way), []).append(100 * one.efficiency)
    whole = {way: line for way, line in found.items() if len(line) == len(by_ranks)}
    first = whole.pop(str(plain))
    best = sorted(whole.items(), key=lambda item: -sum(item[1]))[: N_LINES - 1]
    return [(str(plain), first), *best]
