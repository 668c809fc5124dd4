"""P ranks take the steps of one: the same parameters, up to rounding of sums."""

import numpy as np
import pytest
from serial import (
    BATCH,
    CASES,
    EPOCHS,
    FULL_BATCH,
    N_CLASSES,
    N_FEATURES,
    SEED,
    N,
    assert_close,
    assert_same_records,
    make_data,
    mlp,
    require_serial,
    softmax,
    train,
)
from spread import SPREADS, cuts, dataset, require_empty_shares

import pympi_train as pt
from pympi_train.data.epoch import EpochPlan


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(comm, name, spread):
    require_serial(comm, name, spread)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["hole", "last"])
@pytest.mark.parametrize("name", FULL_BATCH)
def test_full_batch_equals_one_process(comm, name, spread):
    from mpi4py import MPI

    make_optimizer, kwargs = FULL_BATCH[name]
    x, y = make_data("classes")
    data, alone = dataset(comm, spread, x, y), dataset(MPI.COMM_SELF, "even", x, y)
    assert 0 in comm.allgather(len(data))

    params, records = train(comm, softmax(), make_optimizer(), data, **kwargs)
    want, want_records = train(
        MPI.COMM_SELF, softmax(), make_optimizer(), alone, **kwargs
    )
    assert_close(params, want)
    assert_same_records(records, want_records)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("n", [1, 3, 61])
def test_few_rows_and_small_batches(comm, n, batch_size):
    from mpi4py import MPI

    x, y = (a[:n] for a in make_data("classes"))
    spread = "even" if min(n, batch_size) < comm.size else "hole"
    data, alone = dataset(comm, spread, x, y), dataset(MPI.COMM_SELF, "even", x, y)
    require_empty_shares(comm, data, batch_size, seed=SEED, epochs=2)

    kwargs = {"batch_size": batch_size, "epochs": 2}
    params, _ = train(comm, mlp(), pt.Adam(0.01), data, **kwargs)
    want, _ = train(MPI.COMM_SELF, mlp(), pt.Adam(0.01), alone, **kwargs)
    assert_close(params, want)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "last"])
@pytest.mark.parametrize("micro_batch_size", [4, 4096])
def test_sample_weights(comm, spread, micro_batch_size):
    """Some batches weigh nothing at all on a rank, or on all of them."""
    from mpi4py import MPI

    x, y = make_data("classes")
    weights = np.array([0.0, 2.5, 1.0])[y]
    one = EpochPlan(N, SEED, 0, 0, N, BATCH).batch(6)
    weights[one] = 0  # the last batch of the first epoch
    data = dataset(comm, spread, x, y, weights)
    alone = dataset(MPI.COMM_SELF, "even", x, y, weights)
    require_empty_shares(comm, data, BATCH, seed=SEED, epochs=EPOCHS)

    kwargs = {"micro_batch_size": micro_batch_size, "l2": 0.01}
    params, records = train(comm, mlp(), pt.Adam(0.01), data, data, **kwargs)
    want, want_records = train(
        MPI.COMM_SELF, mlp(), pt.Adam(0.01), alone, alone, **kwargs
    )
    assert_close(params, want)
    assert_same_records(records, want_records)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
