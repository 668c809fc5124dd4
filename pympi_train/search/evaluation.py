"""Scores of trials: each fold is a training, and those that are known are not repeated.
"""

import math
import shutil
from contextlib import suppress
from pathlib import Path

from pympi_train.config.config import CHECKPOINTS
from pympi_train.errors import DivergenceError, JobError, UnstableError, UserError
from pympi_train.pool.history import FAILED
from pympi_train.runs.earlier.files import read_run_config
from pympi_train.search.results.files import describe_result
from pympi_train.search.results.summary import (
    DIVERGED,
    DROPPED,
    FINISHED,
    TrialResult,
)

# Classes of errors that a training would raise again.
DIVERGING = DivergenceError.__name__, UnstableError.__name__


class Interrupted(Exception):
    """A signal, or the end of the job's time, has ended a training."""


class Evaluation:
    """Trains trials in a pool, and keeps their results; on rank 0.

    Parameters
    ----------
    plan : SearchPlan
    pool : Pool
    log : TrialLog
    say : callable
        Prints a line.

    Attributes
    ----------
    results : dict of int to TrialResult
        The latest of each trial, by its number.
    """

    def __init__(self, plan, pool, log, say):
        self.plan, self._pool, self._log, self._say = plan, pool, log, say
        self.results: dict = {}

    @property
    def lanes(self):
        """The LaneChoice of the search."""
        return self._log.lanes

    def begin(self, trial, rung=0):
        """Submit the folds of a trial that are not known; return its work."""
        return _Work(self, trial, rung)

    def evaluate(self, trials, rung=0):
        """Return the results of trials, in their order."""
        works = [self.begin(trial, rung) for trial in trials]
        for work in works:
            if not work.futures:  # all is known
                self.finish(work)
        owners = {id(f): (work, fold) for work in works for fold, f in work.futures}
        futures = [future for work in works for _, future in work.futures]
        for future in self._pool.as_completed(futures):
            work, fold = owners[id(future)]
            work.take(fold, future)
            if work.is_done:
                self.finish(work)
        return [self.results[trial.number] for trial in trials]

    def finish(self, work):
        """Wait for all folds of a trial; return its TrialResult."""
        for fold, future in work.futures:
            work.take(fold, future)
        result = work.result()
        self.results[result.number] = result
        self._say(describe_result(result, self.plan))
        if result.rung == len(self.plan.rungs) - 1 or result.mean is None:
            self.tidy(work.trial)
        return result

    def drop(self, result, trial):
        """Mark a trial as one that does not go on to the next rung."""
        if result.status == FINISHED:
            result.status = DROPPED
        self.tidy(trial)

    def tidy(self, trial):
        """Remove the checkpoints of a trial, which nothing goes on from."""
        for path in Path(self.plan.folder_of(trial)).glob(f"**/{CHECKPOINTS}"):
            shutil.rmtree(path, ignore_errors=True)

    def submit(self, trial, fold, epochs):
        """Return the record of a training if it is known, else its future."""
        known = self._log.find(trial, fold, epochs)
        if known is not None:
            return known, None
        config = self.plan.job_config(trial, fold, epochs)
        name = f"{trial.name}.fold-{fold}.epochs-{epochs}"
        before = config_of_run(config.output.directory)
        # What was trained for longer, on a later rung, has other weights.
        resume = before is None or before.train.epochs <= epochs
        return None, self.train(config, name, resume)

    def train(self, config, name, resume=True):
        """Submit a training; return its future.

        ``resume`` says whether what its directory has is of this training.
        """
        needs = {"min_ranks": self.plan.settings.min_ranks}
        needs["gpus"] = int(config.train.backend == "cuda")
        return self._pool.submit(config, name=name, resume=resume, **needs)

    def note(self, trial, fold, epochs, future):
        """Write the outcome of a training to the log; return its record."""
        record = {"set": list(trial.texts), "fold": fold, "epochs": epochs}
        record |= outcome_of(future)
        if record["error"] is not None and self.plan.n_folds > 1:
            record["error"] = f"fold {fold}: {record['error']}"
        self._log.add(record)
        return record


def config_of_run(directory):
    """Return the Config of the run in a run directory, or None."""
    with suppress(UserError):
        return read_run_config(directory)
    return None


class _Work:
    """The folds of a trial on a rung."""

    def __init__(self, owner, trial, rung):
        self._owner, self.trial, self._rung = owner, trial, rung
        plan = owner.plan
        halves = len(plan.rungs) > 1
        epochs = plan.rungs[rung] if halves else trial.config.train.epochs
        self._epochs, self._records, self.futures = epochs, {}, []
        for fold in range(plan.n_folds):
            record, future = owner.submit(trial, fold, epochs)
            if record is None:
                self.futures.append((fold, future))
            else:
                self._records[fold] = record

    def take(self, fold, future):
        """Take the outcome of a training, once."""
        if fold not in self._records:
            made_of = self.trial, fold, self._epochs, future
            self._records[fold] = self._owner.note(*made_of)

    @property
    def is_done(self):
        """Whether the outcome of each fold is taken."""
        return len(self._records) == self._owner.plan.n_folds

    def result(self):
        """Return the TrialResult; all folds have ended."""
        plan = self._owner.plan
        records = [self._records[fold] for fold in range(plan.n_folds)]
        metric, scores, status, error = plan.settings.metric, [], FINISHED, None
        for record in records:
            score = (record["validation"] or {}).get(metric)
            scores.append(score)
            if score is None and status == FINISHED:
                status = DIVERGED if record["status"] == FINISHED else record["status"]
                error = record["error"] or f"the {metric} is not finite"
        return TrialResult(
            number=self.trial.number,
            texts=self.trial.texts,
            parameters=plan.parameters(self.trial.config),
            rung=self._rung,
            epochs=self._epochs,
            scores=scores,
            status=status,
            error=error,
            kept_epochs=[record["kept_epoch"] for record in records],
        )


def outcome_of(future):
    """Return status, metrics, kept epoch and error of a training that has ended.

    Raises
    ------
    Interrupted
        If it was interrupted.
    """
    found = {"status": FINISHED, "validation": None, "kept_epoch": None, "error": None}
    try:
        result = future.result()
    except JobError as error:
        if future.status != FAILED:
            raise Interrupted("the pool was interrupted") from error
        diverged = error.cause in DIVERGING
        found["status"] = DIVERGED if diverged else FAILED
        told = f"job {future.name}: {future.status}: "  # here it may be diverged
        found["error"] = str(error).removeprefix(told)
        return found
    metrics = result["validation"] or {}
    found["validation"] = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in metrics.items()
        if not isinstance(value, dict)
    }
    found["kept_epoch"] = result["kept_epoch"]
    return found
