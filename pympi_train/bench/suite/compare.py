"""Comparison of two results: ratios with intervals, and what became slower."""

import math
import statistics
from pathlib import Path

from pympi_train.bench.suite.result_file import read_result
from pympi_train.bench.suite.student import student_quantile
from pympi_train.errors import DataError

LEVEL = 0.95  # with which all intervals together hold
TRIMMED, TRIMMED_FROM = 0.2, 10  # of so many values or more, at each end
SLOWER, UNDECIDED, FASTER, SAME, SINGLE = (
    "slower",
    "undecided",
    "faster",
    "not slower",
    "one value",
)
VERDICTS = (SLOWER, UNDECIDED, FASTER, SAME, SINGLE)
CONDITIONS = ("ranks", "nodes", "threads", "backend", "quick", "oversubscribed")


def read_side(path):
    """Return the results of one side of a comparison.

    Parameters
    ----------
    path : path
        A file of ``bench all``, or a folder of such files from several launches.

    Raises
    ------
    DataError
        If there is none, or one of them is refused by `read_result`.
    """
    path = Path(path)
    if not path.is_dir():
        return [read_result(path)]
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{path}: the folder has no .json file of bench all")
    return [read_result(file) for file in files]


def compare_results(before, after, by=0.05):
    r"""Compare the seconds of every benchmark that both sides have.

    Parameters
    ----------
    before, after : list of dict
        Results, as `read_side` returns them.
    by : float
        A benchmark is slower if it takes more than ``1 + by`` times as long.

    Returns
    -------
    dict
        ``differences`` of machine and conditions: a list of (what, before, after).
        ``level`` and ``by``. ``benchmarks``: a list of ``name``; ``before_s`` and
        ``after_s``; ``ratio`` of them; its ``interval``, None from a single value; and
        ``verdict``:

        - "slower": the whole interval lies above ``1 + by``;
        - "faster": the whole interval lies below 1;
        - "not slower": the whole interval lies at or below ``1 + by``;
        - "undecided": ``1 + by`` lies inside the interval;
        - "one value": there is no interval.

        ``left_out``: a list of (name, reason).

    Raises
    ------
    DataError
        If no benchmark can be compared.

    Notes
    -----
    With several results, each gives one value of a benchmark, its median; with one
    result, each round does. The logarithms of these values :math:`x_i` and :math:`y_j`
    are compared by Yuen's test [1]_, which is Welch's with the fifth of the smallest
    and the fifth of the largest of ten or more values trimmed, since a disturbed round
    says nothing.

    The quantile is that of :math:`1 - 0.025 / m` with :math:`m` benchmarks
    (Bonferroni), so that all intervals hold together with about 95 % if values are
    independent. Samples within a round are not: only their median enters.

    References
    ----------
    .. [1] K. K. Yuen, "The two-sample trimmed t for unequal population variances",
       Biometrika 61, 1974.
    """
    one_side, other_side = _values(before, "first"), _values(after, "second")
    common, left_out = _matched(one_side, other_side)
    if not common:
        raise DataError(_no_common(left_out))
    n_judged = sum(
        min(len(one_side[name][1]), len(other_side[name][1])) > 1 for name in common
    )
    tail = (1 - LEVEL) / 2 / max(1, n_judged)
    found = []
    for name in common:
        x, y = one_side[name][1], other_side[name][1]
        before_s, after_s = (math.exp(_Trimmed(side).mean) for side in (x, y))
        ratio, interval = ratio_interval(x, y, tail)
        found.append(
            {
                "name": name,
                "before_s": before_s,
                "after_s": after_s,
                "ratio": ratio,
                "interval": interval,
                "verdict": _verdict(interval, by),
            }
        )
    return {
        "differences": _differences(before, after),
        "level": LEVEL,
        "by": by,
        "benchmarks": found,
        "left_out": left_out,
    }