def test_early_stopping(comm, spread):
    from mpi4py import MPI

    x, y = make_data("classes")
    data = dataset(comm, spread, x[:61], y[:61])
    held = dataset(comm, spread, x[61:], y[61:])
    alone = dataset(MPI.COMM_SELF, "even", x[:61], y[:61])
    alone_held = dataset(MPI.COMM_SELF, "even", x[61:], y[61:])
    require_empty_shares(comm, data, 15, seed=SEED, epochs=40)

    kwargs = {"epochs": 40, "patience": 3, "batch_size": 15}
    params, records = train(comm, mlp(), pt.Adam(0.02), data, held, **kwargs)
    want, want_records = train(
        MPI.COMM_SELF, mlp(), pt.Adam(0.02), alone, alone_held, **kwargs
    )
    assert 4 <= len(records) < 40
    assert_close(params, want)
    assert_same_records(records, want_records)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_float32(comm, backend, spread):
    """Ranks agree with one process about as far as float32 goes, and with each other
    to the bit."""
    from mpi4py import MPI

    pytest.importorskip("numba" if backend == "numba" else "numpy")
    x, y = make_data("classes")
    x = x.astype("float32")

    def model():
        return pt.MLP(N_FEATURES, [8, 6], N_CLASSES)

    data, alone = dataset(comm, spread, x, y), dataset(MPI.COMM_SELF, "even", x, y)
    require_empty_shares(comm, data, BATCH, seed=SEED, epochs=EPOCHS)
    kwargs = {"backend": backend, "l2": 0.01, "clip_norm": 1.0}
    params, _ = train(comm, model(), pt.Adam(0.01), data, **kwargs)
    want, _ = train(MPI.COMM_SELF, model(), pt.Adam(0.01), alone, **kwargs)
    assert params.dtype == np.float32
    assert comm.allgather(params.tobytes()) == [params.tobytes()] * comm.size
    assert np.abs(params - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_ranks_see_the_batches_of_one_process(comm, spread):
    """The rows of each global batch, by number, from what the model was handed."""
    n, batch_size, epochs = 103, 6, 3
    x = np.arange(n, dtype="float64")[:, None]
    data = dataset(comm, spread, x, np.zeros(n))
    require_empty_shares(comm, data, batch_size, seed=SEED, epochs=epochs)
    seen, batches = [], []

    def record(params, batch, grads):
        seen.extend(batch.x[:, 0].astype(int).tolist())
        return 0.0

    def gather(epoch, done, total):
        batches.append(sorted(sum(comm.allgather(seen), [])))
        seen.clear()

    model = pt.FunctionModel([pt.Tensor("w", (1,))], record, dtype="float64")
    kwargs = {"batch_size": batch_size, "micro_batch_size": 2, "seed": SEED}
    with pt.Trainer(model, pt.SGD(1.0), comm=comm, **kwargs) as trainer:
        trainer.fit(data, epochs=epochs, on_step=gather)

    n_batches = -(-n // batch_size)
    assert len(batches) == epochs * n_batches
    for epoch in range(epochs):
        plan = EpochPlan(n, SEED, epoch, 0, n, batch_size)
        mine = batches[epoch * n_batches :][:n_batches]
        assert mine == [sorted(plan.batch(b).tolist()) for b in range(n_batches)]
        assert sorted(sum(mine, [])) == list(range(n))
    assert len({str(batches[e * n_batches]) for e in range(epochs)}) == epochs


def plain_adam(x, y, w, lr, epochs):
    """One hidden tanh layer, softmax, Adam: as a textbook has it, in one process.

    Changes the list ``w`` of two weights and two biases; returns the mean loss of
    the last epoch.
    """
    m, v = [0 * p for p in w], [0 * p for p in w]
    b1, b2, t = 0.9, 0.999, 0
    for epoch in range(epochs):
        plan, total = EpochPlan(len(x), SEED, epoch, 0, len(x), BATCH), 0.0
        for rows in map(plan.batch, range(plan.n_batches)):
            h = np.tanh(x[rows] @ w[0] + w[1])
            z = h @ w[2] + w[3]
            p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            total -= np.log(p[range(len(rows)), y[rows]]).sum()
            p[range(len(rows)), y[rows]] -= 1
            p /= len(rows)
            dh = (p @ w[2].T) * (1 - h**2)
            g = [x[rows].T @ dh, dh.sum(axis=0), h.T @ p, p.sum(axis=0)]
            t += 1
            for i in range(4):
                m[i] = b1 * m[i] + (1 - b1) * g[i]
                v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
                m_hat, v_hat = m[i] / (1 - b1**t), v[i] / (1 - b2**t)
                w[i] = w[i] - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
    return total / len(x)


def check_against_plain_loop(comm, spread, backend):
    x, y = make_data("classes")
    data = dataset(comm, spread, x, y)
    model = pt.MLP(N_FEATURES, [6], N_CLASSES, activation="tanh", dtype="float64")
    kwargs = {"batch_size": BATCH, "seed": SEED, "backend": backend}
    with pt.Trainer(model, pt.Adam(0.01), comm=comm, **kwargs) as trainer:
        want = [view.copy() for view in trainer.weights().values()]
        loss = plain_adam(x, y, want, 0.01, EPOCHS)
        records = trainer.fit(data, epochs=EPOCHS)
        assert records[-1]["train_loss"] == pytest.approx(loss, rel=1e-9)
        for view, other in zip(trainer.weights().values(), want):
            assert_close(view, other)
    return data


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_ranks_equal_a_plain_loop(comm, backend, spread):
    pytest.importorskip("numba" if backend == "numba" else "numpy")
    data = check_against_plain_loop(comm, spread, backend)
    require_empty_shares(comm, data, BATCH, seed=SEED, epochs=EPOCHS)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_one_rank_equals_a_plain_loop(backend):
    MPI = pytest.importorskip("mpi4py.MPI")
    pytest.importorskip("numba" if backend == "numba" else "numpy")
    check_against_plain_loop(MPI.COMM_SELF, "even", backend)


def descend(comm, spread, x, y):
    """Return the weights after 1000 iterations of gradient descent. Collective."""
    model = pt.Linear(2, intercept=False, dtype="float64")
    with pt.Trainer(model, pt.GD(0.01), comm=comm, backend="numpy") as trainer:
        records = trainer.fit(dataset(comm, spread, x, y), epochs=1000)
    assert len(records) == records[-1]["step"] == 1000
    return trainer.weights()["weight"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n_rows", [4, 1])
@pytest.mark.parametrize("spread", ["even", "hole"])
def test_smallest_case(comm, n_rows, spread):
    """X = [[1,2],[2,3],[3,4],[4,5]], y = [1,2,3,4]: to 1e-12, whatever the ranks."""
    from mpi4py import MPI

    x = np.array([[1.0, 2], [2, 3], [3, 4], [4, 5]])[:n_rows]
    y = np.array([[1.0], [2], [3], [4]])[:n_rows]
    theta = np.zeros((2, 1))
    for _ in range(1000):
        theta -= 0.01 * x.T @ (x @ theta - y) / len(x)

    np.testing.assert_allclose(descend(comm, spread, x, y), theta, rtol=0, atol=1e-12)
    alone = descend(MPI.COMM_SELF, "even", x, y)
    np.testing.assert_allclose(alone, theta, rtol=0, atol=1e-12)
    if spread == "hole" or n_rows == 1:
        assert 0 in np.diff(cuts(n_rows, comm.size, spread))
