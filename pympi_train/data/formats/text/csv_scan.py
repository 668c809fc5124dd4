"""Row ends of a .csv, for data that start outside or inside quotes."""

import numpy as np

from pympi_train.data.formats.text.lines import line_ends, whole_lines
from pympi_train.data.formats.text.scans import NONE, Scan

LINE_FEED, RETURN, QUOTE = b"\n\r\""


def scan_csv(data, separator=","):
    """Return the Scan of whole .csv lines, for both cases in one pass.

    Parameters
    ----------
    data : bytes
        Lines; the last may lack its line feed.
    separator : str
        Between fields.

    Returns
    -------
    Scan

    Notes
    -----
    A line feed ends a row, with two exceptions: the number of quotes before it is odd
    (in RFC 4180 quotes enclose a field and are doubled inside it), or its line is
    blank.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    ends = line_ends(data)
    quotes = np.flatnonzero(buffer == QUOTE) if b'"' in data else np.empty(0, np.intp)
    full = ends[~_blank(buffer, ends)]
    if not quotes.size:
        return Scan(full, np.zeros(full.size, dtype=np.intp))
    inside = np.searchsorted(quotes, full) & 1
    misplaced = [_misplaced(buffer, quotes, i, ord(separator)) for i in (0, 1)]
    lines = [
        NONE if at is None else int(np.searchsorted(ends, at, side="right"))
        for at in (*misplaced, quotes[-1])
    ]
    return Scan(full, inside, quotes.size & 1, tuple(lines[:2]), lines[2])


def whole_rows(data, separator=","):
    """Return the position after the last complete row; ``data`` begin with a row."""
    if b'"' not in data:
        return whole_lines(data)
    end = whole_lines(data)
    ends = scan_csv(data[:end], separator).row_ends(0) if end else ()
    return int(ends[-1]) if len(ends) else 0


def _blank(buffer, ends):
    """Return which lines are empty except for their line end."""
    starts = np.concatenate(([0], ends[:-1])) if ends.size else ends
    first, last, length = buffer[starts], buffer[ends - 1], ends - starts
    short = (length == 1) | ((length == 2) & (last == LINE_FEED))
    return ((first == RETURN) & short) | (first == LINE_FEED)


def _misplaced(buffer, quotes, inside, separator):
    """Return the position of the first quote that opens or closes no field, or None."""
    before = np.where(quotes > 0, buffer[quotes - 1], LINE_FEED)
    after = buffer[np.minimum(quotes + 1, buffer.size - 1)]
    after = np.where(quotes + 1 < buffer.size, after, LINE_FEED)
    opens = np.isin(before, (separator, LINE_FEED, QUOTE))
    closes = np.isin(after, (separator, LINE_FEED, RETURN, QUOTE))
    opening = (np.arange(quotes.size) + inside) % 2 == 0
    wrong = np.flatnonzero(~np.where(opening, opens, closes))
    return quotes[wrong[0]] if wrong.size else None
