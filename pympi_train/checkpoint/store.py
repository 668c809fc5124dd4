"""The checkpoints of a run: their names, the newest whole one, and which are kept."""

import os
import re
import shutil
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.durable import naming, sync_folder
from pympi_train.checkpoint.folder import HIDDEN, hide
from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.comm.checks import together
from pympi_train.errors import DataError, UnreadableError

NAME = re.compile(r"(\d{6,})-step-(\d+)")
LEFT_OVER = re.compile(re.escape(HIDDEN) + NAME.pattern + r"\.[0-9a-f]{8}\.(tmp|old)")


class Entry(NamedTuple):
    """A checkpoint in a folder of checkpoints.

    Attributes
    ----------
    number : int
        How many the run had written before, over all its starts.
    step : int
    path : str
    """

    number: int
    step: int
    path: str


def entries(directory):
    """Return the Entries of a folder, the oldest first; none if there is no folder.

    Raises
    ------
    DataError
        If the folder cannot be read.
    """
    found, names = [], []
    # Another error is not taken for a folder without checkpoints: a training would
    # start afresh, and remove them.
    with naming(directory, "read"), suppress(FileNotFoundError, NotADirectoryError):
        names = os.listdir(directory)
    for name in names:
        match = NAME.fullmatch(name)
        if match:
            numbers = int(match[1]), int(match[2])
            found.append(Entry(*numbers, os.path.join(directory, name)))
    return sorted(found)


def next_path(directory, step):
    """Return the path of the next checkpoint; on rank 0."""
    last = entries(directory)
    number = last[-1].number + 1 if last else 1
    return os.path.join(directory, f"{number:06d}-step-{step}")


def newest(directory, comm):
    """Return the newest checkpoint that is whole, and remarks on those that are not.

    Returns
    -------
    (StoredState, list of str)
        StoredState is None if there is none.

    Raises
    ------
    DataError
        On every rank, if the folder cannot be read, or none is whole as far as is known
        and the system could not read one of them.

    Notes
    -----
    Collective.
    """
    paths, remarks = None, []
    with together(comm):
        if comm.rank == 0:
            paths = [entry.path for entry in entries(directory)]
    unread = None
    for path in reversed(comm.bcast(paths, root=0)):
        try:
            return read_checkpoint(path, comm), remarks
        except DataError as error:  # agreed by all ranks
            unread = error if isinstance(error, UnreadableError) else unread
            remarks.append(str(error))
    if unread is not None:  # it may be whole: a fresh start would replace it
        raise unread
    return None, remarks


def prune(directory, keep, best=(), damaged=()):
    """Remove what is older than the newest checkpoints; return why not all of it.

    Parameters
    ----------
    directory : path
    keep : int
        How many of the newest stay.
    best : collection of str
        Names that stay as well.
    damaged : collection of str
        Names that do not count as the newest.

    Returns
    -------
    str or None
        The first error. What is left then is whole, or has a hidden name; the next call
        tries to remove it.

    Notes
    -----
    On rank 0. It also removes what an interrupted write or removal has left.
    """
    errors, found = [], []
    with _noting(errors):
        found = entries(directory)
    newest_whole = [e for e in found if os.path.basename(e.path) not in damaged]
    stay = newest_whole[-keep:]
    for entry in found:
        if stay and entry < stay[0] and os.path.basename(entry.path) not in best:
            with _noting(errors):
                hide(entry.path)
    with _noting(errors):
        _remove_hidden(directory)
    return errors[0] if errors else None


@contextmanager
def _noting(errors):
    try:
        yield
    except DataError as error:
        errors.append(str(error))


def _remove_hidden(directory):
    with naming(directory, "read"):
        names = os.listdir(directory)
    left = [name for name in names if LEFT_OVER.fullmatch(name)]
    if left:  # so that no crash leaves half of one under its old name
        sync_folder(directory)
    for name in left:
        shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def move_all(directory, target):
    """Move the checkpoints of a folder to another one, in place of those there.

    What else is in either folder stays.
    """
    remove_all(target)
    os.makedirs(target, exist_ok=True)
    for entry in entries(directory):
        os.rename(entry.path, os.path.join(target, os.path.basename(entry.path)))


def remove_all(directory):
    """Remove the checkpoints of a folder, and the folder if it is empty then."""
    for entry in entries(directory):
        is_folder = os.path.isdir(entry.path) and not os.path.islink(entry.path)
        (shutil.rmtree if is_folder else os.unlink)(entry.path)
    with suppress(OSError):  # no folder, or not empty
        os.rmdir(directory)


def is_checkpoint(path):
    """Return whether a path is the folder of a checkpoint."""
    return os.path.isfile(os.path.join(path, manifest.NAME))
