"""The GPU backend beyond the common functions: products, copies, verdicts."""

import math

import gpus
import numpy as np
import pytest
from kernel_runs import Kind
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.errors import DeviceMemoryError
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.flat.runs import Runs

pytestmark = pytest.mark.gpu
KINDS = [Kind(suffix) for suffix in ("f32", "f64", "f16", "bf16")]


@pytest.fixture(scope="module")
def ops():
    gpus.use()
    from pympi_train.backends.cuda import ops as cuda_ops

    return cuda_ops


@pytest.fixture
def cuda(ops):
    from pympi_train.backends.cuda import device as cuda

    return cuda


@pytest.fixture
def put(ops):
    def put(array):
        there = ops.empty(array.shape, array.dtype)
        ops.from_host(array, there)
        return there

    return put


@pytest.fixture(params=KINDS, ids=repr)
def kind(request):
    return request.param


SHAPES = [
    (1, 1, 1),
    (3, 4, 5),
    (1, 7, 2),
    (64, 33, 10),
    (5, 0, 3),
    (0, 4, 3),
    (4, 3, 0),
]


@pytest.mark.parametrize("m, k, n", SHAPES)
@pytest.mark.parametrize("left", ["plain", "transposed"])
@pytest.mark.parametrize("right", ["plain", "transposed"])
def test_products_of_matrices(ops, put, kind, m, k, n, left, right):
    rng = np.random.default_rng(1)
    a, b = kind.store(rng.standard_normal((m, k))), kind.store(
        rng.standard_normal((k, n))
    )
    there = put(np.full((m, n), 7, kind.dtype))
    a_there = put(a) if left == "plain" else put(np.ascontiguousarray(a.T)).T
    b_there = put(b) if right == "plain" else put(np.ascontiguousarray(b.T)).T
    ops.matmul(a_there, b_there, there)
    want = kind.read(a) @ kind.read(b)
    limit = max(1, k) * 4 * kind.eps
    assert_allclose(kind.read(ops.to_host(there)), want, rtol=limit, atol=limit)


def test_products_into_a_part_of_a_block(ops, put):
    layout = Layout([Tensor("w", (3, 5)), Tensor("v", (5, 2))], "float64")
    block = ops.empty_block(layout)
    w, v = layout.views(block)
    ops.matmul(put(np.eye(3)), put(np.ones((3, 5))), w)
    host = ops.to_host(block)
    assert host[:15].tolist() == [1] * 15 and not host[15:].any()


@pytest.mark.parametrize(
    "a, b, out",
    [
        (((2, 3), "f4"), ((4, 2), "f4"), ((2, 2), "f4")),
        (((2, 3), "f4"), ((3, 2), "f4"), ((2, 3), "f4")),
        (((2, 3), "f4"), ((3, 2), "f8"), ((2, 2), "f4")),
    ],
)
def test_products_that_do_not_fit(ops, put, a, b, out):
    with pytest.raises(ValueError, match="expected shapes"):
        ops.matmul(*(put(np.zeros(*one)) for one in (a, b, out)))


def test_arrays_that_do_not_lie_there_are_refused(ops, put):
    with pytest.raises(ValueError, match="on the device"):
        ops.scale(np.ones(3, np.float32), 2.0)
    with pytest.raises(ValueError, match="C-contiguous"):
        ops.scale(put(np.ones((4, 4), np.float32)).T[:, :2], 2.0)
    with pytest.raises(ValueError, match="expected 3 elements of float32"):
        ops.add(put(np.ones(3, np.float16)), put(np.ones(3, np.float16)))
    with pytest.raises(ValueError, match="one size and dtype"):
        ops.copy(put(np.ones(3)), put(np.ones(4)))


def test_copies_there_and_back(ops, put, cuda):
    values = np.arange(12.0).reshape(3, 4)
    there = put(values)
    other = ops.zeros((3, 4), values.dtype)
    ops.copy(there, other)
    assert_array_equal(ops.to_host(other), values)
    out = cuda.pinned((3, 4), np.float64)
    cuda.queue_to_host(there, out)
    cuda.wait_for_device()
    assert_array_equal(out, values)


@pytest.mark.parametrize("columns", [slice(0, 1), slice(1, 4), slice(0, 4)])
def test_copies_of_rows_that_lie_apart(ops, put, columns):
    values = np.arange(20.0).reshape(5, 4)
    there, width = put(values), columns.stop - columns.start
    other = ops.zeros((5, width), values.dtype)
    ops.copy_rows(there[:, columns], other)
    assert_array_equal(ops.to_host(other), values[:, columns])
    back = ops.zeros((5, 4), values.dtype)
    ops.copy_rows(other, back[:, columns])
    want = np.zeros_like(values)
    want[:, columns] = values[:, columns]
    assert_array_equal(ops.to_host(back), want)


