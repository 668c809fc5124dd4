"""The rows of windows in random order, found when they are needed."""

import numpy as np

from pympi_train.random import WINDOW, bits

TOGETHER_WORDS = 1 << 14  # minimum number of words made and sorted at once


class SortedWindows:
    """Windows of some order shards, sorted by random word.

    All windows with the same number belong to one *stage*: rounds ``stage * W`` up to
    ``(stage + 1) * W`` of an epoch.

    Parameters
    ----------
    order : ShardOrder
    window_rows : int
        Rows of a window, W.
    first, stop : int
        The shards, ``first <= s < stop``.

    Attributes
    ----------
    n_shards, n_stages : int
    width : int
        W, or the rows of the largest shard if they are fewer.

    Notes
    -----
    Word ``(stage * S + s) * W + i`` of the stream WINDOW is that of row i of a window.
    Rows are sorted by the upper bits of their words, ties by index. A window is sorted
    when a row of it is needed, unless `prepare` was called before. Up to five stages
    are kept.
    """

    def __init__(self, order, window_rows, first, stop):
        self._order, self._first, self.n_shards = order, first, stop - first
        self.width = min(window_rows, order.n_rounds + 1)
        self.n_stages = -(-(order.n_rounds + 1) // self.width)
        self._sizes = np.diff(order.cuts[first : stop + 1])
        self._together = max(1, TOGETHER_WORDS // self.width)
        self._stages = {}

    def block_stop(self, turn_round):
        """Return a round up to which rounds from ``turn_round`` on are of one stage."""
        return (turn_round // self.width + 1) * self.width

    def rows(self, shards, rounds):
        """Return the rows of ``shards`` in ``rounds``, counted within each shard.

        All rounds must belong to the same stage.
        """
        stage = int(rounds.flat[0]) // self.width
        table, is_sorted = self._stage(stage)
        if not is_sorted.all():
            asked = np.unique(shards // self._together)
            self._sort(stage, asked[~is_sorted[asked]])
        first = stage * self.width
        return first + table[shards, rounds - first].astype(np.intp)

    def prepare(self, stage, low, high):
        """Sort the windows of shards ``low ... high - 1``, counted from ``first``."""
        if low < high:
            _, is_sorted = self._stage(stage)
            blocks = np.arange(low // self._together, (high - 1) // self._together + 1)
            self._sort(stage, blocks[~is_sorted[blocks]])

    def _stage(self, stage):
        """Return (table, which blocks of it are sorted) of a stage."""
        if stage not in self._stages:
            near = {k: v for k, v in self._stages.items() if abs(k - stage) <= 2}
            dtype = np.min_scalar_type(self.width - 1)
            table = np.empty((self.n_shards, self.width), dtype)
            is_sorted = np.zeros(-(-self.n_shards // self._together), bool)
            self._stages = {**near, stage: (table, is_sorted)}
        return self._stages[stage]

    def _sort(self, stage, blocks):
        table, is_sorted = self._stages[stage]
        index = np.arange(self.width, dtype=np.uint64)
        places = np.uint64((1 << (self.width - 1).bit_length()) - 1)
        seed, epoch = self._order.seed, self._order.epoch
        for block in blocks.tolist():
            low = block * self._together
            high = min(low + self._together, self.n_shards)
            start = (stage * self._order.n_shards + self._first + low) * self.width
            words = bits(seed, WINDOW, epoch, start, (high - low) * self.width)
            words = words.reshape(-1, self.width)
            words &= ~places
            words |= index
            left = self._sizes[low:high] - stage * self.width
            if left.min() < self.width:  # the last windows: what is no row comes last
                words[np.arange(self.width) >= left[:, None]] |= ~places
            words.sort(axis=1)
            words &= places
            table[low:high] = words
            is_sorted[block] = True
