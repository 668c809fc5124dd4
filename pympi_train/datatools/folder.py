"""Output folders that appear whole or not at all, and their manifest."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil

from pympi_train import __version__
from pympi_train.checkpoint.durable import naming
from pympi_train.comm.checks import together
from pympi_train.data.tables.table import MANIFEST
from pympi_train.errors import DataError
from pympi_train.runs.output import finite

READ_BYTES = 1 << 20


@contextlib.contextmanager
def new_folder(path, comm):
    """Yield a temporary folder, which becomes ``path`` at the end.

    If the body raises on all ranks, the temporary folder is removed.

    Raises
    ------
    DataError
        If ``path`` exists, or cannot be made.

    Notes
    -----
    Collective.
    """
    path = os.path.abspath(os.fspath(path))
    temporary = None
    with together(comm), naming(path):
        if comm.rank == 0:
            _require_absent(path)
            name = f".{os.path.basename(path)}.{secrets.token_hex(4)}.tmp"
            temporary = os.path.join(os.path.dirname(path), name)
            os.mkdir(temporary)
    temporary = comm.bcast(temporary, root=0)
    try:
        with together(comm):
            if not os.path.isdir(temporary):
                raise DataError(
                    f"{path}: the folder that rank 0 made is not seen on rank "
                    f"{comm.rank}: choose a folder on a shared file system"
                )
        yield temporary
        with together(comm), naming(path):
            if comm.rank == 0:
                _require_absent(path)
                os.rename(temporary, path)
    finally:
        if comm.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)


def _require_absent(path):
    if os.path.lexists(path):
        raise DataError(f"{path}: exists already; choose another name, or remove it")


def write_stripes(folder, stripes, write, advance=None):
    """Write this rank's stripes; return the entries of their shards.

    Parameters
    ----------
    folder : str
    stripes : iterable of (int, dict)
        Numbers and batches, as `Stripes.read` yields.
    write : callable
        ``write(folder, number, batch)`` writes files and returns (rows, names); no
        file if there are no rows.
    advance : callable, optional
        Called with the rows of each stripe.
    """
    entries = []
    for number, batch in stripes:
        with naming(folder):
            rows, names = write(folder, number, batch)
        if names:
            files = [_described(folder, name) for name in names]
            entries.append({"rows": rows, "files": files})
        if advance is not None:
            advance(rows)
    return entries


def _described(folder, name):
    path = os.path.join(folder, name)
    return {"name": name, "bytes": os.path.getsize(path), "sha256": digest_of(path)}


def digest_of(path):
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def shard_name(stem, number, suffix):
    """Return the name of a shard, such as ``part-00012.parquet``."""
    return f"{stem}-{number:05d}{suffix}"


def write_manifest(folder, comm, entries, **facts):
    """Write the manifest of all ranks' shards on rank 0; return it there, else None.

    Parameters
    ----------
    folder : str
    comm : MPI.Comm
    entries : list of dict
        Of this rank, see `write_stripes`.
    **facts
        Further entries of the manifest.

    Notes
    -----
    Collective. Rank 0 gets a few words for each shard.
    """
    gathered = comm.gather(entries, root=0)
    manifest = None
    with together(comm), naming(os.path.join(folder, MANIFEST)):
        if comm.rank == 0:
            shards = [entry for of_rank in gathered for entry in of_rank]
            manifest = {
                "made_by": f"pympi-train {__version__}",
                "rows": sum(shard["rows"] for shard in shards),
                **facts,
                "shards": shards,
            }
            if not shards:
                raise DataError(f"{folder}: no rows to write")
            with open(os.path.join(folder, MANIFEST), "x", encoding="utf-8") as file:
                json.dump(finite(manifest), file, indent=1, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
    return manifest
