"""Files of predictions, written by all ranks in parallel."""

import csv
import io
import os

import numpy as np

from pympi_train.checkpoint.durable import naming
from pympi_train.comm.checks import together
from pympi_train.comm.messages import numbers_of_ranks
from pympi_train.errors import DataError
from pympi_train.runs import output

SUFFIXES = (".npy", ".csv")
BLOCK_ROWS = 16384  # converted to text at once


def destination(path, data, directory, kept=()):
    """Return the file for the predictions for ``data``, and whether it is a .csv.

    Symbolic links are resolved, so the file's suffix may differ from that of ``path``.

    Parameters
    ----------
    path : str
    data : sequence of str
        The files of the rows.
    directory : str
        The run.
    kept : sequence of str
        Other files that must not be overwritten.

    Raises
    ------
    DataError
        If the file cannot or must not be written.
    """
    real, folder = os.path.realpath(path), os.path.realpath(directory)
    problem = None
    if os.path.isdir(real):
        problem = "Is a directory"
    elif os.path.exists(real) and not os.path.isfile(real):
        problem = "it is no regular file"
    elif _is_among(real, data):
        problem = "it is a file of the data"
    elif real in [os.path.realpath(name) for name in kept]:
        problem = f"the run {directory} was trained on it"
    elif real in [os.path.join(folder, name) for name in output.FILES]:
        problem = f"it is a file of the run {directory}"
    elif not os.fspath(path).endswith(SUFFIXES):
        problem = "expected a name that ends in .npy or .csv"
    if problem:
        raise DataError(f"{path}: cannot be written: {problem}; choose another file")
    return real, os.fspath(path).endswith(".csv")


def _is_among(path, others):
    """Return whether ``path`` exists and is one of ``others``, by any name."""
    return os.path.exists(path) and any(
        os.path.exists(other) and os.path.samefile(path, other) for other in others
    )


def write_rows(path, mine, n_rows, names, comm):
    """Write each rank's rows to their place in one file.

    Ranks write to a temporary file, which is renamed when all have finished.

    Parameters
    ----------
    path : str
        The same on every rank.
    mine : ndarray, shape (k,) or (k, c)
        This rank's rows; they follow those of the ranks before.
    n_rows : int
        Number of rows of all ranks.
    names : list of str or None
        Column names of a .csv; None: write an .npy.
    comm : MPI.Comm

    Notes
    -----
    Collective.
    """
    temporary = comm.bcast(f"{path}.{os.getpid()}.tmp", root=0)
    as_text = names is not None
    try:
        with together(comm):
            body = _text(mine) if as_text else np.ascontiguousarray(mine).tobytes()
        sizes = numbers_of_ranks(comm, len(body))
        offset = int(sizes[: comm.rank].sum())
        header = None
        with together(comm), naming(path):
            if comm.rank == 0:
                header = _lines([names]) if as_text else _npy_header(mine, n_rows)
                with open(temporary, "xb") as file:
                    file.write(header)
        offset += comm.bcast(header and len(header), root=0)
        # Fails on another node that lacks the file: the folder is not shared.
        with together(comm), naming(path):
            with open(temporary, "rb+") as file:
                file.seek(offset)
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
        with together(comm), naming(path):
            if comm.rank == 0:
                os.replace(temporary, path)
    finally:
        if comm.rank == 0 and os.path.exists(temporary):
            os.unlink(temporary)


def _npy_header(part, n_rows):
    """Return the header of an .npy file of ``n_rows`` rows like those of ``part``."""
    stream = io.BytesIO()
    header = {
        "descr": np.lib.format.dtype_to_descr(part.dtype),
        "fortran_order": False,
        "shape": (n_rows, *part.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _text(rows):
    """Return rows as lines; with the fewest digits that restore each number."""
    rows, blocks = rows[:, None] if rows.ndim == 1 else rows, []
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        if block.dtype == np.float32:  # Python floats would have twice the digits
            block = block.astype(str)
        blocks.append(_lines(block.tolist()))
    return b"".join(blocks)


def _lines(rows):
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode("utf-8")
