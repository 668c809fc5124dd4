"""Random values for made data: the same bits on every machine and rank count.

Only integer arithmetic and correctly rounded operations are used. Logarithms and
cosines, which normal numbers are usually made by, differ between NumPy's builds.
"""

import numpy as np

from pympi_train.random import SYNTHETIC, bits

# What the words of a seed are for: the epoch of `random.bits`.
FEATURES, LABELS, NOISE, WEIGHTS, CHANGES = range(5)


def made_words(seed, use, start, count):
    """Return ``count`` words of one use, from word ``start``: uint64."""
    return bits(seed, SYNTHETIC, use, start, count)


def as_normal(words):
    """Return nearly normal numbers: the scaled sum of four 16-bit parts of each word.

    Mean 0 and deviation 1; at most 3.5 in size.

    Examples
    --------
    >>> x = as_normal(made_words(1, FEATURES, 0, 100_000))
    >>> bool(abs(x.mean()) < 0.02), bool(abs(x.std() - 1) < 0.02)
    (True, True)
    """
    low = np.uint64(0xFFFF)
    total = sum((words >> np.uint64(16 * i)) & low for i in range(4))
    return (total.astype(np.float64) - 2 * 65535.0) * (3.0**0.5 / 65536.0)


def as_fraction(words):
    """Return numbers in [0, 1) of the upper 53 bits of words."""
    return (words >> np.uint64(11)) * 2.0**-53


def integers_below(words, n):
    """Return integers in [0, n), int64."""
    return (words % np.uint64(n)).astype(np.int64)


def as_bytes(words, count):
    """Return the first ``count`` bytes of words: uint8, shape (count,)."""
    return words.astype("<u8").view(np.uint8)[:count]


def made_classes(seed, start, count, n_classes, noise):
    """Return (true classes, labels): a fraction ``noise`` of labels is redrawn."""
    true = integers_below(made_words(seed, LABELS, start, count), n_classes)
    words = made_words(seed, CHANGES, 2 * start, 2 * count)
    redrawn = as_fraction(words[::2]) < noise
    return true, np.where(redrawn, integers_below(words[1::2], n_classes), true)
