"""The order of the rows of an epoch, by loops; nothing of the package but its bits."""

from pympi_train import random as philox
from pympi_train.random import ORDER, ROTATION


def naive_order(n, seed, epoch, stream=ORDER, bits=philox.bits):
    """All rows in the order of the epoch, as the text says it, by loops."""
    n_shards = 1
    while 2 * n_shards <= min(n / 16, 65536):
        n_shards *= 2
    width = len(f"{n_shards:b}") - 1
    keys = bits(seed, stream, epoch, 0, n).tolist()
    shards = []
    for s in range(n_shards):
        rows = range(s * n // n_shards, (s + 1) * n // n_shards)
        shards.append(sorted(rows, key=lambda row: (keys[row], row)))
    rotations = bits(seed, ROTATION, epoch, 0, n + 1).tolist()
    result, turn_round = [], 0
    while len(result) < n:
        for turn in range(n_shards):
            turn = (turn + rotations[turn_round]) % n_shards
            shard = int(f"{turn:0{width}b}"[::-1], 2)
            if turn_round < len(shards[shard]):
                result.append(shards[shard][turn_round])
        turn_round += 1
    return result
