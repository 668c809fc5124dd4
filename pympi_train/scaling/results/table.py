"""The results as a table, and what follows from them in words."""

import json
import math
import os
from contextlib import suppress
from statistics import median

from pympi_train.errors import MALFORMED, ConfigError
from pympi_train.runs.output import finite, replacing
from pympi_train.runs.speech import counted, in_columns, seconds_text
from pympi_train.scaling.results.critical import (
    median_critical,
    median_reached,
    median_samples,
    samples_fit,
    too_large,
    trained,
)

RESULTS_JSON = "time-to-score.json"
SCHEMA = "pympi-train/time-to-score/1"
HEADINGS = (
    *("ranks", "batch", "rate", "s/step", "epochs", "samples", "s to score"),
    *("times as fast", "critical batch", "reached"),
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


def replaced_results(directory, config_path, points):
    """Return how many results a new file will lack that ``directory`` has now.

    Their trainings stay in their folders. A file that cannot be read has none.

    Raises
    ------
    ConfigError
        If they are of another configuration file.
    """
    path = os.path.join(directory, RESULTS_JSON)
    own = {point.config.output.directory for point in points}
    with suppress(OSError, *MALFORMED):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        other = str(found["config"])
        n_more = sum(row["directory"] not in own for row in found["results"])
        if os.path.abspath(other) != os.path.abspath(config_path):
            raise ConfigError(
                f"{path} has the results of {other}, and would be replaced: choose "
                "another --directory, or remove it"
            )
        return n_more
    return 0


def results_table(rows):
    """Return lines of a table: medians over the seeds, by batch size and ranks.

    A training that did not reach the score counts as infinitely long. Times as fast are
    those of the first line that reached it: of the fewest ranks at the smallest batch.
    """
    lines, first_s = [HEADINGS], None
    for own in by_launch(rows).values():
        reached_s = median_reached(own, "reached_s")
        if first_s is None and math.isfinite(reached_s):
            first_s = reached_s
        lines.append(_cells(own, reached_s, first_s))
    return in_columns(lines)


def by_launch(rows):
    """Return the rows of `trained`, by batch size and ranks; one for each seed."""
    found = {}
    key = lambda r: (r["batch_size"], r["ranks"], r["seed"])  # noqa: E731
    for row in sorted(trained(rows), key=key):
        found.setdefault((row["batch_size"], row["ranks"]), []).append(row)
    return found


def _cells(own, reached_s, first_s):
    size, ranks = own[0]["batch_size"], own[0]["ranks"]
    critical, is_reached = median_critical(own), math.isfinite(reached_s)
    samples = median_reached(own, "samples")
    epochs = median_reached(own, "epochs")
    n_reached = sum(row.get("reached_s") is not None for row in own)
    steps_s = [row["step_s"] for row in own if "step_s" in row]
    return [
        f"{ranks}",
        f"{size:,}",
        f"{own[0]['learning_rate']:.3g}",
        f"{median(steps_s):.3g}" if steps_s else "-",
        f"{epochs:,.0f}" if is_reached else "-",
        f"{samples:,.0f}" if is_reached else "-",
        f"{reached_s:.3g}" if is_reached else "-",
        f"{first_s / reached_s:.2f}" if is_reached else "-",
        "-" if critical is None else f"{critical:,.0f}",
        f"{n_reached} of {len(own)}",
    ]


def describe_results(rows):
    """Return lines of text: what was not reached, and which batches are too large."""
    lines = []
    several = len({row["seed"] for row in rows}) > 1
    for row in rows:
        where = f"{counted(row['ranks'], 'rank')}, batch {row['batch_size']:,}"
        where += f", seed {row['seed']}" if several else ""
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
    """Return lines on batch sizes, and on the fastest combination."""
    rows = trained(rows)
    lines, samples = [], median_samples(rows)
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
    found = {
        at: median_reached(own, "reached_s") for at, own in by_launch(rows).items()
    }
    size, ranks = min(found, key=found.__getitem__, default=(0, 0))
    if found and math.isfinite(found[size, ranks]):
        where = f"{counted(ranks, 'rank')}, batch {size:,}"
        lines.append(f"fastest  {where}: {seconds_text(found[size, ranks])}")
    return lines
