"""The checkpoints that a path stands for."""

import os

from pympi_train.checkpoint import store
from pympi_train.checkpoint.durable import naming
from pympi_train.errors import DataError
from pympi_train.paths import expanded
from pympi_train.runs import output
from pympi_train.runs.earlier.weights import folder_of_checkpoints


def find_checkpoints(path):
    """Return the paths of checkpoints, the oldest first.

    Parameters
    ----------
    path : str
        A checkpoint, a run directory, or a folder of checkpoints.

    Returns
    -------
    list of str
        A folder named as one that training writes counts even if it is not whole.

    Raises
    ------
    DataError
        If there is none.
    """
    path = os.path.normpath(expanded(path))
    if not os.path.isdir(path):
        raise DataError(f"{path}: no such checkpoint, run directory or folder")
    if store.is_checkpoint(path) or store.NAME.fullmatch(os.path.basename(path)):
        return [path]
    folder = path
    if os.path.isfile(os.path.join(path, output.SCHEMA)):
        folder = folder_of_checkpoints(path)
    found = [entry.path for entry in store.entries(folder)]
    with naming(folder, "read"):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    others = [os.path.join(folder, name) for name in names if name[0] != "."]
    found += [p for p in others if p not in found and store.is_checkpoint(p)]
    if not found:
        raise DataError(f"{folder}: no checkpoints in this folder")
    return found


def size_text(n_bytes):
    """Return "512 B", "1.2 MB" or "3.4 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB"
