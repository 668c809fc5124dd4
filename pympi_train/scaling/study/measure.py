"""What one launch of a study measures: the training step of a configuration."""

import dataclasses
import math
import os
import platform
from time import perf_counter

import numpy as np

from pympi_train.backends.energy import EnergyMeter, joules_between
from pympi_train.backends.threads import affinity
from pympi_train.comm.checks import agreed_within
from pympi_train.comm.collectives import reduced
from pympi_train.errors import ConfigError
from pympi_train.optim.lbfgs import LBFGS
from pympi_train.pool.machine import machine_of
from pympi_train.runs.prepare import prepared, ranks_of_job
from pympi_train.scaling.analysis.points import PARTS
from pympi_train.scaling.study.oversubscription import is_oversubscribed
from pympi_train.scaling.study.parts import parts_of_step
from pympi_train.trace.laps import PHASES

MOST_DRAWS = 64  # steps and ranks whose seconds of computing are kept
LEAST_STEPS = 3
EPOCHS = 10**6  # the number of steps ends it
SPANS = 256  # of a step, for which the trace has room
NO_STEP = -1
READ_S = 30.0  # between two looks at counters that begin again at 0
WARM_UP = 0.1  # of the timed steps, and at least LEAST_STEPS


class StepTimes:
    """Takes the times of a rank's steps, once those of the warm-up are over.

    Parameters
    ----------
    trainer : Trainer
    n_steps : int
        To be timed.
    meter : EnergyMeter, optional
        Of this node, on one of its ranks.
    max_s : float, optional
        After so many seconds of timed steps, ``LEAST_STEPS`` of them are enough.

    Attributes
    ----------
    meter : EnergyMeter or None
    step_s : list of float
        Seconds of each step.
    phases_s : list of list of float
        Its seconds by phase.
    steps : list of int
        Its number.
    trace : Trace or None
        From the end of the warm-up on.
    joules : float or None
        Of this node in a step.

    Notes
    -----
    The time between epochs, in which records are made, is left out. The exchange with
    which strategy local ends an epoch belongs to the epoch's last step.
    """

    def __init__(self, trainer, n_steps, meter=None, max_s=math.inf):
        self._trainer, self._n_steps, self.meter = trainer, n_steps, meter
        self._read_s = perf_counter()
        self._left_s = max_s
        self._n_before = max(LEAST_STEPS, math.ceil(WARM_UP * n_steps))
        self._last_s = self._seconds = self.trace = self._joules = None
        self._epoch = self._n_calls = self._sent_before = self.sent_bytes = 0
        self.step_s, self.phases_s, self.steps = [], [], []
        self._borders = []  # (first step, end of the epoch before, its own beginning)
        self._ended_s = -math.inf

    def __call__(self, epoch, *_):
        """Note the end of a step: ``on_step`` of `Trainer.fit`."""
        now_s, strategy = perf_counter(), self._trainer.strategy
        phases = self._phases()
        if self.meter is not None and now_s - self._read_s > READ_S:
            self.meter.read()
            self._read_s = now_s
        is_new = epoch != self._epoch  # the laps were reset
        self._n_calls += 1
        if self._n_before > 0 or self._trainer.choosing:
            self._n_before -= 1
        elif self.trace is None:
            self._begin()
        elif len(self.step_s) < self._n_steps:  # local stops late
            before = [0.0] * len(PHASES) if is_new else self._seconds
            if is_new:
                self._last_s = strategy.laps.began_s
                self._borders.append((strategy.count, self._ended_s, self._last_s))
            self.step_s.append(now_s - self._last_s)
            self._left_s -= self.step_s[-1]
            self.phases_s.append([a - b for a, b in zip(phases, before)])
            self.steps.append(strategy.count)
            self.sent_bytes += strategy.sent_bytes - self._sent_before
        if len(self.step_s) >= LEAST_STEPS and self._left_s < 0:
            self._n_steps = len(self.step_s)
        if len(self.step_s) >= self._n_steps:
            self._trainer.request_stop()
        self._epoch, self._seconds = epoch, phases
        self._sent_before = strategy.sent_bytes
        self._last_s = perf_counter()

    def end_epoch(self, record):
        """Add what follows the last step of an epoch: ``on_epoch`` of `Trainer.fit`."""
        self._ended_s, phases = self._trainer.strategy.laps.last_s, self._phases()
        if self.steps and self.steps[-1] == self._trainer.strategy.count:
            more_s = [a - b for a, b in zip(phases, self._seconds)]
            self.step_s[-1] += sum(more_s)
            self.phases_s[-1] = [a + b for a, b in zip(self.phases_s[-1], more_s)]

    def _phases(self):
        return [self._trainer.strategy.laps.seconds[phase] for phase in PHASES]

    def _begin(self):
        """The warm-up is over."""
        self.trace = self._trainer.start_trace(SPANS * self._n_steps)
        self._n_calls = 0
        if self.meter is not None:
            self._joules = self.meter.read()

    def spans(self):
        """Return the spans of the timed steps; None if some are lost."""
        if self.trace is None or self.trace.is_overwritten:
            return None
        found = self.trace.spans()
        for first, ended_s, began_s in self._borders:
            # What lies before a step has its number.
            is_before = (found["step"] == first) & (found["start_s"] < began_s)
            found["step"][is_before] = NO_STEP
            found["step"][is_before & (found["end_s"] <= ended_s)] = first - 1
        return found

    def joules(self):
        """Return the joules of this node in a step; None if nothing counts them."""
        if self._joules is None or not self._n_calls:
            return None
        found = joules_between(self._joules, self.meter.read())
        return None if found is None else found / self._n_calls


