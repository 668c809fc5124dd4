"""A trainer predicts as its model does with its parameters, wherever they lie."""

import gpus
import numpy as np
import pytest
from serial import make_data
from spread import dataset, own

import pympi_train as pt
from pympi_train.backends.numpy import ops as numpy_ops

STRATEGIES = {
    "allreduce": pt.Parallel(),
    "spread": pt.Parallel(strategy="sharded", stage=3),
    "exact": pt.Parallel(reduction="exact"),
}
WAYS = [
    *(("numpy", name) for name in STRATEGIES),
    *(
        pytest.param("cuda", name, marks=pytest.mark.gpu)
        for name in ("allreduce", "spread")
    ),
]


@pytest.mark.mpi(min_size=1, max_size=3)
@pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning")
@pytest.mark.parametrize("spread", ["even", "hole", "last"])
@pytest.mark.parametrize("backend, strategy", WAYS)
def test_outputs_are_those_of_the_model(
    comm, backend, strategy, spread, tmp_path, monkeypatch
):
    if backend == "cuda":
        gpus.use()
        monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))
    x, y = make_data("classes")
    data = dataset(comm, spread, x, y)
    model = pt.MLP(x.shape[1], [8], 3, dtype="float64")
    how = {"batch_size": 16, "micro_batch_size": 5, "backend": backend, "comm": comm}
    with pt.Trainer(
        model, pt.Adam(0.01), parallel=STRATEGIES[strategy], **how
    ) as trainer:
        trainer.fit(data, epochs=1)
        found = trainer.predict(data)
        params = trainer.params
    assert type(found) is np.ndarray and found.dtype == x.dtype
    model.use(numpy_ops)
    want = model.predict(model.layout.views(params), x[own(comm, len(x), spread)])
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_outputs_of_halves_come_as_float32(comm):
    from mpi4py import MPI

    gpus.use()
    x, y = make_data("classes")
    data = pt.Dataset(x.astype(np.float32), y, comm=MPI.COMM_SELF)
    how = {"backend": "cuda", "precision": "bfloat16", "comm": MPI.COMM_SELF}
    with pt.Trainer(pt.Softmax(x.shape[1], 3), pt.SGD(0.1), **how) as trainer:
        trainer.fit(data, epochs=3)
        found = trainer.predict(data)
        weights = trainer.weights()
    assert found.dtype == np.float32
    want = x @ weights["weight"] + weights["intercept"]
    np.testing.assert_allclose(found, want, atol=0.1)