def test_columns_are_no_rows(ops, put):
    there, out = put(np.arange(6.0).reshape(2, 3)), ops.zeros((3, 2), np.dtype(float))
    with pytest.raises(ValueError, match="contiguous rows"):
        ops.copy_rows(there.T, out)


@pytest.mark.parametrize("way", ["to_host", "from_host"])
def test_copies_of_pageable_memory_find_nothing_to_wait_for(
    ops, put, cuda, monkeypatch, way
):
    calls = []

    def noted(name):
        def how(wait):
            calls.append(name)
            wait()

        return how

    there = put(np.arange(4.0))
    copy = cuda.runtime.memcpyAsync
    monkeypatch.setattr(
        cuda.runtime, "memcpyAsync", lambda *args: (calls.append("copy"), copy(*args))
    )
    waiters = noted("first"), noted("last")
    for how in waiters:
        cuda.make_waits(how)
    try:
        ops.to_host(there) if way == "to_host" else ops.from_host(np.ones(4), there)
    finally:
        for how in waiters:
            cuda.no_longer_make(how)
    assert calls == ["last", "first", "copy", "last", "first"]


def test_memory_that_is_not_there(ops, cuda):
    n_bytes = cuda.device().n_bytes
    with pytest.raises(DeviceMemoryError, match="has no room for .* MiB more: "):
        ops.empty((2, n_bytes), np.dtype(np.float32))
    with pytest.raises(DeviceMemoryError, match="A smaller micro_batch_size"):
        ops.zeros(n_bytes, np.dtype(np.float64))


def test_numbers_of_halves(ops, put, kind):
    values = kind.store([1.5, -2, 0.1])
    found = ops.numbers(put(values))
    assert found.dtype == kind.wide
    assert_array_equal(found, kind.read(values))


def test_difference_in_place(ops, put):
    a, b = put(np.array([5.0, 7.0])), put(np.array([1.0, 2.0]))
    out = ops.empty(2, np.dtype(np.float64))
    ops.subtract(a, b, out)
    ops.subtract(a, b, a)
    assert ops.to_host(out).tolist() == ops.to_host(a).tolist() == [4, 5]


def test_numbers_that_are_still_to_come(ops, put, cuda):
    block = put(np.full(1000, 2.0, np.float32))
    one = ops.squared_norm(block, None, grad_scale=1.0, l2=0.0)
    ops.scale(block, 2.0)
    two = ops.squared_norm(block, None, grad_scale=1.0, l2=0.0)
    half = 0.5 * two  # pending as well
    assert (float(half), float(two), float(one)) == (8000, 16000, 4000)
    assert float(one) == 4000  # known by now


def test_many_numbers_at_once_are_given_back(ops, put, cuda):
    block = put(np.ones(8, np.float32))
    slots = cuda._slots()
    slots.free.clear()
    for _ in range(3):
        pending = [
            ops.squared_norm(block, None, grad_scale=float(i), l2=0.0)
            for i in range(cuda.SLOTS + 5)
        ]
        assert [float(p) for p in pending[:3]] == [0, 8, 32]
        assert float(pending[-1]) == 8.0 * (cuda.SLOTS + 4) ** 2
        del pending  # most were never read
    assert len(slots.free) == 2 * cuda.SLOTS


def judged(ops, put, grad, *, limit=1e300, clip_norm=None, l2=0.0, params=None):
    verdict = ops.Verdict()
    params = np.zeros_like(grad) if params is None else params
    runs = Runs((len(grad),), True)
    verdict.judge(
        put(grad),
        put(params),
        grad_scale=0.5,
        l2=l2,
        runs=runs,
        limit=limit,
        clip_norm=clip_norm,
    )
    return verdict


def test_verdicts(ops, put):
    grad = np.array([6.0, 8.0])
    assert judged(ops, put, grad).norm_and_use() == (5.0, True)
    assert judged(ops, put, grad, limit=24.0).norm_and_use() == (5.0, False)
    verdict = judged(ops, put, grad, clip_norm=2.0)
    assert ops.to_host(verdict.factor)[0] == 0.4
    assert verdict.norm_and_use() == (5.0, True)
    assert verdict.norm_and_use() is None  # reported once
    norm, use = judged(ops, put, np.array([1.0, np.nan])).norm_and_use()
    assert math.isnan(norm) and not use
    with_l2 = judged(ops, put, grad, l2=1.0, params=np.array([-3.0, -4.0]))
    assert with_l2.norm_and_use() == (0.0, True)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_verdict_stops_or_clips_an_update_without_the_host(ops, put, momentum):
    grad = np.array([6.0, 8.0])
    how = dict(lr=1.0, grad_scale=0.5, l2=0.0, momentum=momentum, nesterov=False)
    for limit, clip, want in ((1.0, None, [0, 0]), (1e300, 2.5, [-1.5, -2.0])):
        verdict = judged(ops, put, grad, limit=limit, clip_norm=clip)
        params, velocity = put(np.zeros(2)), put(np.zeros(2))
        ops.sgd_update(params, put(grad), velocity, factor=verdict.factor, **how)
        assert ops.to_host(params).tolist() == want


