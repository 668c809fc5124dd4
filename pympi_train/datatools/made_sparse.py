"""Made sparse rows as LIBSVM text."""

import os

import numpy as np

from pympi_train.datatools.folder import shard_name
from pympi_train.datatools.made_tables import BLOCK_ROWS
from pympi_train.datatools.made_values import (
    CHANGES,
    FEATURES,
    WEIGHTS,
    as_fraction,
    as_normal,
    made_words,
)
from pympi_train.errors import ConfigError


class SparseText:
    """Writes rows ``label index:value ...`` with labels 1 and -1 of a linear model.

    Parameters
    ----------
    n, features, nonzeros : int
        Rows, width, and entries of each row.
    noise : float
        Fraction of the labels that is turned round.
    seed : int
    """

    format = "svm"

    def __init__(self, n, *, features, nonzeros, noise, seed, **_):
        if nonzeros > features:
            raise ConfigError(
                f"--nonzeros {nonzeros} of --features {features}: a row cannot have "
                "more entries than features"
            )
        self.n, self._noise, self._seed = n, noise, seed
        # One entry in each of as many ranges of indices: distinct, and ascending.
        cuts = np.arange(nonzeros + 1) * features // nonzeros
        self._starts, self._sizes = cuts[:-1], np.diff(cuts).astype(np.uint64)
        self._weights = as_normal(made_words(seed, WEIGHTS, 0, features))

    @property
    def row_bytes(self):
        """Bytes of a row of text, about."""
        return 16 * len(self._starts)

    def write(self, folder, number, rows):
        """Write rows (start, stop); return (rows, names of the files)."""
        start, stop = rows
        name = shard_name("part", number, ".svm")
        with open(os.path.join(folder, name), "xb") as file:
            for first in range(start, stop, BLOCK_ROWS):
                file.write(self.lines(first, min(first + BLOCK_ROWS, stop)))
            file.flush()
            os.fsync(file.fileno())
        return stop - start, [name]

    def lines(self, start, stop):
        """Return the lines of rows ``start`` to ``stop - 1`` as bytes."""
        count, m = stop - start, len(self._starts)
        words = made_words(self._seed, FEATURES, start * m, count * m)
        words = words.reshape(count, m)
        indices = self._starts + (words % self._sizes).astype(np.int64)
        percent = 1 + ((words >> np.uint64(40)) % np.uint64(100)).astype(np.int64)
        scores = np.zeros(count)
        for column, index in zip(percent.T, indices.T):
            scores += column * self._weights[index]
        changes = made_words(self._seed, CHANGES, start, count)
        turned = as_fraction(changes) < self._noise
        labels = np.where((scores > 0) ^ turned, 1, -1)
        values = [f":{p / 100:g}" for p in range(101)]
        lines = []
        for label, row, parts in zip(labels, (indices + 1).tolist(), percent.tolist()):
            pairs = [f"{index}{values[part]}" for index, part in zip(row, parts)]
            lines.append(f"{label} {' '.join(pairs)}\n")
        return "".join(lines).encode()
