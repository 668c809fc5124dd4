"""GPU training takes the steps of one CPU process, with every transport."""

import gpus
import numpy as np
import pytest
from serial import (
    CASES,
    EPOCHS,
    FULL_BATCH,
    assert_close,
    make_data,
    require_serial,
    softmax,
)
from serial import train as train_case
from spread import dataset

import pympi_train as pt
from pympi_train.comm.transports import cuda_aware
from pympi_train.errors import ConfigError, DivergenceError
from pympi_train.parallel.base import Strategy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning"),
]
TRANSPORTS = ("nccl", "mpi", "staged")


@pytest.fixture(autouse=True)
def gpu(monkeypatch, comm, tmp_path):
    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))


@pytest.fixture(params=TRANSPORTS)
def transport(request, monkeypatch, comm):
    if gpus.PRESENT:
        gpus.require_transport(request.param, comm)
    elif request.param == "mpi":  # the stand-in's memory is host memory
        monkeypatch.setenv(cuda_aware.OVERRIDE, "1")
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_one_rank(comm, name):
    from mpi4py import MPI

    require_serial(MPI.COMM_SELF, name, "even", backend="cuda")


@pytest.mark.mpi(min_size=2, max_size=2)
@pytest.mark.parametrize("name", CASES)
def test_allreduce(comm, name):
    require_serial(comm, name, "hole", backend="cuda")


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize("overlap", ["on", "off"])
def test_allreduce_by_every_transport(comm, transport, overlap):
    parallel = pt.Parallel(transport=transport, overlap=overlap, bucket_bytes=1024)
    require_serial(comm, "mlp-adam", "even", parallel, backend="cuda")


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded(comm, transport, stage):
    parallel = pt.Parallel(strategy="sharded", stage=stage, transport=transport)
    require_serial(comm, "mlp-adam", "hole", parallel, backend="cuda")


@pytest.mark.mpi(min_size=2, max_size=2)
def test_sharded_with_clipping(comm):
    parallel = pt.Parallel(strategy="sharded", stage=3)
    name = "mlp-gelu-regression-clipped"
    require_serial(comm, name, "even", parallel, backend="cuda")


def trained(comm, backend, parallel, model=CASES["mlp-adam"][1], **kwargs):
    """Return the parameters after some steps of an MLP. Collective."""
    kind = CASES["mlp-adam"][0]
    data = dataset(comm, "even", *make_data(kind))
    how = {"backend": backend, "parallel": parallel, **kwargs}
    return train_case(comm, model(), pt.SGD(0.1, momentum=0.5), data, **how)[0]


@pytest.mark.mpi(min_size=1, max_size=2)
@pytest.mark.parametrize("how", ["on", "off", "sharded"])
@pytest.mark.parametrize("most", [4096, 2])
def test_noise_of_the_gradient_is_that_of_the_cpu(comm, how, most):
    kind, model, _, _ = CASES["mlp-adam"]
    data, found = dataset(comm, "even", *make_data(kind)), []
    settings = {"overlap": how, "bucket_bytes": 1024}
    if how == "sharded":
        settings = {"strategy": how}
    elif comm.size == 1:
        settings = {}
    for backend in ("cuda", "numpy"):
        made_of = comm, model(), pt.Adam(0.01), data
        how = {"backend": backend, "parallel": pt.Parallel(**settings)}
        more = {"micro_batch_size": most, "gradient_noise": True}
        _, records = train_case(*made_of, **how, **more)
        found.append([record["gradient_noise"] for record in records])
    for on_gpu, on_cpu in zip(*found):
        assert (on_cpu["trace"] is None) == (comm.size == 1 and most == 4096)
        for name, value in on_cpu.items():
            assert on_gpu[name] == (
                value if type(value) is not float else pytest.approx(value, 1e-6)
            )


@pytest.mark.mpi(min_size=2, max_size=2)
@pytest.mark.parametrize("outer", ["average", "nesterov"])
def test_local_steps_are_those_of_the_cpu(comm, transport, outer):
    how = {"strategy": "local", "local_steps": 3, "outer": outer}
    on_gpu = trained(comm, "cuda", pt.Parallel(transport=transport, **how))
    assert_close(on_gpu, trained(comm, "numpy", pt.Parallel(**how)))


@pytest.mark.mpi(min_size=2, max_size=2)
@pytest.mark.parametrize("compression", ["fp16", "bf16", "int8"])
def test_compressed_sums_are_those_of_the_cpu(comm, transport, compression):
    how = {"strategy": "allreduce", "compression": compression}
    on_gpu = trained(comm, "cuda", pt.Parallel(transport=transport, **how))
    on_cpu = trained(comm, "numpy", pt.Parallel(**how))
    # By rounding, values near the quantiser's steps may get different codes.
    assert np.abs(on_gpu - on_cpu).max() < 1e-3
    for other in comm.allgather(on_gpu):
        np.testing.assert_array_equal(on_gpu, other)


