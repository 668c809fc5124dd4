"""Training in float16 and bfloat16: close to float32, and equal on every rank."""

import gpus
import numpy as np
import pytest
from serial import make_data
from serial import train as train_case
from spread import dataset

import pympi_train as pt
from pympi_train.comm.transports import cuda_aware
from pympi_train.errors import ConfigError, DivergenceError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning"),
]
HALVES = {"float16": 5e-3, "bfloat16": 3e-2}  # tolerance on the parameters
TRANSPORTS = ("nccl", "mpi", "staged")


@pytest.fixture(autouse=True)
def gpu(monkeypatch, comm, tmp_path):
    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))
    if not gpus.PRESENT:
        monkeypatch.setenv(cuda_aware.OVERRIDE, "1")


def make_rows(kind):
    """Return x and y in float32, y as class indices for classes."""
    x, y = make_data(kind)
    return x.astype(np.float32), y if kind == "classes" else y.astype(np.float32)


def model(**kwargs):
    return pt.MLP(5, [8, 6], 3, **kwargs)


def trained(comm, precision="full", backend="cuda", task="classes", **kwargs):
    """Return parameters and records of an MLP in float32. Collective."""
    x, y = make_rows(task)
    data = dataset(comm, "even", x, y)
    how = {"backend": backend, **kwargs}
    if backend == "cuda":
        how["precision"] = precision
    return train_case(comm, model(), pt.Adam(0.01), data, data, **how)


@pytest.mark.mpi(min_size=2, max_size=2)
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("how", [{}, {"micro_batch_size": 3}])
def test_noise_of_the_gradient_does_not_depend_on_the_loss_scale(comm, precision, how):
    _, found = trained(comm, precision, gradient_noise=True, **how)
    _, want = trained(comm, backend="numpy", gradient_noise=True, **how)
    for name in ("trace", "gradient_square"):
        numbers = [records[-1]["gradient_noise"][name] for records in (found, want)]
        assert numbers[0] == pytest.approx(numbers[1], 0.05)


@pytest.mark.mpi(min_size=1, max_size=2)
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize(
    "how", [{}, {"micro_batch_size": 3}, {"l2": 0.1, "clip_norm": 0.3}]
)
def test_follows_the_training_in_float32(comm, precision, how):
    from mpi4py import MPI

    params, records = trained(comm, precision, **how)
    want, want_records = trained(MPI.COMM_SELF, backend="numpy", **how)
    assert np.abs(params - want).max() < HALVES[precision]
    assert params.dtype == np.float32
    for mine, other in zip(records, want_records):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=0.05)
        assert mine["validation_loss"] == pytest.approx(
            other["validation_loss"], rel=0.05
        )
    for other in comm.allgather(params):
        np.testing.assert_array_equal(params, other)


