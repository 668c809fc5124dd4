"""The report of a study: one HTML page that loads nothing from outside."""

import html
import json

from pympi_train.runs.output import replacing
from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.points import PARTS, series_of
from pympi_train.scaling.report.forecast import COLUMNS, Forecast
from pympi_train.scaling.report.svg import ROOM, Chart
from pympi_train.scaling.report.table import HEAD, table_rows
from pympi_train.scaling.report.words import explain, subject_of

# Colours of Okabe and Ito ("Color Universal Design", 2008), which people with any kind
# of colour blindness tell apart; the parts of bars also have patterns.
STYLE = """
:root { --ink: #1a1a1a; --paper: #ffffff; --faint: #d5d5d5; --soft: #555555;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00;
  --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181c;
  --faint: #3a3d44; --soft: #a9adb5; --c0: #56b4e9; --c5: #0072b2; } }
@media print { :root { --ink: #000; --paper: #fff; --faint: #ccc; --soft: #333; }
  figure, table { break-inside: avoid; } }
body { color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
.summary { font-size: 1.1rem; border-left: 4px solid var(--c0); padding-left: 1rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { flex: 1 1 26rem; max-width: 30rem; margin: 0; }
figcaption { color: var(--soft); }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 11px; }
.grid { stroke: var(--faint); } .line { fill: none; stroke-width: 2; }
.ideal { fill: none; stroke: var(--soft); stroke-dasharray: 3 4; }
.hollow { fill: var(--paper); stroke-width: 2; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid var(--faint);
  text-align: right; } td:nth-child(-n+2), th:nth-child(-n+2) { text-align: left; }
.scroll { overflow-x: auto; } small { color: var(--soft); }
"""
STYLE += "".join(
    f".series-{i} {{ stroke: var(--c{i}); }}\n"
    f".full.series-{i} {{ fill: var(--c{i}); }}\n"
    f".part-{i} {{ fill: url(#p{i}); stroke: var(--c{i}); }}\n"
    for i in range(6)
)
# Shapes over the colour of each part.
SHAPES = ("", "M0 4h8", "M0 0l8 8", "M4 0v8", "M0 8l8-8", "M0 4h8M4 0v8")
WAITS = 64  # ranks in the picture of the ranks


def write_page(path, study):
    """Write the report of a study's content.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(page_of(study), encoding="utf-8")


def page_of(study):
    """Return the report as HTML."""
    series = series_of(study)
    about = html.escape(str(study.get("config", "")))
    title = f"How {about} scales"
    summary = " ".join(html.escape(sentence) for sentence in explain(series))
    figures = "\n".join(
        f"<figure>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, chart in _figures(series)
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style></head><body>
{_patterns()}
<h1>{title}</h1>
<p class="summary">{summary}</p>
<div class="charts">
{figures}
</div>
<h2>Numbers</h2>
<div class="scroll">{_html_table(HEAD, table_rows(series))}</div>
<p><small>Step: median of the slowest rank. Parts: means over steps, ranks and repeats,
in milliseconds. Efficiency: with its 95 % interval by the bootstrap, over launches and
the steps in them. * more ranks than cores; hollow in the charts, and left out of
fits.</small></p>
{_predicted(study)}
<h2>Machine</h2>
<pre>{html.escape(_machine(study))}</pre>
</body></html>
"""


def _patterns():
    parts = [
        f'<pattern id="p{i}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" style="fill:var(--c{i})"/>'
        f'<path d="{shape}" style="stroke:var(--paper);stroke-width:1.5"/></pattern>'
        for i, shape in enumerate(SHAPES)
    ]
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        f"{''.join(parts)}</defs></svg>"
    )


def _figures(series):
    """Yield caption and SVG of each chart."""
    if not series:
        return
    strong = [one for one in series if one.mode == "strong"]
    if strong:
        yield "Speed-up", _speedup(strong)
    yield "Efficiency, with 95 % intervals", _efficiency(series)
    for one in series:
        name = f"Time of a step by part: {one.mode}, {one.strategy}"
        yield name, _parts(one)
    subject = subject_of(series)
    if subject is not None:
        one, point = subject
        yield f"Time of each rank, {point.ranks} ranks: {one.mode}, {one.strategy}", (
            _ranks(one, point)
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
    most = max([1.0, *(e.high for _, _, values, _ in lines for e in values)])
    chart = Chart("Efficiency", "ranks", "efficiency (%)", _counts(series), 100 * most)
    for number, (name, points, values, hollow) in enumerate(lines):
        ranks = [point.ranks for point in points]
        chart.line(name, ranks, [100 * e.value for e in values], number, hollow)
        for n, e in zip(ranks, values):
            chart.interval(n, 100 * e.low, 100 * e.high, number)
    return chart.text()


def _parts(one):
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


def _ranks(one, point):
    parts = {name: point.parts_s[name].mean(axis=0) for name in PARTS}
    n = len(parts["compute"])
    chosen = sorted({i * n // min(n, WAITS) for i in range(min(n, WAITS))})
    most = max(1e3 * sum(parts[name][i] for name in PARTS) for i in chosen)
    every = -(-len(chosen) // 8)
    names = [str(r) if i % every == 0 else "" for i, r in enumerate(chosen)]
    made_of = "Time of each rank", "rank", "time a step (ms)", range(1, len(chosen) + 1)
    chart = Chart(*made_of, most, names)
    for i, rank in enumerate(chosen):
        heights = [1e3 * parts[name][rank] for name in PARTS]
        chart.bar(i, heights, 0.8 * ROOM / len(chosen))
    return chart.text(PARTS, slots=True)


def _html_table(names, rows):
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _predicted(study):
    """Return the section on more ranks; empty if the model cannot be fitted."""
    forecast = Forecast(study)
    if not forecast.rows:
        return ""
    told = " ".join(map(html.escape, forecast.sentences))
    table = _html_table(COLUMNS, forecast.rows)
    return f"""<h2>More ranks</h2>
<p>{told}</p>
<figure>{forecast.chart()}<figcaption>Predicted efficiency of the best ways with the
result of one process</figcaption></figure>
<div class="scroll">{table}</div>"""


def _machine(study):
    told = {name: study.get(name) for name in ("created", "mpi", "settings", "machine")}
    return json.dumps(told, indent=1)
