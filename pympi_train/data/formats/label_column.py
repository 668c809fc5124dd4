"""Class labels in files: integers if all labels are integers, else text.

The rules are the same in every format:

- Blanks around a label are ignored.
- A label is a whole number that fits 64 bits, or text.
- True and False are 1 and 0 if there are no other labels.
- A number that is not whole is a quantity and raises an error.
- A missing label raises an error: an empty text, or a text in MISSING.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.data.formats.rows import shown
from pympi_train.errors import DataError

# Digits with a leading zero are text: "007" is not "7".
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
)
MISSING = ("", "nan", "-nan", "nat", "na", "n/a", "#n/a", "<na>", "null")  # any case
BOOLEANS = {"false": 0, "true": 1}  # any case
BLOCK_ROWS = 65536  # of a text array, converted to Python strings at once
_FIRST_OF_NUMBER = frozenset("+-.0123456789iI")
_INFINITE = ("inf", "infinity")
_INT64 = range(-(2**63), 2**63)


def as_integer(text):
    """Return the integer that a label spells (``7``, ``+1``, ``1.0``), or None."""
    text = text.strip(" \t")
    if _INTEGER.fullmatch(text) and len(text) <= 24:
        value = int(text)
    elif _NUMBER.fullmatch(text) and abs(float(text)) < 2**53:
        value = int(float(text))
        if value != Decimal(text):  # float() rounds 0.99999999999999999 to 1
            return None
    else:
        return None
    return value if value in _INT64 else None


def why_no_label(text):
    """Return why ``text``, without blanks around it, is no class label, or None."""
    if text.casefold() in MISSING:
        return (
            f"expected a class label, found {shown(text)}; "
            "remove the rows that have no label"
        )
    if not _is_utf8(text):
        return f"expected a class label, found {shown(text)}, which is no valid text"
    if text[0] not in _FIRST_OF_NUMBER or as_integer(text) is not None:
        return None
    is_infinite = text.lstrip("+-").casefold() in _INFINITE
    if not is_infinite and not _NUMBER.fullmatch(text):
        return None
    if not is_infinite and _is_whole(Decimal(text)):
        return (
            f"expected a class label, found {shown(text)}: whole numbers have to be "
            "below 2^63, and below 2^53 as a decimal; if this is a name, put a letter "
            "before it"
        )
    return (
        "expected a class label, a whole number of 64 bits or text, found "
        f"{shown(text)}; to predict a quantity, choose a regression ([model] "
        'kind = "linear", or mlp with task = "regression"; in Python, pt.load(..., '
        'task="regression"))'
    )


def _is_utf8(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_whole(number):
    return number == number.to_integral_value()


class _Texts(dict):
    """The code of each text, assigned on first use."""

    def __init__(self):
        super().__init__()
        self.distinct = {}  # codes of texts without the blanks around them

    def __missing__(self, text):
        known = self.distinct
        code = self[text] = known.setdefault(text.strip(), len(known))
        return code


class LabelColumn:
    """The labels of this rank's rows: each distinct text once, and a code per row.

    Parameters
    ----------
    n_rows : int
        Number of rows of this rank, ``k``.
    """

    def __init__(self, n_rows):
        self._codes = np.zeros(n_rows, dtype=np.intp)
        self._texts = _Texts()

    def put(self, at, texts):
        """Set the labels of the rows from ``at`` on."""
        known = self._texts
        codes = [known[text] for text in texts]
        self._codes[at : at + len(codes)] = codes

    def require_labels(self, place):
        """Raise DataError at the first text that is not a label.

        ``place(row)`` returns the beginning of the message.
        """
        wrong = [why_no_label(text) for text in self._texts.distinct]
        if any(wrong):
            is_wrong = np.array([why is not None for why in wrong])
            row = int(np.argmax(is_wrong[self._codes]))
            raise DataError(f"{place(row)}: {wrong[self._codes[row]]}")

    def agree(self, comm, name, text_labels=None, first_row=0):
        """Return the labels, shape (k,), int64 or TextLabels on all ranks. Collective.

        Parameters
        ----------
        comm : MPI.Comm
            The ranks that read the file.
        name : str
            The data set, for messages.
        text_labels : bool or None, default None
            True: all labels are text, even digits. False: integers. None: integers if
            every label on all ranks is an integer, or every label is True or False.
        first_row : int
            Number of the first row in the data set, for messages.

        Raises
        ------
        DataError
            If ``text_labels`` is False and a label is not an integer.
        """
        from mpi4py import MPI

        texts = list(self._texts.distinct)
        integers = [as_integer(text) for text in texts]
        booleans = [BOOLEANS.get(text.casefold()) for text in texts]
        odd = [text for text, value in zip(texts, integers) if value is None]
        facts = np.array([len(odd), booleans.count(None)], dtype=np.int64)
        comm.Allreduce(MPI.IN_PLACE, facts, op=MPI.MAX)
        if facts[0] and (text_labels is False or not facts[1]):
            pairs = zip(integers, booleans)
            integers = [b if value is None else value for value, b in pairs]
            if text_labels is False:
                self._require_integers(comm, name, integers, first_row)
            facts[0] = 0
        if facts[0] or text_labels:
            return self.as_text()
        values = np.array(integers, dtype=np.int64)
        return values[self._codes] if len(texts) else np.empty(0, dtype=values.dtype)

    def _require_integers(self, comm, name, integers, first_row):
        """Raise DataError on all ranks if any rank has a non-integer. Collective."""
        is_odd = np.array([value is None for value in integers], dtype=bool)
        rows = np.flatnonzero(is_odd[self._codes]) if is_odd.any() else ()
        mine = None
        if len(rows):
            row, texts = int(rows[0]), list(self._texts.distinct)
            mine = first_row + row, shown(texts[self._codes[row]])
        found = [pair for pair in comm.allgather(mine) if pair is not None]
        if found:
            row, text = found[0]
            message = (
                f"{name}: row {row} (from 0) has the label {text}, which no training "
                "row has: those are whole numbers"
            )
            raise agreed_within(comm, DataError(message))

    def as_text(self):
        """Return the labels as TextLabels, even if they are integers."""
        return TextLabels(np.array(list(self._texts.distinct), dtype=str), self._codes)


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


class StoredLabels(NamedTuple):
    """Labels as stored in one array.

    Attributes
    ----------
    values : ndarray, shape (k,)
    place : str
        File and array, for messages.
    first_row : int
        Row number of ``values[0]`` there.
    """

    values: np.ndarray
    place: str
    first_row: int

    def at(self, row):
        """Return the place of a row of ``values``."""
        return f"{self.place}, row {self.first_row + row} (from 0)"


def labels_of_parts(parts, dtype, text_labels=None):
    """Return labels as int64 or TextLabels, or text as a LabelColumn to be agreed.

    Integers, booleans and whole floats become int64. Bytes are decoded as UTF-8. The
    kind of result depends only on the dtype and ``text_labels``, so it is the same on
    every rank.

    Parameters
    ----------
    parts : list of StoredLabels
        This rank's rows; there may be none.
    dtype : dtype
        Of the labels, as stored.
    text_labels : bool or None, default None
        True: integers become text.

    Raises
    ------
    DataError
        For a value that is not a label; the message gives its row.
    """
    if dtype.kind in "US":
        return _decoded(parts)
    if dtype.kind == "b" and text_labels:
        codes = [part.values.astype(np.intp) for part in parts]
        return TextLabels(np.array(["False", "True"]), _joined(codes, np.intp))
    whole = _joined([_integers(part) for part in parts], np.int64)
    if not text_labels:
        return whole
    distinct, codes = np.unique(whole, return_inverse=True)
    return TextLabels(distinct.astype(str), codes)


def _joined(parts, dtype):
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _integers(part):
    """Return stored numbers as int64; raise DataError at one that is not whole."""
    values = part.values
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{part.place}: expected class labels (integers or text), found dtype "
            f"{values.dtype}"
        )
    if values.dtype.kind == "f":  # larger values may have lost digits
        as_floats = values.astype(np.float64, copy=False)
        good = np.abs(as_floats) < 2.0**53
        good &= as_floats == np.floor(as_floats)
    else:
        good = values <= np.uint64(2**63 - 1) if values.dtype.kind == "u" else True
    if not np.all(good):
        row = int(np.argmin(good))
        raise DataError(f"{part.at(row)}: {why_no_label(str(values[row]))}")
    return values.astype(np.int64)


def _decoded(parts):
    starts = np.cumsum([0, *(len(part.values) for part in parts)])
    column = LabelColumn(int(starts[-1]))
    for part, at in zip(parts, starts.tolist()):
        for start in range(0, len(part.values), BLOCK_ROWS):
            block = part.values[start : start + BLOCK_ROWS]
            column.put(at + start, _texts(block, part, start))

    def place(row):
        i = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[i].at(row - int(starts[i]))

    column.require_labels(place)
    return column


def _texts(block, part, start):
    texts = block.tolist()
    for row, label in enumerate(texts if block.dtype.kind == "S" else ()):
        try:
            texts[row] = label.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"{part.at(start + row)}: label {label!r} is not UTF-8"
            ) from None
    return texts
