"""The learning-rate range test: one short run over growing rates."""

import json
import math
import os
import sys

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import require_reachable
from pympi_train.errors import ConfigError, DivergenceError, UserError
from pympi_train.runs.curves import require_figure
from pympi_train.runs.earlier.start import start_from_init
from pympi_train.runs.output import finite, replacing
from pympi_train.runs.prepare import prepared, ranks_of_job
from pympi_train.search.growing import (
    LEAST_STEPS,
    GrowingRate,
    Smoothing,
    smoothed,
    suggest_range,
)

RANGE_JSON, RANGE_PICTURE = "lr-range.json", "lr-range.png"
TOO_HIGH = 2.0  # times the smoothed loss of the first steps ends the run


def lr_range(config, comm, *, low=1e-7, high=10.0, n_steps=200, console=None):
    """Run some steps at growing learning rates; return their losses and a range.

    Parameters
    ----------
    config : Config
        Its learning rate and its schedule are not used.
    comm : MPI.Comm
        All its ranks take part.
    low, high : float
        The first and the last rate.
    n_steps : int
        Fewer are run if the loss becomes too high.
    console : Console, optional
        On rank 0 only.

    Returns
    -------
    dict
        rates and losses (one per step, except those of batches without a weight above
        0; with `local` and stale servers losses are those of the ranks' own
        parameters), smoothed, suggested (low, high, learning_rate; or
        None if the loss never fell), ended ("range", "rise" or "diverged"), directory.

    Raises
    ------
    ConfigError, DataError
        On every rank.

    Notes
    -----
    Collective. Writes lr-range.json, and lr-range.png if matplotlib is installed, to
    ``[output] directory``.
    """
    require_reachable(comm)
    with together(comm):
        _require_range(config, low, high, n_steps)
    with ranks_of_job(config, comm) as ranks, prepared(config, ranks) as made:
        data, _, trainer, _ = made
        start_from_init(config, trainer, ranks.comm)
        base = trainer.optimizer.lr
        trainer.schedule = GrowingRate(low, high, n_steps, base)
        watch = _Watch(trainer, n_steps)
        ended = _run_steps(trainer, None if data is None else data.train, watch)
        losses = None if trainer.serves else watch.losses_of_all()
        losses, ended = ranks.comm.bcast((losses, ended or watch.ended), root=0)
    # A batch without a weight above 0 has no loss.
    steps = [step for step, loss in enumerate(losses) if not math.isnan(loss)]
    rates = [trainer.schedule.rate(step) for step in steps]
    losses = [losses[step] for step in steps]
    found = {
        "rates": rates,
        "losses": losses,
        "smoothed": smoothed(losses, n_steps),
        "ended": ended,
        "directory": config.output.directory,
    }
    found["suggested"] = suggest_range(rates, found["smoothed"])
    with together(comm):
        if comm.rank == 0:
            _write(found, console)
    return found


def _require_range(config, low, high, n_steps):
    if config.optimizer.name == "lbfgs":
        raise ConfigError("lr-range: lbfgs finds its own steps, it has no rate")
    if not (0 < low < high < math.inf):
        raise ConfigError(
            f"lr-range: expected 0 < --from < --to, got --from {low:g} --to {high:g}"
        )
    if low < sys.float_info.min:
        raise ConfigError(f"lr-range: --from {low:g} is too small for a number")
    if n_steps < 10:
        raise ConfigError(f"lr-range: expected --steps of 10 or more, got {n_steps}")
    if config.elastic.survive or config.elastic.ranks is not None:
        raise ConfigError("lr-range: leave [elastic] survive and ranks out")


