"""When a run writes checkpoints, what is in them, and which of them are kept."""

import os
import signal
import time
from contextlib import suppress

from pympi_train.backends.node_memory import available_bytes
from pympi_train.checkpoint import store
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.collectives import from_rank_0, reduced
from pympi_train.errors import DataError
from pympi_train.runs.recovery.signals import Deadline
from pympi_train.runs.startup import process_age_s
from pympi_train.train.stopping import cost

# What ends a `fit`, or the number of a signal.
GO_ON, FINISHED, OUT_OF_TIME, RESIZED = 0, -1, -2, -3
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
        Plain values for each checkpoint; rank 0's count. "damaged", the names of those
        that were passed over, is not one of them.
    console : Console or None
        On rank 0.

    Attributes
    ----------
    stop : Stop
        To be set: what signals have asked for.
    requests : Requests or None
        To be set: what is asked for while the training runs; of use on rank 0.
    n_wanted : int
        After RESIZED, the number of ranks to go on with.
    best : dict or None
        Name and value of the best checkpoint by the metric; equal on all ranks.
    has_saved : bool
        Whether a checkpoint is whole; equal on all ranks.

    Notes
    -----
    The ranks meet at the end of a ``fit``: a rank that wants a checkpoint asks its
    Trainer to stop, which goes with the control message of the next step. The next
    ``fit`` continues in the middle of the epoch. So every strategy can be saved, those
    with servers or local steps too.
    """

    stop = requests = None
    n_wanted, has_saved = 0, False

    def __init__(self, config, trainer, comm, run, about, console):
        self._settings, self._directory = config.checkpoint, config.checkpoints
        self._trainer, self._comm = trainer, comm
        self._run, self._about, self._console = run, about, console
        self._damaged = about.pop("damaged", ())
        self.best, self._work, self._path = about.pop("best", None), None, None
        now_s = time.monotonic()
        self._last_saved_s = self._last_step_s = now_s
        self._save_s, self._step_s, self._told_s = 0.0, 0.0, -TOLD_S
        self._n_timed = 0  # steps
        self._told_of_room, self._best_before = False, self.best
        self._left = None  # why an older checkpoint could not be removed
        self._next_step = self._step_after(trainer.steps)
        self._deadline = Deadline(self._settings.max_time, process_age_s() or 0.0)

    def follow(self, before):
        """Go on from the Checkpoints of the same run on other ranks; on rank 0."""
        self.best, self._best_before = before.best, before._best_before
        self._last_saved_s, self._told_s = before._last_saved_s, before._told_s
        self._save_s, self._step_s = before._save_s, before._step_s
        self._n_timed = before._n_timed
        self._damaged = before._damaged

    def _step_after(self, step):
        """Return the next step at which a checkpoint is due; infinite for none."""
        every = self._settings.every_steps
        return float("inf") if every is None else (step // every + 1) * every

    def begin(self):
        """Before a ``fit``: ask for a stop if its first step is the last one."""
        self._last_step_s = time.monotonic()
        is_late = self._comm.rank == 0 and self._is_late()
        is_due = self._trainer.steps + 1 >= self._next_step
        if self._is_asked() or is_due or is_late:
            self._trainer.request_stop()

    def on_step(self):
        """After a step: ask for a stop after the next one if it is time to save."""
        now_s = time.monotonic()
        took_s = now_s - self._last_step_s
        # The first step also compiles and loads: it counts until there is another.
        is_early = self._n_timed < 2
        self._step_s = took_s if is_early else max(self._step_s, took_s)
        self._n_timed += 1
        self._last_step_s = now_s
        is_due = self._trainer.steps + 1 >= self._next_step
        if self._comm.rank == 0:
            is_due = is_due or self._is_late() or self._is_time(now_s)
        if self._is_asked() or is_due:
            self._trainer.request_stop()
        if self._work is not None:
            self._work.poll()

    def _is_asked(self):
        """Return whether other ranks are wanted, or another rank got a signal."""
        if self.requests is None or not self.requests.is_time(self._trainer):
            return False
        self.stop.signal = self.stop.signal or self.requests.signal_of_parked()
        return self.requests.look() or self.stop.signal > 0

    def _is_time(self, now_s):
        every_s = self._settings.every_s
        return every_s is not None and now_s - self._last_saved_s >= every_s

    def _is_late(self):
        reserve_s = SAFETY * (self._save_s + self._step_s) + LEAST_RESERVE_S
        return self._deadline.left_s() <= reserve_s

    def meet(self, records):
        """After a ``fit``: write a checkpoint if one is due.

        Parameters
        ----------
        records : list of dict
            Those of all epochs.

        Returns
        -------
        int
            GO_ON, FINISHED, OUT_OF_TIME, RESIZED or the number of a signal; the same on
            every rank.

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
        now_s, reason, due, wanted = time.monotonic(), int(number), False, 0
        if self._comm.rank == 0:
            if self._trainer.ended != "stop":
                reason = FINISHED
            elif not reason and self._is_late():
                reason = OUT_OF_TIME
            elif not reason and self.requests is not None and self.requests.wanted:
                reason, wanted = RESIZED, self.requests.wanted
            due = self._trainer.steps >= self._next_step or self._is_time(now_s)
        reason, due, wanted = from_rank_0(self._comm, reason, due, wanted)
        self.n_wanted = int(wanted)
        if due or reason not in (GO_ON, RESIZED):
            self._save(records, reason)
        if reason == RESIZED:
            self._attempt(self._finish)  # other ranks cannot end what these have begun
        return int(reason)

    def _save(self, records, reason):
        """Write a checkpoint; warn if that fails and the training can go on."""
        self._attempt(self._finish)  # the one before
        self._attempt(lambda: self._begin(records, reason), reason)
        self._last_saved_s = self._last_step_s = time.monotonic()
        self._next_step = self._step_after(self._trainer.steps)

    def _attempt(self, do, reason=GO_ON):
        try:
            do()
        except DataError as error:  # on every rank
            self._work, self.best = None, self._best_before
            is_last = reason not in (GO_ON, FINISHED, RESIZED)
            if is_last or self._settings.on_error == "stop":
                raise
            self._say(f"warning  no checkpoint: {error}; the training goes on")

    def _begin(self, records, reason):
        """Begin a checkpoint; finish it unless that can be left to a thread."""
        began_s, trainer, path = time.monotonic(), self._trainer, None
        with together(self._comm):
            if self._comm.rank == 0:
                path = store.next_path(self._directory, trainer.steps)
        path = self._comm.bcast(path, root=0)
        self._best_before = self.best
        self._tell_best(records, os.path.basename(path))
        about = {**self._about, "best": self.best, "step": trainer.steps}
        about |= {"epoch": trainer.epoch, "written_s": time.time()}
        about["out_of_time"] = reason == OUT_OF_TIME
        if reason == FINISHED:
            about |= {"ended": trainer.ended, "kept": trainer.kept}
        texts = None if self._run is None else self._run.texts(records)

        def done():
            self._save_s = max(self._save_s, time.monotonic() - began_s)
            best = [self.best["name"]] if self.best else []
            made_of = self._directory, self._settings.keep, best, self._damaged
            self._left = store.prune(*made_of)

        in_background, room_bytes = reason == GO_ON and self._in_background, -1
        if in_background:
            room_bytes = available_bytes() // (2 * trainer.ranks.n_on_node)
        work = trainer.writing(
            path, about=about, texts=texts, room_bytes=room_bytes, done=done
        )
        self._work, self._path = work, path
        if work.is_copied:
            work.start()
            return
        if in_background and not self._told_of_room:
            self._told_of_room = True
            self._say("remark   too little memory for a copy: checkpoints take time")
        work.write()
        self._finish()

    @property
    def _in_background(self):
        """Whether to write in the background; servers cannot tell when they are done.
        """
        is_served = self._trainer.parallel.strategy == "server"
        return self._settings.asynchronous and not is_served

    def _finish(self):
        """Wait for the checkpoint that is being written, if there is one. Collective.
        """
        if self._work is None:
            return
        n_bytes = self._work.finish()
        self._work, self.has_saved = None, True
        if self._left is not None:
            self._say(f"warning  an older checkpoint stays: {self._left}")
            self._left = None
        self._say_written(n_bytes)

    def close(self, error):
        """End what is being written, if all ranks have raised ``error``.

        Otherwise the messages about it would be those of a later training.
        """
        if self._work is not None and is_agreed(error, self._comm):
            with suppress(DataError):
                self._work.finish()
            self._work = None

    def abandon(self):
        """Wait for this rank's threads that write, and do no more. Not collective."""
        if self._work is not None:
            self._work.abandon()
            self._work = None

    def _tell_best(self, records, name):
        """Note whether the checkpoint is the best so far by the metric."""
        progress, about = self._trainer.progress, self._about
        if not records or progress.batch:
            return
        monitor = about["monitor"]
        value = records[-1].get(monitor)
        if value is None:
            return
        before = self.best and cost({monitor: self.best["value"]}, monitor)
        if before is None or cost(records[-1], monitor) < before:
            self.best = {"name": name, "value": value}

    def _say(self, text):
        if self._console is not None:
            self._console.say(text)

    def _say_written(self, n_bytes):
        now_s = time.monotonic()
        # The last one is not worth a line, nor is each of many.
        if self._trainer.ended == "stop" and now_s - self._told_s >= TOLD_S:
            self._told_s = now_s
            self._say(
                f"saved    {self._path}: {n_bytes / 1e6:,.1f} MB, {self._save_s:.2f} s"
            )


def why_ended(reason):
    """Return the words for the result of `meet` of a training that is not finished."""
    if reason == OUT_OF_TIME:
        return "the time of the job is nearly over"
    return signal.Signals(reason).name
