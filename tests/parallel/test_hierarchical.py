"""One copy of the parameters per node: the steps of one process, on any nodes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from serial import (
    EPOCHS,
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
from pympi_train.comm import shared
from pympi_train.comm.checks import is_agreed
from pympi_train.errors import ConfigError, DivergenceError
from pympi_train.parallel import hierarchical, trials
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.hierarchical import Hierarchical

NODES = pt.Parallel(strategy="hierarchical")
SPLITS = {  # the simulated node of a rank
    "one": lambda rank: 0,  # as on the test machines
    "two and more": lambda rank: int(rank >= 2),
    "one and more": lambda rank: int(rank >= 1),
    "in turns": lambda rank: rank % 2,
}
TENSORS = [
    pt.Tensor("w", (3, 5)),
    pt.Tensor("b", (5,), is_weight=False),
    pt.Tensor("v", (5, 1)),
]
SETTINGS = (
    {"l2": 0.0},
    {"l2": 0.1},
    {"l2": 0.0, "clip_norm": 0.3},
    {"l2": 0.1, "clip_norm": 0.3},
)


def make(comm, split="one", optimizer=None, dtype="float64", tensors=TENSORS):
    layout, optimizer = pt.Layout(tensors, dtype), optimizer or pt.Adam(0.1)
    colour = SPLITS[split](comm.rank)
    return layout, Hierarchical(comm, layout, optimizer, numpy_ops, colour=colour)


def gradient_of(rank, layout):
    return np.random.default_rng(rank).standard_normal(layout.size)


def step(strategy, grads, *, lr=0.1, weight=7.0, l2=0.0, clip_norm=None):
    """Make the calls of a step; return the penalty. Collective."""
    strategy.grads[:] = grads
    strategy.combine()
    penalty = strategy.penalty(l2)
    strategy.update(lr=lr, weight=weight, l2=l2, clip_norm=clip_norm)
    return penalty


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "hole"])
@pytest.mark.parametrize(
    "name",
    [
        "mlp-adam",
        "mlp-gelu-regression-clipped",
        "mlp-accumulated",
        "softmax-nesterov-step",
        "logistic-l2",
    ],
)
def test_ranks_equal_one_process(comm, name, spread):
    records = require_serial(comm, name, spread, NODES)
    assert records[-1]["sent_bytes"] == 0  # one node


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", list(SPLITS)[1:])
@pytest.mark.parametrize("name", ["mlp-tanh-adamw", "mlp-gelu-regression-clipped"])
def test_several_nodes_equal_one_process(comm, monkeypatch, split, name):
    colour, plain = SPLITS[split](comm.rank), Hierarchical.__init__

    def init(self, trainers_comm, *args, **kwargs):
        mine = colour if trainers_comm.size > 1 else None
        plain(self, trainers_comm, *args, colour=mine, **kwargs)

    monkeypatch.setattr(Hierarchical, "__init__", init)
    require_serial(comm, name, "hole", NODES)


def test_one_rank():
    MPI = pytest.importorskip("mpi4py.MPI")
    require_serial(MPI.COMM_SELF, "mlp-accumulated", "even", NODES)
    require_serial(MPI.COMM_SELF, "mlp-gelu-regression-clipped", "even", NODES)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_allreduce(comm, split, settings):
    layout, nodes = make(comm, split, pt.Adam(0.1, weight_decay=0.01))
    replicas = Allreduce(comm, layout, pt.Adam(0.1, weight_decay=0.01), numpy_ops)
    for index in range(4):
        grads = gradient_of(100 * index + comm.rank, layout)
        if comm.rank == comm.size - 1:  # has no rows
            grads[:] = 0
        penalty = step(replicas, grads, **settings)
        assert step(nodes, grads, **settings) == pytest.approx(penalty, rel=1e-12)
        assert_allclose(nodes.params, replicas.params, rtol=0, atol=1e-14)
        comm.Barrier()  # other ranks read the same memory
    nodes.free()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 3, 300_001])
def test_slices_without_elements_and_in_pieces(comm, n, dtype):
    layout, nodes = make(comm, "one", pt.SGD(1.0), dtype, [pt.Tensor("w", (n,))])
    assert comm.allreduce(nodes.own.size) == layout.size
    grads = gradient_of(comm.rank, layout).astype(dtype)
    want = -sum(gradient_of(rank, layout).astype(dtype) for rank in range(comm.size))
    step(nodes, grads, lr=1.0, weight=1.0)
    assert_allclose(nodes.params, want, rtol=0, atol=50 * np.finfo(dtype).eps)
    nodes.free()


@pytest.mark.mpi(min_size=2)
def test_batch_without_weight_leaves_gradients_alone(comm):
    """No update follows, and the next gradient may be written at once."""
    layout, nodes = make(comm, "one", pt.SGD(1.0))
    for value in range(100):
        nodes.grads[:] = value
        nodes.combine()
        assert_array_equal(nodes.grads[nodes._slice], value * comm.size)
    nodes.free()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_bad_gradient_on_one_rank_moves_nothing_anywhere(
    comm, split, clip_norm, value
):
    layout, nodes = make(comm, split)
    if nodes.own.size:
        nodes.own[:] = 1.0
    comm.Barrier()
    grads = np.zeros(layout.size)
    if comm.rank == comm.size - 1:
        grads[4] = value
    with np.errstate(invalid="ignore"), pytest.raises(DivergenceError):
        step(nodes, grads, clip_norm=clip_norm)
    assert_array_equal(nodes.params, 1.0)
    step(nodes, gradient_of(comm.rank, layout), clip_norm=clip_norm)  # continues
    assert (nodes.params != 1.0).any()
    nodes.free()


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", ["one", "in turns"])
def test_large_gradients_whose_sum_is_usable(comm, split):
    """The squares overflow in float32; the sum's square is then taken in float64."""
    layout, nodes = make(comm, split, pt.SGD(1.0), "float32")
    grads = np.full(layout.size, 1e25, dtype="float32")  # its square overflows
    step(nodes, grads, lr=1e-25, weight=1.0)
    assert_allclose(nodes.params, -float(comm.size), rtol=1e-6)
    comm.Barrier()
    with pytest.raises(DivergenceError, match="too large for float32"):
        step(nodes, grads, lr=1.0, weight=1.0)
    assert_allclose(nodes.params, -float(comm.size), rtol=1e-6)
    nodes.free()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind, share", [("bf16", 2), ("int8", 4)])
