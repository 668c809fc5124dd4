"""The plan of an epoch: a rank's rows of each batch, computed batch by batch."""

import numpy as np

from pympi_train.data.order_shards import ShardOrder
from pympi_train.data.windows.read_ahead import NOTHING, ReadAhead
from pympi_train.data.windows.sorted_windows import SortedWindows
from pympi_train.random import ORDER

BLOCK_ROWS = 4096  # rows found together
LEAST_ROWS = 1024  # turns found together while that may sort shards: the first batch
SHARDS = 8  # shards sorted together if there are more than FEW_ROWS rows,
ALONE_ROWS = 1024  # unless they have so many rows each
FEW_ROWS = 1 << 19  # sorted all at once in about 40 ms


class EpochPlan:
    """The batches of one epoch on the rank that owns rows ``start ... stop - 1``.

    Parameters
    ----------
    n : int
        Number of training rows over all ranks.
    seed, epoch : int
        Determine the order (`pympi_train.data.order`); see `pympi_train.random.bits`
        for their ranges.
    start, stop : int
        The rank's rows, ``0 <= start <= stop <= n``.
    batch_size : int
        Rows of a global batch, at least 1. If at least ``n``, one batch holds all rows.
    order : WindowOrder, optional
        Windows to permute rows in; None: the order "full".
    goes_on : bool, default False
        Whether another epoch follows, whose first windows are read ahead too.

    Attributes
    ----------
    n_batches : int
        ``ceil(n / batch_size)``, including batches without rows of this rank.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    No communication. An order shard is sorted when a batch first needs one of its rows,
    in the first round, so the first batch does not wait for a sort of all rows. The
    plan holds blocks of some thousand rows, and 1 byte per local row up to 16.7 million
    rows in total, 2 bytes beyond. In the order "window", windows are sorted instead:
    in the first round of an epoch when a batch needs one of their rows, later ahead, as
    many rows as a batch has. The plan holds 1 to 4 bytes per row of two windows of each
    local shard.
    """

    def __init__(
        self, n, seed, epoch, start, stop, batch_size, order=None, goes_on=False
    ):
        if not 0 <= start <= stop <= n:
            raise ValueError(
                f"expected rows with 0 <= start <= stop <= n, got start {start}, stop "
                f"{stop}, n {n}"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._n, self._start, self._stop = n, start, stop
        self._batch_size = min(batch_size, max(n, 1))
        self.n_batches = -(-n // self._batch_size)
        self._low = self._high = 0  # positions of the block
        self._rows = self._places = np.zeros(0, np.intp)
        self._cuts = {}  # by position: the rows of the block before it
        self._ahead = None
        if start < stop:
            n_shards = None if order is None else order.n_shards
            self._order = shards = ShardOrder(n, seed, epoch, ORDER, n_shards)
            self._first = first = int(shards.shard_of(start))
            own = first, int(shards.shard_of(stop - 1)) + 1
            self._turns = _Turns(shards, *own)
            # The first row of each shard, as a local row. Those at the ends may be cut.
            self._first_rows = shards.cuts[slice(*own)] - start
            self._is_cut = (start, stop) != tuple(shards.cuts[list(own)])
            if order is None:
                self._ranked = _Ranked(shards, *own)
            else:
                self._ranked = SortedWindows(shards, order.window_rows, *own)
                made_of = shards, self._ranked, first, n, start, stop
                self._ahead = ReadAhead(*made_of, self._batch_size, goes_on)

    def read_ahead(self, index):
        """Return local rows to read before batch ``index``, shape (m, 2): start, stop.

        In the order "window" these are windows that later batches need. Call it before
        ``batch(index)``, with ascending ``index``.
        """
        if self._ahead is None:
            return NOTHING
        return self._ahead.ranges(index)

    def batch(self, index):
        """Return the local rows of batch ``index``, shape (k,), intp, k >= 0.

        0 is the rank's first row. The rows are in the order of the epoch.
        """
        if self._start == self._stop:
            return self._rows
        low = index * self._batch_size
        high, parts = min(low + self._batch_size, self._n), []
        while low < high:
            if not self._low <= low < self._high:
                self._find(low)
                self._cut(low)
            end = min(high, self._high)
            parts.append(self._rows[self._cuts[low] : self._cuts[end]])
            low = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _cut(self, low):
        """Find how many rows of the block come before ``low`` and each batch's end."""
        size = self._batch_size
        first = -(-self._low // size) * size
        ends = [low, *range(first, self._high, size), self._high]
        self._cuts = dict(zip(ends, self._places.searchsorted(ends).tolist()))

    def _find(self, position):
        """Find the rows of a block of positions that contains ``position``."""
        order, ranked = self._order, self._ranked
        turn_round, turn = divmod(position, order.n_shards)
        if turn_round >= order.n_rounds:
            self._find_last_round()
            return
        stop = min(ranked.block_stop(turn_round), order.n_rounds)
        if ranked.n_shards < BLOCK_ROWS and turn_round < stop:
            stop = min(stop, turn_round + BLOCK_ROWS // ranked.n_shards)
            rounds = np.arange(turn_round, stop)[:, None]
            shards, turns = self._turns.of_rounds(turn_round, stop)
            self._keep(rounds * order.n_shards + turns, shards, rounds)
            self._low, self._high = turn_round * order.n_shards, stop * order.n_shards
            return
        n_turns = LEAST_ROWS
        if self._ahead is None and turn_round < stop:  # all shards are sorted
            n_turns = BLOCK_ROWS * order.n_shards // ranked.n_shards
        end = min(turn + max(self._batch_size, n_turns), order.n_shards)
        shards, turns = self._turns.of_round(turn_round, turn, end)
        first = turn_round * order.n_shards
        self._keep(first + turns, shards, np.array(turn_round))
        self._low, self._high = first + turn, first + end

    def _find_last_round(self):
        order, ranked = self._order, self._ranked
        turns = order.turns(order.n_rounds)[self._first :][: ranked.n_shards]
        shards = np.argsort(turns)[: np.count_nonzero(turns < order.n_shards)]
        self._low, self._high = order.n_rounds * order.n_shards, self._n
        self._keep(self._low + turns[shards], shards, np.array(order.n_rounds))

    def _keep(self, places, shards, rounds):
        """Keep the rows of own ``shards`` in ``rounds``, at ``places`` of the epoch."""
        rows = self._ranked.rows(shards, rounds)
        rows += self._first_rows[shards]
        if self._is_cut:
            own = (rows >= 0) & (rows < self._stop - self._start)
            rows, places = rows[own], places[own]
        self._rows, self._places = rows.reshape(-1), places.reshape(-1)


class _Turns:
    """The turns of some order shards in each round.

    A shard's turn is its number with the bits reversed, minus the round's rotation,
    modulo the number of shards. The shards are therefore sorted once: every round
    visits them in this order, from another start.
    """

    def __init__(self, order, first, stop):
        self._order, self._n_own = order, stop - first
        reverse = order.reverse[first:stop]
        shards = np.argsort(reverse)
        reverse = reverse[shards]
        # Twice, so that a round is a slice.
        self._shards = np.concatenate([shards, shards])
        self._reverse = np.concatenate([reverse, reverse + order.n_shards])
        self._last = -1, 0  # round, its rotation

    def of_round(self, turn_round, turn, end):
        """Return the own shards with ``turn <= t < end``, by their turns t, and these.

        Shards are counted from ``first``.
        """
        if self._last[0] != turn_round:
            rotations = self._order.rotations(turn_round, turn_round + 1)
            self._last = turn_round, int(rotations[0])
        _, rotation = self._last
        a, b = self._reverse.searchsorted((turn + rotation, end + rotation))
        return self._shards[a:b], self._reverse[a:b] - rotation

    def of_rounds(self, start, stop):
        """Return all own shards by their turns in some rounds, and the turns.

        Both have a row for each round.
        """
        rotations = self._order.rotations(start, stop)
        first = self._reverse.searchsorted(rotations)
        at = first[:, None] + np.arange(self._n_own)
        return self._shards[at], self._reverse[at] - rotations[:, None]


class _Ranked:
    """The rows of some order shards, sorted by random word on first use."""

    def __init__(self, order, first, stop):
        self._order, self._first, self.n_shards = order, first, stop - first
        dtype = np.min_scalar_type(order.n_rounds)
        self._table = np.empty((self.n_shards, order.n_rounds + 1), dtype)
        self._is_small = self._table.size <= FEW_ROWS
        self._together = 1 if order.n_rounds >= ALONE_ROWS else SHARDS
        if self._is_small:
            self._together = self.n_shards
        self._left = np.ones(-(-self.n_shards // self._together), bool)
        self._n_left = len(self._left)

    def block_stop(self, turn_round):
        """Return a round up to which rounds from ``turn_round`` on are found together.

        Not all shards at once if that is long, so that the first batch comes soon.
        """
        if self._n_left and not self._is_small:
            return turn_round
        return self._order.n_rounds

    def rows(self, shards, rounds):
        """Return the rows of ``shards`` in ``rounds``, counted within each shard."""
        if self._n_left:
            asked = np.unique(shards // self._together)
            for block in asked[self._left[asked]].tolist():
                self._put_in_order(block)
        return self._table[shards, rounds].astype(np.intp)

    def _put_in_order(self, block):
        low = block * self._together
        high = min(low + self._together, self.n_shards)
        by_word, _ = self._order.by_word(self._first + low, self._first + high)
        self._table[low:high] = by_word
        self._left[block] = False
        self._n_left -= 1
