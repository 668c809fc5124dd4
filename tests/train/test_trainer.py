"""The training loop: its records, its callbacks, and how it fails."""

import json
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from spread import dataset, require_empty_shares

import pympi_train as pt
from pympi_train.comm.checks import is_agreed
from pympi_train.data.epoch import EpochPlan
from pympi_train.errors import (
    ConfigError,
    DivergenceError,
    RankMismatchError,
    RemoteRankError,
)
from pympi_train.optim.schedule import Cosine
from pympi_train.trace.laps import PHASES

N, WIDTH, BATCH = 53, 3, 13  # 53 = 4 * 13 + 1: five batches, the last of one row
N_STEPS = 5


def make_rows(n=N):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, WIDTH))
    return x, (x[:, 0] > 0.3).astype(np.intp)


def make_data(comm, spread="hole"):
    data = dataset(comm, spread, *make_rows())
    if comm.size > 1:
        require_empty_shares(comm, data, BATCH, seed=0, epochs=5)
    return data


def make_trainer(comm, model=None, optimizer=None, **kwargs):
    model = model or pt.Softmax(WIDTH, 2, dtype="float64")
    kwargs = {"batch_size": BATCH, "backend": "numpy", **kwargs}
    return pt.Trainer(model, optimizer or pt.SGD(0.1), comm=comm, **kwargs)


def named(record, ending):
    return {key for key in record if key.endswith(ending)}


@pytest.mark.mpi(min_size=2)
def test_records(comm):
    data = make_data(comm)
    schedule = Cosine()
    with make_trainer(comm, schedule=schedule) as trainer:
        records = trainer.fit(data, data, epochs=3)
        assert (trainer.epoch, trainer.steps) == (3, 15)
        assert trainer.samples == 3 * N
    for epoch, record in enumerate(records, start=1):
        assert list(record)[:3] == ["epoch", "step", "samples"]
        assert [record[key] for key in list(record)[:3]] == [
            epoch,
            epoch * N_STEPS,
            epoch * N,
        ]
        last = epoch * N_STEPS - 1  # the epoch's last update, from 0
        factor = schedule.factor(last, steps_per_epoch=N_STEPS, total_updates=15)
        assert record["learning_rate"] == 0.1 * factor
        phases = {f"{phase}_s" for phase in PHASES}
        assert named(record, "_s") == phases | {"wall_s", "samples_per_s"}
        assert all(record[key] >= 0 for key in named(record, "_s"))
        assert {"train_loss", "validation_loss", "accuracy"} <= set(record)
        assert record["samples_per_s"] == N / record["wall_s"]
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert json.loads(json.dumps(records)) == records  # plain numbers
    times = ("_s",)
    alike = [{k: v for k, v in r.items() if not k.endswith(times)} for r in records]
    assert comm.allgather(alike) == [alike] * comm.size


@pytest.mark.mpi(min_size=2)
def test_train_loss_is_that_of_each_batch_before_its_update(comm):
    """With the penalty; the last batch counts by its one row."""
    x, y = make_rows()
    w, b, total = np.zeros((WIDTH, 2)), np.zeros(2), 0.0
    plan = EpochPlan(N, 0, 0, 0, N, BATCH)
    for rows in map(plan.batch, range(N_STEPS)):
        p = np.exp(x[rows] @ w + b)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[range(len(rows)), y[rows]]).mean()
        total += len(rows) * (loss + 0.5 * 0.3 * (w**2).sum())
        p[range(len(rows)), y[rows]] -= 1
        w = w - 0.1 * (x[rows].T @ p / len(rows) + 0.3 * w)
        b = b - 0.1 * p.mean(axis=0)
    with make_trainer(comm, l2=0.3) as trainer:
        (record,) = trainer.fit(make_data(comm), epochs=1)
    assert record["train_loss"] == pytest.approx(total / N, rel=1e-12)


