"""Counter-based random bits: any word of a stream, without computing earlier words."""

import operator

import numpy as np

# One constant per use, so that no two uses of a seed share a word. Never change a
# constant: checkpoints and published results depend on it.
ORDER = 1  # order of the rows in an epoch
ROTATION = 2  # start of each round of an epoch
HOLDOUT = 3  # held-out rows
INIT = 4  # initial parameters
SYNTHETIC = 5  # made data; the epoch says for what
WINDOW = 6  # order of the rows in a window
REPEAT = 7  # rows of rare classes that come once more
SEARCH = 8  # values of the trials of a search; the epoch is the trial

EPOCH_BITS = 48  # bits of the epoch in the 64-bit key word; the stream has the rest
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
        Use of the words, one of this module's constants; in ``[0, 2**16)``.
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
    Time and memory are proportional to ``count`` and do not depend on ``start``. Only
    raw bits are taken from NumPy, because the results of its generator methods may
    change between releases.

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
        # NumPy adds 1 to the 256-bit counter before it generates its first block.
        counter=(block - 1) % 2**256,
    )
    return source.random_raw(skip + count)[skip:]


def uniform(seed, stream, count, *, start=0):
    """Return ``count`` numbers in [0, 1), from words ``start ...`` of a stream.

    Each number is the upper 53 bits of a word times ``2**-53``. The numbers are evenly
    spaced and less than 1.

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