def test_runs_of_weights(ops, put):
    params, grad = put(np.ones(24)), put(np.zeros(24))
    runs = Runs((8, 16, 24), False)
    how = dict(lr=1.0, grad_scale=1.0, l2=0.25, momentum=0.0, nesterov=False)
    ops.sgd_update(params, grad, None, runs=runs, **how)
    assert ops.to_host(params).tolist() == [1] * 8 + [0.75] * 8 + [1] * 8
    assert float(ops.weights_square(params, runs)) == 8 * 0.75**2


def test_streams_are_ordered_by_events_alone(ops, put, cuda):
    source, side = put(np.arange(4.0)), cuda.side_stream("test")
    out = cuda.pinned(4, np.float64)
    ops.scale(source, 3.0)
    side.wait_event(cuda.record())
    cuda.queue_to_host(source, out, side)
    cuda.record(side).synchronize()
    assert out.tolist() == [0, 3, 6, 9]


def test_device_is_described(cuda):
    device = cuda.device()
    assert device.n_processors > 0 and device.n_bytes > cuda.free_bytes() / 2
    assert len(device.uuid) >= 32 and "." in device.capability


@pytest.mark.skipif(gpus.PRESENT, reason="depends on the GPUs")
def test_devices_are_told_apart_though_their_uuid_is_cut(cuda):
    found = {cuda._device(index).uuid for index in range(4)}
    assert len(found) == 4
    assert sorted(uuid.count(":") for uuid in found) == [0, 0, 0, 2]


def test_rows_are_taken_from_views_at_any_address(ops, put):
    rng = np.random.default_rng(5)
    for shift in (0, 1, 2, 3):
        values = rng.standard_normal(shift + 7 * 8).astype(np.float32)
        source = put(values)[shift:].reshape(7, 8)
        out = ops.empty(shift + 5 * 8, np.float32)[shift:].reshape(5, 8)
        rows = np.array([6, 0, 3, 3, 1])
        ops.take_rows(source, put(rows), out)
        want = values[shift:].reshape(7, 8)[rows]
        np.testing.assert_array_equal(ops.to_host(out), want)


def test_takes_all_arguments_of_the_other_backends(ops):
    import inspect

    from pympi_train.backends.numpy import ops as numpy_ops

    assert set(numpy_ops.__all__) <= set(ops.__all__)
    for name in numpy_ops.__all__:
        here, there = getattr(ops, name), getattr(numpy_ops, name)
        if inspect.isfunction(there) and inspect.isfunction(here):
            wanted = list(inspect.signature(there).parameters)
            assert (
                list(inspect.signature(here).parameters)[: len(wanted)] == wanted
            ), name


@pytest.mark.skipif(gpus.PRESENT, reason="a GPU does not wait to be waited for")
def test_the_stand_in_shows_a_missing_wait(ops, put, cuda):
    source, out = put(np.arange(4.0)), cuda.pinned(4, np.float64)
    out[:] = -1
    cuda.queue_to_host(source, out)
    assert out.tolist() == [-1] * 4  # nothing has waited yet
    cuda.wait_for_device()
    assert out.tolist() == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(source)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nccl_of_a_single_rank(monkeypatch, tmp_path, cuda, ops, put, dtype):
    from pympi_train.backends.cuda import nccl as cuda_nccl

    monkeypatch.setenv("STANDIN_NCCL", str(tmp_path))
    if cuda_nccl.unavailable():
        pytest.skip(cuda_nccl.unavailable())
    stream = cuda.side_stream("nccl")
    alone = cuda_nccl.Communicator(1, 0, cuda_nccl.unique_id(), stream)
    values = np.arange(1000, dtype=dtype)
    block, sums, there = put(values), put(0 * values), put(0 * values)
    stream.wait_event(cuda.record())
    with cuda_nccl.group():
        alone.reduce(block, sums, 0)
        alone.broadcast(block, 0)
    alone.all_reduce(block)
    with cuda_nccl.group():
        alone.send(block, 0)
        alone.receive(there, 0)
    cuda.stream().wait_event(cuda.record(stream))
    for found in (block, sums, there):
        assert_array_equal(ops.to_host(found), values)
    alone.free()
