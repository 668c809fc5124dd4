"""Training on sparse rows takes the same steps on a GPU as with NumPy."""

import gpus
import numpy as np
import pytest
from numpy.testing import assert_allclose
from serial import assert_close, assert_same_records

import pympi_train as pt
from pympi_train.backends.csr import CSR

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning"),
]
N, D = 70, 40
CASES = {
    "softmax": (lambda: pt.Softmax(D, 3, dtype="float64"), pt.SGD(0.3, momentum=0.5)),
    "linear": (lambda: pt.Linear(D, 2, dtype="float64"), pt.Adam(0.05)),
    "mlp": (lambda: pt.MLP(D, [5], 3, dtype="float64"), pt.AdaGrad(0.1)),
    "logistic": (lambda: pt.Logistic(D, dtype="float64"), pt.LBFGS()),
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch, comm, tmp_path):
    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))


def problem(kind, comm):
    """Return a SparseDataset of this rank's rows. Collective."""
    rng = np.random.default_rng(1)
    dense = rng.standard_normal((N, D)) * (rng.random((N, D)) < 0.1)
    dense[:, 3] = 1.0  # a column of all rows; others have no entry
    dense[:, 20:25] = 0
    rows, columns = np.nonzero(dense)
    pointers = np.searchsorted(rows, np.arange(N + 1))
    entries = columns.astype(np.int32), dense[rows, columns]
    x = CSR.of_pointers(pointers, *entries, D)
    y = rng.integers(0, 2 if kind == "logistic" else 3, N)
    if kind == "linear":
        y = rng.standard_normal((N, 2))
    return pt.SparseDataset.split(x, y, weights=rng.random(N), comm=comm)


def trained(kind, backend, comm, **keys):
    """Return parameters, records and predictions after a training. Collective."""
    model, optimizer = CASES[kind]
    data, how = problem(kind, comm), {"batch_size": 16, "micro_batch_size": 5}
    parallel = pt.Parallel(**keys)
    how.update(l2=0.01, backend=backend, parallel=parallel, comm=comm)
    with pt.Trainer(model(), optimizer, **how) as trainer:
        records = trainer.fit(data, data, epochs=3)
        return trainer.params.copy(), records, trainer.predict(data)


@pytest.mark.parametrize("kind", CASES)
def test_one_rank(comm, kind):
    from mpi4py import MPI

    params, records, outputs = trained(kind, "cuda", MPI.COMM_SELF)
    want, want_records, want_outputs = trained(kind, "numpy", MPI.COMM_SELF)
    assert_close(params, want)
    assert_same_records(records, want_records)
    assert_allclose(outputs, want_outputs, atol=1e-9)


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize(
    "kind, strategy",
    [(k, "allreduce") for k in CASES] + [("softmax", "sharded"), ("mlp", "local")],
)
def test_several_ranks(comm, kind, strategy):
    params, _, outputs = trained(kind, "cuda", comm, strategy=strategy)
    want, _, want_outputs = trained(kind, "numpy", comm, strategy=strategy)
    assert_close(params, want)
    assert_allclose(outputs, want_outputs, atol=1e-9)


def test_batches_of_the_callers_own_give_the_same_bits_again(comm):
    from mpi4py import MPI

    found = []
    for _ in range(2):
        data = problem("softmax", MPI.COMM_SELF)
        model, optimizer = CASES["softmax"]
        how = {"backend": "cuda", "comm": MPI.COMM_SELF}
        with pt.Trainer(model(), optimizer, **how) as trainer:
            for start in range(0, N, 10):
                trainer.step(data.batch(slice(start, start + 10)))
            found.append(trainer.params.tobytes())
    assert found[0] == found[1]  # sums have one order
