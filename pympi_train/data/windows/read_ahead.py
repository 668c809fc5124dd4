"""The rows that batches will need soon, in the order "window"."""

import numpy as np

AT_ONCE = 16  # windows announced together, to save calls
NOTHING = np.zeros((0, 2), np.int64)


class ReadAhead:
    """Tells which windows of a rank to read before a batch, and sorts them.

    While the batches of a stage are computed, the windows of the next stage are read,
    in proportion. The windows in work and those read ahead are at most two a shard, and
    three for as many shards as `n_together` says.

    Parameters
    ----------
    order : ShardOrder
    windows : SortedWindows
        The windows of the rank's shards.
    first : int
        The first of these shards.
    n, start, stop, batch_size, goes_on
        See `EpochPlan`.
    """

    def __init__(self, order, windows, first, n, start, stop, batch_size, goes_on):
        self._windows, self._n, self._batch_size = windows, n, batch_size
        self._start, self._stop, self._goes_on = start, stop, goes_on
        self._cuts = order.cuts[first : first + windows.n_shards + 1]
        self._stage_rows = windows.width * order.n_shards
        self._total = windows.n_stages * windows.n_shards
        self._at_once = n_together(windows.n_shards)
        self._done, self._next = 0, None  # windows announced; the batch after the last

    def ranges(self, index):
        """Return local rows to read before batch ``index``, shape (m, 2): start, stop.

        Call it with ascending ``index``; elsewhere it starts again.
        """
        windows, low = self._windows, index * self._batch_size
        high = min(low + self._batch_size, self._n)
        if index != self._next:
            self._done = low // self._stage_rows * windows.n_shards
        self._next = index + 1
        # Window number stage * n_shards + shard is due one stage before its time, and
        # a little earlier, as it may wait for others.
        ahead, last = high + self._stage_rows, self._total
        due = min(self._n_windows(ahead) + self._at_once, last)
        if self._goes_on and ahead > self._n:  # the first stage of the next epoch
            last += windows.n_shards
            due = self._total + self._n_windows(ahead - self._n) + self._at_once
            due = min(due, last)
        if due - self._done < self._at_once and due < last or due <= self._done:
            return NOTHING
        stages, shards = np.divmod(np.arange(self._done, due), windows.n_shards)
        self._done = due
        now = low // self._stage_rows  # its windows are sorted when they are needed
        end = min(int(stages[-1]) + 1, windows.n_stages)
        for stage in range(max(int(stages[0]), now + 1), end):
            mine = shards[stages == stage]
            windows.prepare(stage, int(mine[0]), int(mine[-1]) + 1)
        stages %= windows.n_stages
        starts = self._cuts[shards] + stages * windows.width
        stops = np.minimum(starts + windows.width, self._cuts[shards + 1])
        ranges = np.stack([starts, stops], axis=1).clip(self._start, self._stop)
        return ranges[ranges[:, 0] < ranges[:, 1]] - self._start

    def _n_windows(self, position):
        """Return how many windows come before a position of the epoch."""
        stage, beyond = divmod(position, self._stage_rows)
        n_shards = self._windows.n_shards
        return stage * n_shards + beyond * n_shards // self._stage_rows


def n_together(n_shards):
    """Return how many windows of so many shards are announced together."""
    return min(AT_ONCE, max(1, n_shards // 4))
