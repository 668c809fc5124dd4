"""Sharded state, gradients and parameters: the steps of one process."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from serial import (
    CASES,
    EPOCHS,
    N_FEATURES,
    SEED,
    assert_close,
    assert_same_records,
    make_data,
    mlp,
    require_serial,
    train,
)
from spread import dataset, require_empty_shares

import pympi_train as pt
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.errors import DivergenceError
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.sharded.partition import Partition
from pympi_train.parallel.sharded.strategy import Sharded

STAGES = (1, 2, 3)
TENSORS = [
    pt.Tensor("w", (3, 7)),
    pt.Tensor("b", (7,), is_weight=False),
    pt.Tensor("v", (7, 1)),
    pt.Tensor("c", (1,), is_weight=False),
]
SPANS = (slice(0, 2), slice(2, 2), slice(2, 4))  # one layer has no parameters
SETTINGS = (
    {"l2": 0.0},
    {"l2": 0.1},
    {"l2": 0.0, "clip_norm": 0.3},
    {"l2": 0.1, "clip_norm": 0.3},
)


def parallel(stage):
    return pt.Parallel(strategy="sharded", stage=stage)


class Given(pt.Model):
    """A layered model whose gradients are given: set ``values`` before each call."""

    layer_spans = SPANS

    def __init__(self, layout):
        self.layout, self.seen = layout, None

    def init(self, params, seed):
        for i, view in enumerate(params):
            view[...] = i + seed

    def loss(self, params, batch):
        self.seen = [view.copy() for span in SPANS for view in params[span]]
        return 0.0

    def gradient(self, params, grads):
        for span in reversed(SPANS):
            for view, value in zip(grads[span], self.values[span]):
                view[...] = value

    def predict(self, params, x):
        raise NotImplementedError


def make(comm, stage, optimizer=None, dtype="float64", spans=SPANS):
    layout = pt.Layout(TENSORS, dtype)
    optimizer = optimizer or pt.Adam(0.1)
    strategy = Sharded(comm, layout, optimizer, numpy_ops, spans=spans, stage=stage)
    model = Given(layout)
    strategy.init(model, 1)
    return model, strategy


def gradient_of(rank, layout):
    """Return a gradient block as a model writes it: zero between the tensors."""
    block, rng = np.zeros(layout.size, layout.dtype), np.random.default_rng(rank)
    for view in layout.views(block):
        view[...] = rng.standard_normal(view.shape)
    return block


def step(model, strategy, blocks, *, lr=0.1, weight=7.0, l2=0.0, clip_norm=None):
    """Make the calls of a step, with a micro-batch for each block of gradients."""
    views = strategy.param_views
    n_batches = strategy._agree_batches(len(blocks))
    assert n_batches == len(blocks)
    for index, block in enumerate(blocks):
        model.values = model.layout.views(block)
        model.loss(views, None)
        strategy.backward(model, views, index, index == n_batches - 1)
    strategy.combine()
    penalty = strategy.penalty(l2)
    strategy.update(lr=lr, weight=weight, l2=l2, clip_norm=clip_norm)
    return penalty


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(comm, name):
    require_serial(comm, name, "hole", parallel(3))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    "name", ["mlp-tanh-adamw", "mlp-gelu-regression-clipped", "mlp-accumulated"]
)
def test_earlier_stages_equal_one_process(comm, name, stage):
    require_serial(comm, name, "hole", parallel(stage))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stage", STAGES)
def test_even_rows_equal_one_process(comm, stage):
    require_serial(comm, "mlp-accumulated", "even", parallel(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_one_rank(stage):
    MPI = pytest.importorskip("mpi4py.MPI")
    spread = ("even", parallel(stage))
    require_serial(MPI.COMM_SELF, "mlp-gelu-regression-clipped", *spread)
    records = require_serial(MPI.COMM_SELF, "mlp-accumulated", *spread)
    assert records[-1]["sent_bytes"] == 0


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("spans", [SPANS, ()], ids=["layers", "one layer"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_allreduce(comm, settings, spans, stage):
    """The last rank has no rows in the last micro-batch: its gradient is zero."""
    adam = pt.AdamW(0.1, weight_decay=0.01)
    model, shards = make(comm, stage, adam, spans=spans)
    layout, same = model.layout, pt.AdamW(0.1, weight_decay=0.01)
    replicas = Allreduce(comm, layout, same, numpy_ops)
    replicas.init(model, 1)
    for index in range(3):
        blocks = [gradient_of(index + 10 * comm.rank + i, layout) for i in (0, 5)]
        if comm.rank == comm.size - 1:
            blocks[-1][:] = 0
        replicas.grads[:] = sum(blocks)
        replicas.combine()
        penalty = replicas.penalty(settings["l2"])
        replicas.update(lr=0.1, weight=7.0, **settings)
        got = step(model, shards, blocks, **settings)
        assert got == pytest.approx(penalty, rel=1e-12)
        assert_allclose(shards.whole(), replicas.params, rtol=0, atol=1e-13)
        assert comm.allgather(shards.whole().tobytes()) == [
            shards.whole().tobytes()
        ] * comm.size
    assert adam.step == same.step == 3
    model.loss(shards.param_views, None)
    for seen, view in zip(model.seen, layout.views(shards.whole())):
        assert_array_equal(seen, view)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_bad_gradient_on_one_rank_moves_nothing_anywhere(
    comm, stage, clip_norm, value
):
    model, shards = make(comm, stage)
    before = shards.whole().copy()
    bad = np.zeros(model.layout.size)
    if comm.rank == comm.size - 1:
        bad[4] = value
    with np.errstate(invalid="ignore"), pytest.raises(DivergenceError):
        step(model, shards, [bad], clip_norm=clip_norm)
    assert_array_equal(shards.whole(), before)
    good = gradient_of(comm.rank, model.layout)
    step(model, shards, [good], clip_norm=clip_norm)  # training can continue
    assert (shards.whole() != before).any()


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stage", STAGES)
def test_step_that_overflows_is_refused(comm, stage):
    model, shards = make(comm, stage, pt.SGD(1.0), "float32")
    before, huge = shards.whole().copy(), gradient_of(0, model.layout) * 1e25
    with pytest.raises(DivergenceError, match="too large for float32"):
        step(model, shards, [huge], lr=1.0, weight=1.0)
    assert_array_equal(shards.whole(), before)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "stage, spread", [(1, "hole"), (2, "hole"), (3, "even"), (3, "hole")]
)
def test_early_stopping_brings_back_the_best(comm, spread, stage):
    """Ranks have unequal numbers of validation batches; with a hole, one has none."""
    from mpi4py import MPI

    x, y = make_data("classes")
    data = dataset(comm, spread, x[:61], y[:61])
    held = dataset(comm, spread, x[61:], y[61:])
    alone = dataset(MPI.COMM_SELF, "even", x[:61], y[:61])
    alone_held = dataset(MPI.COMM_SELF, "even", x[61:], y[61:])
    require_empty_shares(comm, data, 15, seed=SEED, epochs=40)
    kwargs = {"epochs": 40, "patience": 3, "batch_size": 15, "micro_batch_size": 8}
    params, records = train(
        comm, mlp(), pt.Adam(0.02), data, held, parallel=parallel(stage), **kwargs
    )
    want, want_records = train(
        MPI.COMM_SELF, mlp(), pt.Adam(0.02), alone, alone_held, **kwargs
    )
    assert EPOCHS < len(records) < 40
    assert_close(params, want)
    assert_same_records(records, want_records)


def half_squares(params, batch, grads):
    if not len(batch.x):  # takes no parameters
        return 0.0
    error = batch.x @ params["w"] + params["b"] - batch.y[:, None]
    grads["w"][...] = batch.x.T @ error
    grads["b"][...] = error.sum(axis=0)
    return 0.5 * float((error**2).sum())


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("micro_batch_size", [3, 4096])
def test_model_without_layers(comm, stage, micro_batch_size):
    from mpi4py import MPI

    x, y = make_data("binary")

    def model():
        tensors = [pt.Tensor("w", (N_FEATURES, 1)), pt.Tensor("b", (1,), False)]
        return pt.FunctionModel(
            tensors,
            half_squares,
            dtype="float64",
            init=lambda params, seed: params["w"].fill(0.5),
            task="regression",
            predict=lambda params, x: x @ params["w"] + params["b"],
        )

    data, alone = dataset(comm, "hole", x, y), dataset(MPI.COMM_SELF, "even", x, y)
    kwargs = {"micro_batch_size": micro_batch_size, "l2": 0.1}
    params, records = train(
        comm, model(), pt.Adam(0.1), data, data, parallel=parallel(stage), **kwargs
    )
    want, want_records = train(
        MPI.COMM_SELF, model(), pt.Adam(0.1), alone, alone, **kwargs
    )
    assert_close(params, want)
    assert_same_records(records, want_records)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spans", [SPANS, ()], ids=["layers", "one layer"])
def test_starting_point_of_a_model_that_writes_twice(comm, spans):
    class Twice(Given):
        def init(self, params, seed):
            super(Given, self).init(params, seed)  # zeros
            params[2][...] = 3.0  # of a layer that was already written
            params[0][...] = 1.0

    layout = pt.Layout(TENSORS, "float64")
    for stage in STAGES:
        shards = Sharded(comm, layout, pt.SGD(1), numpy_ops, spans=spans, stage=stage)
        shards.init(Twice(layout), 0)
        starts = [view.max() for view in layout.views(shards.whole())]
        assert starts == [1.0, 0.0, 3.0, 0.0]


@pytest.mark.mpi(min_size=2)
def test_starting_point_is_that_of_one_process(comm):
    model = pt.MLP(40, [30, 20], 10)
    whole = np.zeros(model.layout.size, "float32")
    model.init(model.layout.views(whole), 5)
    for stage in STAGES:
        strategy = Sharded(
            comm,
            model.layout,
            pt.SGD(1),
            numpy_ops,
            spans=model.layer_spans,
            stage=stage,
        )
        strategy.init(model, 5)
        assert_array_equal(strategy.whole(), whole)


@pytest.mark.mpi(min_size=2)
def test_layers_out_of_order_are_refused(comm):
    class Forward(Given):
        def gradient(self, params, grads):
            for span in SPANS:
                for view in grads[span]:
                    view[...] = 0

    model, shards = make(comm, 2)
    with pytest.raises(RuntimeError, match="expected layer 2 next, got 0"):
        shards.backward(Forward(model.layout), shards.param_views, 0, True)
    _, shards = make(comm, 3)
    with pytest.raises(ValueError, match="tensors of one layer at a time"):
        shards.param_views[::2]
    assert shards.param_views[4:] == []


@pytest.mark.mpi(min_size=2)
def test_parameters_are_gone_after_free(comm):
    data = dataset(comm, "even", *make_data("classes"))
    with pt.Trainer(mlp(), pt.SGD(0.1), parallel=parallel(3), comm=comm) as trainer:
        trainer.fit(data, epochs=1)
        weights = trainer.weights()
    assert len(weights) == 6
    with pytest.raises(RuntimeError, match="before the Trainer is freed"):
        trainer.weights()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n_batches", [1, 2])
def test_what_is_held_and_sent(comm, n_batches):
    layout = pt.Layout(
        [pt.Tensor(f"w{i}", (10, size)) for i, size in enumerate((400, 600))],
        "float64",
    )
    spans, n, size = (slice(0, 1), slice(1, 2)), layout.size, comm.size
    sends = {1: 2 * n, 2: (1 + n_batches) * n, 3: 3 * n_batches * n}
    # The last layer is still gathered when backward begins, and the first when the next
    # micro-batch begins.
    sends[3] -= n_batches * 6000 + (n_batches - 1) * 4000
    for stage in STAGES:
        adam = pt.Adam(0.1)
        shards = Sharded(comm, layout, adam, numpy_ops, spans=spans, stage=stage)
        model = Given(layout)
        model.layer_spans = spans
        held = comm.allgather(adam.state["m"].size)
        assert sum(held) == n and max(held) - min(held) <= 8
        blocks = _blocks(shards)
        shard, largest = held[comm.rank], 6000
        whole = {1: 2 * n, 2: n + shard + largest, 3: 2 * shard + 2 * largest}[stage]
        # In addition: the sum of a slice, and the alignment of the blocks.
        assert whole <= blocks / 8 - 2 * shard <= whole + largest / size + 80
        _step_of(shards, spans, n_batches)
        total = comm.allreduce(shards.sent_bytes)
        assert total == sends[stage] * 8 * (size - 1)


def _step_of(shards, spans, n_batches):
    views = shards.param_views

    class Ones:
        def gradient(self, params, grads):
            for span in reversed(spans):
                params[span]
                grads[span][0][...] = 1

    for index in range(n_batches):
        for span in spans:
            views[span]
        shards.backward(Ones(), views, index, index == n_batches - 1)
    shards.combine()
    shards.update(lr=0.1, weight=1.0, l2=0.0)


def _blocks(root):
    """Return the bytes of all arrays reachable from ``root``, without views."""
    seen, todo, blocks = set(), [root], {}
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            base = thing
            while isinstance(base.base, np.ndarray):
                base = base.base
            blocks[id(base)] = base.nbytes
        elif isinstance(thing, dict):
            todo += thing.values()
        elif isinstance(thing, (list, tuple)):
            todo += thing
        elif type(thing).__module__.startswith("pympi_train"):
            todo += vars(thing).values()
    return sum(blocks.values())


@given(
    sizes=st.lists(st.lists(st.integers(0, 40), max_size=3), min_size=1, max_size=4),
    n_ranks=st.integers(1, 9),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_every_element_has_one_owner(sizes, n_ranks, dtype):
    tensors, spans = [], []
    for layer in sizes:
        start = len(tensors)
        tensors += [pt.Tensor(f"{start}.{i}", (n,)) for i, n in enumerate(layer)]
        spans.append(slice(start, len(tensors)))
    layout = pt.Layout(tensors, dtype)
    owners = np.zeros(layout.size, int)
    for rank in range(n_ranks):
        mine = Partition(layout, spans, n_ranks, rank)
        assert mine.part.size == sum(counts[rank] for counts in mine.counts)
        assert mine.largest == max(b - a for a, b in mine.layers)
        for layer, (start, stop) in enumerate(mine.layers):
            piece, place = mine.pieces[layer], mine.places[layer]
            assert start <= piece.start <= piece.stop <= stop
            assert piece.stop - piece.start == place.stop - place.start
            assert sum(mine.counts[layer]) == stop - start
            if piece.start < piece.stop:
                assert (piece.start - start) % 8 == 0
                assert place.start % 8 == 0
            assert max(mine.counts[layer]) - min(mine.counts[layer]) < 16
            owners[piece] += 1
    assert (owners == 1).all()


@given(
    st.integers(0, 5),
    st.sampled_from([slice(0, 2), slice(0, 1), slice(1, None, -1), slice(4, 9)]),
)
def test_tensors_are_found_in_their_layer(number, index):
    spans = (slice(0, 2), slice(2, 2), slice(2, 6))
    layout = pt.Layout([pt.Tensor(str(i), (i + 1,)) for i in range(6)], "float32")
    partition = Partition(layout, spans, 2, 0)
    layer, inside = partition.find(number)
    assert range(6)[spans[layer]][inside] == number
    layer, inside = partition.find(index)
    assert [range(6)[spans[layer]][i] for i in inside] == list(range(6)[index])
    assert partition.find(slice(3, 3)) == (None, [])
    with pytest.raises(IndexError):
        partition.find(6)
