"""Class labels as they stand in files: integers where all are, else text."""

import re
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.data.formats.rows import shown
from pympi_train.errors import DataError

# A leading zero makes a name of digits: "007" is not "7".
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
)
BLOCK_ROWS = 65536  # of an array of text, made Python's at once
_INT64 = range(-(2**63), 2**63)


def as_integer(text):
    """Return the integer that a label spells (``7``, ``+1``, ``1.0``), or None."""
    text = text.strip(" \t")
    if _INTEGER.fullmatch(text) and len(text) <= 24:
        value = int(text)
    elif _NUMBER.fullmatch(text) and abs(float(text)) < 2**53:
        value = int(float(text))
        if value != Decimal(text):  # as float, 0.99999999999999999 is 1
            return None
    else:
        return None
    return value if value in _INT64 else None


class LabelColumn:
    """The labels of this rank's rows: each distinct text once, and a code a row.

    Parameters
    ----------
    n_rows : int
        Rows of this rank, ``k``.
    """

    def __init__(self, n_rows):
        self._codes = np.zeros(n_rows, dtype=np.intp)
        self._texts = {}

    def put(self, at, texts):
        """Set the labels of rows ``at`` and following."""
        known = self._texts
        codes = [known.setdefault(text, len(known)) for text in texts]
        self._codes[at : at + len(codes)] = codes

    def agree(self, comm, path, text_labels=None):
        """Return the labels, shape (k,), int64 or TextLabels on all ranks. Collective.

        Parameters
        ----------
        comm : MPI.Comm
            The ranks that read the file.
        path : str
            For messages.
        text_labels : bool or None, default None
            True: text, whatever it spells. False: integers. None: integers if every
            label on every rank spells one.

        Raises
        ------
        DataError
            If ``text_labels`` is False and some label is no integer.
        """
        from mpi4py import MPI

        texts = list(self._texts)
        integers = [as_integer(text) for text in texts]
        odd = [text for text, value in zip(texts, integers) if value is None]
        facts = np.array([len(odd)], dtype=np.int64)
        comm.Allreduce(MPI.IN_PLACE, facts, op=MPI.MAX)
        if facts[0] and text_labels is False:
            odd = [text for part in comm.allgather(odd[:1]) for text in part]
            text = f"{path}: expected integer class labels, found {shown(odd[0])}"
            raise agreed_within(comm, DataError(text))
        if facts[0] or text_labels:
            return self.as_text()
        values = np.array(integers, dtype=np.int64)
        return values[self._codes] if len(texts) else np.empty(0, dtype=values.dtype)

    def as_text(self):
        """Return the labels as TextLabels, whatever they spell."""
        return TextLabels(np.array(list(self._texts), dtype=str), self._codes)


@dataclass(frozen=True)
class TextLabels:
    """Labels of text: memory goes by rows and distinct labels, not by the longest.

    Parameters
    ----------
    values : ndarray of str, shape (c,)
        Each distinct label once, in any order; perhaps some that no row has.
    codes : ndarray of intp, shape (k,)
        Which of ``values`` each row has.
    """

    values: np.ndarray
    codes: np.ndarray

    def __len__(self):
        return len(self.codes)

    def __getitem__(self, index):
        """Return the labels of some rows; of one, the text."""
        if isinstance(index, (int, np.integer)):
            return str(self.values[self.codes[index]])
        return TextLabels(self.values, self.codes[index])

    def tolist(self):
        """Return the text of each row."""
        return self.values[self.codes].tolist()

    @property
    def dtype(self):
        """Of ``values``."""
        return self.values.dtype


def labels_of_array(values, place, first_row, text_labels=None):
    """Return k labels, as int64 or TextLabels.

    Integers and booleans become int64, and so do floats if all of them are integral;
    text stays, bytes are decoded as UTF-8. Which of them follows from the dtype of
    ``values`` alone and so is the same on every rank.

    Parameters
    ----------
    values : ndarray, shape (k,)
        Labels as stored.
    place : str
        File and array, for messages.
    first_row : int
        Row number of ``values[0]`` in the file.
    text_labels : bool or None, default None
        True: integers become text. False: text is refused.

    Raises
    ------
    DataError
        For a label that is none of these, with its row.
    """
    if values.dtype.kind in "US":
        if text_labels is False:
            raise DataError(f"{place}: expected integer class labels, found text")
        return _decoded(values, place, first_row)
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{place}: expected class labels (integers or text), found dtype "
            f"{values.dtype}"
        )
    # float(2**63) itself is out of range, so is what compares equal to it.
    good = values < 2.0**63
    if values.dtype.kind == "f":
        good &= values >= -(2.0**63)
        good &= values == np.floor(values)
    if not np.all(good):
        row = int(np.argmin(good))
        raise DataError(
            f"{place}, row {first_row + row} (from 0): expected a class label (an "
            f"integer or text), found {values[row]}"
        )
    whole = values.astype(np.int64)
    if not text_labels:
        return whole
    distinct, codes = np.unique(whole, return_inverse=True)
    return TextLabels(distinct.astype(str), codes)


def _decoded(values, place, first_row):
    column = LabelColumn(len(values))
    for start in range(0, len(values), BLOCK_ROWS):
        part = values[start : start + BLOCK_ROWS].tolist()
        for row, label in enumerate(part if values.dtype.kind == "S" else ()):
            try:
                part[row] = label.decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(
                    f"{place}, row {first_row + start + row} (from 0): label {label!r} "
                    "is not UTF-8"
                ) from None
        column.put(start, part)
    return column.as_text()
