"""`open`: a rank's rows of a table, for analyses of one's own."""

import builtins
import json
import os
from numbers import Integral

import numpy as np

from pympi_train.comm import ranks
from pympi_train.comm.checks import on_root, require_all_equal, together
from pympi_train.data.formats.files import find_files
from pympi_train.data.formats.rows import as_names
from pympi_train.data.formats.token_files import require_token_dtype
from pympi_train.data.partition import own_range
from pympi_train.data.tables.reductions import reduce_arrays
from pympi_train.data.tables.source import missing_mask, recut
from pympi_train.data.tables.statistics import Statistics
from pympi_train.data.tables.stripes import Stripes
from pympi_train.errors import MALFORMED, DataError

MANIFEST = "_manifest.json"  # other readers of folders leave such names aside


def open_table(given, comm, columns=None, header=None, token_dtype="uint16"):
    """Return the Table of files.

    Parameters
    ----------
    given : str, path, or sequence of them
        A file, folder or pattern, or several. A folder made by ``data convert`` has
        the columns of its manifest.
    comm : MPI.Comm
    columns : str or sequence of str, optional
        The columns, in this order; all of them by default.
    header : bool, optional
        Whether the first line of a .csv has the names of the columns. If None, it has
        to, and a line that looks like numbers is an error.
    token_dtype : str
        Of the tokens of .bin files.

    Raises
    ------
    DataError
        If there is no file, or one cannot be read, is damaged, has no row, or differs
        from the others.

    Notes
    -----
    Collective.
    """
    columns = as_names(columns) or None
    manifest = on_root(comm, lambda: read_manifest(given))
    if manifest is not None and manifest.get("format") == "npy":
        from pympi_train.data.tables.readers.sharded_table import open_shards

        return open_shards(os.fspath(given), manifest, comm, columns)
    files = find_files(given, comm)
    if files.format in ("csv", "tsv"):
        from pympi_train.data.tables.readers.csv_table import open_csv

        return open_csv(files, comm, columns, header)
    if files.format == "tokens":
        from pympi_train.data.tables.readers.array_table import open_arrays

        with together(comm):
            require_token_dtype(token_dtype)
        return open_arrays(files, comm, columns, token_dtype)
    return _opener(files)(files, comm, columns)


def read_manifest(given):
    """Return the manifest of a folder of shards, or None for other data."""
    if not isinstance(given, (str, os.PathLike)) or not os.path.isdir(given):
        return None
    path = os.path.join(given, MANIFEST)
    if not os.path.exists(path):
        return None
    try:
        with builtins.open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        if not str(manifest.get("made_by")).startswith("pympi-train"):
            return None  # of another program
        if not isinstance(manifest["shards"], list):
            raise TypeError("shards is no list")
        return manifest
    except (OSError, *MALFORMED) as error:
        raise DataError(f"{path}: not a manifest of data convert: {error}") from None


def _opener(files):
    """Return the function that opens a format; imports only its module."""
    if files.format == "parquet":
        from pympi_train.data.tables.readers.parquet_table import open_parquet as opener
    elif files.format == "svm":
        from pympi_train.data.tables.readers.svm_table import open_svm as opener
    else:
        from pympi_train.data.tables.readers.array_table import open_arrays as opener
    return opener


def open(
    path,
    comm=None,
    columns=None,
    batch_rows=None,
    header=None,
    token_dtype="uint16",
):
    """Open files of any format, and return this rank's rows.

    Parameters
    ----------
    path : str, path, or sequence of them
        A file, folder or pattern, or a list of these: ``.csv``, ``.tsv``,
        ``.parquet``, ``.h5``, ``.zarr``, ``.npy``, ``.npz``, ``.svm``, ``.bin``.
    comm : MPI.Comm or Ranks, optional
        The ranks that share the rows; by default the world.
    columns : str or sequence of str, optional
        The columns to read; all of them by default.
    batch_rows : int, optional
        Rows of a batch; by default about 8 MB.
    header : bool, optional
        Whether the first line of a .csv has the names of the columns.
    token_dtype : str
        Of the tokens of .bin files: "uint8", "uint16", "uint32" or "uint64".

    Returns
    -------
    TableRows

    Raises
    ------
    DataError
        On every rank, if the files cannot be read.
    RankMismatchError
        On every rank, if the arguments differ between ranks.

    Notes
    -----
    Collective.

    Examples
    --------
    >>> import numpy as np, pympi_train as pt
    >>> folder = getfixture("tmp_path")
    >>> np.savez(folder / "a.npz", age=np.array([20.0, 30.0, 40.0]))
    >>> table = pt.data.open(folder / "a.npz")
    >>> table.n, table.mean("age")
    (3, 30.0)
    """
    comm = ranks.resolve(comm)
    with together(comm):
        is_count = isinstance(batch_rows, Integral) and batch_rows >= 1
        if batch_rows is not None and not is_count:
            raise DataError(
                f"batch_rows must be a whole number of at least 1, got {batch_rows!r}"
            )
    names = [os.fspath(name) for name in as_names(path)]
    given = {"path": names, "columns": as_names(columns), "header": header}
    given["token_dtype"] = token_dtype
    require_all_equal(comm, given, hint="Open the same files on each rank.")
    table = open_table(path, comm, columns, header, token_dtype)
    return TableRows(table, comm, batch_rows)


