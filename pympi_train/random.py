"""Counter-based random bits: any word of any stream, without the words before it."""

import operator

import numpy as np

# One constant a use, so that no two uses of a seed share a word. A number once given
# stays: checkpoints and published results rely on it.
ORDER = 1  # the order of the rows in an epoch
ROTATION = 2  # where each round of an epoch begins
HOLDOUT = 3  # which rows are held out
INIT = 4  # starting parameters

EPOCH_BITS = 48  # of the 64-bit key word that stream and epoch share
WORDS_A_BLOCK = 4  # Philox4x64


def bits(seed, stream, epoch, start, count):
    r"""Return words ``start ... start + count - 1`` of one random stream.

    Word :math:`w` is lane :math:`w \bmod 4` of

    .. math::
        \mathrm{Philox4x64\text{-}10}\bigl(
            \text{counter} = \lfloor w / 4 \rfloor,\;
            \text{key} = (\text{seed},\; 2^{48}\,\text{stream} + \text{epoch})\bigr).

    Parameters
    ----------
    seed : int
        In ``[0, 2**64)``.
    stream : int
        What the words are for, one of this module's constants; in ``[0, 2**16)``.
    epoch : int
        In ``[0, 2**48)``.
    start : int
        First word, at least 0.
    count : int
        Number of words, at least 0.

    Returns
    -------
    ndarray, shape (count,), uint64

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Costs time and memory in proportion to ``count``, wherever it starts. Only raw
    bits are taken from NumPy: what its generator methods make of them may change
    from one release to the next.

    References
    ----------
    .. [1] J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel Random
       Numbers: As Easy as 1, 2, 3", SC 2011. doi:10.1145/2063384.2063405.

    Examples
    --------
    >>> from pympi_train.random import ORDER, bits
    >>> whole = bits(7, ORDER, epoch=0, start=0, count=100)
    >>> bool((bits(7, ORDER, epoch=0, start=41, count=9) == whole[41:50]).all())
    True
    """
    seed = _checked("seed", seed, 2**64)
    stream = _checked("stream", stream, 2 ** (64 - EPOCH_BITS))
    epoch = _checked("epoch", epoch, 2**EPOCH_BITS)
    start = _checked("start", start, 2**64)
    count = _checked("count", count, 2**63)
    block, skip = divmod(start, WORDS_A_BLOCK)
    source = np.random.Philox(
        key=np.array([seed, stream << EPOCH_BITS | epoch], dtype=np.uint64),
        # NumPy adds 1 to the 256-bit counter before it makes its first block.
        counter=(block - 1) % 2**256,
    )
    return source.random_raw(skip + count)[skip:]


def uniform(seed, stream, count, *, start=0):
    """Return ``count`` numbers in [0, 1), from words ``start ...`` of a stream.

    The upper 53 bits of each word times ``2**-53``: evenly spaced, 1 never reached.

    Parameters
    ----------
    seed, stream, count, start : int
        As for `bits`; the epoch is 0.

    Returns
    -------
    ndarray, shape (count,), float64

    Raises
    ------
    ValueError
        As `bits` does.
    """
    words = bits(seed, stream, 0, start, count)
    words >>= np.uint64(11)
    return words * 2.0**-53


def _checked(name, value, end):
    value = operator.index(value)
    if not 0 <= value < end:
        raise ValueError(
            f"{name} must lie in [0, 2**{end.bit_length() - 1}), got {value}"
        )
    return value
