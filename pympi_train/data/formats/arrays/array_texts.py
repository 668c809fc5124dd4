"""Labels, categories and dates in stored arrays."""

from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.label_column import LabelColumn, why_no_label
from pympi_train.data.formats.text_column import (
    TextColumn,
    TextLabels,
    as_days,
    is_missing,
    why_no_date,
)
from pympi_train.data.values import require_finite
from pympi_train.errors import DataError

BLOCK_ROWS = 65536  # of a text array, converted to Python strings at once
TEXT_KINDS = "USO"  # O: text of any length, from HDF5 or Zarr; never an .npy object


class StoredPart(NamedTuple):
    """Own rows of one stored array.

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


def labels_of_parts(parts, dtype, text_labels=None, optional=False):
    """Return labels as int64 or TextLabels, or text as a LabelColumn to be agreed.

    Integers, booleans and whole floats become int64. Bytes are decoded as UTF-8. The
    kind of result depends only on the dtype and ``text_labels``, so it is the same on
    every rank.

    Parameters
    ----------
    parts : list of StoredPart
        This rank's rows; there may be none.
    dtype : dtype
        Of the labels, as stored.
    text_labels : bool or None, default None
        True: integers become text.
    optional : bool
        Whether labels may be missing; NaN then becomes 0.

    Raises
    ------
    DataError
        For a value that is not a label; the message gives its row.
    """
    if dtype.kind in TEXT_KINDS:
        column, place = decoded(parts, LabelColumn)
        column.require_labels(place, optional)
        return column
    if dtype.kind == "b" and text_labels:
        codes = [part.values.astype(np.intp) for part in parts]
        return TextLabels(np.array(["False", "True"]), _joined(codes, np.intp))
    whole = _joined([_integers(part, optional) for part in parts], np.int64)
    if not text_labels:
        return whole
    distinct, codes = np.unique(whole, return_inverse=True)
    return TextLabels(distinct.astype(str), codes)


def _joined(parts, dtype):
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _integers(part, optional):
    """Return stored numbers as int64; raise DataError at one that is not whole."""
    values = part.values
    if optional and values.dtype.kind == "f":
        values = np.where(np.isnan(values), 0, values)
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


def decoded(parts, kind=TextColumn):
    """Return text as a column of this ``kind``, and a function from row to place."""
    starts = np.cumsum([0, *(len(part.values) for part in parts)])
    column = kind(int(starts[-1]))
    for part, at in zip(parts, starts.tolist()):
        for start in range(0, len(part.values), BLOCK_ROWS):
            block = part.values[start : start + BLOCK_ROWS]
            column.put(at + start, utf8_texts(block, part, start))

    def place(row):
        i = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[i].at(row - int(starts[i]))

    return column, place


def text_of_parts(parts):
    """Return stored values of any plain dtype as a TextColumn, and row to place.

    Whole numbers have no decimal point; NaN and NaT are missing.
    """
    return decoded(
        [part._replace(values=_as_text(part.values)) for part in parts], TextColumn
    )


def _as_text(values):
    if values.dtype.kind in TEXT_KINDS:
        return values
    distinct, codes = np.unique(values, return_inverse=True)
    if values.dtype.kind == "f":
        texts = [repr(v).removesuffix(".0") for v in distinct.tolist()]
    else:
        texts = distinct.astype(str).tolist()
    return np.array(texts or [""])[codes]


def days_of_parts(parts, optional):
    """Return stored dates as days since 1970-01-01, shape (k,), float64; NaN for NaT.

    Raises
    ------
    DataError
        For a value that is no date, or a missing one unless it is ``optional``.
    """
    days = []
    for part in parts:
        values = part.values
        if values.dtype.kind in TEXT_KINDS:
            column, place = decoded([part])
            column.require(
                lambda text: None
                if optional and is_missing(text)
                else why_no_date(text),
                place,
            )
            days.append(as_days(column))
        elif values.dtype.kind == "M":
            since = values - np.datetime64("1970-01-01")
            days.append(since / np.timedelta64(1, "D"))
            if not optional:
                require_finite(days[-1], part.place, part.first_row)
        else:
            raise DataError(
                f"{part.place}: expected dates (datetime64 or text), found dtype "
                f"{values.dtype}"
            )
    return _joined(days, np.float64)


def utf8_texts(block, part, start=0):
    """Return stored texts as a list of str: those of a StoredPart from ``start`` on."""
    texts = block.tolist()
    for row, text in enumerate(() if block.dtype.kind == "U" else texts):
        try:
            texts[row] = text.decode("utf-8") if isinstance(text, bytes) else text
        except UnicodeDecodeError:
            raise DataError(
                f"{part.at(start + row)}: the text {text!r} is not UTF-8"
            ) from None
    return texts
