"""What a launch that failed has printed."""

OWN = "pympi-train: "
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
