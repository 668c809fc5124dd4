"""Parsing of whole .svm lines into entries, by a fast and a slow parser."""

import math
import re
from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.rows import shown
from pympi_train.errors import DataError

MAX_INDEX = 2**31 - 1
SPACE, COLON, LINE_FEED = b" :\n"
_WORD = re.compile(r"\S+")
_INDEX = re.compile(r"[0-9]+")


class Entries(NamedTuple):
    """The parsed content of some lines.

    Attributes
    ----------
    labels : list of str, length m
        One per row; "" if there is none.
    counts : ndarray of int64, shape (m,)
        Number of entries of each row.
    lines : ndarray of int64, shape (m,)
        Line number of each row in the file, from 1.
    indices : ndarray of int64, shape (e,)
        As in the file, row after row.
    values : ndarray of float64, shape (e,)
    """

    labels: list
    counts: np.ndarray
    lines: np.ndarray
    indices: np.ndarray
    values: np.ndarray


def joined(parts):
    """Return several Entries concatenated."""
    columns = list(zip(*parts)) or [(), (), (), (), ()]
    labels = [label for part in columns[0] for label in part]
    kinds = (np.int64, np.int64, np.int64, np.float64)
    arrays = [
        np.concatenate(part) if part else np.empty(0, dtype=kind)
        for part, kind in zip(columns[1:], kinds)
    ]
    return Entries(labels, *arrays)


def parse_svm(data, path, n_lines, need_target=True):
    """Return the Entries of whole lines.

    Parameters
    ----------
    data : bytes
        Lines; the last may lack its line feed.
    path : str
        For messages.
    n_lines : int
        Number of lines before ``data`` in the file.
    need_target : bool
        Whether each line must begin with a label.

    Raises
    ------
    DataError
        With line and column, if a word is not ``index:value`` with a finite value, an
        index appears twice in a line, or a label is missing.
    """
    found = parse_svm_fast(data, n_lines)
    return parse_svm_slow(data, path, n_lines, need_target) if found is None else found


def parse_svm_fast(data, n_lines):
    """Return `parse_svm`'s result by NumPy's C parser, or None for unusual ``data``.

    Unusual are ``qid``, lines without a label, and all errors.
    """
    if not data.isascii():
        return None
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    buffer = np.frombuffer(data, dtype=np.uint8)
    # Of the bytes below the space, both parsers treat only 9 to 13 as blanks.
    if ((buffer < SPACE) & (buffer - np.uint8(9) > 4)).any():
        return None
    # Words start and end where the bytes change between blank and non-blank.
    solid = np.concatenate(([False], buffer > SPACE, [False]))
    edges = np.flatnonzero(solid[1:] != solid[:-1])
    starts, stops = edges[::2], edges[1::2]
    line_feeds = np.flatnonzero(buffer == LINE_FEED)
    line_of = np.searchsorted(line_feeds, starts)
    is_label = np.concatenate(([True], line_of[1:] != line_of[:-1]))[: starts.size]
    pairs = np.flatnonzero(~is_label)
    colons = np.flatnonzero(buffer == COLON)
    if not _one_colon_in_each(buffer, colons, starts[pairs], stops[pairs]):
        return None
    labels = [
        data[start:stop].decode()
        for start, stop in zip(starts[is_label].tolist(), stops[is_label].tolist())
    ]
    rows = np.flatnonzero(is_label)
    counts = np.diff(np.append(rows, starts.size)) - 1
    entries = _numbers(data, buffer, pairs, starts, stops)
    if entries is None:
        return None
    indices, values = entries
    ascending = (np.diff(indices) > 0) | (np.diff(line_of[pairs]) > 0)
    if not (ascending.all() and np.isfinite(values).all()):
        return None
    return Entries(labels, counts, n_lines + 1 + line_of[rows], indices, values)


def _one_colon_in_each(buffer, colons, starts, stops):
    """Return whether each pair has one colon, after digits, and labels have none."""
    if colons.size != starts.size:
        return False
    if not ((starts < colons) & (colons + 1 < stops)).all():
        return False
    digits = np.cumsum((buffer >= ord("0")) & (buffer <= ord("9")), dtype=np.int64)
    # starts - 1 is a blank, because a label precedes every pair.
    return bool((digits[colons] - digits[starts - 1] == colons - starts).all())