@pytest.mark.mpi(min_size=3, max_size=3)
@pytest.mark.parametrize("compression", ["fp16", "int8"])
def test_compressed_sums_of_several_blocks(comm, compression):
    """The blocks of 256 elements of several ranks, of which the last one is short."""
    how = {"compression": compression}

    def model():
        return pt.MLP(5, [100], 3, dtype="float64")

    on_gpu = trained(comm, "cuda", pt.Parallel(**how), model)
    on_cpu = trained(comm, "numpy", pt.Parallel(**how), model)
    assert np.abs(on_gpu - on_cpu).max() < 1e-3


@pytest.mark.mpi(min_size=1, max_size=2)
@pytest.mark.parametrize("name", FULL_BATCH)
def test_full_batch(comm, name):
    from mpi4py import MPI

    make_optimizer, kwargs = FULL_BATCH[name]
    data = make_data("classes")
    found = []
    for on, backend in ((comm, "cuda"), (MPI.COMM_SELF, "numpy")):
        rows = dataset(on, "even", *data)
        how = {"backend": backend, **kwargs}
        found.append(train_case(on, softmax(), make_optimizer(), rows, **how)[0])
    assert np.abs(found[0] - found[1]).max() < 1e-9 * np.abs(found[1]).max()


@pytest.mark.mpi(min_size=2, max_size=2)
def test_early_stopping_goes_back_to_the_best_parameters(comm):
    from mpi4py import MPI

    def run(on, backend):
        data = dataset(on, "even", *make_data("classes"))
        model = CASES["mlp-adam"][1]()
        how = {"backend": backend, "patience": 2, "monitor": "accuracy"}
        return train_case(on, model, pt.Adam(0.3), data, data, epochs=20, **how)[0]

    assert_close(run(comm, "cuda"), run(MPI.COMM_SELF, "numpy"))


@pytest.mark.mpi(min_size=2, max_size=2)
def test_rows_that_are_streamed_give_the_same_steps(comm, monkeypatch):
    from pympi_train.data.feeds import device_feed

    monkeypatch.setattr(device_feed, "RESIDENT_SHARE", 0.0)
    for name in ("mlp-adam", "mlp-accumulated", "logistic-l2"):
        require_serial(comm, name, "hole", backend="cuda")


