"""Writing checkpoints, compared with plain writes, and the steps that it delays."""

import math
import os
import secrets
import shutil
import time
from contextlib import contextmanager
from functools import partial

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import barrier, reduced
from pympi_train.data.sources.dataset import Dataset
from pympi_train.errors import DataError
from pympi_train.models.mlp import MLP
from pympi_train.optim.adam import Adam
from pympi_train.train.trainer import Trainer

STATE_BYTES = 12  # of a parameter: itself and two moments, float32
ROWS = 64  # of a rank's batch
OUTPUTS = 10
LONGER = 1.5  # times the seconds of a save: those of the steps beside it
INTERVAL_S = 600.0  # the default of [checkpoint] every_s


def measure(comm, folder, n_bytes=10**9, rounds=3):
    """Time checkpoints of a perceptron with Adam in ``folder``; they are removed.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that train together, and write.
    folder : path
        On the file system to measure.
    n_bytes : int
        Approximate size of the training's state.
    rounds : int
        Each side is timed so often, all sides in turn.

    Returns
    -------
    dict
        bytes, ranks, parameters, and medians over the rounds: plain_bytes_per_s (each
        rank writes as much of a file, with fsync), checkpoint_bytes_per_s (at once,
        hash and fsync included), times_plain (of these within a round), copy_s (until
        the training goes on, if a thread writes), step_s (without a checkpoint),
        delay_s (by which a checkpoint in the background delays the steps, copy
        included), and overhead: delay_s as a part of 600 s, the default interval.

    Raises
    ------
    DataError
        On every rank, if nothing can be written, or the disk lacks the space.

    Notes
    -----
    Collective.
    """
    found = []
    with saved_training(comm, folder, n_bytes) as (trainer, step):
        for _ in range(rounds):
            found.append(_round(comm, folder, trainer, step))
        parameters = trainer.model.layout.n_parameters
    sides = {
        name: float(np.median([one[name] for one in found]))
        for name in found[0]
        if name != "bytes"
    }
    return {
        "bytes": found[0]["bytes"],
        "ranks": comm.size,
        "parameters": parameters,
        **sides,
        "overhead": sides["delay_s"] / INTERVAL_S,
    }


@contextmanager
def saved_training(comm, folder, n_bytes):
    """Yield (trainer, step) of a perceptron whose state has about ``n_bytes``.

    ``step`` takes no argument. The exchange has been chosen before.

    Raises
    ------
    DataError
        On every rank, if ``folder`` lacks the space for its checkpoints.

    Notes
    -----
    Collective.
    """
    width = max(16, math.isqrt(n_bytes // STATE_BYTES))
    with together(comm):
        if comm.rank == 0:
            _require_space(folder, 2.5 * n_bytes)
    rng = np.random.default_rng(comm.rank)
    x = rng.standard_normal((ROWS, width), np.float32)
    data = Dataset(x, rng.integers(0, OUTPUTS, ROWS), comm=comm)
    with Trainer(
        MLP(width, [width], OUTPUTS), Adam(lr=1e-4), comm=comm
    ) as trainer:
        step, rows = trainer.prepare(data), slice(0, len(data))
        while trainer.steps < 3 or trainer.choosing:
            step(rows)
        yield trainer, partial(step, rows)


def _require_space(folder, n_bytes):
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    if free_bytes < n_bytes:
        raise DataError(
            f"{folder}: {free_bytes:,} bytes are free, and checkpoints would take "
            f"{n_bytes:,.0f}; choose a smaller --size or another folder"
        )


def _round(comm, folder, trainer, step):
    """Time each side once. Collective."""
    path = os.path.join(folder, f"pympi-train-bench-{secrets.token_hex(4)}")
    path = comm.bcast(path, root=0)
    n_bytes = 0

    def save():
        nonlocal n_bytes
        n_bytes = trainer.save(path)

    save_s = _timed(comm, save)
    remove_folder(comm, path)
    plain_s = _timed(comm, lambda: write_plain(comm, path, n_bytes))
    step_s = _timed(comm, lambda: _take(step, 3)) / 3
    n_steps = max(3, math.ceil(LONGER * save_s / step_s))
    alone_s = _timed(comm, lambda: _take(step, n_steps))
    copy_s = 0.0

    def save_beside():
        """Save in the background, beside steps."""
        nonlocal copy_s
        began_s = time.perf_counter()
        work = trainer.writing(path, room_bytes=2**62)
        work.start()
        copy_s = time.perf_counter() - began_s
        for _ in range(n_steps):
            step()
            work.poll()
        work.finish()

    beside_s = _timed(comm, save_beside)
    remove_folder(comm, path)
    (copy_s,) = reduced(comm, [copy_s], op="MAX")
    return {
        "bytes": n_bytes,
        "plain_bytes_per_s": n_bytes / plain_s,
        "checkpoint_bytes_per_s": n_bytes / save_s,
        "times_plain": plain_s / save_s,
        "copy_s": float(copy_s),
        "step_s": alone_s / n_steps,
        "delay_s": beside_s - alone_s,
    }


def _take(step, n_steps):
    for _ in range(n_steps):
        step()


def _timed(comm, do):
    """Return the seconds of the slowest rank. Collective."""
    barrier(comm)
    began_s = time.perf_counter()
    do()
    return float(reduced(comm, [time.perf_counter() - began_s], op="MAX")[0])


def remove_folder(comm, path):
    """Remove a folder that all ranks have finished with. Collective."""
    barrier(comm)
    if comm.rank == 0:
        shutil.rmtree(path)
    barrier(comm)


def write_plain(comm, path, n_bytes):
    """Write this rank's part of ``n_bytes`` to a file, and remove it. Collective."""
    own = f"{path}.{comm.rank}"
    part = np.ones(max(1, n_bytes // comm.size), np.uint8)
    with together(comm):
        try:
            with open(own, "xb", buffering=0) as file:
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            os.unlink(own)
        except OSError as error:
            raise DataError(f"{own}: {error.strerror}") from error
