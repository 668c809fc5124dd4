"""The order of the rows in an epoch: it knows no rank, and every rank finds its part.

The ``n`` rows are cut into ``S`` order shards: ``S`` is the largest power of two up to
``n / 16``, within 1 ... 65536, and shard ``s`` holds the rows from ``s * n // S`` up to
``(s + 1) * n // S``. An epoch goes round after round. A round takes the next row of
every shard, in that shard's own random order, and visits the shards in bit-reversal
(van der Corput) order from a random place on. The last round visits only the shards
that have one row more. A global batch is the next ``batch_size`` rows.

Successive shards of bit-reversal order lie far apart, so every range of rows has its
even share of every batch: ranks are equally busy, and a file sorted by label is mixed.
"""

import math

import numpy as np

from pympi_train.data.order_shards import ShardOrder
from pympi_train.random import HOLDOUT, ORDER

BLOCK_ROWS = 1 << 18  # ranked at once: temporaries of a few MB, however many rows


def positions(n, seed, epoch, start, stop, *, stream=ORDER):
    r"""Return where rows ``start ... stop - 1`` stand in the order of an epoch.

    With :math:`q = \lfloor n/S \rfloor`, a row that its shard :math:`s` gives in round
    :math:`t < q` has the position

    .. math::
        t S + \bigl((\mathrm{rev}(s) - \rho_t) \bmod S\bigr),

    where rev reverses the :math:`\log_2 S` bits of :math:`s` and :math:`\rho_t` is word
    :math:`t` of the stream ROTATION. In round :math:`q` the shards without a row are
    left out. :math:`t` is the rank of the row's own word among those of its shard, ties
    by index.

    Parameters
    ----------
    n : int
        Number of rows over all ranks.
    seed, epoch : int
        Choose the order; see `pympi_train.random.bits` for their ranges.
    start, stop : int
        Global rows, ``0 <= start <= stop <= n``.
    stream : int, default ORDER
        Where the rows' words come from; the row's global index is its word.

    Returns
    -------
    ndarray, shape (stop - start,), int64
        All ``n`` rows together have each of 0 ... n - 1 once.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Takes time for ``stop - start`` rows, up to one shard on either side, and ``S``
    numbers; nothing of size ``n`` is made once ``n`` is far beyond 65536 rows.

    References
    ----------
    .. [1] J. G. van der Corput, "Verteilungsfunktionen", Proc. Ned. Akad. v. Wet. 38,
       1935, 813-821.

    Examples
    --------
    >>> from pympi_train.data.order import positions
    >>> whole = positions(100, seed=1, epoch=0, start=0, stop=100)
    >>> sorted(whole.tolist()) == list(range(100))
    True
    >>> bool((positions(100, seed=1, epoch=0, start=40, stop=60) == whole[40:60]).all())
    True
    """
    _check_range(n, start, stop)
    place = np.empty(stop - start, dtype=np.int64)
    if start == stop:
        return place
    order = ShardOrder(n, seed, epoch, stream)
    first, last = (int(order.shard_of(row)) for row in (start, stop - 1))
    step = max(1, BLOCK_ROWS // order.n_rounds)
    for low in range(first, last + 1, step):
        high = min(low + step, last + 1)
        row, end = (int(cut) for cut in order.cuts[[low, high]])
        left, right = max(row, start), min(end, stop)
        block = order.place_shards(low, high)[left - row : right - row]
        place[left - start : right - start] = block
    return place


def held_out(n, n_held_out, seed, start, stop):
    """Return which of the rows ``start ... stop - 1`` are held out of training.

    The first ``n_held_out`` rows of the order that the stream HOLDOUT gives: every
    shard gives equally many, or one more.

    Parameters
    ----------
    n : int
        Number of rows over all ranks.
    n_held_out : int
        How many of them to hold out, ``0 <= n_held_out <= n``.
    seed : int
        Chooses the rows.
    start, stop : int
        Global rows, ``0 <= start <= stop <= n``.

    Returns
    -------
    ndarray, shape (stop - start,), bool

    Raises
    ------
    ValueError
        If an argument lies outside its range.
    """
    _check_held_out(n, n_held_out)
    return positions(n, seed, 0, start, stop, stream=HOLDOUT) < n_held_out


def held_out_count(n, fraction):
    """Return how many of ``n`` rows a fraction holds out, halves rounded up.

    Parameters
    ----------
    n : int
        Number of rows.
    fraction : float
        In (0, 1).

    Returns
    -------
    int
        From two rows on at least one is held out and one left; else 0.

    Raises
    ------
    ValueError
        If ``fraction`` lies outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f"the held-out fraction must lie between 0 and 1, got {fraction}; leave "
            "it out to hold nothing out"
        )
    if n < 2:
        return 0
    return min(max(math.floor(n * fraction + 0.5), 1), n - 1)


def _check_range(n, start, stop):
    if not 0 <= start <= stop <= n:
        raise ValueError(
            f"expected rows with 0 <= start <= stop <= n, got start {start}, stop "
            f"{stop}, n {n}"
        )


def _check_held_out(n, n_held_out):
    if not 0 <= n_held_out <= n:
        raise ValueError(f"n_held_out must lie in [0, {n}], got {n_held_out}")