@pytest.mark.mpi(min_size=2, max_size=2)
@pytest.mark.parametrize("strategy", ["allreduce", "sharded", "local"])
def test_the_next_batch_is_copied_while_one_is_computed(comm, monkeypatch, strategy):
    from pympi_train.data.feeds import device_feed

    done = []

    def noted(letter, call):
        return lambda *args: done.append(letter) or call(*args)

    source = device_feed._Streamed
    monkeypatch.setattr(device_feed, "RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(source, "fetch", noted("f", source.fetch))
    waits = noted("w", Strategy._await_losses)
    monkeypatch.setattr(Strategy, "_await_losses", waits)
    trained(comm, "cuda", pt.Parallel(strategy=strategy))
    # The next batch is fetched before waiting for a loss. There is none before the
    # last loss of an epoch.
    epochs = "".join(done).split("ww")
    assert len(epochs) == EPOCHS + 1 and epochs[-1] == ""
    for epoch in epochs[1:-1]:
        assert epoch.startswith("ffwf")


@pytest.mark.mpi(min_size=2, max_size=2)
def test_a_gradient_that_is_not_finite_is_told_of_its_step(comm):
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    model = CASES["mlp-adam"][1]()
    with pt.Trainer(model, pt.SGD(1e200), backend="cuda", comm=comm) as trainer:
        with pytest.raises(pt.errors.DivergenceError, match="at step 1; the param"):
            trainer.fit(data, epochs=3)
        assert trainer.steps == 0
        start = trainer.params
        assert np.isfinite(start).all()
    for other in comm.allgather(start):
        np.testing.assert_array_equal(start, other)


@pytest.mark.mpi(min_size=2, max_size=2)
def test_an_error_of_one_rank_is_raised_on_all(comm):
    class Failing(pt.MLP):
        calls = 0

        def loss(self, params, batch):
            self.calls += 1
            if comm.rank == 1 and self.calls == 5:
                raise KeyError("row 7")
            return super().loss(params, batch)

    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    model = Failing(5, [8], 3, dtype="float64")
    kind = KeyError if comm.rank == 1 else pt.errors.RemoteRankError
    with pt.Trainer(
        model, pt.Adam(0.01), batch_size=16, backend="cuda", comm=comm
    ) as trainer:
        with pytest.raises(kind, match="row 7"):
            trainer.fit(data, epochs=3)


@pytest.mark.filterwarnings("error:overflow:RuntimeWarning")
def test_a_penalty_beyond_float32_ends_the_training_in_words(comm):
    from mpi4py import MPI

    x, y = make_data("classes")
    data = dataset(MPI.COMM_SELF, "even", x.astype(np.float32), y)
    how = {"l2": 1e300, "backend": "cuda", "comm": MPI.COMM_SELF}
    with pt.Trainer(pt.Softmax(5, 3), pt.Adam(1e300), **how) as trainer:
        with pytest.raises(DivergenceError, match="at step 1;"):
            trainer.fit(data, epochs=1)


@pytest.mark.mpi(min_size=2, max_size=2)
def test_replicas_are_compared(comm):
    from pympi_train.errors import DriftError

    data = dataset(comm, "even", *make_data("classes"))
    parallel = pt.Parallel(check_every=1)
    model, how = CASES["mlp-adam"][1](), {"backend": "cuda", "comm": comm}
    with pt.Trainer(
        model, pt.Adam(0.01), batch_size=17, parallel=parallel, **how
    ) as trainer:
        trainer.fit(data, epochs=1)
        if comm.rank == 1:
            trainer.backend.ops.fill(trainer.strategy.params[:1], 7.0)
        with pytest.raises(DriftError, match="layers.0.weight"):
            trainer.fit(data, epochs=1)


@pytest.mark.mpi(min_size=2, max_size=2)
def test_a_strategy_that_cannot_be_made_leaves_no_transport(comm, monkeypatch):
    from pympi_train.backends.cuda import device as cuda
    from pympi_train.parallel.gpu.allreduce import DeviceAllreduce

    if gpus.PRESENT:
        gpus.require_transport("nccl", comm)
    made = list(cuda._waiters)
    monkeypatch.setattr(DeviceAllreduce, "_prepare_sum", None)
    how = {"backend": "cuda", "comm": comm, "parallel": pt.Parallel(transport="nccl")}
    with pytest.raises((TypeError, pt.errors.RemoteRankError)):
        pt.Trainer(pt.Linear(3), pt.SGD(0.1), **how)
    assert cuda._waiters == made


def test_one_rank_leaves_the_transport_to_those_of_more(comm):
    from mpi4py import MPI

    how = {"backend": "cuda", "comm": MPI.COMM_SELF}
    for name in ("auto", "nccl"):
        parallel = pt.Parallel(transport=name)
        with pt.Trainer(
            pt.Linear(3), pt.SGD(0.1), parallel=parallel, **how
        ) as trainer:
            assert trainer.resolved.transport == name
            assert trainer.resolved.overlap == "auto"


def test_weights_are_numpy_arrays(comm):
    from mpi4py import MPI

    model = CASES["mlp-adam"][1]()
    with pt.Trainer(model, pt.Adam(), backend="cuda", comm=MPI.COMM_SELF) as trainer:
        weights = trainer.weights()
        assert type(trainer.params) is type(weights["layers.0.bias"]) is np.ndarray
    with pt.Trainer(model, pt.Adam(), backend="numpy", comm=MPI.COMM_SELF) as other:
        np.testing.assert_array_equal(
            weights["layers.0.weight"], other.weights()["layers.0.weight"]
        )


@pytest.mark.parametrize(
    "parallel, text",
    [
        ({"strategy": "hierarchical"}, "shares a node's host memory"),
        ({"strategy": "server"}, "parameters in host memory"),
        ({"reduction": "exact"}, "is not verified"),
        ({"compression": "topk"}, "compute with NumPy"),
        ({"compression": "powersgd"}, "compute with NumPy"),
    ],
)
def test_what_does_not_work_on_a_gpu_says_so(comm, parallel, text):
    from mpi4py import MPI

    how = {"parallel": pt.Parallel(**parallel), "comm": MPI.COMM_SELF}
    with pytest.raises(ConfigError, match=text):
        pt.Trainer(pt.Linear(3), pt.SGD(0.1), backend="cuda", **how)
    if "server" not in parallel.values():  # a server needs two ranks
        with pt.Trainer(pt.Linear(3), pt.SGD(0.1), backend="auto", **how) as trainer:
            assert trainer.backend.name != "cuda"
            assert "not on a GPU: " in trainer.backend.reason


@pytest.mark.parametrize(
    "what, how",
    [
        ("transport nccl", {"parallel": pt.Parallel(transport="nccl")}),
        ("precision float16", {"precision": "float16"}),
    ],
)
def test_what_is_for_a_gpu_says_why_there_is_none(comm, monkeypatch, what, how):
    from mpi4py import MPI

    from pympi_train.backends import gpu

    how = {**how, "comm": MPI.COMM_SELF}
    text = f"{what} is for backend cuda, and this one is numpy .as configured.$"
    with pytest.raises(ConfigError, match=text):
        pt.Trainer(pt.Linear(3), pt.SGD(0.1), backend="numpy", **how)
    monkeypatch.setattr(gpu, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=f"{what} is .* CuPy is not installed"):
        pt.Trainer(pt.Linear(3), pt.SGD(0.1), backend="auto", **how)


def test_a_model_that_computes_with_numpy_stays_on_the_cpu(comm):
    from mpi4py import MPI

    model = pt.FunctionModel([pt.Tensor("w", (2,))], lambda p, b, g: 0.0)
    with pt.Trainer(model, pt.SGD(0.1), comm=MPI.COMM_SELF) as trainer:
        assert trainer.backend.name != "cuda"
    with pytest.raises(ConfigError, match="on_device = True"):
        pt.Trainer(model, pt.SGD(0.1), backend="cuda", comm=MPI.COMM_SELF)