def _numbers(data, buffer, pairs, starts, stops):
    """Return indices and values of the words ``pairs``, or None."""
    if not pairs.size:
        return np.empty(0, dtype=np.int64), np.empty(0)
    spaced = np.where(buffer > SPACE, buffer, SPACE)
    spaced[spaced == COLON] = SPACE
    is_label = np.ones(starts.size, dtype=bool)
    is_label[pairs] = False
    # Labels may be any text: replace them by blanks, so that only numbers remain.
    change = np.zeros(spaced.size + 1, dtype=np.int8)
    change[starts[is_label]] += 1
    change[stops[is_label]] -= 1
    spaced[np.cumsum(change[:-1], dtype=np.int8) > 0] = SPACE
    try:
        numbers = np.loadtxt([spaced.tobytes().decode()], comments=None, ndmin=1)
    except ValueError:
        return None
    if numbers.size != 2 * pairs.size or numbers[::2].max() > MAX_INDEX:
        return None
    return numbers[::2].astype(np.int64), numbers[1::2].copy()


def parse_svm_slow(data, path, n_lines, need_target=True):
    """Return `parse_svm`'s result, word by word."""
    labels, counts, lines, indices, values = [], [], [], [], []
    for number, raw in enumerate(data.split(b"\n"), start=n_lines + 1):
        place = f"{path}, line {number}"
        words = list(_WORD.finditer(_decode(raw, place).partition("#")[0]))
        if not words:
            continue
        labels.append(_label(words, place, need_target))
        row = {}
        for word in words[1:] if labels[-1] else words:
            pair = _pair(word, place)
            if pair and pair[0] in row:
                raise DataError(
                    f"{place}, column {word.start() + 1}: index {pair[0]} comes twice "
                    "in this line"
                )
            row.update([pair] if pair else [])
        counts.append(len(row))
        lines.append(number)
        indices += row.keys()
        values += row.values()
    whole = [np.array(part, dtype=np.int64) for part in (counts, lines, indices)]
    return Entries(labels, *whole, np.array(values, dtype=np.float64))


def _decode(raw, place):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}, column {error.start + 1}: expected UTF-8, found byte "
            f"0x{raw[error.start]:02x}"
        ) from None


def _label(words, place, need_target):
    """Return the label of a line, or "" if it begins with ``index:value``."""
    text = words[0].group()
    if ":" not in text:
        return text
    if need_target:
        raise DataError(
            f"{place}, column {words[0].start() + 1}: expected a label, found "
            f"{shown(text)}"
        )
    return ""


def _pair(word, place):
    """Return ``(index, value)`` of a word; None for ``qid:...``."""
    index, _, value = word.group().partition(":")
    if index == "qid" and value:
        return None
    try:
        if not _INDEX.fullmatch(index) or "_" in value or not value.isascii():
            raise ValueError
        pair = int(index), float(value)
    except ValueError:
        pair = MAX_INDEX + 1, math.nan
    if pair[0] > MAX_INDEX or not math.isfinite(pair[1]):
        raise DataError(
            f"{place}, column {word.start() + 1}: expected index:value, an integer and "
            f"a finite number, found {shown(word.group())}"
        )
    return pair


def labels_as_numbers(entries, place):
    """Return the labels as numbers, shape (m, 1) float64.

    ``place(row)`` returns the beginning of a message.
    """
    values = np.empty((len(entries.labels), 1))
    for row, text in enumerate(entries.labels):
        try:
            values[row] = math.nan if "_" in text else float(text)
        except ValueError:
            values[row] = math.nan
        if not math.isfinite(values[row, 0]):
            raise DataError(
                f"{place(row)}: expected a finite number as target, found {shown(text)}"
            )
    return values


def require_columns(entries, base, n_columns, place):
    """Raise DataError at the first index outside ``[base, base + n_columns)``."""
    wrong = (entries.indices < base) | (entries.indices >= base + n_columns)
    if wrong.any():
        at = int(np.argmax(wrong))
        row = int(np.searchsorted(np.cumsum(entries.counts), at, side="right"))
        raise DataError(
            f"{place(row)}: expected indices from {base} to {base + n_columns - 1}, "
            f"found {entries.indices[at]}{_hint(entries.indices[at])}"
        )


def _hint(index):
    if index == 0:
        return (
            "; where the first index is 0, train with [data] zero_based = true, or "
            "evaluate and predict with --zero-based"
        )
    return "; [data] n_features says in training how many features there are"
