"""Collectives on flat blocks against the obvious version and closed forms."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pympi_train.comm import collectives, naive
from pympi_train.comm.sums.by_slices import sum_by_slices

SIZES = [0, 1, 4, 5, 6, 17]
SUMS = [
    collectives.sum_in_place,
    naive.naive_sum,
    sum_by_slices,
    lambda comm, block: collectives.sum_in_place(comm, block, most=2),
    lambda comm, block: sum_by_slices(comm, block, chunk=6),
]
MAX_COUNT = 5  # blocks below, at and above one call, and of several

pytestmark = pytest.mark.mpi(min_size=2)


class Spy:
    """A communicator that writes down the elements of each Allreduce."""

    def __init__(self, comm):
        self._comm, self.counts = comm, []

    def __getattr__(self, name):
        return getattr(self._comm, name)

    def Allreduce(self, sendbuf, recvbuf, op):
        self.counts.append(recvbuf.size)
        self._comm.Allreduce(sendbuf, recvbuf, op=op)


@pytest.mark.parametrize("sum_in_place", SUMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", SIZES)
def test_sum_of_multiples(group, monkeypatch, sum_in_place, dtype, n):
    monkeypatch.setattr(collectives, "MAX_COUNT", MAX_COUNT)
    ramp = np.arange(1, n + 1, dtype=dtype)
    block = (group.rank + 1) * ramp
    sum_in_place(group, block)
    # Whole numbers: exact in any order.
    assert_array_equal(block, group.size * (group.size + 1) // 2 * ramp)
    assert block.dtype == dtype


@pytest.mark.parametrize("sum_in_place", SUMS)
def test_only_one_rank_contributes(group, sum_in_place):
    giver = group.size - 1
    values = np.array([0.1, -2.5, 1e30], dtype=np.float32)
    block = values.copy() if group.rank == giver else np.zeros_like(values)
    sum_in_place(group, block)
    assert_array_equal(block, values)


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-5), ("float64", 1e-14)])
def test_unequal_contributions_as_the_obvious_version(group, monkeypatch, dtype, rtol):
    monkeypatch.setattr(collectives, "MAX_COUNT", MAX_COUNT)
    rng = np.random.default_rng(group.rank)
    mine = (10.0**group.rank * rng.random(17)).astype(dtype)
    fast, obvious = mine.copy(), mine.copy()
    collectives.sum_in_place(group, fast)
    naive.naive_sum(group, obvious)
    np.testing.assert_allclose(fast, obvious, rtol=rtol)


COUNTS = [
    lambda p: [3] * p,
    lambda p: list(range(p)),  # rank 0 has none
    lambda p: [0] * (p - 1) + [17],
    lambda p: [0] * p,
]


@pytest.mark.parametrize("make_counts", COUNTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slices_are_reduced_and_gathered(group, monkeypatch, dtype, make_counts):
    monkeypatch.setattr(collectives, "MAX_COUNT", MAX_COUNT)
    counts = make_counts(group.size)
    ramp = np.arange(1, sum(counts) + 1, dtype=dtype)
    block = (group.rank + 1) * ramp
    start = sum(counts[: group.rank])
    own = slice(start, start + counts[group.rank])
    out = np.empty(counts[group.rank], dtype)
    collectives.reduce_scatter(group, block, counts, out)
    want = group.size * (group.size + 1) // 2 * ramp
    assert_array_equal(out, want[own])
    assert_array_equal(block, (group.rank + 1) * ramp)

    block[:], block[own] = 0, out
    collectives.all_gather(group, block, counts)
    assert_array_equal(block, want)
    assert block.dtype == dtype


@pytest.mark.parametrize("make_counts", COUNTS)
def test_no_call_takes_more_than_allowed(monkeypatch, make_counts):
    monkeypatch.setattr(collectives, "MAX_COUNT", MAX_COUNT)
    counts = make_counts(3)
    calls = collectives.calls_of(counts)
    totals = [sum(c) for c in zip(*(pieces.tolist() for _, pieces, _ in calls))]
    assert totals in (counts, [])
    starts = [stretch.start for stretch, _, _ in calls]
    assert starts == list(range(0, sum(counts), MAX_COUNT))
    for stretch, pieces, starts in calls:
        assert 0 < pieces.sum() == stretch.stop - stretch.start <= MAX_COUNT
        assert starts.tolist() == [sum(pieces[:rank]) for rank in range(len(pieces))]


def test_calls_are_found_once():
    counts = collectives.Counts([3, 0, 4])
    assert counts.calls is collectives.calls_of(counts) is counts.calls
    assert (counts, counts[2]) == ((3, 0, 4), 4)


def test_every_rank_has_the_same_bits(comm):
    block = np.random.default_rng(comm.rank).standard_normal(1000).astype("float32")
    collectives.sum_in_place(comm, block)
    copies = comm.allgather(block.tobytes())
    assert copies == copies[:1] * comm.size


@pytest.mark.parametrize("n", SIZES)
def test_no_call_is_longer_than_allowed(comm, monkeypatch, n):
    monkeypatch.setattr(collectives, "MAX_COUNT", MAX_COUNT)
    spy = Spy(comm)
    collectives.sum_in_place(spy, np.zeros(n))
    assert sum(spy.counts) == n
    assert max(spy.counts, default=0) <= MAX_COUNT
    assert len(spy.counts) == math.ceil(n / MAX_COUNT)


def test_one_rank_makes_no_call():
    from mpi4py import MPI

    spy = Spy(MPI.COMM_SELF)
    collectives.sum_in_place(spy, np.ones(3))
    collectives.reduced(spy, [1.0])
    assert spy.counts == []


@pytest.mark.parametrize(
    "op, closed_form",
    [
        ("SUM", lambda p: [p * (p - 1) / 2, -p * (p - 1) / 2, 7.0 * p]),
        ("MIN", lambda p: [0, 1 - p, 7.0]),
        ("MAX", lambda p: [p - 1, 0, 7.0]),
    ],
)
def test_reduced(group, op, closed_form):
    mine = [group.rank, -group.rank, 7.0]
    found = collectives.reduced(group, mine, op=op)
    assert_array_equal(found, closed_form(group.size))
    assert found.dtype == np.float64
    assert mine == [group.rank, -group.rank, 7.0]


def test_reduced_sums_by_default_and_leaves_its_argument(group):
    mine = np.array([2.0**24, 1.0])
    assert_array_equal(
        collectives.reduced(group, mine), [group.size * 2.0**24, group.size]
    )
    assert_array_equal(mine, [2.0**24, 1.0])


@pytest.mark.parametrize("n", SIZES)
def test_broadcast_of_any_length(group, monkeypatch, n):
    monkeypatch.setattr(collectives, "MAX_COUNT", MAX_COUNT)
    block = np.arange(n) + 10.0 * group.rank
    collectives.broadcast(group, block)
    assert block.tolist() == list(range(n))


def test_from_rank_0(group):
    own = (float(group.rank), math.pi * (group.rank + 1), math.inf)
    assert collectives.from_rank_0(group, *own) == (0.0, math.pi, math.inf)


def test_from_rank_0_carries_nan(comm):
    (value,) = collectives.from_rank_0(comm, 1.0 if comm.rank else math.nan)
    assert math.isnan(value)