@pytest.mark.mpi(min_size=2, max_size=3)
@pytest.mark.parametrize("precision", HALVES)
def test_has_the_same_bits_by_every_transport(comm, precision):
    found = []
    for name in TRANSPORTS:
        if gpus.PRESENT:
            gpus.require_transport(name, comm)
        parallel = pt.Parallel(transport=name)
        found.append(trained(comm, precision, parallel=parallel)[0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.mpi(min_size=2, max_size=2)
def test_sends_half_the_bytes(comm):
    halves, whole = (
        trained(comm, precision)[1][-1]["sent_bytes"]
        for precision in ("bfloat16", "full")
    )
    assert halves == pytest.approx(whole / 2, rel=0.1)


class Overflowing(pt.MLP):
    """An MLP whose gradient is infinite on one rank in some steps."""

    def __init__(self, *args, at, is_odd, **kwargs):
        super().__init__(*args, **kwargs)
        self.at, self.is_odd, self.calls = at, is_odd, 0

    def use(self, ops, dtype=None):
        super().use(ops, dtype)
        self.ops = ops

    def gradient(self, params, grads):
        super().gradient(params, grads)
        self.calls += 1
        if self.is_odd and self.calls - 1 in self.at:  # the first is a rehearsal
            self.ops.fill(grads[0], float("inf"))


def overflowing(comm, at, precision="float16", **kwargs):
    x, y = make_rows("classes")
    data = dataset(comm, "even", x, y)
    odd = comm.rank == comm.size - 1
    net = Overflowing(5, [8], 3, at=at, is_odd=odd)
    how = {"precision": precision, "backend": "cuda", "comm": comm, "batch_size": 17}
    return pt.Trainer(net, pt.Adam(0.01), **how, **kwargs), data


@pytest.mark.mpi(min_size=1, max_size=2)
def test_an_overflow_on_one_rank_is_a_skipped_step_on_all(comm):
    trainer, data = overflowing(comm, at=(3,))
    with trainer:
        start = trainer.precision.scale.value
        (record,) = trainer.fit(data, epochs=1)
        scale = trainer.precision.scale
        assert (scale.value, scale.skipped) == (start / 2, 1)
        assert (record["loss_scale"], record["skipped_steps"]) == (start / 2, 1)
        assert (trainer.steps, trainer.optimizer.step) == (7, 6)
        assert np.isfinite(trainer.params).all()
        params = trainer.params
    for other in comm.allgather(params):
        np.testing.assert_array_equal(params, other)


@pytest.mark.mpi(min_size=1, max_size=2)
def test_the_skipped_step_leaves_no_trace(comm):
    trainer, data = overflowing(comm, at=(1, 2, 3, 4, 5, 6, 7))
    with trainer:
        before = trainer.params
        trainer.fit(data, epochs=1)
        np.testing.assert_array_equal(trainer.params, before)
        assert trainer.optimizer.step == 0
        # Each step but the first used a scale that was known to be too large.
        assert trainer.precision.scale.skipped == 7


@pytest.mark.mpi(min_size=1, max_size=2)
def test_no_scale_ends_the_training(comm):
    trainer, data = overflowing(comm, at=range(1000))
    with trainer, pytest.raises(DivergenceError, match="NaN or infinite at step"):
        trainer.fit(data, epochs=20)


@pytest.mark.mpi(min_size=1, max_size=2)
def test_a_step_that_is_too_large_is_no_overflow(comm):
    data = dataset(comm, "even", *make_rows("classes"))
    how = {"precision": "float16", "backend": "cuda", "comm": comm, "batch_size": 17}
    with pt.Trainer(model(), pt.SGD(1e38), **how) as trainer:
        before = trainer.params
        with pytest.raises(DivergenceError, match="too large for float32 at step 1;"):
            trainer.fit(data, epochs=1)
        assert trainer.precision.scale.skipped == 0
        np.testing.assert_array_equal(trainer.params, before)


@pytest.mark.mpi(min_size=1, max_size=2)
def test_gradients_over_all_rows_fit_at_once(comm):
    x, y = make_rows("classes")
    times = 400  # the gradient sum over 400 times the rows overflows float16
    data = dataset(comm, "even", np.tile(x, (times, 1)), np.tile(y, times))
    how = {"precision": "float16", "backend": "cuda", "comm": comm, "batch_size": 1}
    with pt.Trainer(model(), pt.GD(0.1), **how) as trainer:
        start = trainer.precision.scale.value
        (record,) = trainer.fit(data, epochs=1)
    assert record["skipped_steps"] == 0
    assert record["loss_scale"] < start


def test_a_model_that_takes_no_halves_says_so(comm):
    from mpi4py import MPI

    class Whole(pt.Softmax):
        def use(self, ops):
            super().use(ops)

    how = {"backend": "cuda", "precision": "bfloat16", "comm": MPI.COMM_SELF}
    with pytest.raises(ConfigError, match=r"use\(ops, dtype=None\) takes a dtype, and"):
        pt.Trainer(Whole(3, 2), pt.SGD(0.1), **how)


@pytest.mark.mpi(min_size=1, max_size=2)
def test_bfloat16_needs_no_scale_and_forgives_nothing(comm):
    trainer, data = overflowing(comm, at=(3,), precision="bfloat16")
    with trainer:
        assert trainer.precision.scale is None
        with pytest.raises(DivergenceError, match="NaN or infinite at step 3;"):
            trainer.fit(data, epochs=1)
        assert (trainer.steps, trainer.optimizer.step) == (2, 2)


def test_class_weights_are_scaled_too(comm):
    from mpi4py import MPI

    x, y = make_rows("classes")
    weights = np.where(y == 0, 0.0, 2.5).astype(np.float32)

    def run(**how):
        data = pt.Dataset(x, y, weights=weights, comm=MPI.COMM_SELF)
        return train_case(MPI.COMM_SELF, model(), pt.SGD(0.1), data, data, **how)

    params, records = run(backend="cuda", precision="float16")
    want, want_records = run(backend="numpy")
    assert np.abs(params - want).max() < HALVES["float16"]
    assert records[-1]["train_loss"] == pytest.approx(
        want_records[-1]["train_loss"], rel=0.01
    )


@pytest.mark.parametrize("precision", HALVES)
def test_of_a_regression(comm, precision):
    from mpi4py import MPI

    x, y = make_rows("numbers")
    y /= 8  # so that float16 does not overflow, and no step is skipped
    data = dataset(MPI.COMM_SELF, "even", x, y)

    def run(**how):
        net = pt.MLP(5, [8], 2, task="regression", activation="gelu")
        return train_case(MPI.COMM_SELF, net, pt.SGD(0.01), data, data, **how)

    params, records = run(backend="cuda", precision=precision)
    want, want_records = run(backend="numpy")
    assert records[-1].get("skipped_steps", 0) == 0
    assert np.abs(params - want).max() < HALVES[precision]
    assert records[-1]["rmse"] == pytest.approx(want_records[-1]["rmse"], rel=0.02)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"parallel": pt.Parallel(strategy="sharded")}, "work with strategy allreduce"),
        ({"parallel": pt.Parallel(compression="int8")}, "with no compression"),
        ({"parallel": pt.Parallel(overlap="on")}, "overlap on is for precision full"),
        ({"optimizer": pt.LBFGS()}, "needs precision full"),
        ({"dtype": "float64"}, "for a model of float32"),
        ({"precision": "int4"}, "precision must be one of full, float16, bfloat16"),
    ],
)
def test_what_makes_no_sense(comm, change, text):
    from mpi4py import MPI

    net = pt.Softmax(3, 2, dtype=change.pop("dtype", "float32"))
    optimizer = change.pop("optimizer", pt.SGD(0.1))
    how = {"precision": "float16", "backend": "cuda", "comm": MPI.COMM_SELF}
    with pytest.raises(ConfigError, match=text):
        pt.Trainer(net, optimizer, **{**how, **change})


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_a_cpu_has_no_halves(comm, monkeypatch, backend):
    from mpi4py import MPI

    from pympi_train.backends import gpu

    monkeypatch.setattr(gpu, "is_installed", lambda: False)
    how = {"precision": "bfloat16", "backend": backend, "comm": MPI.COMM_SELF}
    with pytest.raises(ConfigError, match="for backend cuda, and this one is num"):
        pt.Trainer(pt.Softmax(3, 2), pt.SGD(0.1), **how)
