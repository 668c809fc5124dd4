"""Printed output of a training run. Imported on rank 0 only."""

import os
import shlex
import sys
import time
from contextlib import suppress

from pympi_train.comm import launcher
from pympi_train.runs.speech import counted, encodable, silence
from pympi_train.runs.startup import describe_startup
from pympi_train.runs.terminal.descriptions import training_lines
from pympi_train.runs.terminal.endings import (
    ending_lines,
    finished_line,
    outcome_lines,
)

EVERY_S = 5.0  # between two lines of progress if output is not a terminal
ROWS_S = 0.5  # minimum time between two rows of the table once there are many
DRAWN_FROM_S = 10.0  # shortest training with a picture, which takes one second
MANY = 40  # up to this many epochs, each gets a row


class Console:
    """Prints the model and data, progress, a table of epochs, and the result.

    On a terminal, progress is a bar. Under mpirun and in batch logs, where output is
    not a terminal, it is a line every few seconds. If a line cannot be written, the
    console prints nothing more and training continues.

    Parameters
    ----------
    stream : file
        Standard output, or standard error if standard output is for JSON.
    launch_s : float, optional
        Seconds from the start of the process to here.
    """

    def __init__(self, stream, launch_s=None):
        self._stream, self._launch_s = stream, launch_s
        self._is_terminal = _is_terminal(stream)
        self._bar = None
        self._columns, self._last_row = None, 0
        self._n_rows, self._shares = 1, None
        self._last_row_s = self._last_line_s = time.monotonic()

    def say(self, text=""):
        """Print one line."""
        if self._stream is None:
            return
        try:
            print(encodable(text, self._stream), file=self._stream, flush=True)
        except (OSError, ValueError):  # broken pipe, full disk, closed
            self._fall_silent()

    def _fall_silent(self):
        if self._stream in (sys.stdout, sys.stderr):
            # The rest of its buffer would fail again when Python exits.
            silence(self._stream)
        if self._bar is not None:
            self._bar.disable = True  # else it writes once more when it is deleted
        self._stream = self._bar = None

    def describe(self, config, data, trainer, startup):
        """Print the model, the data, the ranks and the seconds of the start-up."""
        self._epochs = config.train.epochs
        self._tolerance = config.optimizer.tolerance
        self._n_rows = data.train.n
        self._warn_if_crowded(trainer.ranks)
        alone = launcher.remark(os.environ, trainer.comm.size)
        if alone:
            self.say(f"remark   {alone}")
        for line in training_lines(config, data, trainer):
            self.say(line)
        self.say(f"start-up {describe_startup(startup, self._launch_s)}")
        self.say()

    def tell_finished(self, config, result):
        """Print that a run that was to be resumed is finished."""
        self.say(finished_line(config.output.directory, result))

    def tell_start(self, lines):
        """Print from which weights a training starts, if not from initial ones."""
        for line in lines:
            self.say(line)
        if lines:
            self.say()

    def tell_resumed(self, found, trainer):
        """Print where a training goes on, if it does."""
        if found is None:
            return
        for remark in found.remarks:
            self.say(f"warning  passed over: {remark}")
        if found.saved is None:
            none = "none is whole" if found.remarks else "no checkpoint is there"
            self.say(f"resumed  nothing: {none}, training starts afresh")
            self.say()
            return
        at = f"{counted(trainer.steps, 'step')}, {counted(trainer.epoch, 'epoch')} done"
        self.say(f"resumed  {found.saved.path}: {at}")
        self.say()

    def tell_dead(self, ranks, n_ranks):
        """Print which of the job's ranks have died."""
        who = "rank" if len(ranks) == 1 else "ranks"
        which = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
        n_left = n_ranks - len(ranks)
        left = f"{counted(n_left, 'rank')} {'goes' if n_left == 1 else 'go'} on"
        self.say()
        self.say(f"warning  {who} {which} of {n_ranks} died: {left}")

    def tell_interrupted(self, told):
        """Print why and where a training was interrupted, and what goes on from it."""
        self.say()
        at = f"after step {told['step']:,}"
        self.say(
            f"ended    {at}: {told['interrupted']}; the same command with --resume "
            f"goes on from {told['checkpoints']}"
        )

    def _warn_if_crowded(self, ranks):
        if ranks.n_on_node > ranks.n_cpus:
            cpus = counted(ranks.n_cpus, "CPU")
            self.say(
                f"warning  {ranks.n_on_node} ranks of this node share {cpus}: they "
                f"wait for each other's turn, and steps may take ten times as long; "
                f"start at most {ranks.n_cpus}"
            )

    def step(self, epoch, done, total, loss):
        """Show progress within an epoch; ``loss()`` is the mean of the last steps."""
        if self._stream is None:
            return
        if self._is_terminal:
            try:
                self._advance(epoch, done, total, loss)
            except (OSError, ValueError):
                self._fall_silent()
            except Exception:  # an error in the bar must not end the training
                self._is_terminal = False
            return
        if done < total and time.monotonic() - self._last_line_s >= EVERY_S:
            self._last_line_s = time.monotonic()
            at = f"step {done}/{total}, {100 * done / total:.0f} %, loss {loss():.4g}"
            self.say(f"epoch {epoch}/{self._epochs}: {at}")

    def _advance(self, epoch, done, total, loss):
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=f"epoch {epoch}/{self._epochs}",
                total=total,
                leave=False,
                unit="step",
                file=self._stream,
                mininterval=0.2,
            )
        if self._bar.update(done - self._bar.n):  # True if the bar was drawn
            self._bar.set_postfix_str(f"loss {loss():.4g}", refresh=False)
        if done == total:
            self._bar.close()
            self._bar = None

    def epoch(self, record):
        """Print the epoch's row of the table, unless rows are too frequent."""
        now = time.monotonic()
        first, last = self._columns is None, record["epoch"] == self._epochs
        if first:
            self._columns = [k for k in _COLUMNS if k in record]
            self.say("  ".join(f"{_COLUMNS[k][0]:>{_WIDTH}}" for k in self._columns))
        elif not last and self._epochs > MANY and now - self._last_row_s < ROWS_S:
            return
        self._last_row_s = self._last_line_s = now
        self._row(record)
        self._tell_shares(record)

    def _tell_shares(self, record):
        """Print the smallest share of the rows if shares changed."""
        shares = [record.get(key) for key in _SHARES]
        is_single = shares[1] == self._n_rows  # the other ranks have left
        if self._shares not in (None, shares) and not is_single:
            rank, least, most = shares
            least, most = (100 * share / self._n_rows for share in (least, most))
            text = f"rank {rank} computed {least:.0f} % of the rows"
            self.say(f"balance  {text}, others up to {most:.0f} %")
        self._shares = shares

    def _row(self, record):
        self._last_row = record["epoch"]
        cells = [_cell(record[k], _COLUMNS[k][1]) for k in self._columns]
        self.say("  ".join(f"{cell:>{_WIDTH}}" for cell in cells))

    def finish(self, result, records, run):
        """Print the result and its files; draw the learning curves."""
        for record in records if self._columns is not None else ():
            is_wanted = record["epoch"] in (result["kept_epoch"], records[-1]["epoch"])
            if is_wanted and record["epoch"] > self._last_row:
                self._row(record)
        self.say()
        train_s = sum(record["wall_s"] for record in records)
        all_s = (self._launch_s or 0.0) + result["wall_s"]
        for line in ending_lines(result, self._epochs, self._tolerance):
            self.say(line)
        for line in outcome_lines(result, train_s, all_s):
            self.say(line)
        self._say_files(result, records, run)

    def _say_files(self, result, records, run):
        """Print the files written; draw the curves if the training took long enough."""
        from pympi_train.runs import curves, output

        files = [output.WEIGHTS, output.CONFIG, output.SCHEMA, output.METRICS]
        if result["wall_s"] < DRAWN_FROM_S:
            self.say(f"written  {result['directory']}: {', '.join(files)}")
            self.say(f"plot     pympi-train plot {shlex.quote(result['directory'])}")
            return
        try:
            curves.draw_curves(records, run.path)
        except Exception as error:  # not fatal: the training is complete and saved
            files[-1] += f" ({output.CURVES}: not drawn: {error})"
        else:
            files.append(output.CURVES)
        self.say(f"written  {result['directory']}: {', '.join(files)}")


def _is_terminal(stream):
    # Open MPI's mpirun gives a rank a terminal even if output goes to a file.
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        return False
    try:
        if not stream.isatty():
            return False
    except (AttributeError, OSError, ValueError):  # no stream, or a closed one
        return False
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns > 0
    return True


def _cell(value, spec):
    text = format(value, spec)
    return text if len(text) <= _WIDTH else format(value, ".6g")


_WIDTH = 12
_SHARES = ("rank_of_least", "rows_least", "rows_most")
_COLUMNS = {
    "epoch": ("epoch", "d"),
    "step": ("step", "d"),
    "train_loss": ("train loss", ".6f"),
    "validation_loss": ("valid. loss", ".6f"),
    "perplexity": ("perplexity", ".5g"),
    "accuracy": ("accuracy", ".4f"),
    "rmse": ("RMSE", ".5g"),
    "r2": ("R2", ".5f"),
    "samples_per_s": ("samples/s", ",.0f"),
}