def measure_step(config, comm, n_steps, cores_per_rank, *, max_s=math.inf):
    """Train some steps of a configuration; return their times.

    Parameters
    ----------
    config : Config
        Rows, model, optimizer, batches and strategy are those of a training by it.
        Nothing is evaluated or written.
    comm : MPI.Comm
        All its ranks take part.
    n_steps : int
        Steps to be timed, after a warm-up that lasts until the values of "auto"
        settings are chosen. L-BFGS may end earlier.
    cores_per_rank : int
        Cores that the launcher gives to each rank.
    max_s : float, optional
        As for `StepTimes`.

    Returns
    -------
    dict or None
        On rank 0 a measurement of docs/scaling.md without mode, strategy and repeat;
        None on other ranks.

    Raises
    ------
    ConfigError, DataError
        On every rank: as a training, or if the batch is larger than the training rows,
        or too few steps are possible.

    Notes
    -----
    Collective.
    """
    with ranks_of_job(config, comm) as ranks:
        found = {"ranks": comm.size, "node_of": list(machine_of(ranks.comm).nodes)}
        found["nodes"] = len(set(found["node_of"]))
        found["node_names"] = _node_names(ranks.comm, found["node_of"])
        found["cores_per_rank"] = cores_per_rank
        found["cpus"] = _cpus(ranks.comm)
        found["oversubscribed"] = is_oversubscribed(ranks.comm, cores_per_rank)
        with prepared(config, ranks) as (data, _, trainer, _):
            if trainer.serves:
                trainer.fit(None, epochs=EPOCHS)
                return None
            _require_batch(config, trainer, data.train)
            nodes = found["node_of"]
            is_first = nodes.index(nodes[comm.rank]) == comm.rank
            meter = EnergyMeter() if is_first else None
            times = StepTimes(trainer, n_steps, meter, max_s)
            _train(trainer, data.train, times)
            found |= _combined(trainer, times)
            if set(nodes) - set(nodes[: trainer.comm.size]):  # with servers alone
                found["joules"] = None
            layout = trainer.model.layout
            found["parameters"] = layout.n_parameters
            found["layers"] = max(1, len(trainer.model.layer_spans))
            found["gradient_bytes"] = layout.n_parameters * layout.dtype.itemsize
            rows, is_full = data.train.n, trainer.optimizer.full_batch
            found["batch_size"] = rows if is_full else min(trainer.batch_size, rows)
            found["full_batch"], found["rows"] = is_full, rows
            found["exchange"] = trainer.exchange
    return found if comm.rank == 0 else None


