"""The charts of a study."""

from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.points import PARTS
from pympi_train.scaling.report.svg import ROOM, Chart
from pympi_train.scaling.report.words import subject_of

TALLEST = 1.25  # times the highest point: the most that an interval shows above it
MOST = 64  # ranks in the picture of the ranks


def figures_of(series):
    """Yield caption and SVG of each chart."""
    if not series:
        return
    strong = [one for one in series if one.mode == "strong"]
    if strong:
        yield "Speed-up", _speedup(strong)
    yield "Efficiency, with 95 % intervals", _efficiency(series)
    for one in series:
        name = f"Time of a step by part: {one.mode}, {one.strategy}"
        yield name, parts_chart(one)
    subject = subject_of(series)
    if subject is not None:
        one, point = subject
        yield f"Time of each rank, {point.ranks} ranks: {one.mode}, {one.strategy}", (
            ranks_chart(point)
        )


def _counts(series):
    return sorted({point.ranks for one in series for point in one.points})


def _lines(series, many=False):
    """Yield name, points, their Efficiency, and which are hollow, of each line.

    Points whose ranks were also measured on fewer nodes have a line of their own.
    """
    for one in series:
        name = f"{one.strategy}, {one.mode}" if many else one.strategy
        values = dict(zip(one.points, efficiencies(one)))
        for about, points in (("", one.packed), (", spread", one.spread)):
            if points:
                hollow = [i for i, p in enumerate(points) if p.is_oversubscribed]
                yield name + about, points, [values[p] for p in points], hollow


def _speedup(series):
    counts = _counts(series)
    chart = Chart("Speed-up", "ranks", "speed-up (times)", counts, counts[-1])
    chart.dotted("ideal", counts, counts)
    for number, (name, points, values, hollow) in enumerate(_lines(series)):
        ranks = [point.ranks for point in points]
        chart.line(name, ranks, [e.speedup for e in values], number, hollow)
    return chart.text()


def _efficiency(series):
    lines = list(_lines(series, len({one.mode for one in series}) > 1))
    found = [value for _, _, values, _ in lines for value in values]
    most = max([1.0, *(e.value for e in found)])
    # A wide interval may leave the chart: it would hide how the points differ.
    most = max(most, min(TALLEST * most, max(e.high for e in found)))
    chart = Chart("Efficiency", "ranks", "efficiency (%)", _counts(series), 100 * most)
    for number, (name, points, values, hollow) in enumerate(lines):
        ranks = [point.ranks for point in points]
        chart.line(name, ranks, [100 * e.value for e in values], number, hollow)
        for n, e in zip(ranks, values):
            chart.interval(n, 100 * e.low, 100 * e.high, number)
    return chart.text()


def parts_chart(one):
    """Return the SVG of the parts of a step at each point of a Series."""
    counts = [point.ranks for point in one.points]
    most = max(1e3 * point.step_s for point in one.points)
    spread = {point.ranks for point in one.spread}
    names = [
        f"{p.ranks}{'*' * p.is_oversubscribed}"
        + f" on {p.nodes}" * (p.ranks in spread)
        for p in one.points
    ]
    x_label = "ranks (on nodes)" if spread else "ranks"
    about = "Time of a step by part", x_label, "time a step (ms)"
    chart = Chart(*about, counts, most, names)
    for i, point in enumerate(one.points):
        parts = [1e3 * point.part_s(name) for name in PARTS]
        chart.bar(i, parts, 0.6 * ROOM / len(counts))
    return chart.text(PARTS, slots=True)


def ranks_chart(point):
    """Return the SVG of the parts of each rank's step, of at most ``MOST`` ranks."""
    parts = {name: point.parts_s[name].mean(axis=0) for name in PARTS}
    n = len(parts["compute"])
    chosen = sorted({i * n // min(n, MOST) for i in range(min(n, MOST))})
    most = max(1e3 * sum(parts[name][i] for name in PARTS) for i in chosen)
    every = -(-len(chosen) // 8)
    names = [str(r) if i % every == 0 else "" for i, r in enumerate(chosen)]
    made_of = "Time of each rank", "rank", "time a step (ms)", range(1, len(chosen) + 1)
    chart = Chart(*made_of, most, names)
    for i, rank in enumerate(chosen):
        heights = [1e3 * parts[name][rank] for name in PARTS]
        chart.bar(i, heights, 0.8 * ROOM / len(chosen))
    return chart.text(PARTS, slots=True)
