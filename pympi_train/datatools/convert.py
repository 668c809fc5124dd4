"""Conversion of data files of any format to shards, in parallel."""

from pympi_train.comm.checks import together
from pympi_train.data.tables.statistics import Statistics
from pympi_train.data.tables.stripes import Stripes
from pympi_train.data.tables.table import open_table
from pympi_train.datatools.folder import new_folder, write_manifest, write_stripes
from pympi_train.datatools.progress import progress
from pympi_train.datatools.writers import make_writer

SHARD_BYTES = 64 << 20  # of a shard in memory


def convert_files(
    inputs,
    output,
    comm,
    *,
    format="parquet",
    columns=None,
    target=None,
    weights=None,
    dtype=None,
    rows=None,
    header=None,
    token_dtype="uint16",
    is_shown=True,
):
    """Convert files of any format to a folder of shards with a manifest.

    The shards are the same on any number of ranks. Each is written by one rank, which
    has its rows in memory. The folder appears when all is written.

    Parameters
    ----------
    inputs : str, path, or sequence of them
        As for `data.tables.table.open`.
    output : str
        The folder; must not exist.
    comm : MPI.Comm
    format : {"parquet", "npy"}
    columns : sequence of str, optional
        The columns to keep, in this order.
    target, weights, dtype
        As for `writers.NpyShards`.
    rows : int, optional
        Rows of a shard; by default about 64 MB in memory.
    header : bool, optional
    token_dtype : str
        As for `data.tables.table.open`.
    is_shown : bool
        Whether progress is shown.

    Returns
    -------
    dict or None
        The manifest, on rank 0.

    Raises
    ------
    DataError, ConfigError
        On every rank, if the files cannot be read, or the output not be written.

    Notes
    -----
    Collective.
    """
    table = open_table(inputs, comm, columns, header, token_dtype)
    with together(comm):
        writer = make_writer(format, table, target, weights, dtype)
    return write_table(table, output, comm, writer, rows, is_shown)


def write_table(table, output, comm, writer, rows=None, is_shown=True, **facts):
    """Write a Table to shards; return the manifest on rank 0. Collective."""
    rows = rows or max(1, SHARD_BYTES // table.row_bytes)
    stripes = Stripes(table, comm, rows)
    statistics = Statistics(table.fields, stripes)

    def counted():
        for stripe, batch in stripes.read():
            statistics.add(stripe, batch)
            yield stripe, batch

    with new_folder(output, comm) as folder:
        start, stop = stripes.own_rows
        with progress(comm, "convert", stop - start, is_shown) as advance:
            with together(comm):
                entries = write_stripes(folder, counted(), writer.write, advance)
        return write_manifest(
            folder,
            comm,
            entries,
            format=writer.format,
            rows_per_shard=stripes.rows,
            **writer.facts(),
            columns=described_columns(table),
            **facts,
            statistics=statistics.agree(comm),
        )


def described_columns(table):
    """Return name, type and shape of the columns, for a manifest."""
    return [
        {"name": field.name, "type": field.type, "shape": list(field.shape)}
        for field in table.fields
    ]