@pytest.mark.mpi(min_size=2)
def test_callbacks(comm):
    records, steps = [], []
    with make_trainer(comm) as trainer:
        history = trainer.fit(
            make_data(comm),
            epochs=2,
            on_epoch=records.append,
            on_step=lambda *step: steps.append(step),
        )
    assert records == history
    assert steps == [(e, done, N_STEPS) for e in (1, 2) for done in range(1, 6)]


@pytest.mark.mpi(min_size=2)
def test_training_goes_on_where_it_ended(comm):
    data = make_data(comm)
    with make_trainer(comm, optimizer=pt.Adam(0.01)) as once:
        want = once.fit(data, epochs=4)
    with make_trainer(comm, optimizer=pt.Adam(0.01)) as twice:
        twice.fit(data, epochs=1)
        records = twice.fit(data, epochs=3)
    assert_array_equal(twice.params, once.params)
    for key in ("epoch", "step", "samples", "train_loss"):
        assert [r[key] for r in records] == [r[key] for r in want[1:]]


@pytest.mark.mpi(min_size=2)
def test_a_second_training_goes_on_in_the_schedule(comm):
    """It then lasts to the end of the second: as if that had been known before."""
    data, schedule = make_data(comm), Cosine(floor=0.1, warmup_epochs=1)
    with make_trainer(comm, schedule=schedule) as once:
        want = [record["learning_rate"] for record in once.fit(data, epochs=6)]
    with make_trainer(comm, schedule=schedule) as twice:
        twice.fit(data, epochs=3)
        found = [record["learning_rate"] for record in twice.fit(data, epochs=3)]
    assert len({*want}) == 6
    assert found == want[3:]


@pytest.mark.mpi(min_size=2)
def test_prepared_steps_are_those_of_fit(comm):
    data = make_data(comm)
    with make_trainer(comm) as trainer:
        trainer.fit(data, epochs=1)
    with make_trainer(comm) as steered:
        step = steered.prepare(data)
        plan = EpochPlan(N, 0, 0, data.start, data.stop, BATCH)
        found = [step(plan.batch(b)) for b in range(N_STEPS)]
        assert [weight for weight, _ in found] == [13] * 4 + [1]
    assert_array_equal(steered.params, trainer.params)
    assert steered.steps == 5


@pytest.mark.mpi(min_size=2)
def test_seed_moves_the_start_and_the_order(comm):
    found = []
    for seed in (0, 1, 0):
        model = pt.MLP(WIDTH, [4], 2, dtype="float64")
        with make_trainer(comm, model, seed=seed) as trainer:
            start = trainer.params.copy()
            trainer.fit(make_data(comm), epochs=1)
            found.append((start, trainer.params))
    for i in range(2):
        assert_array_equal(found[0][i], found[2][i])
        assert not np.array_equal(found[0][i], found[1][i])


@pytest.mark.mpi(min_size=2)
def test_weights_by_name_are_views(comm):
    with make_trainer(comm) as trainer:
        weights = trainer.weights()
        assert list(weights) == ["weight", "intercept"]
        trainer.fit(make_data(comm), epochs=1)
        assert np.shares_memory(weights["weight"], trainer.params)
        assert weights["weight"].any()


def model_that_fails(where, fails):
    """A model of one parameter that raises OSError in ``where`` on some rank."""

    class Fails(pt.Model):
        layout = pt.Layout([pt.Tensor("w", (1,))], "float64")
        calls = 0

        def loss(self, params, batch):
            self.calls += 1
            if where == "loss" and fails and self.calls == 4:
                raise OSError("the disk is gone")
            return float(params[0][0]) * len(batch.x)

        def gradient(self, params, grads):
            grads[0][:] = 1.0

        def predict(self, params, x):
            return x[:, :1]

    return Fails()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("failing", [0, -1])