def _run_steps(trainer, train, watch):
    """Run the steps; return why they ended if they diverged. Collective."""
    try:
        if trainer.serves:
            trainer.fit(None, epochs=1)
        else:
            per_epoch = -(-train.n // trainer.batch_size)
            n = 1 if trainer.optimizer.full_batch else per_epoch
            trainer.fit(train, epochs=-(-watch.n_steps // n), on_step=watch.step)
    except DivergenceError:  # on every rank
        return "diverged" if watch.n_done < watch.n_steps else None
    return None


class _Watch:
    """Notes the loss of each step; ends the run after the last, or if it rises."""

    def __init__(self, trainer, n_steps):
        self._trainer, self.n_steps, self.ended = trainer, n_steps, "range"
        self._weights, self._losses = [], []
        self._smooth, self._first = Smoothing(n_steps), 0.0

    @property
    def n_done(self):
        """Number of steps of this rank."""
        return len(self._losses)

    def step(self, epoch, done, total):
        progress = self._trainer.progress
        self._weights.append(progress.weights[-1])
        self._losses.append(progress.losses[-1])
        # A request within an epoch ends it after the next step.
        if self.n_done + (done < total) >= self.n_steps:
            self._trainer.request_stop()
        weight = self._weights[-1]
        if self._trainer.comm.rank != 0 or weight <= 0:
            return
        value = self._smooth.add(self._losses[-1] / weight)
        if len(self._losses) <= 2 * LEAST_STEPS:
            self._first = max(self._first, value)
        if value > TOO_HIGH * self._first:
            self.ended = "rise"
            self._trainer.request_stop()

    def losses_of_all(self):
        """Return the mean loss of each step that all ranks took. Collective."""
        trainer = self._trainer
        (most,) = reduced(trainer.comm, [-len(self._losses)], op="MAX")
        n = min(int(-most), self.n_steps)
        sums = (np.array(values[:n]) for values in (self._weights, self._losses))
        weights, losses = map(np.asarray, trainer.strategy.totals(*sums))
        weights = np.where(weights > 0, weights, np.nan)
        return (losses / weights).tolist()


def _write(found, console):
    """Write the files and print the range; on rank 0."""
    folder = found["directory"]
    say = (lambda text: None) if console is None else console.say
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"[output] directory {folder} cannot be made: {error.strerror}"
        ) from error
    with replacing(os.path.join(folder, RANGE_JSON)) as temporary:
        temporary.write_text(json.dumps(finite(found), indent=1) + "\n")
    files, rates, s = RANGE_JSON, found["rates"], found["suggested"]
    try:
        files += f", {_draw_range(found)}" if rates else ""
    except UserError as error:  # not fatal: the numbers are there
        files += f" ({error})"
    ways = {"range": "all done", "rise": "the loss rose", "diverged": "it diverged"}
    if rates:
        why = ways[found["ended"]]
        say(f"rates    {rates[0]:.3g} to {rates[-1]:.3g} in {len(rates)} steps: {why}")
    else:
        say("rates    none: it diverged in the first step")
    if s is None:
        say("range    none: the loss never fell; try more --steps, or a lower --from")
    else:
        rate = f"{s['learning_rate']:.2g} for a single training"
        say(f"range    {s['low']:.2g} to {s['high']:.2g}; {rate}")
        say(
            "search   --param optimizer.learning_rate="
            f"log:{s['low']:g}..{s['high']:g}:9"
        )
        if found["smoothed"][-1] == min(found["smoothed"]):
            say("         the loss still fell at the last rate; try a higher --to")
    say(f"written  {folder}: {files}")


def _draw_range(found):
    """Write the picture; return its name."""
    figure = require_figure(RANGE_PICTURE)(figsize=(5, 3.5), layout="tight")
    axis, s = figure.subplots(), found["suggested"]
    axis.plot(found["rates"], found["losses"], color="0.75", lw=1, label="each step")
    axis.plot(found["rates"], found["smoothed"], label="smoothed")
    top = max(found["smoothed"][:1] + [min(found["smoothed"], default=1.0)])
    axis.set_ylim(0, 2 * top if top > 0 else None)
    if s is not None:
        axis.axvspan(s["low"], s["high"], alpha=0.15, color="C2", label="suggested")
        label = "for a single training"
        axis.axvline(s["learning_rate"], color="C2", lw=1, label=label)
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axis.legend()
    with replacing(os.path.join(found["directory"], RANGE_PICTURE)) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return RANGE_PICTURE
