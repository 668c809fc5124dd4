"""Reading files in parallel: each rank reads its own rows."""

from functools import partial

from pympi_train.comm.checks import agreed_within, together
from pympi_train.data.formats.files import COMPRESSIONS, Files, find_files, suffix_of
from pympi_train.data.formats.selection import Selection
from pympi_train.errors import DataError

STREAMED = ("parquet", "csv", "tsv", "npz", "npy", "h5", "zarr")
SEPARATORS = {"csv": ",", "tsv": "\t"}


def read_rows(
    files,
    comm,
    *,
    header=None,
    n_features=None,
    zero_based=None,
    text_labels=None,
    dtype="float64",
    is_streamed=False,
    sparse=False,
    **columns,
):
    """Read this rank's rows ``[r*n // P, (r+1)*n // P)`` of one or more files.

    Parameters
    ----------
    files : Files, str, path, or sequence of them
        Files whose suffix gives their format, see `find_files`. Rows are numbered
        through all of them.
    comm : MPI.Comm
        The ranks that read together.
    header : bool, optional
        Whether the first line of a .csv has the names of the columns. If False, the
        columns are called "0", "1" and so on. If None, there must be a header; a first
        line that looks like a row of numbers is an error.
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
    is_streamed : bool, default False
        Whether features stay in their files, and are decoded when they are needed: for
        the formats in STREAMED.
    sparse : bool, default False
        Whether rows of .svm files and of .npz files with a CSR matrix stay sparse.
    **columns
        The columns to read: the parameters of `selection.Selection`.

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
        selection = Selection(**columns)
    if not isinstance(files, Files):
        files = find_files(files, comm)
    why = why_not_streamed(files) if is_streamed else None
    if why is not None:
        raise agreed_within(comm, DataError(why))
    return _reader(files.format)(
        files.paths,
        comm,
        selection,
        name=files.name,
        header=header,
        n_features=n_features,
        zero_based=zero_based,
        text_labels=text_labels,
        dtype=dtype,
        is_streamed=is_streamed,
        sparse=sparse,
    )


def why_not_streamed(files):
    """Return why files cannot be streamed and what to do, or None if they can.

    Only format and names count: of an .npz, an array may be compressed.
    """
    if files.format not in STREAMED:
        return (
            f'{files.name}: memory = "stream" is for {", ".join(STREAMED)}; '
            "`pympi-train data convert` writes Parquet and .npy files"
        )
    packed = [path for path in files.paths if path.lower().endswith(COMPRESSIONS)]
    if packed:
        return (
            f'{packed[0]}: memory = "stream" is for files that can be entered in their '
            "middle; decompress it, or convert it by `pympi-train data convert`"
        )
    return None


def needs_target_file(path, format_=None):
    """Return whether files of this format hold features alone: .npy.

    ``format_`` takes precedence over the suffix of the ``path``.
    """
    if format_ is not None:
        return format_ == "npy"
    names = path if isinstance(path, (list, tuple)) else [path]
    return bool(names) and suffix_of(str(names[0])) == ".npy"


def target_is_file(path, target, format_=None):
    """Return whether the target is a separate file: it is for .npy features."""
    return target is not None and needs_target_file(path, format_)


def _reader(name):
    """Return the function that reads a format; imports only its module."""
    if name == "npz":
        from pympi_train.data.formats.arrays.npz import read_npz as read
    elif name == "npy":
        from pympi_train.data.formats.arrays.npy import read_npy as read
    elif name == "h5":
        from pympi_train.data.formats.arrays.hdf5 import read_hdf5 as read
    elif name == "zarr":
        from pympi_train.data.formats.arrays.zarr_store import read_zarr as read
    elif name in SEPARATORS:
        from pympi_train.data.formats.text.csv_file import read_csv

        read = partial(read_csv, separator=SEPARATORS[name])
    elif name == "parquet":
        from pympi_train.data.formats.columns.parquet import read_parquet as read
    else:
        from pympi_train.data.formats.text.svm import read_svm as read
    return read