def test_error_on_one_rank_before_the_exchange(comm, failing):
    """It travels in the control message: every rank raises, nothing has moved."""
    failing %= comm.size
    model = model_that_fails("loss", comm.rank == failing)
    with make_trainer(comm, model) as trainer:
        expected = OSError if comm.rank == failing else RemoteRankError
        with pytest.raises(expected) as info:
            trainer.fit(make_data(comm), epochs=2)
        assert trainer.steps == 2  # the first call is the rehearsal
        params = trainer.params
        assert comm.allgather(params.tobytes()) == [params.tobytes()] * comm.size
    assert is_agreed(info.value, comm)
    if comm.rank != failing:
        assert f"rank {failing}" in str(info.value) and "disk" in str(info.value)
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_loss_that_is_not_finite(comm, value):
    """Found on all ranks at the same step, before the parameters change."""
    data = dataset(comm, "hole", *make_rows())
    if data.start <= 5 < data.stop:
        data.x[5 - data.start, 1] = value  # behind its back: a Dataset refuses it
    require_empty_shares(comm, data, BATCH, seed=0, epochs=1)
    with make_trainer(comm, pt.Softmax(WIDTH, 2, dtype="float64")) as trainer:
        trainer.params[:] = 1.0
        before = []
        with np.errstate(invalid="ignore"), pytest.raises(DivergenceError) as info:
            trainer.fit(
                data, epochs=1, on_step=lambda *_: before.append(trainer.params.copy())
            )
        last = before[-1] if before else np.ones_like(trainer.params)
        assert_array_equal(trainer.params, last)
        assert np.isfinite(trainer.params).all()
        assert f"at step {trainer.steps + 1};" in str(info.value)
        assert len(before) == trainer.steps
    assert is_agreed(info.value, comm)
    assert len(set(comm.allgather(str(info.value)))) == 1


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_gradient_that_is_not_finite(comm, clip_norm):
    """The loss is finite and the gradient of one rank is not."""

    def loss_and_grad(params, batch, grads):
        if 7.0 in batch.x:
            grads["w"][...] = np.inf
        return 1.0 * len(batch.x)

    model = pt.FunctionModel([pt.Tensor("w", (2,))], loss_and_grad, dtype="float64")
    data = dataset(comm, "hole", np.arange(float(N))[:, None], np.zeros(N))
    require_empty_shares(comm, data, BATCH, seed=0, epochs=1)
    with make_trainer(comm, model, clip_norm=clip_norm) as trainer:
        with pytest.raises(DivergenceError, match="gradient became NaN") as info:
            trainer.fit(data, epochs=1)
        assert_array_equal(trainer.params, 0)
    assert is_agreed(info.value, comm)


@pytest.mark.mpi(min_size=2)
def test_gradient_whose_square_overflows_is_no_divergence(comm):
    """1e25 squared is beyond float32; the gradient itself is fine."""

    def loss_and_grad(params, batch, grads):
        grads["w"][...] = 1e25
        return 1.0 * len(batch.x)

    model = pt.FunctionModel([pt.Tensor("w", (2,))], loss_and_grad)
    data = dataset(comm, "last", np.zeros((4, 1)), np.zeros(4))
    with make_trainer(comm, model, pt.SGD(1e-25)) as trainer:
        trainer.fit(data, epochs=1)
        np.testing.assert_allclose(trainer.params[:2], -0.25 * comm.size, rtol=1e-6)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "change, text",
    [
        (lambda x, y: (x.astype("float32"), y), "expected float64, got float32"),
        (lambda x, y: (x[:, :2], y), r"expected shape \(k, 3\)"),
        (lambda x, y: (x, y + 1), "class indices 0 to 1, got values from 1 to 2"),
        (lambda x, y: (x, y + 0.5), "expected class indices, got"),
    ],
)
def test_data_that_do_not_fit_are_refused_on_every_rank(comm, change, text):
    data = dataset(comm, "even", *change(*make_rows()))
    with make_trainer(comm) as trainer:
        with pytest.raises(Exception, match=text) as info:
            trainer.fit(data, epochs=1)
        assert isinstance(info.value, (ValueError, RemoteRankError))
        assert trainer.steps == 0
        with pytest.raises(Exception, match=text):
            good = dataset(comm, "even", *make_rows())
            trainer.fit(good, data, epochs=1)


