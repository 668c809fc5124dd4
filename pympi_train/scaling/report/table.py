"""The numbers of a study as a table: for the terminal and for the page."""

from pympi_train.scaling.analysis.efficiency import efficiencies
from pympi_train.scaling.analysis.points import PARTS, series_of
from pympi_train.scaling.report.forecast import Forecast
from pympi_train.scaling.report.grid import grid_table
from pympi_train.scaling.report.words import caveats, explain, references

HEAD = (
    "mode",
    "strategy",
    "ranks",
    "nodes",
    "step ms",
    "rows/s",
    "speed-up",
    "efficiency",
    *PARTS,
)


def table_rows(series):
    """Return the rows of the table of all Series, as lists of str.

    The last columns are the milliseconds of the parts of a step, whose sum is the
    step's.
    """
    found = []
    for one in series:
        for point, value in zip(one.points, efficiencies(one)):
            mark = "*" if point.is_oversubscribed else ""
            found.append([
                one.mode,
                one.strategy,
                f"{point.ranks}{mark}",
                f"{point.nodes}",
                f"{1e3 * point.step_s:.3f}",
                f"{point.batch_size / point.step_s:,.0f}",
                f"{value.speedup:.2f}",
                f"{100 * value.value:.0f} % ({100 * value.low:.0f}-"
                f"{100 * value.high:.0f})",
                *(f"{1e3 * point.part_s(name):.3f}" for name in PARTS),
            ])
    return found


def report_lines(study):
    """Return what is printed of a study: table, explanation, the best of each strategy.
    """
    series = series_of(study)
    rows = [list(HEAD), *table_rows(series)]
    lines = _aligned(rows)
    if any("*" in row[2] for row in rows):
        lines.append("* more ranks than cores: left out of the fits")
    if reference := references(series):
        lines.append(reference)
    told = [*explain(series), *caveats(study)]
    lines += ["", *told, *Forecast(study).sentences]
    grid = study.get("predictions")
    if not grid:
        return lines
    head, rows = grid_table(grid, best=True)
    about = f"Efficiency by the model, {grid[0]['mode']} scaling, the best compression"
    return [*lines, "", f"{about} of each strategy:", *_aligned([head, *rows])]


def _aligned(rows):
    """Return a line for each row, with two columns of text before those of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        left = [cell.ljust(w) for cell, w in zip(row[:2], widths)]
        right = [cell.rjust(w) for cell, w in zip(row[2:], widths[2:])]
        lines.append("  ".join(left + right).rstrip())
    return lines
