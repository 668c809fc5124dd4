"""Steps by touched columns have the results of dense steps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.backends.csr import CSR
from pympi_train.comm.sums.columns import ColumnSum
from pympi_train.parallel.lazy import touched

D = 40_000  # 320 KB of float64
OPTIMIZERS = {"sgd": lambda: pt.SGD(0.5), "adagrad": lambda: pt.AdaGrad(0.3)}
MODELS = {
    "logistic": (lambda: pt.Logistic(D, dtype="float64"), 2),
    "softmax": (lambda: pt.Softmax(D, 3, intercept=False, dtype="float64"), 3),
}
PLAIN = {"strategy": "allreduce", "overlap": "off"}


def problem(n_classes, n=60, dense_row=None):
    rng = np.random.default_rng(2)
    columns = [np.unique(rng.integers(0, 50, 8) * 700) for _ in range(n)]
    if dense_row is not None:
        columns[dense_row] = np.arange(0, D, 3)
    pointers = np.cumsum([0, *map(len, columns)])
    values = rng.standard_normal(pointers[-1])
    indices = np.concatenate(columns).astype(np.int32)
    x = CSR.of_pointers(pointers, indices, values, D)
    return x, rng.integers(0, n_classes, n), rng.random(n)


def trained(comm, monkeypatch, model, optimizer, *, lazy=True, rows=None, **how):
    monkeypatch.setattr(touched, "LEAST_BYTES", 0 if lazy else 2**60)
    make, n_classes = MODELS[model]
    x, y, weights = problem(n_classes, **(rows or {}))
    data = pt.SparseDataset.split(x, y, weights=weights, comm=comm)
    how = {"backend": "numpy", "batch_size": 12, **how}
    with pt.Trainer(
        make(), optimizer, comm=comm, parallel=pt.Parallel(**PLAIN), **how
    ) as trainer:
        trainer.fit(data, epochs=2)
        state = {name: a.copy() for name, a in trainer.optimizer.state.items()}
        is_lazy = "update" in trainer.exchange
        return trainer.params.copy(), state, is_lazy, trainer.strategy.sent_bytes


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("micro_batch_size", [4096, 5])
def test_one_rank_has_the_bits_of_dense_steps(
    alone, monkeypatch, model, optimizer, backend, micro_batch_size
):
    if backend == "numba":
        pytest.importorskip("numba")
    how = {"backend": backend, "micro_batch_size": micro_batch_size}
    results = []
    for lazy in (True, False):
        made_of = alone, monkeypatch, model, OPTIMIZERS[optimizer]()
        results.append(trained(*made_of, lazy=lazy, **how))
    (got, state, is_lazy, _), (want, want_state, is_not, _) = results
    assert is_lazy and not is_not
    assert_array_equal(got, want)
    for name in want_state:
        assert_array_equal(state[name], want_state[name])


def test_who_steps_densely(alone, monkeypatch):
    for optimizer, how in (
        (pt.SGD(0.5, momentum=0.5), {}),
        (pt.SGD(0.5, weight_decay=0.1), {}),
        (pt.Adam(), {}),
        (pt.AdaGrad(weight_decay=0.1), {}),
        (pt.SGD(0.5), {"l2": 0.1}),
        (pt.LBFGS(), {}),
    ):
        *_, is_lazy, _ = trained(alone, monkeypatch, "logistic", optimizer, **how)
        assert not is_lazy


@pytest.mark.parametrize("clip_norm", [1e-3, 10.0])
def test_clipping(alone, monkeypatch, clip_norm):
    results = [
        trained(
            *(alone, monkeypatch, "logistic", pt.SGD(0.5)),
            lazy=lazy,
            clip_norm=clip_norm,
        )[0]
        for lazy in (True, False)
    ]
    assert_allclose(*results, rtol=1e-12, atol=1e-15)


def test_a_gradient_that_is_not_finite_changes_nothing(alone, monkeypatch):
    from pympi_train.errors import DivergenceError

    monkeypatch.setattr(touched, "LEAST_BYTES", 0)
    x, y, _ = problem(2)
    data = pt.SparseDataset(x, y, comm=alone)
    for clip_norm in (None, 1.0):
        model = pt.Logistic(D, dtype="float64")
        with pt.Trainer(
            model, pt.SGD(1e308), batch_size=60, clip_norm=clip_norm, comm=alone
        ) as trainer:
            if clip_norm is None:
                with pytest.raises(DivergenceError, match="too large"):
                    trainer.fit(data, epochs=1)
                assert not trainer.params.any()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dense_row", [None, 0])
def test_ranks_take_the_steps_of_one(
    comm, monkeypatch, alone, model, optimizer, dense_row
):
    rows, made_of = {"dense_row": dense_row}, (model, OPTIMIZERS[optimizer]())
    want, want_state, *_ = trained(
        alone, monkeypatch, *made_of, lazy=False, rows=rows
    )
    monkeypatch.setattr(touched, "DENSE_SHARE", 40)  # one rank alone goes dense
    how = {"rows": rows, "micro_batch_size": 3}
    got, state, is_lazy, n_bytes = trained(comm, monkeypatch, *made_of, **how)
    assert is_lazy
    assert_allclose(got, want, rtol=1e-11, atol=1e-14)
    for name in want_state:
        assert_allclose(state[name], want_state[name], rtol=1e-10, atol=1e-14)
    everyones = comm.allgather(got.tobytes())
    assert len(set(everyones)) == 1
    width = 1 if model == "logistic" else 3
    whole_bytes = D * width * 8
    n_dense = 0 if dense_row is None else 2  # the batch with that row, in two epochs
    assert n_bytes < (n_dense * 2 + 0.5) * whole_bytes


@pytest.mark.mpi(min_size=2)
def test_sums_of_columns(comm):
    rng = np.random.default_rng(4)
    parts = []
    for _ in range(comm.size):
        columns = np.sort(rng.permutation(30)[: rng.integers(0, 12)]).astype("i4")
        parts.append((columns, rng.standard_normal((len(columns), 2))))
    want = np.zeros((30, 2))
    for columns, values in parts:
        want[columns] += values
    found = ColumnSum(comm, 30, 2, np.dtype("f8"))
    for _ in range(2):
        columns, values = parts[comm.rank]
        found.reset()
        found.add(columns[:3], values[:3])
        found.add(columns[3:], values[3:])
        counts = found.counts(len(columns))
        assert counts.tolist() == [len(columns) for columns, _ in parts]
        found.sum(counts)
        dense = np.zeros((30, 2))
        dense[found.columns] = found.values
        assert len(set(found.columns.tolist())) == len(found.columns)
        assert_array_equal(dense, want)
    assert found.is_cheaper(np.array([1, 2])) and not found.is_cheaper(np.array([60]))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dense_row", [None, 0])
def test_noise_of_the_gradient_is_that_of_dense_steps(comm, monkeypatch, dense_row):
    x, y, weights = problem(2, dense_row=dense_row)
    monkeypatch.setattr(touched, "DENSE_SHARE", 40)
    found = []
    for least_bytes in (0, 2**60):
        monkeypatch.setattr(touched, "LEAST_BYTES", least_bytes)
        data = pt.SparseDataset.split(x, y, weights=weights, comm=comm)
        how = {"batch_size": 12, "parallel": pt.Parallel(**PLAIN), "comm": comm}
        model = pt.Logistic(D, dtype="float64")
        with pt.Trainer(model, pt.SGD(0.1), gradient_noise=True, **how) as trainer:
            assert ("update" in trainer.exchange) is False
            (record,) = trainer.fit(data, epochs=1)
            assert ("update" in trainer.exchange) is (least_bytes == 0)
        found.append(record["gradient_noise"])
    assert [f.pop("between") for f in found] == ["ranks", "ranks"]
    for name in ("trace", "gradient_square"):
        assert found[0][name] == pytest.approx(found[1][name], 1e-10)