@pytest.mark.mpi(min_size=2)
def test_free_gives_the_communicator_back(comm):
    from mpi4py import MPI

    with make_trainer(comm) as trainer:
        own = trainer.comm
        assert MPI.Comm.Compare(own, comm) == MPI.CONGRUENT  # not the caller's
    assert own == trainer.comm == MPI.COMM_NULL
    assert trainer.params.shape == (16,)
    assert comm.allreduce(1) == comm.size


# Weights of the first layer take 1 MB, a batch on one of four ranks 0.5 MB. NumPy
# borrows buffers of 8192 elements, whatever the size of arrays.
SIZES = {"width": 512, "hidden": [512], "n_rows": 1536, "batch_size": 1024}
BOUND_BYTES = 150_000


def epochs_before(comm, data):
    """Return e: epochs e + 1 and e + 2 have no larger share of a batch on any rank.

    Workspaces grow to the largest share seen, so the first epochs may allocate.
    """

    def largest(epoch):
        args = (data.n, 0, epoch, data.start, data.stop, SIZES["batch_size"])
        plan = EpochPlan(*args)
        return max(len(plan.batch(b)) for b in range(plan.n_batches))

    mine = [largest(epoch) for epoch in range(30)]
    for e in range(2, 28):
        if all(comm.allgather(max(mine[:e]) >= max(mine[e : e + 2]))):
            return e
    raise AssertionError("shares grow for ever")


def fit_measured(comm, backend, optimizer, **kwargs):
    """Return the peak of what two epochs allocate after some others, in bytes."""
    rng = np.random.default_rng(0)
    n, width = SIZES["n_rows"], SIZES["width"]
    x = rng.standard_normal((n, width)).astype("float32")
    weights = rng.uniform(0, 2, n).astype("float32")
    data = dataset(comm, "even", x, rng.integers(0, 5, n), weights)
    held = dataset(comm, "last", x[:100], rng.integers(0, 5, 100))
    model = pt.MLP(width, SIZES["hidden"], 5)
    found, n_before = {}, epochs_before(comm, data)

    def on_step(epoch, done, total):
        if (epoch, done) == (n_before, total):  # and evaluated after the first epoch
            tracemalloc.start()
            found["before"] = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()

    def on_epoch(record):
        if record["epoch"] == n_before + 2:
            found["peak"] = tracemalloc.get_traced_memory()[1]

    try:
        with make_trainer(
            comm,
            model,
            optimizer,
            batch_size=SIZES["batch_size"],
            backend=backend,
            **kwargs,
        ) as trainer:
            trainer.fit(
                data, held, epochs=n_before + 2, on_step=on_step, on_epoch=on_epoch
            )
    finally:
        tracemalloc.stop()
    return found["peak"] - found["before"]


CONFIGURATIONS = {
    "adam": (lambda: pt.Adam(), {}),
    "clipped": (lambda: pt.AdamW(), {"clip_norm": 0.1, "l2": 0.01}),
    "accumulated": (lambda: pt.SGD(0.1, momentum=0.9), {"micro_batch_size": 24}),
    "full": (lambda: pt.GD(0.1), {}),
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_step_allocates_nothing_large(name, backend):
    MPI = pytest.importorskip("mpi4py.MPI")
    pytest.importorskip("numba" if backend == "numba" else "numpy")
    make_optimizer, kwargs = CONFIGURATIONS[name]
    peak_bytes = fit_measured(MPI.COMM_SELF, backend, make_optimizer(), **kwargs)
    assert peak_bytes < BOUND_BYTES


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_step_of_several_ranks_allocates_nothing_large(comm, name):
    make_optimizer, kwargs = CONFIGURATIONS[name]
    peak_bytes = fit_measured(comm, "numpy", make_optimizer(), **kwargs)
    assert peak_bytes < BOUND_BYTES


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["batch_size", "seed", "l2", "clip_norm", "optimizer"])
def test_ranks_with_other_arguments_are_refused(comm, name):
    value = 7 + (comm.rank == 1)
    if name == "optimizer":
        value = pt.GD(float(value))
    kwargs = {"optimizer": pt.GD(0.1), name: value}
    with pytest.raises(RankMismatchError, match=f"{name} differs .* on rank 1"):
        pt.Trainer(pt.Linear(2), comm=comm, **kwargs)


