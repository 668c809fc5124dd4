"""The results as a table, and what follows from them in words."""

import json
import os

from pympi_train.runs.output import finite, replacing
from pympi_train.runs.speech import counted, in_columns, seconds_text
from pympi_train.scaling.results.critical import median_by_size, samples_fit, too_large

RESULTS_JSON = "time-to-score.json"
SCHEMA = "pympi-train/time-to-score/1"
HEADINGS = (
    *("ranks", "batch", "rate", "s/step", "epochs", "samples", "s to score"),
    *("times as fast", "critical batch"),
)


def save_results(directory, about, rows):
    """Write the rows to ``directory``, as JSON; return the path.

    ``about`` holds further fields, beside ``schema`` and ``results``.
    """
    path = os.path.join(directory, RESULTS_JSON)
    found = {"schema": SCHEMA, **about, "results": rows, "fit": samples_fit(rows)}
    with replacing(path) as temporary:
        text = json.dumps(finite(found), indent=1, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
    return path


def results_table(rows):
    """Return lines of a table, one for each training, by batch size and ranks.

    Times as fast are those of the first training that reached the score: of the
    smallest number of ranks at the smallest batch size.
    """
    rows = sorted(rows, key=lambda r: (r["batch_size"], r["ranks"], r["seed"]))
    several = len({row["seed"] for row in rows}) > 1
    first_s = next((r["reached_s"] for r in rows if r.get("reached_s")), None)
    lines = [_headings(several)]
    lines += [_cells(row, first_s, several) for row in rows]
    return in_columns(lines)


def _headings(several):
    head = list(HEADINGS)
    if several:
        head.insert(2, "seed")
    return head


def _cells(row, first_s, several):
    cells = [f"{row['ranks']}", f"{row['batch_size']:,}"]
    if several:
        cells.append(f"{row['seed']}")
    cells.append(f"{row['learning_rate']:.4g}")
    if row["error"] is not None:
        return [*cells, *["-"] * 5, "failed"]
    seconds, critical = row["reached_s"], row["critical_batch_size"]
    return [
        *cells,
        f"{row['step_s']:.3g}",
        f"{row['epochs']:,}",
        f"{row['samples']:,}",
        "not reached" if seconds is None else f"{seconds:.3g}",
        "-" if seconds is None else f"{first_s / seconds:.2f}",
        "-" if critical is None else f"{critical:,.0f}",
    ]


def describe_results(rows):
    """Return lines of text: what was not reached, and which batches are too large."""
    lines = []
    for row in rows:
        where = f"{counted(row['ranks'], 'rank')}, batch {row['batch_size']:,}"
        if row["error"] is not None:
            lines.append(f"failed   {where}: {row['error']}")
        elif row["reached_s"] is None:
            after = counted(row["epochs"], "epoch")
            best = "no value" if row["best"] is None else f"{row['best']:.4g} at best"
            lines.append(
                f"remark   {where}: {row['metric']} {row['score']:g} was not reached "
                f"in {after}: {best}"
            )
    return lines + _on_batches(rows)


def _on_batches(rows):
    rows = [row for row in rows if row["error"] is None]
    lines, samples = [], median_by_size(rows, "samples")
    least = min(samples.values(), default=None)
    for size in too_large(rows):
        text = f"batch {size:,} is beyond the critical batch size"
        if size in samples:
            text += f": {samples[size] / least:.2f} times the samples of the best one"
        lines.append(f"remark   {text}")
    fit = samples_fit(rows)
    if fit is not None:
        lines.append(
            f"fit      critical batch size {fit['critical_batch_size']:,.0f} by the "
            f"samples: at least {fit['least_samples']:,.0f} samples, and "
            f"{fit['least_steps']:,.0f} steps, to the score"
        )
    reached = [row for row in rows if row["reached_s"] is not None]
    if reached:
        best = min(reached, key=lambda row: row["reached_s"])
        where = f"{counted(best['ranks'], 'rank')}, batch {best['batch_size']:,}"
        lines.append(f"fastest  {where}: {seconds_text(best['reached_s'])}")
    return lines
