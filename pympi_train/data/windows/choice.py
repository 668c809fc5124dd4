"""Choice of the order shards and windows of the order "window"."""

from dataclasses import dataclass

from pympi_train.comm.checks import together
from pympi_train.data.order_shards import MAX_SHARDS, shard_count
from pympi_train.errors import ConfigError

ORDERS = ("full", "window")
READ_BYTES = 2**17  # minimum of a window: shorter reads are slow
POOL_BYTES = 2**27  # maximum of the windows in work, over all ranks,
POOL_SHARE = 1024  # or this part of the data set, if that is more
MAX_WINDOW_ROWS = 2**31 - 1


@dataclass(frozen=True)
class WindowOrder:
    """An order that permutes rows only within windows of the order shards.

    Parameters
    ----------
    n_shards : int
        Order shards, ``S``: a power of two.
    window_rows : int
        Rows of a window, ``W``. The last window of a shard may be shorter.

    Notes
    -----
    The order is a function of the number of rows, the seed, the epoch, S and W. It does
    not depend on the number of ranks, nor on where the rows are.
    """

    n_shards: int
    window_rows: int

    def __post_init__(self):
        reason = refuse_shards(self.n_shards)
        if reason is None and not 1 <= self.window_rows <= MAX_WINDOW_ROWS:
            reason = (
                f"order_window must lie between 1 and {MAX_WINDOW_ROWS}, got "
                f"{self.window_rows}"
            )
        if reason is not None:
            raise ConfigError(reason)


def refuse_shards(n_shards):
    """Return the reason why there cannot be ``n_shards`` order shards, or None."""
    if 1 <= n_shards <= MAX_SHARDS and n_shards & (n_shards - 1) == 0:
        return None
    return (
        f"order_shards must be a power of two, from 1 to {MAX_SHARDS}, got {n_shards}"
    )


def choose_windows(n, row_bytes, *, n_shards=None, window_rows=None, block_rows=1):
    r"""Return the `WindowOrder` of ``n`` rows of ``row_bytes`` each.

    With :math:`b` the bytes of a row and :math:`M = \max(2^{27}, n b / 1024)`, S is the
    largest power of two with :math:`S \cdot 2^{17} \le M`, and at most that of the
    order "full". W is the largest number with :math:`S W b \le M`.

    Parameters
    ----------
    n : int
        Training rows over all ranks.
    row_bytes : int
        Decoded bytes of a row.
    n_shards, window_rows : int, optional
        Values to use instead of the default.
    block_rows : int
        Rows that are decoded together: a default window has a multiple of it, and W
        counts one more.

    Raises
    ------
    ConfigError
        If ``n_shards`` is no power of two, or there are fewer rows than shards.

    Notes
    -----
    A row of more than 128 KiB is a window. Unless a row takes more than M, or the
    arguments say otherwise, ``S W b <= M`` and ``W b >= 2**17``. W may exceed the rows
    of a shard, which then is a single window.

    Examples
    --------
    >>> choose_windows(10**9, 400)
    WindowOrder(n_shards=2048, window_rows=476)
    >>> choose_windows(10**9, 400, n_shards=64)
    WindowOrder(n_shards=64, window_rows=15258)
    """
    row_bytes = max(1, row_bytes)
    most_rows = max(1, max_pool_bytes(n, row_bytes) // row_bytes)
    least_rows = max(-(-READ_BYTES // row_bytes), block_rows)
    edge_rows = block_rows if block_rows > 1 else 0  # of the block at a window's edge
    if n_shards is None:
        each = (window_rows or least_rows) + edge_rows
        most = min(most_rows // each, shard_count(n))
        n_shards = 1 << max(most.bit_length() - 1, 0)
    elif n_shards > n:
        raise ConfigError(
            f"order_shards = {n_shards}, but there are {n} training rows: set it to "
            f"{1 << max(n.bit_length() - 1, 0)} or less, or leave it out"
        )
    if window_rows is None:
        window_rows = max(most_rows // n_shards - edge_rows, least_rows)
        window_rows = min(window_rows // block_rows * block_rows, MAX_WINDOW_ROWS)
    return WindowOrder(n_shards, window_rows)


def max_pool_bytes(n, row_bytes):
    """Return M, the maximum of the windows in work over all ranks, in bytes."""
    return max(POOL_BYTES, n * row_bytes // POOL_SHARE)


def resolve_order(
    order, n, row_bytes, *, n_shards=None, window_rows=None, block_rows=1
):
    """Return the `WindowOrder` for the name of an order; None for "full".

    Parameters
    ----------
    order : {"full", "window"}, WindowOrder or None
        None is "full".
    n, row_bytes, n_shards, window_rows, block_rows
        See `choose_windows`.

    Raises
    ------
    ConfigError
        As `choose_windows`, or if ``order`` is none of these.
    """
    if isinstance(order, WindowOrder):
        n_shards, window_rows, order = order.n_shards, order.window_rows, "window"
    if order is None or order == "full":
        return None
    if order != "window":
        known = " or ".join(map(repr, ORDERS))
        raise ConfigError(f"order must be {known}, got {order!r}")
    return choose_windows(
        n,
        row_bytes,
        n_shards=n_shards,
        window_rows=window_rows,
        block_rows=block_rows,
    )


def set_order(source, comm, order, window_rows, n_shards, block_rows=1):
    """Set the order of a source's rows; return warnings about it, a list of str.

    Parameters
    ----------
    source : Source
    comm : MPI.Comm
    order, window_rows, n_shards
        ``order``, ``order_window`` and ``order_shards`` of `load`.
    block_rows : int
        See `choose_windows`.

    Raises
    ------
    ConfigError
        On every rank, as `resolve_order`.

    Notes
    -----
    Collective.
    """
    sizes = source.n, source.row_bytes
    chosen = {"n_shards": n_shards, "window_rows": window_rows}
    with together(comm):
        source.order = resolve_order(order, *sizes, **chosen, block_rows=block_rows)
    return order_remarks(source.order, *sizes, comm.size)


def order_remarks(order, n, row_bytes, n_ranks):
    """Return warnings about a `WindowOrder`, a list of str."""
    if order is None:
        return []
    shards, window, found = order.n_shards, order.window_rows, []
    if n_ranks > shards:
        enough = 1 << (n_ranks - 1).bit_length()
        found.append(
            f'order "window": {n_ranks} ranks share {shards} order shards, and at most '
            f"{shards} ranks have rows of a batch: use fewer ranks"
            + (f", or set order_shards = {enough}" if enough <= n else "")
        )
    if window * shards < n and window * row_bytes < READ_BYTES:
        found.append(
            f"order_window = {window} rows are {window * row_bytes:,} bytes: reads of "
            f"files are slow below {READ_BYTES:,} bytes, {-(-READ_BYTES // row_bytes)} "
            "rows"
        )
    pool_rows = min(shards * window, n)
    pool_bytes = pool_rows * row_bytes
    if pool_bytes > max_pool_bytes(n, row_bytes) and pool_rows > 1:
        found.append(
            f"order_shards = {shards} times order_window = {window} rows are "
            f"{pool_bytes / 1e6:,.0f} MB in work at once, over all ranks; leave one of "
            f"them out for {max_pool_bytes(n, row_bytes) / 1e6:,.0f} MB"
        )
    return found
