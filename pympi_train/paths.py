"""Expansion of ``~`` and ``$VAR`` in file names, and checks of names."""

import os
import re

from pympi_train.errors import ConfigError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def is_remote(path):
    """Return whether a name is a URL, such as ``s3://bucket/x.npy``."""
    return _URL.match(os.fsdecode(path)) is not None


def beside(folder, name):
    """Return a name relative to a folder, unless it is absolute or a URL."""
    name = os.fsdecode(name)
    return name if is_remote(name) else os.path.join(folder, name)


def expanded(path, where=""):
    """Return ``path`` as a string with ``~`` and ``$VAR`` expanded.

    A name with a ``$`` is unchanged if a file of exactly this name exists.

    Parameters
    ----------
    path : str or path
    where : str
        Beginning of messages: the key or argument.

    Raises
    ------
    ConfigError
        If a variable is not set, the home is unknown, or the name is empty or not
        UTF-8.
    """
    text = os.fsdecode(path)
    begin = f"{where} {ascii(text)}".strip()
    if "$" in text and os.path.lexists(text):
        return require_utf8(text, where)
    for plain, braced in _VARIABLE.findall(text):
        name = plain or braced
        if name not in os.environ:
            raise ConfigError(f"{begin}: the environment variable {name!r} is not set")
    text = os.path.expandvars(text)
    if not text:  # else the folder that names are relative to
        raise ConfigError(f"{begin}: an empty file name")
    if text.startswith("~"):
        home = os.path.expanduser(text)
        if home == text:
            raise ConfigError(f"{begin}: {text.split('/')[0]} is no user's home folder")
        text = home
    return require_utf8(text, where)


def all_expanded(names, where=""):
    """Return a name, or a list of names, expanded."""
    return in_each(names, lambda name: expanded(name, where))


def in_each(names, change):
    """Return ``change(name)`` of a name, or a list of those of several names."""
    if isinstance(names, (str, os.PathLike)):
        return change(names)
    return [change(name) for name in names]


def require_utf8(text, where=""):
    """Return a file name; raise ConfigError unless it is UTF-8.

    Other names cannot be written to a configuration or to every stream.
    """
    if "\0" in text:
        begin = f"{where} {ascii(text)}".strip()
        raise ConfigError(f"{begin}: a file name with a null byte")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        begin = f"{where} {ascii(text)}".strip()
        raise ConfigError(
            f"{begin}: a file name that is not UTF-8; rename the file or the folder"
        ) from None
    return text
