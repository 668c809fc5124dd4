"""Columns of text: each distinct text once, and a code per row."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.rows import shown
from pympi_train.errors import DataError

MISSING = ("", "nan", "-nan", "nat", "na", "n/a", "#n/a", "<na>", "null")  # any case
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def is_missing(text):
    """Return whether a field stands for no value."""
    return text.strip().casefold() in MISSING


class _Codes(dict):
    """The code of each text, assigned on first use; -1 for no value."""

    def __init__(self):
        super().__init__()
        self.distinct = {}  # codes of texts without the blanks around them
        self.no_value = ""  # the first text that stands for no value

    def __missing__(self, text):
        known = self.distinct
        plain = text.strip()
        if is_missing(plain):
            self.no_value = self.no_value or plain
            code = -1
        else:
            code = known.setdefault(plain, len(known))
        self[text] = code
        return code


class Coded(NamedTuple):
    """Texts of some rows, each distinct text once.

    Attributes
    ----------
    distinct : list of str
    codes : ndarray of integers, shape (m,)
        Index in ``distinct`` of each row's text; -1 for no value.
    """

    distinct: list
    codes: np.ndarray


class TextColumn:
    """The texts of this rank's rows.

    Parameters
    ----------
    n_rows : int
        Number of rows of this rank, ``k``.

    Attributes
    ----------
    codes : ndarray of intp, shape (k,)
        Index in ``distinct`` of each row's text; -1 for a missing value.
    """

    def __init__(self, n_rows):
        self.codes = np.full(n_rows, -1, dtype=np.intp)
        self._known = _Codes()

    @property
    def distinct(self):
        """The distinct texts, without the blanks around them: list of str."""
        return list(self._known.distinct)

    def put(self, at, texts):
        """Set the texts of the rows from ``at`` on: a Coded, or an iterable of str."""
        known = self._known
        if isinstance(texts, Coded):
            codes = np.array([*(known[text] for text in texts.distinct), -1])
            codes = codes[texts.codes]
        else:
            codes = [known[text] for text in texts]
        self.codes[at : at + len(codes)] = codes

    def require(self, why_wrong, place):
        """Raise DataError at the first text for which ``why_wrong(text)`` is a reason.

        ``place(row)`` returns the beginning of the message.
        """
        texts = [*self.distinct, self._known.no_value]  # the last has code -1
        wrong = list(map(why_wrong, texts))
        is_wrong = np.array([why is not None for why in wrong])[self.codes]
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            raise DataError(f"{place(row)}: {wrong[self.codes[row]]}")

    def as_text(self):
        """Return the texts as TextLabels, "" where missing."""
        values = np.array([*self.distinct, ""], dtype=str)
        return TextLabels(values, np.where(self.codes < 0, len(values) - 1, self.codes))


class DayColumn:
    """The dates of this rank's ``n_rows`` rows, as days since 1970-01-01.

    Attributes
    ----------
    days : ndarray of float64, shape (k,)
        NaN for a missing value.
    """

    def __init__(self, n_rows):
        self.days = np.full(n_rows, np.nan)

    def put(self, at, found):
        """Set the rows from ``at`` on: days, or texts as for `TextColumn.put`."""
        if not isinstance(found, np.ndarray):
            column = TextColumn(len(found.codes if isinstance(found, Coded) else found))
            column.put(0, found)
            found = as_days(column)
        self.days[at : at + len(found)] = found


@dataclass(frozen=True)
class TextLabels:
    """Text labels: memory does not grow with the longest label times the rows.

    Parameters
    ----------
    values : ndarray of str, shape (c,)
        Each distinct label once, in any order. Some may not occur in any row.
    codes : ndarray of intp, shape (k,)
        Index in ``values`` of each row's label.
    """

    values: np.ndarray
    codes: np.ndarray

    def __len__(self):
        return len(self.codes)

    def __getitem__(self, index):
        """Return the labels of some rows, or the text of one row."""
        if isinstance(index, (int, np.integer)):
            return str(self.values[self.codes[index]])
        return TextLabels(self.values, self.codes[index])

    def tolist(self):
        """Return the text of each row."""
        return self.values[self.codes].tolist()

    @property
    def dtype(self):
        """Dtype of ``values``."""
        return self.values.dtype


def why_no_category(text):
    """Return why a text names no category, or None."""
    if is_missing(text):
        return (
            f"expected a category, found {shown(text)}; [data] missing = "
            '"median" makes it a category of its own, "drop" leaves the row out'
        )
    return None


def why_no_date(text):
    """Return why a text is no date, or None."""
    try:
        days_of(text)
    except ValueError:
        return (
            f"expected a date or time of ISO 8601, such as 2026-01-31 or "
            f"2026-01-31T12:30, found {shown(text)}"
        )
    return None


def days_of(text):
    """Return the days from 1970-01-01, UTC, to a date or time of ISO 8601.

    A time without a zone is UTC.
    """
    return (parse_time(text) - _EPOCH) / timedelta(days=1)


def parse_time(text):
    """Return a date or time of ISO 8601 as datetime; without a zone it is UTC."""
    time = datetime.fromisoformat(text.strip())
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def as_days(column):
    """Return a TextColumn of dates as days, shape (k,), float64; NaN where missing."""
    days = [days_of(text) for text in column.distinct]
    return np.array([*days, np.nan])[column.codes]
