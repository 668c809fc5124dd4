import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pympi_train.data import epoch as epoch_module
from pympi_train.data.epoch import EpochPlan
from pympi_train.data.order_shards import ShardOrder, shard_count
from pympi_train.data.partition import bounds
from pympi_train.data.windows import sorted_windows
from pympi_train.data.windows.choice import (
    WindowOrder,
    choose_windows,
    order_remarks,
    resolve_order,
)
from pympi_train.errors import ConfigError
from pympi_train.random import ORDER, ROTATION, WINDOW, bits


@pytest.mark.parametrize(
    "n, count",
    [(0, 1), (1, 1), (31, 1), (32, 2), (63, 2), (64, 4), (1797, 64)]
    + [(2**20 - 1, 32768), (2**20, 65536), (10**12, 65536), (np.int64(100), 4)],
)
def test_shard_count(n, count):
    assert shard_count(n) == count


@pytest.mark.parametrize("n", [1, 33, 1000, 10**9 + 7, 2**34 - 1])
def test_cuts_are_exact(n):
    order = ShardOrder(n, 0, 0, ORDER)
    want = [s * n // order.n_shards for s in range(order.n_shards + 1)]
    assert order.cuts.tolist() == want
    assert [order.shard_of(row) for row in (0, n - 1)] == [0, order.n_shards - 1]


def test_rounds_visit_shards_in_rotated_bit_reversal_order():
    n = 8 * 16 + 5  # 8 shards, 5 of which have a 17th row
    order = ShardOrder(n, 3, 1, ORDER)
    sequence = [0, 4, 2, 6, 1, 5, 3, 7]
    for turn_round in range(17):
        begin = int(bits(3, ROTATION, 1, turn_round, 1)[0]) % 8
        visits = sequence[begin:] + sequence[:begin]
        if turn_round == 16:
            visits = [s for s in visits if (s + 1) * n // 8 - s * n // 8 == 17]
        turns = order.turns(turn_round)
        assert np.argsort(turns, kind="stable")[: len(visits)].tolist() == visits
        assert sorted(turns.tolist())[len(visits) :] == [8] * (8 - len(visits))


def window_naive(n, seed, epoch, n_shards, window_rows):
    """All rows in the order "window" of an epoch, as the text says it, by loops."""
    rounds = n // n_shards + 1
    width = min(window_rows, rounds)
    digits = len(f"{n_shards:b}") - 1
    shards = []
    for s in range(n_shards):
        first, stop = s * n // n_shards, (s + 1) * n // n_shards
        found = []
        for stage in range(-(-rounds // width)):
            words = bits(seed, WINDOW, epoch, (stage * n_shards + s) * width, width)
            places = (1 << (width - 1).bit_length()) - 1
            keys = [int(word) & ~places | i for i, word in enumerate(words)]
            window = range(width)[: max(0, min(stop - first - stage * width, width))]
            window = sorted(window, key=keys.__getitem__)
            found += [first + stage * width + i for i in window]
        shards.append(found)
    rotations = bits(seed, ROTATION, epoch, 0, rounds).tolist()
    result = []
    for turn_round in range(rounds):
        for turn in range(n_shards):
            turn = (turn + rotations[turn_round]) % n_shards
            shard = int(f"{turn:0{digits}b}"[::-1], 2)
            result += shards[shard][turn_round : turn_round + 1]
    return result


@st.composite
def window_cases(draw):
    n = draw(st.integers(1, 500))
    n_shards = 2 ** draw(st.integers(0, n.bit_length() - 1))
    return n, WindowOrder(n_shards, draw(st.integers(1, 2 + 2 * n // n_shards)))


@settings(max_examples=40)
@given(
    window_cases(),
    st.integers(2, 101),
    st.integers(1, 9),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**48 - 1),
)
def test_ranks_together_have_the_naive_windows(case, batch_size, size, seed, epoch):
    n, order = case
    want = window_naive(n, seed, epoch, order.n_shards, order.window_rows)
    assert sorted(want) == list(range(n))
    cuts, batch_size = bounds(n, size), 1 + n * batch_size // 100
    plans = [
        EpochPlan(n, seed, epoch, start, stop, batch_size, order)
        for start, stop in zip(cuts, cuts[1:])
    ]
    read = [set() for _ in cuts[1:]]
    for b in range(-(-n // batch_size)):
        rows = []
        for start, plan, seen in zip(cuts, plans, read):
            for low, high in plan.read_ahead(b).tolist():
                assert low < high and not seen & {*range(low, high)}
                seen.update(range(low, high))
            batch = plan.batch(b).tolist()
            assert seen.issuperset(batch), "read before it is needed"
            rows.append([start + row for row in batch])
        batch = want[b * batch_size : (b + 1) * batch_size]
        assert sorted(sum(rows, [])) == sorted(batch)
        for part in rows:
            mine = set(part)
            assert part == [row for row in batch if row in mine]
    assert [len(seen) for seen in read] == np.diff(cuts).tolist()


@pytest.mark.parametrize("batch_size", [20, 64, 1000])
@pytest.mark.parametrize("start, stop", [(0, 5000), (1111, 4321)])
def test_windows_are_read_before_their_stage_and_not_too_early(
    start, stop, batch_size
):
    order, seen, used = WindowOrder(64, 10), set(), 0
    plan = EpochPlan(5000, 0, 0, start, stop, batch_size, order)
    for b in range(plan.n_batches):
        for low, high in plan.read_ahead(b).tolist():
            seen.update(range(low, high))
        rows = plan.batch(b)
        assert seen.issuperset(rows.tolist())
        used += len(rows)
        two_windows_a_shard = 2 * 64 * 10 * (stop - start) / 5000
        assert len(seen) - used <= 1.3 * two_windows_a_shard + batch_size


@given(window_cases(), st.integers(1, 40))
def test_the_first_windows_of_the_next_epoch_are_read_ahead(case, batch_size):
    n, order = case
    read = {}
    for goes_on in (False, True):
        plan = EpochPlan(n, 0, 0, 0, n, batch_size, order, goes_on)
        ranges = [plan.read_ahead(b).tolist() for b in range(plan.n_batches)]
        read[goes_on] = sum(ranges, [])
    n_more = len(read[True]) - len(read[False])
    assert read[True][: len(read[False])] == read[False]
    assert 0 < n_more <= order.n_shards
    assert read[True][len(read[False]) :] == read[False][:n_more]


@settings(max_examples=40)
@given(window_cases(), st.data())
def test_batches_of_windows_may_be_asked_for_in_any_order(case, data):
    n, order = case
    batch_size = data.draw(st.integers(1, n))
    args = n, 3, 1, n // 5, n - n // 7, batch_size, order
    plan = EpochPlan(*args)
    want = [plan.batch(b) for b in range(plan.n_batches)]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, most in (
            (epoch_module, "BLOCK_ROWS", 300),
            (epoch_module, "LEAST_ROWS", 20),
            (sorted_windows, "TOGETHER_WORDS", 30),
        ):
            patch.setattr(module, name, data.draw(st.integers(1, most)))
        plan = EpochPlan(*args)
        for b in data.draw(st.permutations(range(plan.n_batches)))[:50]:
            if data.draw(st.booleans()):
                plan.read_ahead(b)
            assert_array_equal(plan.batch(b), want[b])


def test_windows_move_through_the_file_and_are_new_in_each_epoch():
    n, order = 4000, WindowOrder(8, 50)
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        plan = EpochPlan(n, seed, epoch, 0, n, 400, order)
        for b in range(plan.n_batches):  # a batch is a stage: windows of 50 in 8 places
            rows = plan.batch(b)
            want = (np.arange(8)[:, None] * 500 + b * 50 + np.arange(50)).ravel()
            assert_array_equal(np.sort(rows), want)
            orders.append(tuple(rows.tolist()))
    assert len(set(orders)) == 30


def test_a_row_of_a_window_comes_in_every_round_equally_often():
    counts = np.zeros((16, 16), int)
    for seed in range(100):
        plan = EpochPlan(64 * 16, seed, 0, 0, 64 * 16, 64, WindowOrder(64, 16))
        for b in range(16):
            np.add.at(counts, (plan.batch(b) % 16, b), 1)
    assert (counts.sum(axis=0) == 6400).all() and (counts.sum(axis=1) == 6400).all()
    assert ((counts - 400) ** 2 / 400).sum() < 225 + 5 * np.sqrt(2 * 225)


@settings(max_examples=300)
@given(st.integers(1, 10**13), st.integers(1, 10**9), st.data())
def test_chosen_windows_keep_the_limits(n, row_bytes, data):
    order = choose_windows(n, row_bytes)
    shards, rows = order.n_shards, order.window_rows
    limit = max(2**27, n * row_bytes // 1024)
    assert shards & (shards - 1) == 0 and 1 <= shards <= shard_count(n)
    assert shards * rows * row_bytes <= limit or shards * rows == 1
    assert rows * row_bytes >= 2**17
    assert order_remarks(order, n, row_bytes, shards) == []
    again = {"n_shards": shards, "window_rows": rows}
    assert choose_windows(n, row_bytes, **again) == order
    rows = data.draw(st.integers(1, 2**31 - 1))
    order = choose_windows(n, row_bytes, window_rows=rows)
    assert order.window_rows == rows
    assert order.n_shards == 1 or order.n_shards * rows * row_bytes <= limit
    shards = 2 ** data.draw(st.integers(0, min(16, n.bit_length() - 1)))
    order = choose_windows(n, row_bytes, n_shards=shards)
    assert order.n_shards == shards and order.window_rows * row_bytes >= 2**17
    if order.window_rows > -(-(2**17) // row_bytes):
        assert shards * order.window_rows * row_bytes <= limit


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: choose_windows(100, 8, n_shards=128), "100 training rows.*64 or less"),
        (lambda: choose_windows(100, 8, n_shards=12), "power of two, from 1"),
        (lambda: WindowOrder(2**17, 1), "power of two, from 1 to 65536, got 131072"),
        (lambda: WindowOrder(8, 0), "order_window must lie between 1 and"),
        (lambda: resolve_order("random", 8, 8), "'full' or 'window', got 'random'"),
    ],
)
def test_impossible_windows_are_refused(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


def test_remarks_say_what_is_slow():
    n = 10**6
    assert order_remarks(None, n, 400, 9999) == []
    (idle,) = order_remarks(WindowOrder(512, 655), n, 400, 600)
    assert "600 ranks share 512 order shards" in idle and "order_shards = 1024" in idle
    assert "set" not in order_remarks(WindowOrder(1, 9), 3, 2**20, 5)[0]
    (short,) = order_remarks(WindowOrder(8, 100), n, 400, 8)
    assert "40,000 bytes" in short and "328 rows" in short
    (large,) = order_remarks(WindowOrder(1024, 10**6), n, 400, 8)
    assert "400 MB in work" in large and "for 134 MB" in large


BEYOND = [2**31 - 1, 2**31, 2**31 + 1, 3 * 10**9 + 12345, 2**40 + 7, 10**13 + 3]


@pytest.mark.parametrize("n", BEYOND)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_beyond_2_31_rows_are_planned_in_little_memory(n, size):
    """The first and last batches of the first and last rank, and one in the middle."""
    tracemalloc.start()
    order, batch_size, seen = WindowOrder(1024, 43), 64 * size, []
    cuts = bounds(n, size)
    for rank in {0, size // 2, size - 1}:
        start, stop = cuts[rank : rank + 2]
        plan = EpochPlan(n, 5, 2, start, stop, batch_size, order)
        for b in (0, plan.n_batches // 2, plan.n_batches - 1):
            ranges, rows = plan.read_ahead(b), plan.batch(b)
            assert ((0 <= rows) & (rows < stop - start)).all()
            inside = (ranges[:, :1] <= rows) & (rows < ranges[:, 1:])
            assert (inside.sum(axis=0) == 1).all()
            seen += (start + rows).tolist()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(seen) == len(set(seen)) and max(seen) > n * 0.9
    assert peak_bytes < 10e6
