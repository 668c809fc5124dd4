import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_order import naive_order
from numpy.testing import assert_array_equal

from pympi_train import random as philox
from pympi_train.data import epoch as epoch_module
from pympi_train.data import order
from pympi_train.data import order_shards as shards
from pympi_train.data.epoch import EpochPlan
from pympi_train.data.order import (
    fold_numbers,
    held_out,
    held_out_count,
    positions,
)
from pympi_train.data.partition import bounds
from pympi_train.random import HOLDOUT, ORDER, ROTATION

SIZES = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 100, 1000, 4097]


def batches_of_ranks(n, seed, epoch, cuts, batch_size):
    """The global rows of each batch, rank after rank."""
    plans = [
        EpochPlan(n, seed, epoch, start, stop, batch_size)
        for start, stop in zip(cuts, cuts[1:])
    ]
    return [
        [start + plan.batch(b) for start, plan in zip(cuts, plans)]
        for b in range(plans[0].n_batches)
    ]


@pytest.mark.parametrize("seed, epoch", [(0, 0), (2**64 - 1, 3)])
@pytest.mark.parametrize("n", SIZES)
def test_positions_equal_the_naive_order(n, seed, epoch):
    got = positions(n, seed, epoch, 0, n)
    assert got.dtype == np.int64
    assert np.argsort(got).tolist() == naive_order(n, seed, epoch)


@given(n=st.integers(0, 700), seed=st.integers(0, 2**64 - 1), data=st.data())
def test_any_range_equals_the_naive_order(n, seed, data):
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    whole = np.argsort(naive_order(n, seed, 1))
    assert_array_equal(positions(n, seed, 1, start, stop), whole[start:stop])


@pytest.mark.parametrize("n", [17, 33, 1000, 4097])
def test_equal_words_go_by_index(monkeypatch, n):
    def few(*args):  # about a third of the words is the value of the padding
        return philox.bits(*args) % np.uint64(3) - np.uint64(1)

    monkeypatch.setattr(shards, "bits", few)
    got = np.argsort(positions(n, 5, 0, 0, n))
    assert got.tolist() == naive_order(n, 5, 0, bits=few)


@pytest.mark.parametrize("block_rows", [1, 40, 250])
def test_block_size_does_not_matter(monkeypatch, block_rows):
    want = positions(1000, 1, 2, 3, 990)
    monkeypatch.setattr(order, "BLOCK_ROWS", block_rows)
    assert_array_equal(positions(1000, 1, 2, 3, 990), want)


