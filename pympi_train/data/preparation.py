"""Preparation of features: from the columns of a file to what a model takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("one-hot", "ordinal")


@dataclass(frozen=True)
class Encoding:
    """The numbers that stand for the categories of one column.

    Parameters
    ----------
    place : int
        Place of the column among the features' names.
    column : int
        Column of the features as read.
    values : tuple of str
        The categories, by their codes 0, 1, ...; "" stands for a missing value.
    kind : {"one-hot", "ordinal"}
        "one-hot": a column of 0 and 1 for each category. "ordinal": one column, the
        code.
    has_other : bool
        Whether one more code, the last, is for unknown categories.
    """

    place: int
    column: int
    values: tuple
    kind: str = "one-hot"
    has_other: bool = False

    @property
    def n_codes(self):
        """Number of codes."""
        return len(self.values) + self.has_other

    @property
    def width(self):
        """Number of columns made of this one."""
        return self.n_codes if self.kind == "one-hot" else 1

    def codes_of(self, texts):
        """Return the code of each of some categories; -1 for unknown ones."""
        place = {text: i for i, text in enumerate(self.values)}
        unknown = len(self.values) if self.has_other else -1
        return np.array([place.get(text, unknown) for text in texts], dtype=np.intp)

    def names(self, name):
        """Return the names of the columns made of the column ``name``."""
        if self.kind == "ordinal":
            return [name]
        names = [f"{name}={value or 'missing'}" for value in self.values]
        return names + [f"{name}=other"] * self.has_other


@dataclass(frozen=True)
class Preparation:
    """What happens to the features of a row between the file and the model.

    In this order: missing values are filled, numbers and the codes of ordinal
    categories are standardised and limited, other categories become columns. Each
    row is prepared alone, so the result does not depend on which rows are prepared
    together.

    Parameters
    ----------
    n_columns : int
        Features as read.
    missing : {"fail", "mean", "median", "zero", "drop"}
        What was done about missing values in training.
    fill : ndarray, shape (n_columns,), or None
        What replaces a missing value of each column; None: none may be missing.
    indicators : tuple of int
        Columns with a further column, at the end: 1 where the value was missing.
    encodings : tuple of Encoding
        In the order of their columns.
    dates : tuple of (int, int)
        Place among the features' names, and column, of dates.
    scaling : Scaling or None
        Of all columns; one-hot columns keep their codes.
    clip : float or None
        Largest absolute value of a standardised number.
    """

    n_columns: int
    missing: str = "fail"
    fill: Any = None
    indicators: tuple = ()
    encodings: tuple = ()
    dates: tuple = ()
    scaling: Any = None
    clip: Any = None

    @property
    def n_features(self):
        """Number of columns that the model takes."""
        widths = sum(encoding.width - 1 for encoding in self.encodings)
        return self.n_columns + widths + len(self.indicators)

    @property
    def scaled_columns(self):
        """Which of the model's columns are standardised, shape (n_features,), bool."""
        parts, taken = [], 0
        for encoding in self.encodings:
            if encoding.kind == "one-hot":
                parts += [(True, encoding.column - taken), (False, encoding.width)]
                taken = encoding.column + 1
        parts += [(True, self.n_columns - taken), (False, len(self.indicators))]
        values, counts = zip(*parts)
        return np.repeat(values, counts) & (self.scaling is not None)

    @property
    def is_plain(self):
        """Whether features are taken as they are."""
        return self.scaling is None and self._is_scaling

    @property
    def _is_scaling(self):
        """Whether features are scaled at most."""
        return self.fill is None and not self.encodings and self.clip is None

    @property
    def keeps_zeros(self):
        """Whether 0 stays 0, so that sparse rows stay sparse."""
        is_centred = self.scaling is not None and self.scaling.mean.any()
        return self.fill is None and not self.encodings and not is_centred

    @np.errstate(over="ignore", invalid="ignore")
    def apply(self, x):
        """Return prepared rows, (k, n_features), of rows as read, (k, n_columns).

        float64, or ``x`` itself if there is nothing to do.
        """
        if self._is_scaling:
            return x if self.scaling is None else self.scaling.apply(x)
        x = np.array(x, dtype=np.float64)
        lacks = np.isnan(x)
        if self.fill is not None:
            np.copyto(x, self.fill, where=lacks)
        if self.scaling is not None:
            x = self.scaling.apply(x)
        out = np.empty((len(x), self.n_features))
        taken = at = 0
        for encoding in self.encodings:
            if encoding.kind == "one-hot":
                at = self._copy(x[:, taken : encoding.column], out, at)
                codes, stop = x[:, encoding.column, None], at + encoding.width
                out[:, at:stop] = codes == np.arange(encoding.width)
                at, taken = stop, encoding.column + 1
        at = self._copy(x[:, taken:], out, at)
        out[:, at:] = lacks[:, list(self.indicators)]
        return out

    def _copy(self, numbers, out, at):
        """Copy columns of numbers, limited, to ``out``; return where the next go."""
        stop = at + numbers.shape[1]
        if self.clip is None:
            out[:, at:stop] = numbers
        else:
            np.clip(numbers, -self.clip, self.clip, out=out[:, at:stop])
        return stop

    def names(self, names):
        """Return the names of the model's columns, given those of the features.

        None if the features have no names, or some hold several columns.
        """
        if names is None or len(names) != self.n_columns:
            return None
        encodings = {encoding.place: encoding for encoding in self.encodings}
        out = []
        for i, name in enumerate(names):
            out += encodings[i].names(name) if i in encodings else [name]
        return out + [f"{names[i]} is missing" for i in self.indicators]
