"""Trainers that come and go leave nothing: no thread, file, communicator or memory.

Made, refused, failed and freed on changing parts of the ranks, in one process.
"""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from serial import make_data

import pympi_train as pt
from pympi_train.errors import ConfigError, DataError, DivergenceError, RemoteRankError

MPI = pytest.importorskip("mpi4py.MPI")
X, Y = make_data("classes")
MORE_BYTES = 16 * 2**20  # of a heap that has found its size


class Odd(pt.Softmax):
    """Raises where it is told to: in init on rank 0, else on the last rank.

    With "loss", the last rank's loss is NaN instead.
    """

    def __init__(self, comm, fails_in):
        super().__init__(5, 3, dtype="float64")
        fails = comm.rank == (0 if fails_in == "init" else comm.size - 1)
        self._fails = fails_in if fails else None

    def init(self, params, seed):
        self._fail("init")
        super().init(params, seed)

    def gradient(self, params, grads):
        self._fail("gradient", *params)  # whose frame has views of them
        super().gradient(params, grads)

    def loss(self, params, batch):
        loss = super().loss(params, batch)
        return np.nan if self._fails == "loss" else loss

    def _fail(self, place, *views):
        if self._fails == place:
            raise ZeroDivisionError(place)


def train(comm, model=None, x=X, batch_size=24, **parallel):
    model = Odd(comm, None) if model is None else model
    with pt.Trainer(
        model,
        pt.Adam(0.01),
        batch_size=batch_size,
        parallel=pt.Parallel(**parallel),
        comm=comm,
        backend="numpy",
    ) as trainer:
        data = None
        if not trainer.serves:
            data = pt.Dataset.split(x[:48], Y[:48], comm=trainer.comm)
        trainer.fit(data, epochs=1)


def refuse(comm, errors, *args, **kwargs):
    with pytest.raises((RemoteRankError, *errors)):
        train(comm, *args, **kwargs)


def exchange(comm):
    with pt.Exchange(comm) as sums:
        sums.sum(np.ones(3))


STRATEGIES = [
    {"strategy": "allreduce"},
    {"strategy": "allreduce", "overlap": "on", "bucket_bytes": 1024},
    {"strategy": "hierarchical"},
    {"strategy": "sharded", "stage": 3},
    {"strategy": "local", "compression": "int8"},
    {"reduction": "exact"},
]
USES = [
    *(lambda comm, how=how: train(comm, **how) for how in STRATEGIES),
    lambda comm: refuse(comm, [ValueError], batch_size=0),
    lambda comm: refuse(comm, [ZeroDivisionError], Odd(comm, "init")),
    lambda comm: refuse(
        comm, [ZeroDivisionError], Odd(comm, "init"), strategy="hierarchical"
    ),
    *(
        lambda comm, how=how: refuse(
            comm, [ZeroDivisionError], Odd(comm, "gradient"), **how
        )
        for how in STRATEGIES
    ),
    lambda comm: refuse(comm, [DataError], x=np.full_like(X, np.inf)),
    lambda comm: refuse(comm, [DivergenceError], Odd(comm, "loss")),
    # One server and no worker; one group of rows for several ranks.
    lambda comm: refuse(comm, [ConfigError], strategy="server", servers=comm.size),
    lambda comm: comm.size > 1 and train(comm, strategy="server"),
    lambda comm: comm.size > 1
    and refuse(comm, [ConfigError], reduction="exact", virtual_shards=1),
    exchange,
]


def resources(n_copies):
    gc.collect()
    status = Path("/proc/self/statm").read_text().split()
    return {
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        # Not what lies in the folder: other programs may run beside.
        "shared memory": Path("/proc/self/maps").read_text().count("/dev/shm/"),
        "communicators": n_copies,
    }, int(status[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n_uses", [150, pytest.param(1000, marks=pytest.mark.grid)])
def test_nothing_is_left(comm, n_uses):
    n_copies = 0

    def copied(of, key, value):
        nonlocal n_copies
        n_copies += 1
        return value

    def deleted(of, key, value):
        nonlocal n_copies
        n_copies -= 1

    # MPI tells of each duplicate, and of its end.
    key = MPI.Comm.Create_keyval(copied, deleted)
    parts = []
    for cut in range(comm.size):  # the first ``cut`` ranks, and the others
        parts.append(comm.Split(comm.rank < cut, comm.rank))
        parts[-1].Set_attr(key, cut)

    def use(numbers):
        for i in numbers:
            USES[i % len(USES)](parts[i // len(USES) % len(parts)])
        comm.Barrier()

    n_first = 2 * len(USES)
    use(range(n_first))
    before, before_bytes = resources(n_copies)
    use(range(n_first, n_first + n_uses))
    after, after_bytes = resources(n_copies)
    # Fewer, where another rank was slower to give something back the first time.
    assert all(after[what] <= before[what] for what in before), (before, after)
    assert after_bytes < before_bytes + MORE_BYTES
    for part in parts:
        part.Delete_attr(key)
        part.Free()
    MPI.Comm.Free_keyval(key)
