"""Parameters on every rank: sums of gradients, one update, equal replicas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.backends import numpy_ops
from pympi_train.errors import DivergenceError
from pympi_train.parallel.allreduce import Allreduce
from pympi_train.parallel.base import require_usable

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
    if comm.rank:  # rank 0 had no row: its gradient sum is zero
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
    assert replicas.add_penalty(0.3, replicas.params, grad) == replicas.penalty(0.3)
    parts = layout.views(grad)
    for part, view in zip(parts, (1 + 0.3 * w, np.ones(5), 1 + 0.3 * v)):
        assert_allclose(part, view, rtol=1e-6)
    assert replicas.penalty(0.0) == 0.0


def test_moving_parameters_without_optimizer():
    layout, replicas = alone()
    point = gradient_of(3, layout)
    assert replicas.add_penalty(2.0, point) > 0 == replicas.penalty(2.0)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_require_usable(size):
    large = np.full(size, 1e30, dtype=np.float32)  # its square is not finite
    require_usable(large, 1e-20)
    if size:
        with pytest.raises(DivergenceError, match="too large for float32"):
            require_usable(large, 1.0)
    for value in (np.nan, np.inf, -np.inf):
        for place in {0, size // 2, size - 1} if size else ():
            grads = np.zeros(size, dtype=np.float32)
            grads[place] = value
            with pytest.raises(DivergenceError, match="NaN or infinite"):
                require_usable(grads, 1.0)