def test_compressed_between_nodes(comm, kind, share):
    layout = pt.Layout([pt.Tensor("w", (8000,))], "float32")
    colour = SPLITS["in turns"](comm.rank)
    nodes, plain = (
        Hierarchical(
            comm, layout, pt.SGD(1.0), numpy_ops, compression=wire, colour=colour
        )
        for wire in (kind, "none")
    )
    for index in range(20):
        grads = gradient_of(100 * index + comm.rank, layout)
        step(nodes, grads, lr=0.1, weight=1.0)
        step(plain, grads, lr=0.1, weight=1.0)
    # Error feedback corrects each step's error in the next: errors do not grow.
    assert 0 < np.abs(nodes.params - plain.params).max() < 0.05
    params = nodes.params.tobytes()
    assert comm.allgather(params) == [params] * comm.size
    sent = [comm.allreduce(s.sent_bytes) for s in (nodes, plain)]
    assert share / 1.1 < sent[1] / sent[0] <= share
    nodes.free(), plain.free()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", SPLITS)
def test_what_is_held_and_sent(comm, split):
    colours = [SPLITS[split](rank) for rank in range(comm.size)]
    counts = [colours.count(colour) for colour in sorted(set(colours))]
    adam = pt.Adam(0.1)
    layout, nodes = make(comm, split, adam, tensors=[pt.Tensor("w", (4000,))])
    held = comm.allgather(nodes.own.size)
    assert sum(held) == len(counts) * layout.size
    assert sum(n > 0 for n in held) == len(counts) * min(counts)
    windows = nodes._shared_params.array.size + nodes._shared_grads.array.size
    states = sum(s.size for s in adam.state.values())
    n_on_node = windows + nodes._nodes.node.allreduce(states)
    assert n_on_node == (counts[colours[comm.rank]] + 3) * layout.size
    assert all(state.size == nodes.own.size for state in adam.state.values())
    step(nodes, gradient_of(comm.rank, layout))
    total = comm.allreduce(nodes.sent_bytes)
    want = 2 * layout.size * 8 * (len(counts) - 1)
    assert want - 2 * comm.size <= total <= want
    nodes.free()


@pytest.mark.mpi(min_size=2)
def test_the_node_has_one_copy(comm):
    layout, nodes = make(comm)
    nodes.own[:] = comm.rank + 1.0
    nodes.restored()
    want = np.concatenate(comm.allgather(nodes.own.copy()))
    assert_array_equal(nodes.whole(), want)
    assert all(np.shares_memory(view, nodes.params) for view in nodes.param_views)
    whole, n = nodes.params, layout.size
    nodes.free()  # `whole` lies in the window, and must remain readable
    assert_array_equal(whole, want)
    assert_array_equal(nodes.whole(), want)
    assert not np.shares_memory(whole, nodes.params) and nodes.params.shape == (n,)
    nodes.free()  # a second call does nothing


