"""What every reader returns, and what the readers share."""

import difflib
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
        The features; may be a read-only view of the file, of its dtype and strides.
    y : ndarray, TextLabels or None
        Labels (k,) int64, or text, the same on every rank, or numbers (k, t) float64.
        None where the target is absent.
    feature_names : tuple of str or None
        Columns (.csv) or arrays (.npz) that ``x`` was read from, in order: passed as
        ``features``, they read another file the same way.
    zero_based : bool or None
        Whether indices start at 0 (.svm).
    reach : callable or None
        ``reach(start, stop)`` returns the features of any rows of the file, as ``x``
        is; None where ``x`` is no view of it. The same on every rank.
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
    """Return ``work()`` of rank 0 on every rank; its error rises on all. Collective.

    File sizes and headers are looked at on one rank alone: caches of network file
    systems may differ between nodes.
    """
    value = None
    with together(comm):
        if comm.rank == 0:
            value = work()
    return comm.bcast(value, root=0)


def as_names(names):
    """Return a name, or a sequence of names, or None as a list."""
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def choose_names(
    path, kind, present, features, target, need_target, any_names=False
):
    """Return the feature names (None: all but the target) and target names to read.

    Parameters
    ----------
    path : str
        For messages.
    kind : str
        What the names name: "column" or "array".
    present : sequence of str
        All names in the file.
    features, target : str, sequence of str or None
        As the user gave them.
    need_target : bool
        False: no target names are returned.
    any_names : bool
        Whether, if the file has none of ``features``, they are None: they were named
        in a file of another format.

    Raises
    ------
    DataError
        If a name is absent, comes twice, or is both feature and target.
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
    # Case last, so that "Y" is closest to "y" and not to another single letter.
    plain = {other.casefold(): other for other in present}
    near = difflib.get_close_matches(str(name).casefold(), plain, n=1, cutoff=0.5)
    hint = f"; the closest is {plain[near[0]]!r}" if near else ""
    return DataError(f"{path}: no {kind} {name!r}{hint}; present: {listed(present)}")


def listed(names, limit=12):
    """Return names for a message, the first ``limit`` of many."""
    text = ", ".join(repr(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more} more" if more > 0 else text or "none"


def shown(text, limit=40):
    """Return text from a file as it may stand in a message."""
    return repr(text if len(text) <= limit else text[:limit] + "...")
