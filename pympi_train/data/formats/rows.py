"""The result of every reader, and functions that the readers share."""

import difflib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.errors import DataError


@dataclass
class Rows:
    """One rank's share of the rows of a file.

    Attributes
    ----------
    n : int
        Rows of the whole file.
    start, stop : int
        This rank's rows, ``start = r*n // P``; ``k = stop - start`` may be 0.
    x : ndarray, shape (k, d), bool, integer or floating
        The features; may be a read-only view of the file, with its dtype and strides.
    y : ndarray, TextLabels or None
        Integer labels, shape (k,), int64; text labels; or numbers, shape (k, t),
        float64. The kind is the same on every rank. None if the target is absent.
    feature_names : tuple of str or None
        Columns (.csv) or arrays (.npz) of ``x``, in order. Pass them as ``features``
        to read another file in the same way.
    zero_based : bool or None
        Whether indices start at 0 (.svm).
    reach : callable or None
        ``reach(start, stop)`` returns the features of any rows of the file, in the
        form of ``x``. None, on every rank, if ``x`` is not a view of the file.
    """

    n: int
    start: int
    stop: int
    x: np.ndarray
    y: Any = None
    feature_names: tuple | None = None
    zero_based: bool | None = None
    reach: Any = None


def on_root(comm, work):
    """Return rank 0's ``work()`` on every rank, or raise its error. Collective.

    Only one rank reads file sizes and headers, because caches of network file systems
    may differ between nodes.
    """
    value = None
    with together(comm):
        if comm.rank == 0:
            value = work()
    return comm.bcast(value, root=0)


def as_names(names):
    """Return a name or path, or a sequence of these, or None as a list."""
    if names is None:
        return []
    return [names] if isinstance(names, (str, os.PathLike)) else list(names)


def choose_names(
    path, kind, present, features, target, need_target, any_names=False
):
    """Return the feature names (None: all but the target) and target names to read.

    Parameters
    ----------
    path : str
        For messages.
    kind : str
        "column" or "array", for messages.
    present : sequence of str
        All names in the file.
    features, target : str, sequence of str or None
        As the user gave them.
    need_target : bool
        False: no target names are returned.
    any_names : bool
        Whether to ignore ``features`` if the file has none of them. They may come from
        a file of another format.

    Raises
    ------
    DataError
        If a name is absent, appears twice, or is both feature and target.
    """
    targets = as_names(target)
    absent = [name for name in targets if name not in present]
    if need_target and not targets:
        raise DataError(
            f"{path}: no target is named; set target to one of {listed(present)}"
        )
    if need_target and len(set(targets)) < len(targets):
        name = next(name for i, name in enumerate(targets) if name in targets[:i])
        raise DataError(f"{path}: target {kind} {name!r} is named twice")
    if need_target and absent:
        raise _absent(path, f"target {kind}", absent[0], present)
    names = as_names(features)
    if features is None or (any_names and not set(names) & set(present)):
        return None, targets if need_target else []
    for i, name in enumerate(names):
        if name not in present:
            raise _absent(path, f"feature {kind}", name, present)
        if name in names[:i]:
            raise DataError(f"{path}: feature {kind} {name!r} is named twice")
        if name in targets:
            raise DataError(f"{path}: {kind} {name!r} is both feature and target")
    return names, targets if need_target else []


def _absent(path, kind, name, present):
    # Ignore case, so that "Y" is closest to "y" and not to another single letter.
    plain = {other.casefold(): other for other in present}
    near = difflib.get_close_matches(str(name).casefold(), plain, n=1, cutoff=0.5)
    hint = f"; the closest is {plain[near[0]]!r}" if near else ""
    return DataError(f"{path}: no {kind} {name!r}{hint}; present: {listed(present)}")


def listed(names, limit=12):
    """Return at most ``limit`` names as text for a message."""
    text = ", ".join(repr(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more} more" if more > 0 else text or "none"


def shown(text, limit=40):
    """Return text from a file in a form that is safe in a message."""
    return repr(text if len(text) <= limit else text[:limit] + "...")
