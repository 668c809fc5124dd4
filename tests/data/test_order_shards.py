import numpy as np
import pytest

from pympi_train.data.order_shards import ShardOrder, shard_count
from pympi_train.random import ORDER, ROTATION, bits


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
