"""P ranks take the steps of one: the same parameters, up to rounding of sums."""

import numpy as np
import pytest
from spread import SPREADS, cuts, dataset, require_empty_shares

import pympi_train as pt
from pympi_train.data.order import plan_epoch
from pympi_train.optim.schedule import Cosine, Step

N, N_FEATURES, N_CLASSES, N_TARGETS = 103, 5, 3, 2
BATCH, EPOCHS, SEED = 17, 3, 7  # 103 = 6 * 17 + 1: the last batch has one row
CLOSE = 1e-10


def make_data(kind):
    """Return x and y, the same on every rank."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, N_FEATURES))
    noise = rng.standard_normal((N, N_CLASSES))
    if kind == "classes":
        return x, (x[:, :N_CLASSES] + noise).argmax(axis=1)
    if kind == "binary":
        return x, (x[:, 0] + noise[:, 0] > 0).astype(float)
    return x, x[:, :N_TARGETS] @ [[1, 2], [-1, 0.5]] + noise[:, :N_TARGETS]


def mlp(activation="relu", task="classification"):
    n_outputs = N_CLASSES if task == "classification" else N_TARGETS
    return pt.MLP(
        N_FEATURES, [8, 6], n_outputs, activation=activation, task=task, dtype="float64"
    )


def softmax(**kwargs):
    return pt.Softmax(N_FEATURES, N_CLASSES, dtype="float64", **kwargs)


# name: (kind of data, model, optimizer, arguments of the Trainer)
CASES = {
    "mlp-adam": ("classes", mlp, lambda: pt.Adam(0.01), {}),
    "mlp-tanh-adamw": (
        "classes",
        lambda: mlp("tanh"),
        lambda: pt.AdamW(0.01, weight_decay=0.1),
        {"l2": 0.01},
    ),
    "mlp-gelu-regression-clipped": (
        "numbers",
        lambda: mlp("gelu", "regression"),
        lambda: pt.Adam(0.01, weight_decay=0.01),
        {"clip_norm": 0.3, "l2": 0.1},
    ),
    "mlp-accumulated": (
        "classes",
        mlp,
        lambda: pt.SGD(0.1, momentum=0.9),
        {"micro_batch_size": 3},
    ),
    "mlp-cosine": (
        "classes",
        mlp,
        lambda: pt.Adam(0.01),
        {"schedule": Cosine(floor=0.1, warmup_epochs=0.7)},
    ),
    "softmax-nesterov-step": (
        "classes",
        softmax,
        lambda: pt.SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
        {"schedule": Step(2, gamma=0.3, warmup_epochs=1)},
    ),
    "softmax-no-intercept": (
        "classes",
        lambda: softmax(intercept=False),
        lambda: pt.Adam(0.02),
        {},
    ),
    "logistic-l2": (
        "binary",
        lambda: pt.Logistic(N_FEATURES, dtype="float64"),
        lambda: pt.SGD(0.5),
        {"l2": 0.1},
    ),
    "linear-targets": (
        "numbers",
        lambda: pt.Linear(N_FEATURES, N_TARGETS, dtype="float64"),
        lambda: pt.SGD(0.05, momentum=0.5),
        {},
    ),
}
FULL_BATCH = {
    "gd": (lambda: pt.GD(0.5), {"l2": 0.01}),
    "gd-accumulated": (lambda: pt.GD(0.5), {"micro_batch_size": 7}),
    "gd-clipped": (lambda: pt.GD(0.5), {"clip_norm": 0.05}),
    "lbfgs": (lambda: pt.LBFGS(tolerance=0), {"l2": 0.01}),
}


def train(comm, model, optimizer, data, validation=None, *, epochs=EPOCHS, **kwargs):
    """Return the parameters and the records of a training. Collective."""
    fit = {key: kwargs.pop(key) for key in ("patience", "monitor") if key in kwargs}
    kwargs = {"batch_size": BATCH, "seed": SEED, "backend": "numpy", **kwargs}
    with pt.Trainer(model, optimizer, comm=comm, **kwargs) as trainer:
        records = trainer.fit(data, validation, epochs=epochs, **fit)
        return trainer.params.copy(), records


def assert_close(params, want):
    assert np.abs(params - want).max() < CLOSE * np.abs(want).max()


def assert_same_records(records, want):
    """Compare all but times."""
    assert len(records) == len(want) > 0
    for mine, other in zip(records, want):
        assert mine.keys() == other.keys()
        for key in mine:
            if not key.endswith("_s") and mine[key] != other[key]:
                assert mine[key] == pytest.approx(other[key], rel=1e-9), key


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(comm, name, spread):
    from mpi4py import MPI

    kind, make_model, make_optimizer, kwargs = CASES[name]
    x, y = make_data(kind)
    data, alone = dataset(comm, spread, x, y), dataset(MPI.COMM_SELF, "even", x, y)
    require_empty_shares(comm, data, BATCH, seed=SEED, epochs=EPOCHS)

    params, records = train(comm, make_model(), make_optimizer(), data, data, **kwargs)
    want, want_records = train(
        MPI.COMM_SELF, make_model(), make_optimizer(), alone, alone, **kwargs
    )
    assert_close(params, want)
    assert_same_records(records, want_records)
    assert (records[-1]["step"], records[-1]["samples"]) == (EPOCHS * 7, EPOCHS * N)


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
    one = plan_epoch(N, SEED, 0, 0, N, BATCH).batch(6)
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
        plan = plan_epoch(n, SEED, epoch, 0, n, batch_size)
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
        plan, total = plan_epoch(len(x), SEED, epoch, 0, len(x), BATCH), 0.0
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
