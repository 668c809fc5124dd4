"""Lines of text for people, and printing where it may not be possible."""

import os
import sys
from contextlib import suppress

from pympi_train.errors import DataError


def encodable(text, stream):
    """Return ``text`` with escapes for characters that ``stream`` cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def one_line(text):
    r"""Return ``text`` with escapes for line breaks and other control characters.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return text.translate({c: repr(chr(c))[1:-1] for c in (*range(32), 127)})


def counted(n, noun, plural=None):
    """Return "1 row" or "2,000 rows"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def seconds_text(seconds):
    """Return "3.1 ms", "12.4 s", "5.2 min" or "3.4 h"."""
    for limit, unit_s, unit in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / unit_s:.3g} {unit}"
    return f"{seconds / 3600:,.3g} h"


def in_columns(rows):
    """Return lines of a table; its first row has the headings.

    Parameters
    ----------
    rows : list of sequence of str
        The first and the last column are aligned to the left, others to the right.
    """
    rows, lines = [[one_line(cell) for cell in row] for row in rows], []
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths)]
        cells[0], cells[-1] = row[0].ljust(widths[0]), row[-1]
        lines.append("  ".join(cells).rstrip())
    return lines


def say(text=""):
    """Print a line of a result on standard output.

    If the reader has closed the pipe, as ``head`` does, nothing more is printed.

    Raises
    ------
    DataError
        If the line cannot be written for another reason: the result would be lost.
    """
    try:
        print(encodable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        reason = error.strerror or error
        raise DataError(f"standard output cannot be written: {reason}") from error


def say_progress(text):
    """Print a line of progress or a note on standard error, if that is possible.

    A closed terminal or a full disk ends nothing: results go elsewhere.
    """
    with suppress(OSError, ValueError):
        print(encodable(text, sys.stderr), file=sys.stderr, flush=True)


def silence(stream):
    """Discard all further output to ``stream``, including that at Python's exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