def _node_names(comm, node_of):
    """Return the names of the nodes by their numbers; empty but on rank 0. Collective.

    As SLURM has them, where it has started the ranks: it can exclude them by these.
    """
    own = os.environ.get("SLURMD_NODENAME") or platform.node()
    names = comm.gather(own) or []
    return [names[node_of.index(node)] for node in range(max(node_of) + 1) if names]


def _cpus(comm):
    """Return the CPUs of each of some ranks; empty but on rank 0. Collective."""
    found = comm.gather(sorted(affinity())) or []
    return [found[rank] for rank in _thinned(np.arange(len(found)))]


def _train(trainer, rows, times):
    if isinstance(trainer.optimizer, LBFGS):
        iterations = lambda record: times(record["epoch"])  # noqa: E731
        trainer.fit(rows, epochs=EPOCHS, on_epoch=iterations)
    else:
        trainer.fit(rows, epochs=EPOCHS, on_step=times, on_epoch=times.end_epoch)


def _require_batch(config, trainer, rows):
    if config.train.batch_size <= rows.n or trainer.optimizer.full_batch:
        return
    text = (
        f"a global batch of {config.train.batch_size:,} rows is more than the "
        f"{rows.n:,} training rows: lower [train] batch_size (the weak study multiplies"
        " it by the ranks), or make more rows by pympi-train data synth"
    )
    raise agreed_within(trainer.comm, ConfigError(text))


def _combined(trainer, times):
    """Return what the times of all ranks say, complete on rank 0. Collective."""
    comm, joules = trainer.comm, times.joules()
    (n,) = reduced(comm, [len(times.step_s)], op="MIN").astype(int).tolist()
    if n < LEAST_STEPS:
        text = (
            f"only {n} steps could be timed, fewer than {LEAST_STEPS}: the training "
            "ends too early"
        )
        raise agreed_within(comm, ConfigError(text))
    steps_s, steps = np.array(times.step_s[:n]), np.array(times.steps[:n])
    phases_s = np.array(times.phases_s[:n])  # (steps, phases)
    parts = parts_of_step(comm, steps_s, phases_s, times.spans(), steps)
    own = np.array([parts[name].mean() for name in PARTS])
    slowest_s = reduced(comm, steps_s, op="MAX")
    means, draws = _gathered(comm, own), _gathered(comm, _thinned(parts["compute"]))
    is_missing = times.meter is not None and joules is None
    told = [times.sent_bytes / len(times.step_s), joules or 0.0, is_missing]
    sent_bytes, joules, n_missing = reduced(comm, told).tolist()
    if comm.rank != 0:
        return {}
    chosen = _thinned(np.arange(comm.size))
    return {
        "steps": n,
        "step_s": slowest_s.tolist(),
        "parts_s": {name: means[:, i].tolist() for i, name in enumerate(PARTS)},
        "compute_s": draws[chosen].T.tolist(),
        "sent_bytes": sent_bytes / comm.size,
        "input_bytes": None,
        "joules": None if n_missing else joules,  # a part would look like a saving
    }


def _thinned(values):
    """Return at most ``MOST_DRAWS`` of ``values``, evenly spaced."""
    n = len(values)
    k = min(n, MOST_DRAWS)
    return values[np.arange(k) * n // k]


def _gathered(comm, values):
    """Return the values of all ranks, shape (ranks, n), on rank 0. Collective."""
    found = np.empty((comm.size, len(values))) if comm.rank == 0 else None
    comm.Gather(np.ascontiguousarray(values, dtype=np.float64), found)
    return found


def with_batch(config, batch_size):
    """Return a Config with another global batch."""
    train = dataclasses.replace(config.train, batch_size=batch_size)
    return dataclasses.replace(config, train=train)