@pytest.mark.mpi(min_size=2)
def test_ranks_with_other_betas_are_refused(comm):
    optimizer = pt.Adam(0.1, betas=(0.9, 0.99 if comm.rank == 1 else 0.999))
    with pytest.raises(RankMismatchError, match="optimizer differs .* on rank 1"):
        pt.Trainer(pt.Linear(2), optimizer, comm=comm)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["epochs", "patience"])
def test_ranks_that_fit_otherwise_are_refused(comm, name):
    kwargs = {"epochs": 7, name: 7 + (comm.rank == 1)}
    with make_trainer(comm) as trainer:
        with pytest.raises(RankMismatchError, match=f"{name} differs .* on rank 1"):
            trainer.fit(make_data(comm), **kwargs)


@pytest.mark.parametrize("name", ["batch_size", "micro_batch_size"])
def test_counts_are_positive(name):
    from mpi4py import MPI

    with pytest.raises(ValueError, match=f"{name}: expected an integer >= 1, got 0"):
        pt.Trainer(pt.Linear(2), pt.GD(0.1), comm=MPI.COMM_SELF, **{name: 0})


@pytest.mark.parametrize("what", ["fit", "predict", "evaluator"])
def test_arrays_are_no_data_set(what):
    from mpi4py import MPI

    x = np.zeros((4, 2), np.float32)
    with pt.Trainer(pt.Softmax(2, 2), pt.SGD(lr=0.1), comm=MPI.COMM_SELF) as trainer:
        method = getattr(trainer, what)
        with pytest.raises(ConfigError, match="expected a data set, got ndarray; make"):
            method(x, epochs=1) if what == "fit" else method(x)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"optimizer": "sgd"}, "optimizer: expected an object such as pt.Adam"),
        ({"optimizer": pt.SGD}, "optimizer: expected an object such as pt.Adam"),
        ({"model": None}, "model: expected an object such as pt.Softmax"),
        ({"schedule": "cosine"}, "schedule: expected an object such as pt.Cosine"),
        ({"parallel": "auto"}, "parallel: expected an object such as pt.Parallel"),
        ({"clip_norm": 0}, "clip_norm must be positive and finite, got 0"),
        ({"clip_norm": "x"}, "clip_norm must be positive and finite, got 'x'"),
        ({"l2": float("nan")}, "l2 must be finite and not negative, got nan"),
        ({"l2": -1}, "l2 must be finite and not negative, got -1"),
        ({"seed": "a"}, "seed must be an integer from 0 to 2.63 - 1, got 'a'"),
        ({"seed": -1}, "seed must be an integer"),
        ({"optimizer": pt.SGD(1.0, weight_decay=2.0)}, "is 2: each step multiplies"),
        ({"optimizer": pt.SGD(1.0), "l2": 1e3}, r"is 1e\+03: each step multiplies"),
        ({"optimizer": pt.AdamW(1.0, weight_decay=4.0)}, "is 4: each step multiplies"),
    ],
)
def test_wrong_arguments(wrong, message):
    from mpi4py import MPI

    how = {"model": pt.Softmax(2, 2), "optimizer": pt.SGD(0.1), **wrong}
    with pytest.raises(ConfigError, match=message):
        pt.Trainer(how.pop("model"), how.pop("optimizer"), comm=MPI.COMM_SELF, **how)


def test_decay_that_does_not_make_weights_grow():
    from mpi4py import MPI

    for optimizer, l2 in ((pt.Adam(1.0, weight_decay=9.0), 9.0), (pt.SGD(1.0), 1.9)):
        pt.Trainer(pt.Softmax(2, 2), optimizer, l2=l2, comm=MPI.COMM_SELF).free()
