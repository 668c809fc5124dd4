"""The files of a search: search.json, search.csv, best.toml; on rank 0."""

import csv
import io
import json
import os

from pympi_train.runs.output import finite, replacing, toml
from pympi_train.runs.speech import counted
from pympi_train.search.results.summary import FINISHED, ranked
from pympi_train.train.stopping import HIGHER_IS_BETTER

JSON, CSV, BEST_TOML, PICTURE = "search.json", "search.csv", "best.toml", "search.png"
MAX_ROWS = 20  # of the printed table


def summary_of(plan, results, best, lanes):
    """Return the content of search.json: plain values, the same on any ranks.

    Parameters
    ----------
    plan : SearchPlan
    results : list of TrialResult
        By number.
    best : TrialResult or None
    lanes : LaneChoice
    """
    s = plan.settings
    told = None
    if best is not None:
        told = {
            "number": best.number,
            "parameters": best.parameters,
            "mean": best.mean,
            "std": best.std,
        }
    return finite({
        "method": s.method,
        "metric": s.metric,
        "larger_is_better": s.metric in HIGHER_IS_BETTER,
        "folds": plan.n_folds,
        "rungs": plan.rungs if len(plan.rungs) > 1 else None,
        "one_se": s.one_se,
        "seed": s.seed,
        "lanes": lanes.is_used,
        "lanes_reason": lanes.why,
        "best": told,
        "trials": [result.to_dict() for result in results],
    })


def write_files(plan, results, best, summary):
    """Write search.json, search.csv and, if there is a best trial, best.toml."""
    _write(plan, JSON, json.dumps(summary, indent=1) + "\n")
    _write(plan, CSV, csv_text(plan, results))
    if best is not None:
        trial = plan.trials[best.number]
        _write(plan, BEST_TOML, toml(plan.best_config(trial)))


def _write(plan, name, text):
    with replacing(os.path.join(plan.directory, name)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_text(plan, results):
    """Return a table of all trials, best first, as text: a row each."""
    keys = [parameter.key for parameter in plan.space]
    folds = [f"fold_{fold}" for fold in range(plan.n_folds)]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", "status", "epochs", *keys, "mean", "std", *folds])
    for r in ranked(results, plan.settings.metric):
        values = [r.parameters[key] for key in keys]
        rows.writerow(
            [r.number, r.status, r.epochs, *values, r.mean, r.std, *r.scores]
        )
    return text.getvalue()


def table_of(plan, results):
    """Return the printed lines of the best trials: mean and deviation over folds."""
    order = ranked(results, plan.settings.metric)
    keys = [parameter.key for parameter in plan.space]
    rows = [["trial", *(key.partition(".")[2] for key in keys)]]
    rows[0] += [plan.settings.metric, "std", "status"]
    for r in order[:MAX_ROWS]:
        scores = ["-" if v is None else f"{v:.6g}" for v in (r.mean, r.std)]
        status = r.status
        if status != FINISHED:
            status += f" ({counted(r.epochs, 'epoch')})" if len(plan.rungs) > 1 else ""
        values = (_short(r.parameters[key]) for key in keys)
        rows.append([str(r.number), *values, *scores, status])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths))
        for row in rows
    ]
    more = len(order) - MAX_ROWS
    return lines + [f"... and {more:,} more in {CSV}"] * (more > 0)


def best_line(plan, best):
    """Return the line that is printed of the best trial."""
    values = _values_text(best, plan)
    spread = "" if best.std is None else f" +- {best.std:.2g} over folds"
    rule = ", the simplest within one standard error" if plan.settings.one_se else ""
    score = f"{plan.settings.metric} {best.mean:.6g}{spread}"
    return f"best     trial {best.number}{rule}: {values}; {score}"


def describe_result(result, plan):
    """Return the line that is printed of a trial."""
    at = f"trial {result.number:4d}  {_values_text(result, plan)}"
    if result.mean is None:
        return f"{at}: {result.status}: {result.error}"
    spread = "" if result.std is None else f" +- {result.std:.2g}"
    return f"{at}: {plan.settings.metric} {result.mean:.6g}{spread}"


def _values_text(result, plan):
    """Return "learning_rate 0.01, l2 0"; with rungs, the number of epochs too."""
    texts = [
        f"{key.partition('.')[2]} {_short(value)}"
        for key, value in result.parameters.items()
    ]
    texts += [counted(result.epochs, "epoch")] * (len(plan.rungs) > 1)
    return ", ".join(texts)


def _short(value):
    """Return a value as a short text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
