"""Reading a file in parallel: each rank reads its own rows."""

import os
import stat

from pympi_train.comm.checks import together
from pympi_train.data.formats.rows import on_root
from pympi_train.errors import DataError

SUFFIXES = (".npz", ".npy", ".csv", ".svm", ".libsvm")


def read_rows(
    path,
    comm,
    *,
    features=None,
    target=None,
    target_kind="number",
    need_target=True,
    header=None,
    any_names=False,
    n_features=None,
    zero_based=None,
    text_labels=None,
    dtype="float64",
):
    """Read this rank's rows ``[r*n // P, (r+1)*n // P)`` of a file.

    Parameters
    ----------
    path : str or path
        A file whose suffix gives its format: .npz, .npy, .csv, .svm or .libsvm.
    comm : MPI.Comm
        The ranks that read together.
    features : str or sequence of str, optional
        Columns of a .csv, arrays of an .npz; by default all except the target.
    target : str or sequence of str, optional
        Column(s) or array(s); for .npy a second file, relative to the folder of
        ``path``. Ignored for an .svm file, which contains its target.
    target_kind : {"number", "label"}, default "number"
        Regression targets (k, t) float64, or class labels (k,) int64 or str.
    need_target : bool, default True
        If False, ``y`` is None. The target, if present, is still not a feature.
    header : bool, optional
        Whether the first line of a .csv has the names of the columns. If False, the
        columns are called "0", "1" and so on. If None, there must be a header; a first
        line that looks like a row of numbers is an error.
    any_names : bool, default False
        Whether ``features`` is ignored if the file has none of them.
    n_features : int, optional
        Columns of an .svm; by default up to the largest index in the file.
    zero_based : bool, optional
        Whether the indices of an .svm start at 0; by default, whether a 0 appears.
    text_labels : bool, optional
        Whether labels are text (True) or integers (False). By default integers, if all
        labels are. Pass it when reading a second file for a trained model: of text
        labels, only "1" and "2" may occur in that file.
    dtype : str, default "float64"
        Dtype of features read from .csv and .svm: "float32" or "float64".

    Returns
    -------
    Rows

    Raises
    ------
    DataError
        On every rank, if the file is missing or malformed, or lacks the requested
        names. The message gives file, line and column if possible.

    Notes
    -----
    Collective.
    """
    with together(comm):
        path = os.fspath(path)
        read = _reader(path)
        if target_kind not in ("number", "label"):
            raise ValueError(
                f"target_kind must be 'number' or 'label', got {target_kind!r}"
            )
    size_bytes = on_root(comm, lambda: file_size(path))
    return read(
        path,
        comm,
        size_bytes=size_bytes,
        features=features,
        target=target,
        target_kind=target_kind,
        need_target=need_target,
        header=header,
        any_names=any_names,
        n_features=n_features,
        zero_based=zero_based,
        text_labels=text_labels,
        dtype=dtype,
    )


def file_size(path):
    """Return the size of a file in bytes; raise DataError if there is no file."""
    try:
        if os.path.isdir(path):
            raise DataError(f"{path}: expected a data file, found a folder")
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path}: expected a data file, found a device or a pipe")
        return found.st_size
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def format_of(path):
    """Return "npz", "npy", "csv" or "svm"; raise DataError for another suffix."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: unknown format {suffix!r}; expected one of {', '.join(SUFFIXES)}"
        )
    return "svm" if suffix == ".libsvm" else suffix[1:]


def needs_target_file(path):
    """Return whether a file of this format holds features alone: .npy."""
    return os.path.splitext(str(path))[1].lower() == ".npy"


def target_is_file(path, target):
    """Return whether the target is a separate file: it is for .npy features."""
    return isinstance(target, (str, os.PathLike)) and needs_target_file(path)


def _reader(path):
    """Return the function that reads the format; imports only its module."""
    name = format_of(path)
    if name == "npz":
        from pympi_train.data.formats.npz import read_npz as read
    elif name == "npy":
        from pympi_train.data.formats.npy import read_npy as read
    elif name == "csv":
        from pympi_train.data.formats.csv_file import read_csv as read
    else:
        from pympi_train.data.formats.svm import read_svm as read
    return read