@settings(max_examples=60)
@given(
    n=st.integers(1, 400),
    batch_size=st.integers(1, 450),
    n_ranks=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**48 - 1),
)
def test_ranks_together_have_the_naive_batches(n, batch_size, n_ranks, seed, epoch):
    want = naive_order(n, seed, epoch)
    got = batches_of_ranks(n, seed, epoch, bounds(n, n_ranks), batch_size)
    assert len(got) == -(-n // batch_size)
    for b, parts in enumerate(got):
        batch = want[b * batch_size : (b + 1) * batch_size]
        assert sorted(np.concatenate(parts).tolist()) == sorted(batch)


@given(n=st.integers(1, 200), data=st.data())
def test_any_cuts_give_each_row_once(n, data):
    inner = data.draw(st.lists(st.integers(0, n), max_size=6))
    got = batches_of_ranks(n, 1, 1, sorted([0, *inner, n]), 7)
    rows = np.concatenate([row for parts in got for row in parts])
    assert sorted(rows.tolist()) == list(range(n))


@settings(max_examples=60)
@given(data=st.data())
def test_blocks_do_not_matter(data):
    """Nor does which batch is asked for first."""
    n = data.draw(st.integers(1, 3000))
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    batch_size = data.draw(st.integers(1, n + 1))
    plan = EpochPlan(n, 3, 1, start, stop, batch_size)
    want = [plan.batch(b).copy() for b in range(plan.n_batches)]
    sizes = {"BLOCK_ROWS": 300, "LEAST_ROWS": 20, "SHARDS": 8, "FEW_ROWS": 1}
    with pytest.MonkeyPatch.context() as patch:
        for name, most in sizes.items():
            patch.setattr(epoch_module, name, data.draw(st.integers(1, most)))
        plan = EpochPlan(n, 3, 1, start, stop, batch_size)
        for b in data.draw(st.permutations(range(plan.n_batches)))[:50]:
            assert_array_equal(plan.batch(b), want[b])


def test_the_first_batch_puts_few_rows_in_order(monkeypatch):
    """Of a million: what it needs, and so does the second; in the end each once."""
    asked = []

    def counted(seed, stream, epoch, start, count):
        if stream == ORDER:
            asked.append(count)
        return philox.bits(seed, stream, epoch, start, count)

    n = 2**20
    plan = EpochPlan(n, 0, 0, 0, n, 256)
    monkeypatch.setattr(shards, "bits", counted)
    for b in range(2):
        plan.batch(b)
        assert sum(asked) <= epoch_module.LEAST_ROWS * epoch_module.SHARDS * 16
    for b in range(plan.n_batches):
        plan.batch(b)
    assert sum(asked) == n


def test_plan_keeps_the_order_of_the_epoch():
    plan = EpochPlan(1000, 4, 2, 300, 700, 64)
    want = [row - 300 for row in naive_order(1000, 4, 2) if 300 <= row < 700]
    batches = [plan.batch(b) for b in range(plan.n_batches)]
    assert np.concatenate(batches).tolist() == want
    assert {batch.dtype for batch in batches} == {np.dtype(np.intp)}
    assert plan.n_batches == 16


@pytest.mark.parametrize("batch_size", [100, 101, 2**70])
def test_full_batch_is_one_batch(batch_size):
    plan = EpochPlan(100, 0, 0, 20, 50, batch_size)
    assert (plan.n_batches, len(plan.batch(0))) == (1, 30)


def test_rank_without_rows_has_empty_batches():
    plan = EpochPlan(100, 0, 0, 40, 40, 30)
    assert [len(plan.batch(b)) for b in range(plan.n_batches)] == [0] * 4


def test_no_rows_at_all():
    plan = EpochPlan(0, 0, 0, 0, 0, 30)
    assert plan.n_batches == 0


@pytest.mark.parametrize("n", [15, 100, 4097])
def test_seed_and_epoch_change_the_order(n):
    orders = [positions(n, seed, epoch, 0, n) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o.tolist()) for o in orders}) == 4


def test_row_comes_in_every_round_equally_often():
    first = [int(positions(64, seed, 0, 5, 6)[0]) for seed in range(6400)]
    counts = np.bincount(first, minlength=64)  # 64 places, 100 expected in each
    assert ((counts - 100) ** 2 / 100).sum() < 63 + 5 * np.sqrt(2 * 63)


def test_label_sorted_rows_are_mixed():
    n, n_classes, batch_size = 20_000, 10, 250
    label = np.arange(n) * n_classes // n
    plan = EpochPlan(n, 0, 0, 0, n, batch_size)
    for b in range(plan.n_batches):
        counts = np.bincount(label[plan.batch(b)], minlength=n_classes)
        assert abs(counts - batch_size / n_classes).max() <= 4  # random: up to 18


@pytest.mark.parametrize("n_ranks, most", [(64, 1.05), (31, 1.15)])
def test_ranks_share_each_batch_evenly(n_ranks, most):
    n, batch_size = 1_000_000, 256
    n_batches = n // batch_size
    owner = np.repeat(np.arange(n_ranks), np.diff(bounds(n, n_ranks)))
    batch = positions(n, 0, 0, 0, n) // batch_size
    counts = np.bincount(batch * n_ranks + owner)[: n_batches * n_ranks]
    fullest = counts.reshape(n_batches, n_ranks).max(axis=1)
    # A random order within the rounds has 2.3 for 64 ranks and 1.8 for 31.
    assert fullest.mean() / (batch_size / n_ranks) <= most