class TableRows:
    """This rank's rows ``[r*n // P, (r+1)*n // P)`` of a table; made by `open`.

    Iteration yields batches: ``{name: values}``, with arrays of the same length. Texts
    are arrays of str and None; integers and booleans with missing values are masked
    arrays; a missing number is NaN, a missing date NaT. Each iteration reads the files
    again, and no more than a batch is in memory.

    Parameters
    ----------
    table : Table
    comm : MPI.Comm
    batch_rows : int or None

    Attributes
    ----------
    n : int
        Number of rows of all ranks.
    start, stop : int
        The rows of this rank.
    names : tuple of str
        The columns.
    types : dict of str to str
        Dtype of each column, or "text".
    """

    def __init__(self, table, comm, batch_rows=None):
        self._table, self._comm = table, comm
        self._batch_rows = batch_rows or table.batch_rows
        self.n, self.names = table.n, table.names
        self.types = {field.name: field.type for field in table.fields}
        self.start, self.stop = own_range(table.n, comm.rank, comm.size)

    def __iter__(self):
        own, step = self.stop - self.start, self._batch_rows
        sizes = [min(step, own - at) for at in range(0, own, step)]
        return recut(self._table.pieces(self.start, self.stop), sizes)

    def reduce(self, function, op="sum"):
        """Return the results of a function of a batch, combined over all batches.

        Parameters
        ----------
        function : callable
            ``function(batch)`` returns a number or an array; arrays have one shape.
        op : {"sum", "min", "max"}
            Element by element.

        Returns
        -------
        ndarray
            The same on every rank.

        Notes
        -----
        Collective. An error on one rank is raised on all.
        """
        return reduce_arrays((function(batch) for batch in self), op, self._comm)

    def mean(self, column):
        """Return the mean of a column without its missing values; NaN if all are.

        A float, or an array if the column has several values per row. Collective.
        """
        self._require_number(column)

        def sums(batch):
            values = batch[column]
            is_there = ~missing_mask(values)
            filled = np.where(is_there, np.ma.getdata(values), 0)
            return np.array([filled.sum(0, dtype=np.float64), is_there.sum(0)])

        total, count = self.reduce(sums)
        with np.errstate(invalid="ignore"):
            mean = total / count
        return mean if mean.shape else float(mean)

    def histogram(self, column, bins=10, range=None):
        """Return (counts, edges) of the values of a column, as ``numpy.histogram``.

        Missing and infinite values are not counted. Without ``range``, the rows are
        read twice. Collective.
        """
        self._require_number(column)
        if range is None:
            range = self._range(column)

        with together(self._comm):
            try:
                edges = np.histogram_bin_edges(np.empty(0), bins, range)
            except (ValueError, TypeError) as error:
                text = f"histogram of column {column!r}: {error}"
                raise DataError(text) from None

        def count(batch):
            return np.histogram(_finite(batch[column]), edges)[0]

        return self.reduce(count), edges

    def _range(self, column):
        def ends(batch):
            values = _finite(batch[column])
            if not len(values):
                return np.array([np.inf, np.inf])
            return np.array([values.min(), -values.max()], dtype=np.float64)

        low, high = self.reduce(ends, "min")
        return (low, -high) if low <= -high else (0.0, 1.0)

    def statistics(self):
        """Return statistics of each column: a list of dicts.

        Count, missing, mean, standard deviation, minimum, maximum, number of distinct
        values, and the most frequent values with their counts. The same bits on any
        number of ranks. Collective.
        """
        stripes = Stripes(self._table, self._comm)
        found = Statistics(self._table.fields, stripes)
        with together(self._comm):
            for stripe, batch in stripes.read():
                found.add(stripe, batch)
        return found.agree(self._comm)

    def _require_number(self, column):
        with together(self._comm):
            if not self._table.field(column).is_number:
                raise DataError(
                    f"{self._table.name}: column {column!r} is {self.types[column]}, "
                    "no number"
                )


def _finite(values):
    """Return the values that are neither missing nor infinite, shape (m,)."""
    there = np.ma.getdata(values)[~missing_mask(values)].astype(np.float64)
    return there[np.isfinite(there)]
