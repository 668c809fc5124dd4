"""Class labels as they stand in files: integers where all are, else text."""

import re
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
        """Return the labels, shape (k,), of one dtype on all ranks. Collective.

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
        facts = np.array([len(odd), max(map(len, texts), default=1)], dtype=np.int64)
        comm.Allreduce(MPI.IN_PLACE, facts, op=MPI.MAX)
        if facts[0] and text_labels is False:
            odd = [text for part in comm.allgather(odd[:1]) for text in part]
            text = f"{path}: expected integer class labels, found {shown(odd[0])}"
            raise agreed_within(comm, DataError(text))
        if facts[0] or text_labels:
            values = np.array(texts, dtype=f"<U{facts[1]}")
        else:
            values = np.array(integers, dtype=np.int64)
        return values[self._codes] if len(texts) else np.empty(0, dtype=values.dtype)


def labels_of_array(values, place, first_row, text_labels=None):
    """Return a (k,) array of labels as int64 or str.

    Integers and booleans become int64, and so do floats if all of them are integral;
    text stays, bytes are decoded as UTF-8. The dtype follows from that of ``values``
    alone and so is the same on every rank.

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
    return whole.astype("<U20") if text_labels else whole


def _decoded(values, place, first_row):
    width = max(1, values.dtype.itemsize // (4 if values.dtype.kind == "U" else 1))
    if values.dtype.kind == "S":
        for row, label in enumerate(values):
            try:
                label.decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(
                    f"{place}, row {first_row + row} (from 0): label {label!r} is not "
                    "UTF-8"
                ) from None
        values = np.char.decode(values, "utf-8")
    return values.astype(f"<U{width}")
