"""A trial of a training: its size, time and memory, without writing anything."""

import resource
import statistics
import sys
import time

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.runs.earlier.start import start_from_init
from pympi_train.runs.prepare import prepared, ranks_of_job
from pympi_train.runs.speech import counted, seconds_text

MOST_S = 3.0  # maximum total time of the timed steps
MOST_STEPS = 50
WARM_STEPS = 3  # not timed: they compile, and use memory for the first time


def try_out(config, comm, console=None):
    """Return the time and memory that a training takes, measured on some steps.

    Parameters
    ----------
    config : Config
    comm : MPI.Comm
        All its ranks take part.
    console : Console, optional
        On rank 0 only.

    Returns
    -------
    dict
        ranks, samples (training rows), features, parameters, steps_per_epoch, step_s
        (median), training_s (all epochs, without validation) and memory_bytes, the
        largest resident set of a rank so far, including all libraries.

    Raises
    ------
    ConfigError, DataError, DivergenceError
        On every rank, as a training would.

    Notes
    -----
    Collective.
    Nothing is written, and the parameters are discarded after the steps.
    """
    with ranks_of_job(config, comm) as ranks, prepared(config, ranks) as made:
        data, schema, trainer, startup = made
        told = start_from_init(config, trainer, ranks.comm)
        if console is not None:
            console.describe(config, data, trainer, startup)
            console.tell_start(told)
        clock = _Clock(trainer)
        if trainer.serves:
            trainer.fit(None, epochs=1)
            n, n_steps, step_s = 0, 0, 0.0
        else:
            n, full = data.train.n, trainer.optimizer.full_batch
            n_steps = 1 if full else -(-n // config.train.batch_size)
            records = trainer.fit(data.train, epochs=1, on_step=clock.step)
            step_s = clock.median_s(records)
        facts = reduced(ranks.comm, [n, n_steps, step_s, _resident_bytes()], op="MAX")
        n, n_steps, step_s, memory_bytes = facts.tolist()
        found = {
            "ranks": comm.size,
            "samples": int(n),
            "features": schema.n_features,
            "parameters": trainer.model.layout.n_parameters,
            "steps_per_epoch": int(n_steps),
            "step_s": step_s,
            "training_s": step_s * n_steps * config.train.epochs,
            "memory_bytes": int(memory_bytes),
        }
        if console is not None:
            for line in describe_try(found, config.train.epochs):
                console.say(line)
        return found


class _Clock:
    """Times steps, and stops the training after enough of them."""

    def __init__(self, trainer):
        self._trainer = trainer
        self._times_s = []

    def step(self, epoch, done, total):
        self._times_s.append(time.perf_counter())
        enough = len(self._times_s) >= WARM_STEPS + MOST_STEPS
        warm = self._times_s[WARM_STEPS:]
        if enough or (warm and warm[-1] - warm[0] > MOST_S):
            self._trainer.request_stop()

    def median_s(self, records):
        """Return the seconds per step, from an epoch's record if no step was timed."""
        steps = np.diff(self._times_s).tolist()
        if len(steps) > 2 * WARM_STEPS:
            steps = steps[WARM_STEPS:]
        if steps:
            return statistics.median(steps)
        return records[-1]["wall_s"] if records else 0.0


def describe_try(found, epochs):
    """Return printed lines with the time and memory of a training."""
    n, step_s = found["steps_per_epoch"], found["step_s"]
    an_epoch, all_s = seconds_text(n * step_s), seconds_text(found["training_s"])
    return [
        f"time     {counted(n, 'step')} an epoch, {seconds_text(step_s)} a step: "
        f"{an_epoch} an epoch, {all_s} for {counted(epochs, 'epoch')}, validation not "
        "counted",
        f"memory   {found['memory_bytes'] / 2**20:,.0f} MiB a rank at most",
        "checked  nothing was trained, nothing was written",
    ]


def _resident_bytes():
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
