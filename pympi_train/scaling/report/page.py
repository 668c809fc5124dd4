"""The report of a study: one HTML page that loads nothing from outside."""

import html
import json

from pympi_train.runs.output import replacing
from pympi_train.scaling.analysis.points import series_of
from pympi_train.scaling.report.charts import figures_of
from pympi_train.scaling.report.forecast import COLUMNS, Forecast
from pympi_train.scaling.report.grid import grid_table
from pympi_train.scaling.report.table import HEAD, table_rows
from pympi_train.scaling.report.words import caveats, explain, references

# Colours of Okabe and Ito ("Color Universal Design", 2008), which people with any kind
# of colour blindness tell apart; the parts of bars also have patterns.
STYLE = """
:root { --ink: #1a1a1a; --paper: #ffffff; --faint: #d5d5d5; --soft: #555555;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00;
  --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181c;
  --faint: #3a3d44; --soft: #a9adb5; --c0: #56b4e9; --c5: #0072b2; } }
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
.scroll, pre { overflow-x: auto; } small { color: var(--soft); }
@page { margin: 12mm; }
@media print { :root { --ink: #000; --paper: #fff; --faint: #ccc; --soft: #333; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  .charts { display: block; } figure { display: inline-block; width: 48%; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 7pt; }
  td, th { padding: .1rem .2rem; white-space: nowrap; }
  pre { font-size: 7pt; } }
"""
STYLE += "".join(
    f".series-{i} {{ stroke: var(--c{i}); }}\n"
    f".full.series-{i} {{ fill: var(--c{i}); }}\n"
    f".part-{i} {{ fill: url(#p{i}); stroke: var(--c{i}); }}\n"
    for i in range(6)
)
# Shapes over the colour of each part.
SHAPES = ("", "M0 4h8", "M0 0l8 8", "M4 0v8", "M0 8l8-8", "M0 4h8M4 0v8")


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
    told = [*explain(series), *caveats(study)]
    summary = " ".join(html.escape(sentence) for sentence in told)
    figures = "\n".join(
        f"<figure>{chart}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, chart in figures_of(series)
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
<p><small>Step and parts: means over steps, ranks and repeats, in milliseconds; a step
is the sum of its parts. Efficiency: with its 95 % interval by the bootstrap, over
launches and the steps in them. * more ranks than cores; hollow in the charts, and left
out of fits. {html.escape(references(series))}</small></p>
{_predicted(study)}
{_of_each_way(study.get("predictions"))}
<h2>Machine</h2>
<pre>{html.escape(_machine(study))}</pre>
</body></html>
"""


def as_file(chart):
    """Return the SVG of a chart as the text of a file that needs no page.

    Its colours are those of the page, so that they follow a reader's dark mode.
    """
    own = "svg { background: var(--paper); font-family: system-ui, sans-serif; }"
    start, shape, rest = chart.partition("<title>")
    start = start.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{start}<style>{STYLE}{own}</style>{_definitions()}\n{shape}{rest}\n"


def _patterns():
    hidden = 'width="0" height="0" style="position:absolute" aria-hidden="true"'
    return f"<svg {hidden}>{_definitions()}</svg>"


def _definitions():
    parts = [
        f'<pattern id="p{i}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" style="fill:var(--c{i})"/>'
        f'<path d="{shape}" style="stroke:var(--paper);stroke-width:1.5"/></pattern>'
        for i, shape in enumerate(SHAPES)
    ]
    return f"<defs>{''.join(parts)}</defs>"


def _html_table(names, rows):
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _predicted(study):
    """Return the section on more ranks; empty if the model cannot be fitted."""
    forecast = Forecast(study)
    told = " ".join(map(html.escape, forecast.sentences))
    if not forecast.rows:
        return f"<h2>More ranks</h2>\n<p>{told}</p>" if told else ""
    table = _html_table(COLUMNS, forecast.rows)
    return f"""<h2>More ranks</h2>
<p>{told}</p>
<figure>{forecast.chart()}<figcaption>Predicted efficiency of the best ways with the
result of one process</figcaption></figure>
<div class="scroll">{table}</div>"""


def _of_each_way(grid):
    if not grid:
        return ""
    return f"""<h3>Every strategy and compression</h3>
<p>Efficiency by the model, and the first number of ranks at which it falls below 80 %
({grid[0]["mode"]} scaling).</p>
<div class="scroll">{_html_table(*grid_table(grid))}</div>"""


def _machine(study):
    names = ("created", "mpi", "jobs", "settings", "machine")
    told = {name: study[name] for name in names if name in study}
    return json.dumps(told, indent=1)
