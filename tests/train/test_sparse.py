"""Training on sparse rows takes the steps of training on the same rows made dense."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from strategies import PLAIN

import pympi_train as pt

sparse = pytest.importorskip("scipy.sparse")
MODELS = {
    "linear": lambda: pt.Linear(30, 2, dtype="float64"),
    "logistic": lambda: pt.Logistic(30, dtype="float64"),
    "softmax": lambda: pt.Softmax(30, 3, dtype="float64"),
    "mlp": lambda: pt.MLP(30, [5], 3, dtype="float64"),
}
OPTIMIZERS = {"sgd": pt.SGD(0.3, momentum=0.5), "lbfgs": pt.LBFGS()}


def problem(kind, n=90):
    rng = np.random.default_rng(1)
    x = sparse.random_array((n, 30), density=0.2, format="csr", rng=rng)
    y = rng.integers(0, 2 if kind == "logistic" else 3, n)
    if kind == "linear":
        y = rng.standard_normal((n, 2))
    return x, y, rng.random(n)


def trained(data, kind, optimizer, comm, **keys):
    backend = "numba" if kind == "softmax" else "numpy"
    if backend == "numba":
        pytest.importorskip("numba")
    with pt.Trainer(
        MODELS[kind](),
        optimizer,
        batch_size=16,
        micro_batch_size=5,
        l2=0.01,
        backend=backend,
        parallel=pt.Parallel(**keys),
        comm=comm,
    ) as trainer:
        if trainer.serves:
            trainer.fit(None, epochs=3)
            return None
        data = data(trainer.comm)
        records = trainer.fit(data, data, epochs=3)
        return trainer.params.copy(), records[-1]["validation_loss"]


CASES = [("softmax", "sgd", name) for name in PLAIN if name != "server"]
CASES += [(kind, "sgd", "allreduce") for kind in MODELS if kind != "softmax"]
CASES += [("logistic", "lbfgs", "allreduce"), ("linear", "lbfgs", "exact")]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind, optimizer, strategy", CASES)
def test_sparse_rows_take_the_steps_of_dense_rows(comm, kind, optimizer, strategy):
    x, y, weights = problem(kind)
    how = kind, OPTIMIZERS[optimizer], comm
    keys = PLAIN[strategy]

    def dense(comm):
        return pt.Dataset.split(x.toarray(), y, weights=weights, comm=comm)

    def rows(comm):
        return pt.SparseDataset.split(x, y, weights=weights, comm=comm)

    want, want_loss = trained(dense, *how, **keys)
    got, got_loss = trained(rows, *how, **keys)
    assert_allclose(got, want, atol=1e-12)
    assert got_loss == pytest.approx(want_loss, rel=1e-12)
    if strategy == "exact":
        from mpi4py import MPI

        alone, _ = trained(rows, kind, how[1], MPI.COMM_SELF, **keys)
        assert alone.tobytes() == got.tobytes()


@pytest.mark.mpi(min_size=2)
def test_batches_of_the_callers_own_may_be_sparse(comm):
    x, y, _ = problem("logistic")
    results = []
    for kind in (pt.SparseDataset, pt.Dataset):
        data = kind.split(x if kind is pt.SparseDataset else x.toarray(), y, comm=comm)
        data = data.with_targets("float64")
        with pt.Trainer(MODELS["logistic"](), pt.SGD(0.3), comm=comm) as trainer:
            for start in range(0, len(data), 10):
                trainer.step(data.batch(slice(start, start + 10)))
            results.append((trainer.params.copy(), trainer.predict(data)))
    for got, want in zip(*results):
        assert_allclose(got, want, atol=1e-12)