def test_range_of_very_many_rows_makes_few_numbers():
    n, n_shards, here = 3 * 10**9 + 12345, 65536, 40_000
    n_rounds = n // n_shards
    rotations = philox.bits(6, ROTATION, 2, 0, n_rounds + 1).tolist()
    want = {}
    for shard in (here, here + 1):
        rows = range(shard * n // n_shards, (shard + 1) * n // n_shards)
        keys = philox.bits(6, ORDER, 2, rows.start, len(rows)).tolist()
        for turn_round, i in enumerate(sorted(range(len(rows)), key=keys.__getitem__)):
            turn = (int(f"{shard:016b}"[::-1], 2) - rotations[turn_round]) % n_shards
            if turn_round == n_rounds:  # count the shards before it that have a row
                before = [(k + rotations[-1]) % n_shards for k in range(turn)]
                before = [int(f"{k:016b}"[::-1], 2) for k in before]
                turn = sum(
                    (s + 1) * n // n_shards - s * n // n_shards > n_rounds
                    for s in before
                )
            want[rows[i]] = turn_round * n_shards + turn
    cut = (here + 1) * n // n_shards
    assert max(want.values()) >= n_rounds * n_shards  # the last round is among them

    tracemalloc.start()
    got = positions(n, 6, 2, min(want) + 9, max(want) - 8)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.tolist() == [want[row] for row in sorted(want)[9:-9]]
    assert min(want) < cut < max(want)
    assert peak_bytes < 30e6


@settings(max_examples=60)
@given(n=st.integers(0, 500), seed=st.integers(0, 2**64 - 1), data=st.data())
def test_held_out_rows_are_the_first_of_their_order(n, seed, data):
    n_held_out = data.draw(st.integers(0, n))
    row = data.draw(st.integers(0, n))
    want = np.zeros(n, dtype=bool)
    want[naive_order(n, seed, 0, HOLDOUT)[:n_held_out]] = True
    assert_array_equal(held_out(n, n_held_out, seed, 0, row), want[:row])
    assert_array_equal(held_out(n, n_held_out, seed, row, n), want[row:])


def test_held_out_rows_are_spread_over_the_shards():
    n, n_held_out, n_shards = 4097, 1000, 256
    cuts = [s * n // n_shards for s in range(n_shards + 1)]
    counts = np.add.reduceat(held_out(n, n_held_out, 0, 0, n), cuts[:-1], dtype=int)
    assert set(counts) == {n_held_out // n_shards, n_held_out // n_shards + 1}
    assert counts.sum() == n_held_out


@pytest.mark.parametrize(
    "n, fraction, count",
    [(100, 0.1, 10), (10, 0.25, 3), (10, 0.24, 2), (2, 0.01, 1), (2, 0.99, 1)]
    + [(1, 0.5, 0), (0, 0.5, 0), (5, 0.95, 4), (1797, 0.2, 359)],
)
def test_held_out_count(n, fraction, count):
    assert held_out_count(n, fraction) == count


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_held_out_count_rejects(fraction):
    with pytest.raises(ValueError, match="between 0 and 1, got"):
        held_out_count(10, fraction)


@pytest.mark.parametrize(
    "call",
    [
        lambda: positions(10, 0, 0, -1, 5),
        lambda: positions(10, 0, 0, 6, 5),
        lambda: positions(10, 0, 0, 0, 11),
        lambda: EpochPlan(10, 0, 0, 0, 10, 0),
        lambda: held_out(10, 11, 0, 0, 10),
        lambda: held_out(10, -1, 0, 0, 10),
        lambda: positions(10, -1, 0, 0, 10),
    ],
)
def test_rejects(call):
    with pytest.raises(ValueError, match="got"):
        call()


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.data())
def test_fold_numbers(n, n_folds, seed, data):
    """Fold f has the places from f n // k up to (f + 1) n // k."""
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    found = fold_numbers(n, n_folds, seed, start, stop)
    at = positions(n, seed, 0, start, stop, stream=HOLDOUT)
    for fold in range(n_folds):
        is_in = (n * fold // n_folds <= at) & (at < n * (fold + 1) // n_folds)
        assert_array_equal(found == fold, is_in)
