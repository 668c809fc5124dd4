"""Whether checkpoints are what was written: the hash of every file, in parallel."""

import math
import os
from contextlib import contextmanager

from pympi_train.checkpoint.read import check_file, manifest_content
from pympi_train.checkpointtools.found import find_checkpoints
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.errors import DataError
from pympi_train.flat.boxes import size_of


def verify_checkpoints(paths, comm):
    """Return what is wrong with checkpoints, after reading every byte of them.

    Parameters
    ----------
    paths : list of str
        Checkpoints, run directories, or folders of checkpoints.
    comm : MPI.Comm
        Each rank reads a share of the files.

    Returns
    -------
    dict
        checkpoints, files and bytes (counts), findings (list of str; on rank 0).

    Raises
    ------
    DataError
        On every rank, if a path has no checkpoint.

    Notes
    -----
    Collective.
    """
    work, findings, n_found = [], [], 0
    with together(comm):
        if comm.rank == 0:
            found = dict.fromkeys(p for path in paths for p in find_checkpoints(path))
            n_found = len(found)
            for path in found:
                with _noting(findings, path):
                    work += _files(path)
    # The largest files first, so that the ranks have shares of about the same size.
    work = sorted(comm.bcast(work, root=0), key=lambda item: -item[1]["n_bytes"])
    n_bytes = 0
    for path, entry in work[comm.rank :: comm.size]:
        with _noting(findings, os.path.dirname(path)):
            check_file(path, entry)
            n_bytes += entry["n_bytes"]
    everyones = comm.gather(findings, root=0) or []
    total = reduced(comm, [n_bytes])[0]
    return {
        "checkpoints": n_found,
        "files": len(work),
        "bytes": int(total),
        "findings": sorted(text for own in everyones for text in own),
    }


@contextmanager
def _noting(findings, folder):
    """Add an error in the body to the findings, unless a training has just removed the
    folder of the checkpoint."""
    try:
        yield
    except DataError as error:
        if os.path.lexists(folder):
            findings.append(str(error))


def _files(path):
    """Return (path, entry of the manifest) of the files of a checkpoint.

    Raises
    ------
    DataError
        If the manifest is damaged, or names too few regions of a tensor.
    """
    content = manifest_content(path)
    for name, tensor in content["tensors"].items():
        n = sum(size_of(region["box"]) for region in tensor["regions"])
        if n != math.prod(tensor["shape"]):
            raise DataError(
                f"{path}: {name} has {math.prod(tensor['shape'])} elements, its files "
                f"hold {n}"
            )
    files = content["files"].items()
    return [(os.path.join(path, name), entry) for name, entry in files]
