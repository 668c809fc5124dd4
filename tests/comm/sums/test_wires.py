"""Values on the wire: bounds of what is lost, and what must never be lost."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pympi_train.backends import select
from pympi_train.backends.numpy.wires import WIDTH
from pympi_train.comm.sums.compress import WireSum
from pympi_train.comm.sums.wires import KINDS, Wire
from pympi_train.flat.parts import even_cuts

N_BYTES = {"bf16": 2 * 257 + 2, "fp16": 2 * (512 + 4), "int8": 2 * (256 + 4)}
BOUND = {  # largest error of an element, given |x| and the largest |x| of its block
    "bf16": lambda x, top: 2.0**-8 * x,
    "fp16": lambda x, top: np.maximum(2.0**-11 * x, 2.0**-39 * top),
    "int8": lambda x, top: top / 253,
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=["numpy", "numba"])
def ops(request):
    if request.param not in select.present():
        pytest.skip("Numba is not installed")
    return select.select(request.param).ops


def random_values(n, dtype, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal(n) * 10.0 ** rng.integers(-3, 3, n)).astype(
        dtype
    )


def largest_of_blocks(x):
    tops = [np.abs(x[i : i + WIDTH]).max() for i in range(0, x.size, WIDTH)]
    return np.repeat(tops, WIDTH)[: x.size]


def there_and_back(wire, x, residual=None):
    data, out = np.empty(wire.bytes(x.size), np.uint8), np.empty_like(x)
    wire.encode(x, data, residual)
    wire.decode(data, out)
    return out


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 3000])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e8])
def test_comes_back_within_its_bound(kind, dtype, ops, n, scale):
    x = random_values(n, dtype, scale=scale)
    out = there_and_back(Wire(kind, ops), x)
    bound = BOUND[kind](np.abs(x), largest_of_blocks(x) if n else x)
    assert (np.abs(out - x) <= bound).all()


def test_bytes(kind, ops):
    assert Wire(kind, ops).bytes(257) == N_BYTES[kind]
    assert Wire(kind, ops).bytes(0) == 0


def test_what_is_lost_is_kept(kind, dtype, ops):
    x = random_values(1000, dtype)
    residual = before = random_values(1000, dtype, seed=1, scale=0.01)
    out = there_and_back(Wire(kind, ops), x, residual := before.copy())
    assert np.abs(out + residual - (x + before)).max() <= 1e-6 * np.abs(x).max()


def test_adds(kind, dtype, ops):
    wire, x, acc = Wire(kind, ops), random_values(1000, dtype), np.ones(1000, dtype)
    data = np.empty(wire.bytes(x.size), np.uint8)
    wire.encode(x, data)
    wire.decode_add(data, acc)
    assert_array_equal(acc, 1 + there_and_back(wire, x))


@pytest.mark.parametrize("n", [1, 600, 1024])
def test_messages_of_slices_are_parts_of_the_message(kind, dtype, ops, n):
    wire, x = Wire(kind, ops), random_values(n, dtype)
    whole, whole_left = np.empty(wire.bytes(n), np.uint8), random_values(n, dtype, 1)
    left = whole_left.copy()
    wire.encode(x, whole, whole_left)
    cuts, found = even_cuts(0, n, 3, step=WIDTH), []
    for own in map(slice, cuts, cuts[1:]):
        found.append(np.empty(wire.bytes(own.stop - own.start), np.uint8))
        wire.encode(x[own], found[-1], left[own])
    n_used = wire.bytes(n) if kind != "bf16" else 2 * n  # the rest has no meaning
    if kind != "bf16" and n % WIDTH:
        n_used -= (WIDTH - n % WIDTH) * (2 if kind == "fp16" else 1)
    assert_array_equal(np.concatenate(found)[:n_used], whole[:n_used])
    assert_array_equal(left, whole_left)


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 3000, 20_000])
def test_a_cpu_packs_in_the_message_what_a_gpu_copies_there(kind, dtype, ops, n):
    copying = SimpleNamespace(**{**vars(ops), "ON_DEVICE": True})  # the obvious way
    found = []
    for wire in (Wire(kind, ops), Wire(kind, copying)):
        data = np.zeros(wire.bytes(n), np.uint8)
        left, out = random_values(n, dtype, 1), np.empty(n, dtype)
        more = np.ones(n, dtype)
        x = random_values(n, dtype)
        x[n // 2 : n // 2 + 1] = np.nan
        wire.encode(x, data, left)
        wire.decode(data, out)
        wire.decode_add(data, more)
        found.append([array.tobytes() for array in (data, left, out, more)])
    assert found[0] == found[1]


def test_codes_after_the_last_element_are_zero(ops):
    wire, data = Wire("int8", ops), np.full(2 * 260, 99, np.uint8)
    wire.encode(random_values(257, "float32"), data)
    assert not data[260 + 4 + 1 :].any()


@pytest.mark.parametrize(
    "n_messages, n", [(1, 300), (3, 2**15 + 1), (400, 1), (400, 3), (400, 300)]
)
def test_messages_are_added_in_order(kind, dtype, ops, n_messages, n):
    wire, out = Wire(kind, ops), np.empty(n, dtype)
    parts = np.zeros((n_messages, wire.bytes(n)), np.uint8)
    for i, data in enumerate(parts):
        wire.encode(random_values(n, dtype, seed=i), data)
    wire.decode_sum(parts, out)
    want = np.empty(n, dtype)
    wire.decode(parts[0], want)
    for data in parts[1:]:
        wire.decode_add(data, want)
    assert out.tobytes() == want.tobytes()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 299, 599])
def test_what_is_not_finite_stays_so(kind, dtype, ops, wrong, place):
    x, residual = random_values(600, dtype), np.zeros(600, dtype)
    x[place] = wrong
    out = there_and_back(Wire(kind, ops), x, residual)
    assert not np.isfinite(out[place])
    assert np.isfinite(residual).all()
    other = np.arange(600) // WIDTH != place // WIDTH
    assert np.isfinite(out[other]).all()


def test_rounds_to_even(ops):
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -0.0], np.float32)
    assert there_and_back(Wire("bf16", ops), x).tolist() == [1, 1 + 2.0**-6, 0]
    x = np.array([127, 0.5, 1.5, -2.5], np.float32)
    assert there_and_back(Wire("int8", ops), x).tolist() == [127, 0, 2, -2]


def test_sums_beyond_half_precision_fit(dtype, ops):
    x = np.array([1e6, -3e7, 70000.0], dtype)
    assert np.abs(there_and_back(Wire("fp16", ops), x) / x - 1).max() < 2.0**-11


def test_zeros(kind, dtype, ops):
    x = np.zeros(300, dtype)
    x[260:] = 1e-44 if dtype == "float32" else 1e-300
    out = there_and_back(Wire(kind, ops), x)
    assert np.abs(out - x).max() <= 1e-40


def blocks_of(comm, n, dtype, step=0):
    """What each rank has, on every rank; rank 1 has nothing."""
    blocks = [random_values(n, dtype, seed=10 * step + r) for r in range(comm.size)]
    if comm.size > 1:
        blocks[1][:] = 0
    return blocks


def summer(comm, n, dtype, kind, chunk=2048):
    return WireSum(comm, n, dtype, Wire(kind, select.select("numpy").ops), chunk=chunk)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [0, 3, 700, 5000])
def test_sum_is_within_two_bounds(comm, kind, dtype, n):
    blocks = blocks_of(comm, n, dtype)
    want, block = np.sum(blocks, axis=0), blocks[comm.rank].copy()
    total = summer(comm, n, dtype, kind)
    total.sum(block)
    bound = sum(BOUND[kind](np.abs(b), np.abs(b).max(initial=0)) for b in blocks)
    bound = bound + BOUND[kind](np.abs(want) + bound, np.abs(block).max(initial=0))
    assert (np.abs(block - want) <= 1.1 * bound + 1e-6 * np.abs(want)).all()
    for other in comm.allgather(block):
        assert_array_equal(block, other)


def sum_by_messages(wire, blocks, residuals, of_sum, chunk):
    """The obvious form of WireSum: each slice is encoded and decoded by itself."""
    n, size = len(blocks[0]), len(blocks)
    found = np.empty_like(blocks[0])
    for start in range(0, n, chunk):
        cuts = even_cuts(0, min(chunk, n - start), size, step=WIDTH)
        for own in (slice(start + a, start + b) for a, b in zip(cuts, cuts[1:])):
            total = np.zeros(own.stop - own.start, found.dtype)
            data = np.empty(wire.bytes(total.size), np.uint8)
            for rank in range(size):
                wire.encode(blocks[rank][own], data, residuals[rank][own])
                (wire.decode_add if rank else wire.decode)(data, total)
            wire.encode(total, data, of_sum[own])
            wire.decode(data, found[own])
    return found


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [3, 700, 5000])
def test_sum_has_the_bits_of_slices_encoded_one_by_one(comm, kind, dtype, n):
    total = summer(comm, n, dtype, kind)
    wire, of_sum = Wire(kind, select.select("numpy").ops), np.zeros(n, dtype)
    residuals = np.zeros((comm.size, n), dtype)
    for step in range(3):
        blocks = blocks_of(comm, n, dtype, step)
        block = blocks[comm.rank].copy()
        total.sum(block)
        want = sum_by_messages(wire, blocks, residuals, of_sum, 2048)
        assert block.tobytes() == want.tobytes()


@pytest.mark.mpi(min_size=2)
def test_mean_of_many_sums_approaches_the_sum(comm, kind):
    blocks = blocks_of(comm, 900, "float64")
    want, total = np.sum(blocks, axis=0), summer(comm, 900, "float64", kind)
    mean, errors = np.zeros(900), []
    for t in range(1, 65):
        block = blocks[comm.rank].copy()
        total.sum(block)
        mean += (block - mean) / t
        errors.append(np.abs(mean - want).max())
    assert errors[-1] < errors[0] / 25


@pytest.mark.mpi(min_size=2)
def test_a_wrong_number_reaches_all_and_is_forgotten(comm, kind):
    total, n = summer(comm, 900, "float32", kind), 900
    block = np.ones(n, np.float32)
    if comm.rank == comm.size - 1:
        block[17] = np.nan
    total.sum(block)
    assert not np.isfinite(block[17])
    block = np.ones(n, np.float32)
    total.sum(block)
    assert np.isfinite(block).all()


@pytest.mark.mpi(min_size=2)
def test_sent_bytes(comm, kind):
    n = 4 * WIDTH * comm.size
    total = summer(comm, n, "float32", kind, chunk=n)
    total.sum(np.ones(n, np.float32))
    bytes_of_all = Wire(kind, select.select("numpy").ops).bytes(n)
    assert total.sent_bytes == 2 * bytes_of_all * (comm.size - 1) // comm.size


def test_alone_nothing_is_lost(kind):
    from mpi4py import MPI

    x = random_values(900, "float32")
    total, block = summer(MPI.COMM_SELF, 900, "float32", kind), x.copy()
    total.sum(block)
    assert_array_equal(block, x)
    assert total.sent_bytes == 0
