"""Class labels in files: integers if all labels are integers, else text.

The rules are the same in every format:

- Blanks around a label are ignored.
- A label is a whole number that fits 64 bits, or text.
- True and False are 1 and 0 if there are no other labels.
- A number that is not whole is a quantity and raises an error.
- A missing label raises an error: an empty text, or a text in MISSING.
"""

import re
from decimal import Decimal

import numpy as np

from pympi_train.comm.checks import agreed_within
from pympi_train.data.formats.rows import shown
from pympi_train.data.formats.text_column import TextColumn, is_missing
from pympi_train.errors import DataError

# Digits with a leading zero are text: "007" is not "7".
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
NUMBER = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
)
BOOLEANS = {"false": 0, "true": 1}  # any case
_FIRST_OFNUMBER = frozenset("+-.0123456789iI")
_INFINITE = ("inf", "infinity")
_INT64 = range(-(2**63), 2**63)


def as_integer(text):
    """Return the integer that a label spells (``7``, ``+1``, ``1.0``), or None."""
    text = text.strip(" \t")
    if _INTEGER.fullmatch(text) and len(text) <= 24:
        value = int(text)
    elif NUMBER.fullmatch(text) and abs(float(text)) < 2**53:
        value = int(float(text))
        if value != Decimal(text):  # float() rounds 0.99999999999999999 to 1
            return None
    else:
        return None
    return value if value in _INT64 else None


def why_no_label(text, optional=False):
    """Return why ``text``, without blanks around it, is no class label, or None.

    If the label is ``optional``, it may be missing.
    """
    if is_missing(text):
        return None if optional else (
            f"expected a class label, found {shown(text)}; "
            'remove the rows that have no label, or set [data] missing = "drop"'
        )
    if not _is_utf8(text):
        return f"expected a class label, found {shown(text)}, which is no valid text"
    if text[0] not in _FIRST_OFNUMBER or as_integer(text) is not None:
        return None
    is_infinite = text.lstrip("+-").casefold() in _INFINITE
    if not is_infinite and not NUMBER.fullmatch(text):
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


class LabelColumn(TextColumn):
    """The labels of this rank's rows."""

    @property
    def absent(self):
        """Mask of the rows that lack a label; None if no row does."""
        mask = self.codes < 0
        return mask if mask.any() else None

    def require_labels(self, place, optional=False):
        """Raise DataError at the first text that is not a label.

        ``place(row)`` returns the beginning of the message. Labels may be missing if
        they are ``optional``.
        """
        self.require(lambda text: why_no_label(text, optional), place)

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

        texts = self.distinct
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
        return np.array([*integers, 0], dtype=np.int64)[self.codes]

    def _require_integers(self, comm, name, integers, first_row):
        """Raise DataError on all ranks if any rank has a non-integer. Collective."""
        is_odd = np.array([*(value is None for value in integers), False])
        rows = np.flatnonzero(is_odd[self.codes])
        mine = None
        if len(rows):
            row, texts = int(rows[0]), self.distinct
            mine = first_row + row, shown(texts[self.codes[row]])
        found = [pair for pair in comm.allgather(mine) if pair is not None]
        if found:
            row, text = found[0]
            message = (
                f"{name}: row {row} (from 0) has the label {text}, which no training "
                "row has: those are whole numbers"
            )
            raise agreed_within(comm, DataError(message))
