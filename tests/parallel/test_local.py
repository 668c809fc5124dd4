"""Local steps equal one process for H = 1 and plain SGD, else simulated ranks."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from serial import (
    BATCH,
    EPOCHS,
    SEED,
    N,
    assert_close,
    make_data,
    mlp,
    require_serial,
    train,
)
from spread import SPREADS, cuts, dataset, require_empty_shares

import pympi_train as pt
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.data.epoch import EpochPlan
from pympi_train.errors import ConfigError, DivergenceError, RemoteRankError
from pympi_train.parallel.local import Local

DIGITS = Path(__file__).parents[2] / "examples" / "digits.npz"
PLAIN_SGD = ("logistic-l2",)


def local(steps, outer="average", **more):
    return pt.Parallel(strategy="local", local_steps=steps, outer=outer, **more)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize("name", PLAIN_SGD)
@pytest.mark.parametrize("micro_batch_size", [3, 4096])
def test_one_local_step_is_the_step_of_one_process(
    group, name, spread, micro_batch_size
):
    require_serial(group, name, spread, local(1), micro_batch_size=micro_batch_size)


def simulate(n_ranks, spread, n_steps, outer, make_optimizer):
    """Simulate local steps of ``n_ranks`` ranks in this process; return parameters."""
    x, y = make_data("classes")
    model = mlp()
    start = np.zeros(model.layout.size)
    model.init(model.layout.views(start), SEED)
    ranks = [start.copy() for _ in range(n_ranks)]
    optimizers = [make_optimizer() for _ in range(n_ranks)]
    for optimizer in optimizers:
        optimizer.allocate(model.layout, numpy_ops)
    bounds, velocity = cuts(N, n_ranks, spread), np.zeros_like(start)
    weights, done = np.zeros(n_ranks), 0

    def meet():
        nonlocal start, velocity
        shares = weights / weights.sum()
        delta = sum(w * (start - p) for w, p in zip(shares, ranks))
        if outer == "average":
            start = start - delta
        else:
            velocity = 0.9 * velocity + delta
            start = start - 0.7 * (delta + 0.9 * velocity)
        weights[:] = 0
        for params in ranks:
            params[:] = start

    for epoch in range(EPOCHS):
        plans = [
            EpochPlan(N, SEED, epoch, bounds[r], bounds[r + 1], BATCH)
            for r in range(n_ranks)
        ]
        for batch in range(plans[0].n_batches):
            for r, plan in enumerate(plans):
                rows = bounds[r] + plan.batch(batch)
                if len(rows):
                    grad = np.zeros_like(start)
                    model.loss(model.layout.views(ranks[r]), pt.Batch(x[rows], y[rows]))
                    model.gradient(
                        model.layout.views(ranks[r]), model.layout.views(grad)
                    )
                    optimizers[r].update(
                        ranks[r], grad, lr=0.02, grad_scale=1 / len(rows), l2=0.0
                    )
                    weights[r] += len(rows)
            done += 1
            if done == n_steps:
                meet()
                done = 0
        if done:
            meet()
            done = 0
    return start


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("outer", ["average", "nesterov"])
@pytest.mark.parametrize("n_steps", [1, 3, 100])
def test_ranks_do_what_a_simulation_of_them_does(comm, spread, outer, n_steps):
    x, y = make_data("classes")
    data = dataset(comm, spread, x, y)
    require_empty_shares(comm, data, BATCH, seed=SEED, epochs=EPOCHS)
    params, records = train(
        comm, mlp(), pt.Adam(0.02), data, parallel=local(n_steps, outer)
    )
    want = simulate(comm.size, spread, n_steps, outer, lambda: pt.Adam(0.02))
    assert_close(params, want)
    assert comm.allgather(params.tobytes()) == [params.tobytes()] * comm.size
    meetings = EPOCHS * -(-7 // n_steps)
    sent = 2 * params.nbytes * (comm.size - 1) // comm.size
    assert sum(r["sent_bytes"] for r in records) == meetings * sent
    assert records[-1]["train_loss"] < records[0]["train_loss"]


class Fails(pt.FunctionModel):
    """Its third loss on one rank raises, or is not finite."""

    def __init__(self, comm, how):
        def half_squares(params, batch, grads):
            error = params["centre"] - batch.x
            grads["centre"][...] = error.sum(axis=0)
            self.calls += 1
            if self.calls == 4 and comm.rank == comm.size - 1:  # 1 is a rehearsal
                if how == "raises":
                    raise OSError("no such row")
                return np.nan
            return 0.5 * (error**2).sum()

        self.calls = 0
        super().__init__([pt.Tensor("centre", (5,))], half_squares, dtype="float64")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how, kind", [("raises", OSError), ("nan", DivergenceError)])
def test_what_went_wrong_on_one_rank_is_raised_on_all_when_they_meet(comm, how, kind):
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    trainer = pt.Trainer(
        Fails(comm, how),
        pt.SGD(0.1),
        batch_size=BATCH,
        parallel=local(5),
        comm=comm,
    )
    if how == "raises" and comm.rank != comm.size - 1:
        kind = RemoteRankError
    with pytest.raises(kind):
        trainer.fit(data, epochs=1)
    assert not trainer.params.any()  # those of the last synchronisation: the start
    assert trainer.steps == (0 if how == "nan" else trainer.steps)
    trainer.fit(data, epochs=1)
    assert trainer.params.any()
    trainer.free()


@pytest.mark.mpi(min_size=2)
def test_early_stopping_goes_on_from_the_best(comm):
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    with pt.Trainer(
        mlp(), pt.Adam(0.05), batch_size=BATCH, parallel=local(2), comm=comm
    ) as trainer:
        trainer.fit(data, data, epochs=4, patience=2)
        best = trainer.params.copy()
        assert comm.allgather(best.tobytes()) == [best.tobytes()] * comm.size
        trainer.fit(data, epochs=1)
        assert not np.array_equal(best, trainer.params)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("compression", ["int8", "topk"])
def test_a_way_back_goes_to_what_had_not_been_sent_then(comm, compression):
    """After `go_back`, the step equals that of a run without the undone step."""
    layout = pt.Layout([pt.Tensor("w", (300,))], "float32")

    def meet(strategy, seed):
        rng = np.random.default_rng([seed, comm.rank])
        strategy.grads[:] = rng.standard_normal(layout.size)
        numbers = {"lr": 0.1, "weight": 1.0, "loss": 1.0, "l2": 0.0}
        strategy.advance(**numbers, clip_norm=None, error=None, stop=False)

    went_back, straight = (
        Local(
            comm,
            layout,
            pt.SGD(0.1),
            numpy_ops,
            local_steps=1,
            outer="average",
            compression=compression,
        )
        for _ in range(2)
    )
    for strategy in (went_back, straight):
        meet(strategy, seed=1)
    went_back.keep()
    meet(went_back, seed=2)
    assert (went_back.params != straight.params).any()
    went_back.go_back()
    for strategy in (went_back, straight):
        meet(strategy, seed=3)
    assert_array_equal(went_back.params, straight.params)


@pytest.fixture(scope="module")
def digits():
    """Standardised features and classes of the handwritten digits, float32."""
    with np.load(DIGITS) as arrays:
        x, y = arrays["X"].astype(np.float32), arrays["y"]
    return (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-3), y


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "steps, outer, compression, loss",
    [
        (4, "average", "none", 0.15),
        (4, "average", "bf16", 0.15),
        (4, "average", "topk", 0.3),
        (4, "average", "powersgd", 0.16),
        (8, "nesterov", "none", 0.08),
        (8, "nesterov", "int8", 0.08),
    ],
)
def test_loss_on_digits_after_six_epochs(
    comm, digits, steps, outer, compression, loss
):
    data = dataset(comm, "hole", *digits)
    model = pt.MLP(64, [64], 10)
    how = local(steps, outer, compression=compression)
    params, records = train(
        comm, model, pt.AdamW(3e-3), data, epochs=6, parallel=how, batch_size=64
    )
    assert records[-1]["train_loss"] < loss
    assert comm.allgather(params.tobytes()) == [params.tobytes()] * comm.size
    plain = -(-29 // steps) * 2 * 4 * model.layout.size
    less = {"none": 1.0, "bf16": 0.51, "int8": 0.26}.get(compression, 0.3)
    assert records[-1]["sent_bytes"] <= less * plain


def test_lbfgs_is_refused():
    pytest.importorskip("mpi4py")
    model = pt.Softmax(3, 2)
    with pytest.raises(ConfigError, match="lbfgs works with"):
        pt.Trainer(model, pt.LBFGS(), parallel=local(2))
