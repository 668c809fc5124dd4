"""Seconds by phase, by a clock that only the input and the model move."""

import numpy as np
import pytest
from mpi4py import MPI

import pympi_train as pt
from pympi_train import trace

INPUT_S, LOSS_S, BACKWARD_S = 1.0, 10.0, 100.0
N, D, C, BATCH, MICRO, EPOCHS = 96, 3, 4, 48, 4, 2


class Clock:
    """Seconds that pass where a test says so."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class SlowRows(pt.Dataset):
    """Rows whose batches take a second; those of a rehearsal are empty, and do not."""

    def batch(self, rows, out=None):
        if len(rows):
            self.clock.now_s += INPUT_S
            self.n_batches += 1
        return super().batch(rows, out)


class SlowModel(pt.Softmax):
    def loss(self, params, batch):
        self.is_busy = len(batch.x) > 0
        self.clock.now_s += LOSS_S * self.is_busy
        self.n_losses += self.is_busy
        return super().loss(params, batch)

    def backward(self, *args, **kwargs):
        self.clock.now_s += BACKWARD_S * self.is_busy
        self.n_backwards += self.is_busy
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
    monkeypatch.setattr(trace, "perf_counter", clock)
    comm, rng = MPI.COMM_WORLD, np.random.default_rng(3)
    x = rng.standard_normal((N, D)).astype(np.float32)
    rows = SlowRows.split(x, rng.integers(C, size=N), comm=comm)
    model = SlowModel(D, C)
    rows.clock = model.clock = clock
    rows.n_batches = model.n_losses = model.n_backwards = 0
    how = {"batch_size": BATCH, "micro_batch_size": MICRO, "parallel": parallel}
    with pt.Trainer(model, optimizer(), comm=comm, **how) as trainer:
        records = trainer.fit(rows, epochs=EPOCHS)
    found = {
        phase: comm.size * sum(record[f"{phase}_s"] for record in records)
        for phase in ("input", "compute")
    }
    counts = np.array([rows.n_batches, model.n_losses, model.n_backwards], float)
    comm.Allreduce(MPI.IN_PLACE, counts)
    assert counts[1] > 2 * comm.size * EPOCHS  # several micro-batches an update
    compute_s = LOSS_S * counts[1] + BACKWARD_S * counts[2]
    assert found["input"] == pytest.approx(INPUT_S * counts[0])
    assert found["compute"] == pytest.approx(compute_s)
