"""Made data of any size, written in parallel."""

from pympi_train.comm.checks import together
from pympi_train.data.partition import own_range
from pympi_train.datatools import made_tables
from pympi_train.datatools.convert import SHARD_BYTES, write_table
from pympi_train.datatools.folder import new_folder, write_manifest, write_stripes
from pympi_train.datatools.made_sparse import SparseText
from pympi_train.datatools.progress import progress
from pympi_train.datatools.writers import make_writer
from pympi_train.errors import ConfigError

# Kind: the function that makes the table, and its target.
MADE = {
    "regression": (made_tables.make_regression, "y"),
    "classification": (made_tables.make_classification, "label"),
    "images": (made_tables.make_images, "label"),
    "tokens": (made_tables.make_tokens, None),
}


def make_data(
    kind, output, comm, *, rows, format="npy", rows_per_shard=None, is_shown=True, **how
):
    """Write made data to a folder of shards; return the manifest on rank 0.

    Parameters
    ----------
    kind : {"regression", "classification", "images", "tokens", "sparse"}
    output : str
        The folder; must not exist.
    comm : MPI.Comm
    rows : int
    format : {"npy", "parquet"}
        Sparse rows are ``.svm``.
    rows_per_shard : int, optional
        By default about 64 MB.
    is_shown : bool
        Whether progress is shown.
    **how
        ``features``, ``classes``, ``nonzeros``, ``side``, ``channels``,
        ``vocabulary``, ``noise``, ``seed``.

    Raises
    ------
    ConfigError
        If the numbers make no sense.

    Notes
    -----
    Collective. The bytes depend on the arguments alone, not on the ranks.
    """
    facts = {"kind": kind, "seed": how["seed"]}
    with together(comm):
        if not 0 <= how["noise"] <= 1:
            raise ConfigError(f"--noise must lie between 0 and 1, got {how['noise']}")
        if kind == "sparse":
            sparse = SparseText(rows, **how)
        else:
            make, target = MADE[kind]
            table = make(rows, **how)
            is_npy = format == "npy"
            writer = make_writer(format, table, target if is_npy else None)
    if kind != "sparse":
        return write_table(
            table, output, comm, writer, rows_per_shard, is_shown, **facts
        )
    step = rows_per_shard or max(1, SHARD_BYTES // sparse.row_bytes)
    return _write_sparse(sparse, output, comm, step, is_shown, facts)


def _write_sparse(sparse, output, comm, step, is_shown, facts):
    """Write shards of ``step`` sparse rows. Collective."""
    first, stop = own_range(-(-sparse.n // step), comm.rank, comm.size)
    cuts = [min(i * step, sparse.n) for i in range(first, stop + 1)]
    ranges = list(zip(range(first, stop), zip(cuts, cuts[1:])))
    own = sum(end - start for _, (start, end) in ranges)
    with new_folder(output, comm) as folder:
        with progress(comm, "synth", own, is_shown) as advance:
            with together(comm):
                entries = write_stripes(folder, ranges, sparse.write, advance)
        return write_manifest(
            folder, comm, entries, format=sparse.format, rows_per_shard=step, **facts
        )