def ratio_interval(x, y, tail):
    """Return the ratio of two sides and its interval, from logarithms of seconds.

    Parameters
    ----------
    x, y : list of float
    tail : float
        Probability that the ratio lies above the interval, and that it lies below.

    Returns
    -------
    ratio : float
        Of ``y`` to ``x``: above 1 if ``y`` is slower.
    interval : list of float or None
        None unless both sides have two values or more.
    """
    sides = [_Trimmed(x), _Trimmed(y)]
    shift = sides[1].mean - sides[0].mean
    if min(len(x), len(y)) < 2:
        return _exp(shift), None
    total = sum(side.variance for side in sides)
    if total == 0:
        return _exp(shift), [_exp(shift)] * 2
    dof = total**2 / sum(side.variance**2 / (side.n - 1) for side in sides)
    half = student_quantile(1 - tail, dof) * math.sqrt(total)
    return _exp(shift), [_exp(shift - half), _exp(shift + half)]


class _Trimmed:
    """Mean of the middle values, and its squared standard error.

    Attributes
    ----------
    n : int
        Number of the middle values.
    mean : float
    variance : float
        By the variance of all values, with those outside replaced by the next inside.
        0 from a single value.
    """

    def __init__(self, values):
        n_cut = int(TRIMMED * len(values)) if len(values) >= TRIMMED_FROM else 0
        values = sorted(values)
        inside = values[n_cut : len(values) - n_cut]
        self.n, self.mean, self.variance = len(inside), statistics.fmean(inside), 0.0
        if self.n > 1:
            drawn_in = [*[inside[0]] * n_cut, *inside, *[inside[-1]] * n_cut]
            squares = statistics.variance(drawn_in) * (len(values) - 1)
            self.variance = squares / (self.n * (self.n - 1))


def _exp(value):
    return math.exp(min(max(value, -600.0), 600.0))


def _verdict(interval, by):
    if interval is None:
        return SINGLE
    low, high = interval
    if low > 1 + by:
        return SLOWER
    if high < 1:
        return FASTER
    return SAME if high <= 1 + by else UNDECIDED


def _values(results, side):
    """Return by name (settings, logarithms of seconds) of one side."""
    found: dict = {}
    for result in results:
        for one in result["benchmarks"]:
            rounds = [statistics.median(samples) for samples in one["seconds"]]
            logs = [math.log(seconds) for seconds in rounds]
            if len(results) > 1:
                logs = [statistics.median(logs)]
            settings, values = found.setdefault(one["name"], (one["settings"], []))
            if settings != one["settings"]:
                raise DataError(
                    f"{one['name']}: the results of the {side} side differ in settings "
                    f"({settings} and {one['settings']}); compare equal ones"
                )
            values += logs
    return found


def _matched(one_side, other_side):
    """Return the names to compare, and (name, reason) of all others."""
    common, left_out = [], []
    for name in (*one_side, *(n for n in other_side if n not in one_side)):
        if name not in other_side:
            left_out.append((name, "only in the first"))
        elif name not in one_side:
            left_out.append((name, "only in the second"))
        elif one_side[name][0] != other_side[name][0]:
            settings = f"{one_side[name][0]} and {other_side[name][0]}"
            left_out.append((name, f"other settings: {settings}"))
        else:
            common.append(name)
    return common, left_out


def _no_common(left_out):
    reason = "both sides are empty" if not left_out else "; ".join(left_out[0])
    return (
        f"no benchmark can be compared ({reason}); compare results of the same "
        "command, with --quick on both sides or on neither"
    )


def _differences(before, after):
    """Return (what, before, after) where the sides' machines or conditions differ."""
    sides = [[flat_conditions(result) for result in side] for side in (before, after)]
    names = dict.fromkeys(name for side in sides for one in side for name in one)
    found = []
    for name in names:
        texts = [sorted({_text(one.get(name)) for one in side}) for side in sides]
        if texts[0] != texts[1] or len(texts[0]) > 1:
            found.append((name, *(" or ".join(text) for text in texts)))
    return found


def flat_conditions(result):
    """Return machine and conditions of a result in one level, by dotted names."""
    found = {name: result.get(name) for name in CONDITIONS}
    rest = [("", result["machine"])]
    while rest:
        prefix, values = rest.pop()
        for key, value in values.items():
            if isinstance(value, dict):
                rest.append((f"{prefix}{key}.", value))
            else:
                found[prefix + key] = value
    return found


def _text(value):
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return " ".join(str(v) for v in value.values() if v is not None)
    return "unknown" if value is None else str(value)
