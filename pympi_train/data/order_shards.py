"""Order shards: parts of the rows that can be sorted independently.

`pympi_train.data.order` describes the order and its purpose.
"""

import numpy as np

from pympi_train.random import ROTATION, bits

MAX_SHARDS = 65536
ROWS_A_SHARD = 16  # minimum, if there are that many rows


def shard_count(n):
    """Return ``S``, the number of order shards of ``n`` rows: a power of two."""
    return min(1 << max((int(n) // ROWS_A_SHARD).bit_length() - 1, 0), MAX_SHARDS)


class ShardOrder:
    """The order shards of one epoch, and the numbers that determine their order.

    Parameters
    ----------
    n : int
        Number of rows.
    seed, epoch, stream : int
        Determine the order; see `pympi_train.random.bits`.
    n_shards : int, optional
        A power of two, at most ``n``; by default `shard_count`.

    Attributes
    ----------
    n_shards, n_rounds : int
        Number of order shards, a power of two, and number of rounds in which every
        shard has a row.
    cuts : ndarray, shape (n_shards + 1,), int64
        First row of each shard, and ``n``.
    """

    def __init__(self, n, seed, epoch, stream, n_shards=None):
        self.n_shards = shard_count(n) if n_shards is None else n_shards
        self.seed, self.epoch = seed, epoch
        self.n_rounds, rest = divmod(n, self.n_shards)  # full rounds
        shard = np.arange(self.n_shards + 1, dtype=np.int64)
        # s * n // S, written so that products stay below 2**63.
        self.cuts = shard * self.n_rounds + shard * rest // self.n_shards
        self.reverse = _bit_reversal(self.n_shards)
        self._random = seed, stream, epoch

    def shard_of(self, row):
        """Return the shard that holds a row; ``n_shards`` for row ``n``."""
        return np.searchsorted(self.cuts, row, side="right") - 1

    def rotations(self, start, stop):
        """Return where rounds ``start ... stop - 1`` start in bit-reversal order."""
        words = bits(self.seed, ROTATION, self.epoch, start, stop - start)
        return (words % np.uint64(self.n_shards)).astype(np.int64)

    def turns(self, turn_round):
        """Return each shard's place in a round, shape (S,); S if it has no row left."""
        visited = np.diff(self.cuts) > turn_round
        rotation = self.rotations(turn_round, turn_round + 1)
        turn = (self.reverse - rotation) % self.n_shards
        in_turn = np.empty_like(visited)
        in_turn[turn] = visited
        return np.where(visited, (np.cumsum(in_turn) - 1)[turn], self.n_shards)

    def by_word(self, low, high):
        """Return the rows of shards ``low ... high - 1``, sorted by random word.

        Returns
        -------
        by_word : ndarray, shape (high - low, n_rounds + 1), int64
            The shard's row in each round, counted from the shard's first row. Padding
            comes last.
        filled : ndarray of bool, of the same shape
            Which entries, in the order of the file, are rows and not padding.
        """
        sizes = np.diff(self.cuts[low : high + 1])[:, None]
        filled = np.arange(self.n_rounds + 1)[None] < sizes
        start, stop = (int(cut) for cut in self.cuts[[low, high]])
        seed, stream, epoch = self._random
        words = np.full(filled.shape, np.iinfo(np.uint64).max, dtype=np.uint64)
        words[filled] = bits(seed, stream, epoch, start, stop - start)
        # Stable: ties are broken by index, so padding follows a row of the same word.
        return np.argsort(words, axis=1, kind="stable"), filled

    def place_shards(self, low, high):
        """Return the positions of all rows of shards ``low ... high - 1``, int64."""
        by_word, filled = self.by_word(low, high)
        rounds, column = np.empty_like(by_word), np.arange(self.n_rounds + 1)[None]
        np.put_along_axis(rounds, by_word, column, axis=1)
        rotations = self.rotations(0, self.n_rounds + 1)[rounds]
        turn = (self.reverse[low:high, None] - rotations) % self.n_shards
        place = rounds * self.n_shards + turn
        last = self.n_rounds * self.n_shards + self.turns(self.n_rounds)[low:high]
        np.put_along_axis(place, by_word[:, -1:], last[:, None], axis=1)
        return place[filled]


def _bit_reversal(n_shards):
    """Return each shard's number with its bits reversed, shape (S,)."""
    reverse = np.zeros(1, dtype=np.int64)
    while len(reverse) < n_shards:
        reverse = np.concatenate([2 * reverse, 2 * reverse + 1])
    return reverse
