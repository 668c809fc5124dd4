"""Made data as tables: regression, classification, images and tokens."""

import numpy as np

from pympi_train.data.tables.source import Field, Table
from pympi_train.datatools.made_values import (
    FEATURES,
    NOISE,
    WEIGHTS,
    as_bytes,
    as_normal,
    integers_below,
    made_classes,
    made_words,
)

BLOCK_ROWS = 4096  # made at once, whatever rows are asked for
RUN = 64  # tokens that follow from one another
SURPRISE = 8  # one token of so many is drawn at random
PATCH = 4  # pixels of a side of equal brightness in the pattern of a class


class MadeTable(Table):
    """Rows that a function makes, block by block.

    Parameters
    ----------
    name : str
    n : int
    fields : list of Field
    make : callable
        ``make(start, count)`` returns a batch. ``start`` is a multiple of BLOCK_ROWS.
    """

    def __init__(self, name, n, fields, make):
        super().__init__(name, (), n, fields)
        self._make = make

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1``; see `Table`."""
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first = block * BLOCK_ROWS
            count = min(BLOCK_ROWS, self.n - first)
            some = slice(max(start - first, 0), min(stop - first, count))
            batch = self._make(first, count)
            yield {name: values[some] for name, values in batch.items()}


def make_regression(n, *, features, noise, seed, **_):
    """Return the Table of a linear regression: ``x0``, ``x1`` ..., and ``y``."""
    weights = as_normal(made_words(seed, WEIGHTS, 0, features)) / features**0.5
    names = [f"x{i}" for i in range(features)]

    def make(start, count):
        words = made_words(seed, FEATURES, start * features, count * features)
        x = as_normal(words).astype(np.float32).reshape(count, features)
        y = noise * as_normal(made_words(seed, NOISE, start, count))
        for column, weight in zip(x.T, weights):  # BLAS would add in another order
            y += column * np.float64(weight)
        return {**dict(zip(names, x.T)), "y": y.astype(np.float32)}

    fields = [Field(name, "float32") for name in [*names, "y"]]
    return MadeTable("regression", n, fields, make)


def make_classification(n, *, features, classes, noise, seed, **_):
    """Return the Table of clouds around the centre of each class, and ``label``."""
    centres = as_normal(made_words(seed, WEIGHTS, 0, classes * features))
    centres = centres.reshape(classes, features)
    names = [f"x{i}" for i in range(features)]

    def make(start, count):
        true, labels = made_classes(seed, start, count, classes, noise)
        words = made_words(seed, FEATURES, start * features, count * features)
        x = as_normal(words).reshape(count, features) + centres[true]
        return {**dict(zip(names, x.astype(np.float32).T)), "label": labels}

    fields = [*(Field(name, "float32") for name in names), Field("label", "int64")]
    return MadeTable("classification", n, fields, make)


def make_images(n, *, classes, side, channels, noise, seed, **_):
    """Return the Table of noisy patterns, one a class: ``image`` and ``label``."""
    patches = -(-side // PATCH)
    count = classes * patches * patches * channels
    small = as_bytes(made_words(seed, WEIGHTS, 0, -(-count // 8)), count)
    small = small.reshape(classes, patches, patches, channels)
    patterns = small.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :side, :side] // 2
    size = side * side * channels
    n_words = -(-size // 8)

    def make(start, count):
        true, labels = made_classes(seed, start, count, classes, noise)
        words = made_words(seed, FEATURES, start * n_words, count * n_words)
        specks = as_bytes(words, 8 * len(words)).reshape(count, -1)[:, :size] // 2
        images = patterns[true] + specks.reshape(count, side, side, channels)
        return {"image": images, "label": labels}

    shape = (side, side, channels)
    fields = [Field("image", "uint8", shape), Field("label", "int64")]
    return MadeTable("images", n, fields, make)


def make_tokens(n, *, vocabulary, seed, **_):
    """Return the Table of ``token``: runs in which most tokens follow from the last."""
    kind = "uint16" if vocabulary <= 2**16 else "uint32"

    def make(start, count):
        # Whole runs, of which the last may be cut.
        words = made_words(seed, FEATURES, start, BLOCK_ROWS).reshape(-1, RUN)
        changes = made_words(seed, NOISE, start, BLOCK_ROWS).reshape(-1, RUN)
        drawn = integers_below(words, vocabulary)
        is_drawn = integers_below(changes, SURPRISE) == 0
        tokens = np.empty_like(drawn)
        last = tokens[:, 0] = drawn[:, 0]
        for i in range(1, RUN):
            last = np.where(is_drawn[:, i], drawn[:, i], (31 * last + 7) % vocabulary)
            tokens[:, i] = last
        return {"token": tokens.reshape(-1)[:count].astype(kind)}

    return MadeTable("tokens", n, [Field("token", kind)], make)
