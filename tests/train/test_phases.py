"""Seconds by phase, by a clock that only the input and the model move."""

import numpy as np
import pytest
from mpi4py import MPI

import pympi_train as pt
from pympi_train.trace import laps

INPUT_S, LOSS_S, BACKWARD_S = 1.0, 10.0, 100.0
N, D, C, BATCH, MICRO, EPOCHS = 96, 3, 4, 48, 4, 2


class Clock:
    """Seconds that pass where a test says so, and their sums by phase."""

    def __init__(self):
        self.seconds = {"input": 0.0, "compute": 0.0}
        self.n_losses = 0

    def __call__(self):
        return sum(self.seconds.values())


class SlowRows(pt.Dataset):
    """Rows whose batches take a second; those of a rehearsal are empty, and do not."""

    def batch(self, rows, out=None):
        batch = super().batch(rows, out)
        if len(batch.x):
            self.clock.seconds["input"] += INPUT_S
        return batch


class SlowModel(pt.Softmax):
    def loss(self, params, batch):
        self.is_busy = len(batch.x) > 0
        self.clock.seconds["compute"] += LOSS_S * self.is_busy
        self.clock.n_losses += self.is_busy
        return super().loss(params, batch)

    def backward(self, *args, **kwargs):
        self.clock.seconds["compute"] += BACKWARD_S * self.is_busy
        return super().backward(*args, **kwargs)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "optimizer, parallel",
    [
        (pt.Adam, pt.Parallel(strategy="allreduce")),
        (pt.LBFGS, pt.Parallel(strategy="allreduce")),
        (pt.Adam, pt.Parallel(strategy="local", local_steps=2)),
        (pt.Adam, pt.Parallel(reduction="exact", virtual_shards=4)),
    ],
    ids=["allreduce", "lbfgs", "local", "exact"],
)
def test_input_and_compute_of_several_micro_batches(monkeypatch, optimizer, parallel):
    clock = Clock()
    monkeypatch.setattr(laps, "perf_counter", clock)
    comm, rng = MPI.COMM_WORLD, np.random.default_rng(3)
    x = rng.standard_normal((N, D)).astype(np.float32)
    rows = SlowRows.split(x, rng.integers(C, size=N), comm=comm)
    model = SlowModel(D, C)
    model.clock = clock  # rows by their class: exact mode copies them
    monkeypatch.setattr(SlowRows, "clock", clock, raising=False)
    how = {"batch_size": BATCH, "micro_batch_size": MICRO, "parallel": parallel}
    with pt.Trainer(model, optimizer(), comm=comm, **how) as trainer:
        records = trainer.fit(rows, epochs=EPOCHS)
    spent = np.array([clock.n_losses, *clock.seconds.values()])
    comm.Allreduce(MPI.IN_PLACE, spent)
    n_losses, *seconds = spent / comm.size
    assert n_losses > 2 * EPOCHS  # several micro-batches an update
    for phase, spent_s in zip(clock.seconds, seconds):
        found_s = sum(record[f"{phase}_s"] for record in records)
        assert found_s == pytest.approx(spent_s)
        assert spent_s > 0
