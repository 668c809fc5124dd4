"""The order of the rows in an epoch.

The order does not depend on the number of ranks, and each rank computes its own part.

The ``n`` rows are cut into ``S`` order shards. ``S`` is the largest power of two up to
``n / 16``, within 1 ... 65536. Shard ``s`` holds the rows from ``s * n // S`` up to
``(s + 1) * n // S``. An epoch consists of rounds. A round takes the next row of every
shard, in that shard's own random order. It visits the shards in bit-reversal (van der
Corput) order, starting at a random place. The last round visits only the shards that
have one row more. A global batch is the next ``batch_size`` rows.

Successive shards of bit-reversal order are far apart in the file, so every range of
rows has an even share of every batch. Ranks therefore have equal work, and a file
sorted by label is mixed.
"""

import math

import numpy as np

from pympi_train.data.order_shards import ShardOrder
from pympi_train.random import HOLDOUT, ORDER

BLOCK_ROWS = 1 << 18  # ranked at once: limits temporaries to a few MB


def positions(n, seed, epoch, start, stop, *, stream=ORDER):
    r"""Return the positions of rows ``start ... stop - 1`` in the order of an epoch.

    With :math:`q = \lfloor n/S \rfloor`, the row of shard :math:`s` in round
    :math:`t < q` has the position

    .. math::
        t S + \bigl((\mathrm{rev}(s) - \rho_t) \bmod S\bigr),

    where rev reverses the :math:`\log_2 S` bits of :math:`s` and :math:`\rho_t` is word
    :math:`t` of the stream ROTATION. Round :math:`q` skips shards without a row. A
    row's round :math:`t` is the rank of its random word among the words of its shard;
    ties are broken by index.

    Parameters
    ----------
    n : int
        Number of rows over all ranks.
    seed, epoch : int
        Choose the order; see `pympi_train.random.bits` for their ranges.
    start, stop : int
        Global rows, ``0 <= start <= stop <= n``.
    stream : int, default ORDER
        Stream of the rows' random words, indexed by the row's global index.

    Returns
    -------
    ndarray, shape (stop - start,), int64
        Over all ``n`` rows, each of 0 ... n - 1 appears once.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    The time is proportional to ``stop - start`` rows, plus up to one shard on either
    side, plus ``S`` numbers. No array of size ``n`` is made if ``n`` is much larger
    than 65536.

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

    The first ``n_held_out`` rows in the order of the stream HOLDOUT are held out. The
    numbers of held-out rows per shard differ by at most one.

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


def fold_numbers(n, n_folds, seed, start, stop):
    """Return the fold of each of the rows ``start ... stop - 1``.

    Fold f has the rows from place ``f n // n_folds`` up to ``(f + 1) n // n_folds`` in
    the order of the stream HOLDOUT: those that [data] ``fold`` holds out.

    Parameters
    ----------
    n : int
        Number of rows over all ranks.
    n_folds : int
        At least 1.
    seed : int
        Chooses the rows.
    start, stop : int
        Global rows, ``0 <= start <= stop <= n``.

    Returns
    -------
    ndarray, shape (stop - start,), int32
    """
    if n_folds < 1:
        raise ValueError(f"n_folds must be at least 1, got {n_folds}")
    at = positions(n, seed, 0, start, stop, stream=HOLDOUT)
    return (((at + 1) * n_folds - 1) // max(n, 1)).astype(np.int32)


def held_out_count(n, fraction):
    """Return the number of rows to hold out of ``n``, with halves rounded up.

    Parameters
    ----------
    n : int
        Number of rows.
    fraction : float
        In (0, 1).

    Returns
    -------
    int
        From 1 to ``n - 1`` if ``n`` is at least 2; else 0.

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
