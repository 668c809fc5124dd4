"""What a launch that failed has printed."""

import os

OWN = "pympi-train: "
LAST_BYTES = 4000
BANNER = "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
EXIT = "TERMINATED WITH THE EXIT STRING:"


def last_words(text):
    """Return what explains the failure of a launch, from what it has printed.

    The last line of this package; else the last line before the banner in which MPICH
    reports a rank that died, and the signal that it names.
    """
    said, _, banner = text.partition(BANNER)
    lines = [line for line in said.splitlines() if line.strip(" \t-=")]
    own = [line for line in lines if line.startswith(OWN)]
    if own:
        return own[-1].removeprefix(OWN)
    ends = [
        line.partition(EXIT)[2].strip()
        for line in banner.splitlines()
        if EXIT in line
    ]
    return "; ".join([*lines[-1:], *ends[:1]])


def end_of(file):
    """Return the last LAST_BYTES of an open binary file, as text."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
    return file.read().decode(errors="replace")
