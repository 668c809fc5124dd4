"""Words of a shell script: any text as one word, on one line."""

import shlex

PLAIN_CONTROLS = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def quoted(word):
    """Return ``word`` so that bash reads it as one word, on one line.

    Parameters
    ----------
    word : str
        Any text without a null character.

    Notes
    -----
    Control characters are written as escapes: a line break within quotes would begin a
    line of the script, which SLURM could read as a directive, and SLURM refuses scripts
    with a carriage return.
    """
    if not any(_is_control(c) for c in word):
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _is_control(c):
    return c < " " or c == "\x7f"


def _escaped(c):
    if c in "\\'":
        return "\\" + c
    if _is_control(c):
        return PLAIN_CONTROLS.get(c, f"\\x{ord(c):02x}")  # bash reads two digits
    return c
