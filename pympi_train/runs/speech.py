"""Lines for a person, on a stream that may end or lack characters."""

import os
import sys
from contextlib import suppress

from pympi_train.errors import DataError


def encodable(text, stream):
    """Return ``text`` with escapes in place of what ``stream`` cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def counted(n, noun, plural=None):
    """Return "1 row" or "2,000 rows"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def say(text=""):
    """Print a line of a result on standard output.

    Where the reader has left, as ``head`` does, nothing more is printed.

    Raises
    ------
    DataError
        If it cannot be written otherwise: the result would be lost.
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
    """Let whatever is still written to ``stream`` vanish, when Python ends as well."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
