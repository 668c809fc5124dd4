"""Replicated parameters: sums of gradients, one update, equal replicas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from serial import CASES, require_serial

import pympi_train as pt
from pympi_train.backends.numpy import ops as numpy_ops
from pympi_train.backends.numpy.ops import square
from pympi_train.comm.sums.by_slices import sum_by_slices
from pympi_train.errors import DivergenceError
from pympi_train.parallel import allreduce, overlap, trials
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.whole_gradient import require_usable_square
from pympi_train.train.iterate import add_penalty

TENSORS = [
    pt.Tensor("w", (3, 5)),
    pt.Tensor("b", (5,), is_weight=False),
    pt.Tensor("v", (5, 1)),
]


def make(comm, optimizer=None, dtype="float64"):
    layout = pt.Layout(TENSORS, dtype)
    return layout, Allreduce(comm, layout, optimizer, numpy_ops)


def gradient_of(rank, layout):
    return np.random.default_rng(rank).standard_normal(layout.size)


@pytest.mark.mpi(min_size=2)
def test_combine_sums_over_ranks(comm):
    layout, replicas = make(comm)
    if comm.rank:  # rank 0 has no rows: its gradient sum is zero
        replicas.grads[:] = gradient_of(comm.rank, layout)
    replicas.combine()
    want = sum(gradient_of(rank, layout) for rank in range(1, comm.size))
    assert_allclose(replicas.grads, want, rtol=0, atol=1e-14)
    assert all(np.shares_memory(view, replicas.grads) for view in replicas.grad_views)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_replicas_stay_equal_to_the_bit(comm, dtype):
    layout, replicas = make(comm, pt.Adam(0.1), dtype)
    for step in range(20):
        replicas.grads[:] = gradient_of(100 * step + comm.rank, layout)
        replicas.combine()
        replicas.update(lr=0.1, weight=7.0, l2=0.1, clip_norm=0.5)
    params = replicas.params.tobytes()
    assert comm.allgather(params) == [params] * comm.size
    assert replicas.params.any()


@pytest.mark.mpi(min_size=2)
def test_update_divides_by_the_weight_of_the_batch(comm):
    layout, replicas = make(comm, pt.SGD(1.0))
    replicas.params[:] = 2.0
    replicas.grads[:] = comm.rank
    replicas.combine()
    replicas.update(lr=0.5, weight=4.0, l2=0.1)
    total = comm.size * (comm.size - 1) / 2
    w, b, v = replicas.param_views
    assert_allclose(w, 2 - 0.5 * (total / 4 + 0.1 * 2))
    assert_allclose(v, w[0, 0])
    assert_allclose(b, 2 - 0.5 * total / 4)  # no penalty on biases


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_bad_gradient_on_one_rank_moves_nothing_anywhere(comm, clip_norm, value):
    layout, replicas = make(comm, pt.Adam(0.1))
    replicas.params[:] = 1.0
    if comm.rank == comm.size - 1:
        replicas.grads[4] = value
    replicas.combine()
    with np.errstate(invalid="ignore"), pytest.raises(DivergenceError):
        replicas.update(lr=0.1, weight=1.0, l2=0.0, clip_norm=clip_norm)
    assert_array_equal(replicas.params, 1.0)


class Spy:
    """A communicator that records the buffers of sums."""

    def __init__(self, comm):
        self._comm, self.blocking, self.started = comm, [], []

    def __getattr__(self, name):
        return getattr(self._comm, name)

    def Allreduce(self, sendbuf, recvbuf, op):
        self.blocking.append(recvbuf)
        self._comm.Allreduce(sendbuf, recvbuf, op=op)

    def Iallreduce(self, sendbuf, recvbuf, op):
        self.started.append(recvbuf)
        return self._comm.Iallreduce(sendbuf, recvbuf, op=op)


def mlp_step(comm, dtype, micro_batches, **kwargs):
    """Return (strategy, gradient sum over ranks) of an MLP after one exchange."""
    model = pt.MLP(6, [8, 4], 3, dtype=dtype)
    strategy = Allreduce(
        comm, model.layout, pt.SGD(1.0), numpy_ops, spans=model.layer_spans, **kwargs
    )
    strategy.init(model, 1)
    rng = np.random.default_rng(comm.rank)
    want = np.zeros_like(strategy.grads)
    for index in range(micro_batches):
        x = rng.standard_normal((comm.rank, 6)).astype(dtype)  # none on rank 0
        batch = pt.Batch(x, rng.integers(0, 3, comm.rank))
        model.loss(strategy.param_views, batch)
        block = np.zeros_like(want)
        model.gradient(strategy.param_views, model.layout.views(block))
        want += block
        model.loss(strategy.param_views, batch)
        last = index == micro_batches - 1
        strategy.backward(model, strategy.param_views, index, last)
    strategy.combine()
    return strategy, sum(comm.allgather(want))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("most", [8, 40, 64])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_buckets_sum_in_place_while_backward_computes(
    comm, monkeypatch, dtype, micro_batches, most
):
    monkeypatch.setattr(overlap, "MAX_COUNT", most)
    spy = Spy(comm)
    strategy, want = mlp_step(spy, dtype, micro_batches, overlap="on")
    assert_allclose(strategy.grads, want, rtol=1e-5 if dtype == "float32" else 1e-13)
    # The last two layers, 40 and 24 elements, are sent before backward has ended. The
    # first is left for one blocking call. Nothing is copied.
    first = 56  # elements of the first layer
    assert sum(part.size for part in spy.started) == strategy.grads.size - first
    assert len(spy.started) == {8: 8, 40: 2, 64: 1}[most]
    assert [part.size for part in spy.blocking] == [first]
    for part in spy.started + spy.blocking:
        assert np.shares_memory(part, strategy.grads)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", ["off", "auto"])
def test_small_blocks_go_out_whole_and_in_place(comm, how):
    spy = Spy(comm)
    strategy, want = mlp_step(spy, "float64", 2, overlap=how)
    strategy.measure()
    assert_allclose(strategy.grads, want, rtol=1e-13)
    (whole,) = spy.blocking
    assert whole.size == strategy.grads.size
    assert np.shares_memory(whole, strategy.grads)
    assert not spy.started
    chosen = {"strategy": "allreduce", "exchange": "mpi", "overlap": "off"}
    assert strategy.chosen == chosen


@pytest.mark.mpi(min_size=2)
def test_what_comes_with_control_is_summed_by_combine_too(comm):
    with pt.Ranks(comm) as ranks:
        layout = pt.MLP(6, [8, 4], 3).layout
        strategy = Allreduce(ranks.comm, layout, None, numpy_ops)
        strategy.measure()
        assert strategy.chosen["exchange"] == "node"
        strategy.grads[:] = 1.0
        strategy.combine()
        assert set(strategy.grads) == {comm.size}


@pytest.mark.mpi(min_size=2)
def test_combine_without_backward_sums_everything(comm):
    strategy, want = mlp_step(comm, "float64", 1, overlap="on", bucket_bytes=256)
    strategy.grads[:] = comm.rank
    strategy.combine()
    assert_array_equal(strategy.grads, comm.size * (comm.size - 1) / 2)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "name, spread, most",
    [
        *((name, "hole", 16) for name in CASES),
        ("mlp-accumulated", "even", 64),
        ("mlp-gelu-regression-clipped", "even", 8),
    ],
)
def test_overlap_equals_serial(comm, monkeypatch, name, spread, most):
    monkeypatch.setattr(overlap, "MAX_COUNT", most)
    parallel = pt.Parallel(strategy="allreduce", overlap="on", bucket_bytes=1024)
    require_serial(comm, name, spread, parallel)


@pytest.mark.mpi(min_size=2)
def test_overlap_with_debug_equals_serial(comm, monkeypatch):
    """Debug mode checks each sum before it starts."""
    monkeypatch.setattr(overlap, "MAX_COUNT", 64)
    parallel = pt.Parallel(strategy="allreduce", overlap="on", debug=True)
    require_serial(comm, "mlp-adam", "hole", parallel)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["mlp-adam", "mlp-accumulated"])
def test_trial_of_overlap_equals_serial(comm, monkeypatch, name):
    """Of 21 steps, the trial takes 18, half of them with overlap."""
    monkeypatch.setattr(overlap, "MAX_COUNT", 64)
    monkeypatch.setattr(trials, "LEAST_BYTES", 64)
    require_serial(comm, name, "hole", pt.Parallel(strategy="allreduce"))


@pytest.mark.mpi(min_size=2)
def test_slices_equal_serial(comm, monkeypatch):
    monkeypatch.setattr(allreduce, "fits", lambda comm, block: False)
    monkeypatch.setitem(trials.SUMS, "mpi", sum_by_slices)
    require_serial(comm, "mlp-tanh-adamw", "even", pt.Parallel(strategy="allreduce"))


@pytest.mark.mpi(min_size=2)
def test_overlap_ends_where_it_does_not_help(comm, monkeypatch):
    monkeypatch.setattr(overlap, "MAX_COUNT", 64)
    for winner in ("off", "on"):
        monkeypatch.setattr(trials, "LEAST_BYTES", 64)
        monkeypatch.setattr(trials, "fastest", lambda seconds, default: winner)
        model = pt.MLP(6, [8, 4], 3)
        spy = Spy(comm)
        strategy = Allreduce(
            spy,
            model.layout,
            None,
            numpy_ops,
            spans=model.layer_spans,
            overlap="auto",
        )
        batch = pt.Batch(np.ones((2, 6), "float32"), np.zeros(2, np.intp))
        starts = []
        for _ in range(20):
            model.loss(strategy.param_views, batch)
            strategy.backward(model, strategy.param_views, 0, True)
            strategy.combine()
            starts.append(len(spy.started))
            spy.started.clear()
        assert starts == [0, 1] * 9 + ([0, 0] if winner == "off" else [1, 1])
        assert strategy.chosen["overlap"] == winner
        assert strategy.chosen["overlap_seconds"].keys() == {"off", "on"}


@pytest.mark.parametrize(
    "bucket_bytes, n_buckets", [(25 * 2**20, 8), (2**20, 8), (2**19, 15)]
)
def test_a_block_fills_several_buckets(bucket_bytes, n_buckets):
    # Layers of 4, 3 and 0.5 MiB; an eighth of the block is less than 1 MiB.
    tensors = [pt.Tensor(str(i), (n * 2**17,)) for i, n in enumerate((8, 6, 1))]
    layout = pt.Layout(tensors, "float32")
    spans = [slice(i, i + 1) for i in range(3)]
    block = np.empty(layout.size, "float32")
    flight = overlap.Flight(None, layout, spans, block, bucket_bytes, None)
    assert flight.is_useful
    assert len(flight._buckets) == n_buckets
    assert max(stop - start for start, stop in flight._buckets) * 4 <= 2**20


def test_model_that_breaks_the_order_of_layers():
    model = pt.MLP(6, [8, 4], 3)
    views = model.layout.views(np.zeros(model.layout.size))
    views = overlap.Watched(views, model.layout, lambda start, stop: None)
    views[model.layer_spans[0]]
    with pytest.raises(RuntimeError, match="from the last to the first"):
        views[model.layer_spans[1]]


def alone(dtype="float64"):
    MPI = pytest.importorskip("mpi4py.MPI")
    return make(MPI.COMM_SELF, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_penalty_and_its_gradient(dtype):
    layout, replicas = alone(dtype)
    for view in replicas.param_views:  # padding stays zero
        view[...] = np.random.default_rng(view.size).standard_normal(view.shape)
    w, b, v = (view.astype("float64") for view in replicas.param_views)
    want = 0.5 * 0.3 * ((w**2).sum() + (v**2).sum())
    assert replicas.penalty(0.3) == pytest.approx(want, rel=1e-7)
    grad = np.ones(layout.size, dtype)
    found = add_penalty(layout, 0.3, replicas.params, grad)
    assert found == pytest.approx(replicas.penalty(0.3), rel=1e-12)
    parts = layout.views(grad)
    for part, view in zip(parts, (1 + 0.3 * w, np.ones(5), 1 + 0.3 * v)):
        assert_allclose(part, view, rtol=1e-6)
    assert replicas.penalty(0.0) == 0.0


def test_penalty_of_a_point_that_is_no_parameters():
    layout, replicas = alone()
    point = gradient_of(3, layout)
    assert add_penalty(layout, 2.0, point, np.zeros_like(point)) > 0
    assert replicas.penalty(2.0) == 0


def require_usable(grads, scale):
    require_usable_square(square(grads), scale, grads.dtype)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_require_usable(size):
    large = np.full(size, 1e30, dtype=np.float32)  # its square is not finite
    require_usable(large, 1e-20)
    if size:
        with pytest.raises(DivergenceError, match="too large for float32"):
            require_usable(large, 1.0)
        with pytest.raises(DivergenceError, match="too large for float64"):
            require_usable(large.astype(np.float64), 1e130)
    require_usable(large.astype(np.float64), 1.0)  # within the range of float64
    for value in (np.nan, np.inf, -np.inf):
        for place in {0, size // 2, size - 1} if size else ():
            grads = np.zeros(size, dtype=np.float32)
            grads[place] = value
            with pytest.raises(DivergenceError, match="NaN or infinite"):
                require_usable(grads, 1.0)
