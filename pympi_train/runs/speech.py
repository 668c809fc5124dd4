"""Printing lines to a stream that may be closed or lack characters."""

import os
import sys
from contextlib import suppress

from pympi_train.errors import DataError


def encodable(text, stream):
    """Return ``text`` with escapes for characters that ``stream`` cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def counted(n, noun, plural=None):
    """Return "1 row" or "2,000 rows"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


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


def silence(stream):
    """Discard all further output to ``stream``, including that at Python's exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
