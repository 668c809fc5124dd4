"""When a run writes checkpoints, what is in them, and which of them are kept."""

import os
import signal
import time

from pympi_train.checkpoint import store
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import from_rank_0, reduced
from pympi_train.errors import DataError
from pympi_train.runs.signals import ends_at
from pympi_train.runs.startup import process_age_s
from pympi_train.train.stopping import HIGHER_IS_BETTER

GO_ON, FINISHED, OUT_OF_TIME = 0, -1, -2  # or the number of a signal
SAFETY = 2.0  # times the longest save and step, which the end of a job leaves
LEAST_RESERVE_S = 2.0
TOLD_S = 60.0  # between two lines that tell of a checkpoint


class Checkpoints:
    """Asks a Trainer to stop when a checkpoint is due, and writes it.

    Parameters
    ----------
    config : Config
    trainer : Trainer
    comm : MPI.Comm
        All ranks of the job, servers too.
    run : RunDirectory or None
        On rank 0.
    about : dict
        Plain values for each checkpoint; rank 0's count.
    console : Console or None
        On rank 0.

    Attributes
    ----------
    stop : Stop
        To be set: what signals have asked for.

    Notes
    -----
    The ranks meet at the end of a ``fit``: a rank that wants a checkpoint asks its
    Trainer to stop, which goes with the control message of the next step. The next
    ``fit`` continues in the middle of the epoch. So every strategy can be saved, those
    with servers or local steps too.
    """

    stop = None

    def __init__(self, config, trainer, comm, run, about, console):
        self._settings, self._directory = config.checkpoint, config.checkpoints
        self._trainer, self._comm = trainer, comm
        self._run, self._about, self._console = run, about, console
        self._best = about.pop("best", None)
        now_s = time.monotonic()
        self._last_saved_s = self._last_step_s = now_s
        self._save_s, self._step_s, self._told_s = 0.0, 0.0, -TOLD_S
        self._next_step = self._step_after(trainer.steps)
        began_s = time.time() - (process_age_s() or 0.0)
        self._ends_at_s = ends_at(config.checkpoint.max_time, began_s)

    def _step_after(self, step):
        """Return the next step at which a checkpoint is due; infinite for none."""
        every = self._settings.every_steps
        return float("inf") if every is None else (step // every + 1) * every

    def begin(self):
        """Before a ``fit``: ask for a stop if its first step is the last one."""
        self._last_step_s = time.monotonic()
        if self._trainer.steps + 1 >= self._next_step:
            self._trainer.request_stop()

    def on_step(self):
        """After a step: ask for a stop after the next one if it is time to save."""
        now_s = time.monotonic()
        self._step_s = max(self._step_s, now_s - self._last_step_s)
        self._last_step_s = now_s
        if self._trainer.steps + 1 >= self._next_step or (
            self._comm.rank == 0 and (self._is_late(now_s) or self._is_time(now_s))
        ):
            self._trainer.request_stop()

    def _is_time(self, now_s):
        every_s = self._settings.every_s
        return every_s is not None and now_s - self._last_saved_s >= every_s

    def _is_late(self, now_s):
        reserve_s = SAFETY * (self._save_s + self._step_s) + LEAST_RESERVE_S
        return time.time() + reserve_s >= self._ends_at_s

    def meet(self, records):
        """After a ``fit``: write a checkpoint if one is due.

        Parameters
        ----------
        records : list of dict
            Those of all epochs; rank 0's count.

        Returns
        -------
        int
            GO_ON, FINISHED, OUT_OF_TIME or the number of a signal; the same on every
            rank.

        Raises
        ------
        DataError
            On every rank, if the checkpoint cannot be written and `on_error` is "stop",
            or the training ends without being finished.

        Notes
        -----
        Collective over all ranks of the job.
        """
        (number,) = reduced(self._comm, [self.stop.signal], op="MAX")
        now_s, reason, due = time.monotonic(), int(number), False
        if self._comm.rank == 0:
            if self._trainer.ended != "stop":
                reason = FINISHED
            elif not reason and self._is_late(now_s):
                reason = OUT_OF_TIME
            due = self._trainer.steps >= self._next_step or self._is_time(now_s)
        reason, due = from_rank_0(self._comm, reason, due)
        if due or reason != GO_ON:
            self._write(records, is_last=reason not in (GO_ON, FINISHED))
        return int(reason)

    def _write(self, records, is_last):
        """Write a checkpoint; warn if that fails and the training can go on."""
        began_s, trainer, path = time.monotonic(), self._trainer, None
        directory = self._directory
        try:
            with together(self._comm):
                if self._comm.rank == 0:
                    path = store.next_path(directory, trainer.steps)
            path = self._comm.bcast(path, root=0)
            self._tell_best(records, os.path.basename(path))
            texts = None if self._run is None else self._run.texts(records)
            about = {**self._about, "best": self._best, "step": trainer.steps}
            about |= {"epoch": trainer.epoch, "written_s": time.time()}
            n_bytes = trainer.save(path, about=about, texts=texts)
            self._save_s = max(self._save_s, time.monotonic() - began_s)
            with together(self._comm):
                if self._comm.rank == 0:
                    best = [self._best["name"]] if self._best else []
                    store.prune(directory, self._settings.keep, best)
        except DataError as error:  # on every rank
            if is_last or self._settings.on_error == "stop":
                raise
            self._say(f"warning  no checkpoint: {error}; the training goes on")
        else:
            self._say_written(path, n_bytes)
        self._last_saved_s = time.monotonic()
        self._next_step = self._step_after(trainer.steps)

    def _tell_best(self, records, name):
        """Note whether the checkpoint is the best so far by the metric; on rank 0."""
        progress, about = self._trainer.progress, self._about
        if self._comm.rank != 0 or not records or progress.batch:
            return
        value = records[-1].get(about["monitor"])
        if value is None:
            return
        sign = -1 if about["monitor"] in HIGHER_IS_BETTER else 1
        if self._best is None or sign * value < sign * self._best["value"]:
            self._best = {"name": name, "value": value}

    def _say(self, text):
        if self._console is not None:
            self._console.say(text)

    def _say_written(self, path, n_bytes):
        now_s = time.monotonic()
        # The last one is not worth a line, nor is each of many.
        if self._trainer.ended == "stop" and now_s - self._told_s >= TOLD_S:
            self._told_s = now_s
            self._say(
                f"saved    {path}: {n_bytes / 1e6:,.1f} MB in {self._save_s:.2f} s"
            )


def why_ended(reason):
    """Return the words for the result of `meet` of a training that is not finished."""
    if reason == OUT_OF_TIME:
        return "the time of the job is nearly over"
    return signal.Signals(reason).name
