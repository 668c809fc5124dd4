"""The rows that each rank owns: contiguous ranges, equal to within one row."""

from pympi_train.flat.parts import even_cuts


def bounds(n, size):
    r"""Return the cuts :math:`\lfloor r n / P \rfloor` for :math:`r = 0 \dots P`.

    Parameters
    ----------
    n : int
        Number of rows, at least 0.
    size : int
        Number of ranks ``P``, at least 1.

    Returns
    -------
    list of int, length P + 1
        Rank ``r`` owns the rows from ``cuts[r]`` to ``cuts[r + 1] - 1``.

    Raises
    ------
    ValueError
        If ``n`` is negative or ``size`` is not positive.

    Notes
    -----
    The cuts are Python integers, so ``r n`` cannot overflow. With fewer rows than
    ranks, some ranks own no rows.

    Examples
    --------
    >>> from pympi_train.data.partition import bounds
    >>> bounds(10, 4)
    [0, 2, 5, 7, 10]
    """
    _check(n, size)
    return even_cuts(0, n, size, step=1)


def own_range(n, rank, size):
    """Return ``(start, stop)``: the rows of one rank.

    Parameters
    ----------
    n, size : int
        As for `bounds`.
    rank : int
        In ``[0, size)``.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        If an argument lies outside its range.
    """
    _check(n, size)
    if not 0 <= rank < size:
        raise ValueError(f"rank must lie in [0, {size}), got {rank}")
    return rank * n // size, (rank + 1) * n // size


def owner(row, n, size):
    r"""Return the rank that owns a row: :math:`\lfloor (P (i + 1) - 1) / n \rfloor`.

    Parameters
    ----------
    row : int
        Global index ``i``, in ``[0, n)``.
    n, size : int
        As for `bounds`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    The owner is the largest ``r`` with ``floor(r n / P) <= i``, that is with
    ``r n < P (i + 1)``.
    """
    _check(n, size)
    if not 0 <= row < n:
        raise ValueError(f"row must lie in [0, {n}), got {row}")
    return (size * (row + 1) - 1) // n


def _check(n, size):
    if n < 0:
        raise ValueError(f"the number of rows must not be negative, got {n}")
    if size < 1:
        raise ValueError(f"the number of ranks must be positive, got {size}")
