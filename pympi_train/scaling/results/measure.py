"""Starts the trainings, and reads from their run directories what they took."""

import math
from pathlib import Path

from pympi_train.checkpoint.durable import naming
from pympi_train.errors import MALFORMED, UserError
from pympi_train.runs.curves import read_metrics
from pympi_train.runs.output import LAST_WEIGHTS
from pympi_train.runs.recovery.resume import finished_result
from pympi_train.runs.speech import counted
from pympi_train.scaling.results.critical import DIVERGED
from pympi_train.train.stopping import choose_monitor, cost

LOG = "log.txt"  # in the run directory: what the ranks printed
COUNTS = ("epochs", "steps", "samples")
NOISE = ("critical_batch_size", "gradient_square", "trace")
MOST = 2.0**53  # above it, something is damaged


def measure_results(points, config_path, launches, say=print):
    """Run each training that has no result yet; yield (ScorePoint, row).

    A training that was interrupted goes on from its newest checkpoint.

    Parameters
    ----------
    points : sequence of ScorePoint
    config_path : str
    launches : Launches
    say : callable
        Prints a line before each training.

    Yields
    ------
    ScorePoint
    dict
        The row of `row_of_records`; if the training failed, ``error`` says why and the
        measured fields are absent, but ``ended`` is "diverged" if it has diverged.

    Raises
    ------
    UserError
        If the result of an earlier training cannot be read, or a folder not be made.
    LaunchInterrupted
        If a signal came; the same call goes on.
    """
    for number, point in enumerate(points, start=1):
        about = f"{counted(point.ranks, 'rank')}, batch {point.batch_size:,}"
        about += f", seed {point.seed}"
        result = finished_result(point.config)
        if result is None:
            say(f"training {number} of {len(points)}: {about}")
            result, error = _train(point, config_path, launches)
        else:
            say(f"training {number} of {len(points)}: {about}: measured before")
            error = None
        yield point, _row(point, result, error)


def _train(point, config_path, launches):
    """Run a training; return its result, or None, and why it failed, or None."""
    words = ["train", config_path, "--resume"]
    for setting in point.settings:
        words += ["--set", setting]
    folder = Path(point.config.output.directory)
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOG).touch()
    error = launches.run(point.ranks, words, folder / LOG)
    result = finished_result(point.config) if error is None else None
    if error is None and result is None:
        error = "the ranks ended before the training was finished"
    return result, error


def _row(point, result, error):
    config = point.config
    row = {
        "ranks": point.ranks,
        "batch_size": point.batch_size,
        "seed": point.seed,
        "learning_rate": point.learning_rate,
        "score": config.train.target,
        "directory": config.output.directory,
    }
    if error is None:
        records = read_metrics(config.output.directory)
        monitor, has_validation = config.train.monitor, bool(config.data.validation)
        metric = choose_monitor(monitor, config.task, has_validation)
        try:
            found = row_of_records(records, result, metric)
        except MALFORMED as wrong:
            raise UserError(
                f"{config.output.directory}: its result is not of a training to a "
                f"score, or damaged ({wrong!r}); remove this folder"
            ) from wrong
        n_rows = found["samples"] // found["epochs"]
        if point.batch_size <= n_rows:
            row |= found
        else:
            error = (
                f"there are {n_rows:,} training rows, so its batches have fewer rows "
                "than that: give --batch-sizes up to this number"
            )
    elif LAST_WEIGHTS in error:
        row["ended"] = DIVERGED
    return {**row, "error": error}


def row_of_records(records, result, metric):
    """Return what a training took to reach its score, or in all if it did not.

    Parameters
    ----------
    records : list of dict
        Of its epochs.
    result : dict
        The content of result.json.
    metric : str
        Key of the records.

    Returns
    -------
    dict
        - reached_s: seconds of training up to the end of the epoch that reached the
          score, without evaluation and start-up; None if none did.
        - epochs, steps, samples: up to there, or in all.
        - step_s: mean seconds of a step up to there.
        - metric, best: its name, and its best value in any epoch.
        - critical_batch_size, gradient_square, trace: of the last of these epochs, by
          `GradientNoise`; None if they were not estimated.
        - ended: as in result.json.

    Raises
    ------
    ValueError or others of ``MALFORMED``
        If some field is damaged, or the records do not fit the result.
    """
    reached = result["reached"]
    epochs = records if reached is None else records[: reached["epoch"]]
    n, last = len(epochs), epochs[-1]
    is_whole = [record["epoch"] for record in epochs] == [*range(1, n + 1)]
    if not is_whole or reached is not None and reached["epoch"] != n:
        raise ValueError("epochs")
    seconds = sum(record["wall_s"] for record in epochs)
    if reached is not None and not math.isclose(reached["seconds"], seconds):
        raise ValueError("seconds")
    values = [record[metric] for record in epochs if record[metric] is not None]
    best = min(values, key=lambda value: cost({metric: value}, metric), default=None)
    noise = last.get("gradient_noise") or {}
    row = {
        "reached_s": None if reached is None else reached["seconds"],
        "epochs": last["epoch"],
        "steps": last["step"],
        "samples": last["samples"],
        "step_s": seconds / last["step"],
        "metric": metric,
        "best": best,
        **{name: noise.get(name) for name in NOISE},
        "ended": result["ended"],
    }
    _require_numbers(row)
    return row


def _require_numbers(row):
    """Raise ValueError with the name of a field that has another kind of value."""
    for name in (*COUNTS, "step_s", "reached_s", "best", *NOISE):
        value, is_count = row[name], name in COUNTS
        if value is None and not is_count and name != "step_s":
            continue
        kinds = int if is_count else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        is_positive = is_count or name.endswith("_s")
        if not (is_number and abs(value) < MOST and (value > 0 or not is_positive)):
            raise ValueError(f"{name} {value!r}")
