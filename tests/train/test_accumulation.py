"""Shares computed in parts: the gradient of the whole batch, in less memory."""

import tracemalloc

import numpy as np
import pytest
from spread import dataset, require_empty_shares

import pympi_train as pt

N, BATCH, WIDTH = 103, 34, 4


def squares(params, batch, grads):
    """Linear regression as a function of one's own."""
    error = batch.x @ params["w"] + params["b"] - batch.y
    if batch.weights is not None:
        weighted = batch.weights * error
    else:
        weighted = error
    grads["w"][...] = batch.x.T @ weighted
    grads["b"][...] = weighted.sum()
    return 0.5 * float(weighted @ error)


def function_model():
    tensors = [pt.Tensor("w", (WIDTH,)), pt.Tensor("b", (), is_weight=False)]
    return pt.FunctionModel(tensors, squares, dtype="float64")


MODELS = {
    "function": function_model,
    "mlp": lambda: pt.MLP(WIDTH, [7, 5], 2, dtype="float64"),
    "logistic": lambda: pt.Logistic(WIDTH, dtype="float64"),
}


def train(comm, model, data, optimizer, micro_batch_size):
    with pt.Trainer(
        model,
        optimizer,
        batch_size=BATCH,
        micro_batch_size=micro_batch_size,
        l2=0.01,
        comm=comm,
        backend="numpy",
    ) as trainer:
        records = trainer.fit(data, epochs=2)
        return trainer.params.copy(), [record["train_loss"] for record in records]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("micro_batch_size", [4, 9])
@pytest.mark.parametrize("name", MODELS)
def test_parts_equal_the_whole(comm, name, micro_batch_size, weighted):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, WIDTH))
    y = (x[:, 0] + rng.standard_normal(N) > 0).astype(float)
    data = dataset(comm, "hole", x, y, rng.uniform(0, 2, N) if weighted else None)
    require_empty_shares(comm, data, BATCH, seed=0, epochs=2)
    assert max(comm.allgather(len(data))) > 3 * micro_batch_size
    for make_optimizer in (lambda: pt.Adam(0.01), lambda: pt.GD(0.1)):
        model = MODELS[name]
        params, losses = train(comm, model(), data, make_optimizer(), micro_batch_size)
        want, want_losses = train(comm, model(), data, make_optimizer(), N)
        assert np.abs(params - want).max() < 1e-11 * np.abs(want).max()
        assert losses == pytest.approx(want_losses, rel=1e-11)


@pytest.mark.mpi(min_size=2)
def test_rows_a_model_is_handed(comm):
    """At most the micro batch at once; one batch without rows where there are none."""
    handed = []

    def record(params, batch, grads):
        handed.append(len(batch.x))
        return 0.0

    data = dataset(comm, "hole", np.zeros((100, 1)), np.zeros(100))
    assert 0 in comm.allgather(len(data))
    model = pt.FunctionModel([pt.Tensor("w", (1,))], record, dtype="float64")
    with pt.Trainer(model, pt.GD(1.0), micro_batch_size=8, comm=comm) as trainer:
        step = trainer.prepare(data)
        handed.clear()
        step(slice(0, len(data)))
    full, rest = divmod(len(data), 8)
    assert handed == [8] * full + [rest] * (rest > 0 or full == 0)


@pytest.mark.parametrize("gathered", [False, True], ids=["views", "gathered"])
def test_memory_is_that_of_a_part(gathered):
    """One workspace of 20000 rows would take ten times the bound."""
    MPI = pytest.importorskip("mpi4py.MPI")
    n, width, most = 20_000, 64, 100
    x = np.random.default_rng(0).standard_normal((n, width)).astype("float32")
    data = pt.Dataset(x, np.zeros(n, dtype=np.intp), comm=MPI.COMM_SELF)
    rows = np.random.default_rng(1).permutation(n) if gathered else slice(0, n)
    tracemalloc.start()
    try:
        with pt.Trainer(
            pt.MLP(width, [64], 4),
            pt.Adam(),
            micro_batch_size=most,
            backend="numpy",
            comm=MPI.COMM_SELF,
        ) as trainer:
            step = trainer.prepare(data)
            step(rows[:most] if gathered else slice(0, most))  # imports modules
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            step(rows)
            peak_bytes = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak_bytes < n * 64 * 4 / 10