@pytest.mark.mpi(min_size=2)
def test_early_stopping_brings_back_the_best(comm):
    from mpi4py import MPI

    x, y = make_data("classes")
    data = dataset(comm, "hole", x[:61], y[:61])
    held = dataset(comm, "hole", x[61:], y[61:])
    alone = dataset(MPI.COMM_SELF, "even", x[:61], y[:61])
    alone_held = dataset(MPI.COMM_SELF, "even", x[61:], y[61:])
    require_empty_shares(comm, data, 15, seed=SEED, epochs=40)
    kwargs = {"epochs": 40, "patience": 3, "batch_size": 15}
    params, records = train(
        comm, mlp(), pt.Adam(0.02), data, held, parallel=NODES, **kwargs
    )
    want, want_records = train(
        MPI.COMM_SELF, mlp(), pt.Adam(0.02), alone, alone_held, **kwargs
    )
    assert EPOCHS < len(records) < 40
    assert_close(params, want)
    assert_same_records(records, want_records)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_start_that_raises_is_raised_everywhere(comm, backend):
    pytest.importorskip("numba" if backend == "numba" else "numpy")

    class Broken(pt.Softmax):
        def init(self, params, seed):
            raise ConfigError("no start")

    with pytest.raises(ConfigError, match="no start"):
        pt.Trainer(
            Broken(3, 2), pt.Adam(), comm=comm, parallel=NODES, backend=backend
        )


@pytest.mark.mpi(min_size=2)
def test_too_little_shared_memory_is_refused(comm, monkeypatch):
    def little(folder):
        free = 64 * 2**20 if comm.rank else 2**50  # one node has less than the other
        return type("Found", (), {"f_bavail": free // 4096, "f_frsize": 4096})

    monkeypatch.setattr(shared.os, "statvfs", little)
    tensors = [pt.Tensor("w", (40_000_000,))]
    with pytest.raises(ConfigError, match="67,108,864 are free.*allreduce") as caught:
        make(comm, "in turns" if comm.size == 2 else "one", tensors=tensors)
    per_node = 1 + (1 if comm.size == 2 else comm.size)
    assert f"{per_node * 40_000_000 * 8:,} bytes" in str(caught.value)
    assert hierarchical.INSTEAD in str(caught.value)


@pytest.mark.mpi(min_size=2)
def test_auto_goes_on_without_where_a_sample_fits_but_not_the_model(comm, monkeypatch):
    calls = []

    def refuse(n_bytes, instead):
        calls.append(n_bytes)
        if len(calls) > 1:
            raise ConfigError("too little")

    monkeypatch.setattr(hierarchical, "require_space", refuse)
    monkeypatch.setattr(trials, "LEAST_BYTES", 1)
    monkeypatch.setattr(trials, "fastest", lambda seconds, default: list(seconds)[-1])
    with pt.Trainer(pt.Softmax(5, 3), pt.Adam(0.01), comm=comm) as trainer:
        assert trainer.resolved.strategy == "allreduce"
    assert len(calls) == 2


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kwargs", [{}, {"clip_norm": 1e30}, {"micro_batch_size": 4}])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_memory_is_freed_after_divergence(comm, monkeypatch, where, kwargs):
    """While the error's traceback still holds the frames of the step."""
    freed, plain = [], shared.SharedBlock.free
    monkeypatch.setattr(
        shared.SharedBlock, "free", lambda self: freed.append(plain(self))
    )
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)

    class Broken(pt.Softmax):
        def loss(self, params, batch):
            loss = super().loss(params, batch)
            return np.nan if where == "loss" else loss

        def gradient(self, params, grads):
            super().gradient(params, grads)
            grads[0][:] = np.nan

    model = Broken(5, 3, dtype="float64")
    with pytest.raises(DivergenceError) as caught:
        with pt.Trainer(
            model, pt.SGD(0.1), comm=comm, parallel=NODES, **kwargs
        ) as trainer:
            trainer.fit(data, epochs=1)
    assert is_agreed(caught.value, comm)
    # Parameters, gradients, sums of the job, and of the node if gradients were summed.
    assert all(freed) and len(freed) == (3 if where == "loss" else 4)
    assert np.isfinite(trainer.params).all()


@pytest.mark.mpi(min_size=2)
def test_weights_may_be_read_when_all_is_over(comm):
    x, y = make_data("classes")
    data = dataset(comm, "even", x, y)
    model = pt.Softmax(5, 3, dtype="float64")
    with pt.Trainer(model, pt.SGD(0.1), comm=comm, parallel=NODES) as trainer:
        weights = trainer.weights()
        trainer.fit(data, epochs=1)
    for name, tensor in trainer.weights().items():
        assert_array_equal(weights[name], tensor)
        assert tensor.any()
