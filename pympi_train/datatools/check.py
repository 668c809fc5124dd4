"""Checks of data files: whether every row can be read, and makes sense."""

import os

from pympi_train.comm.checks import on_root, together
from pympi_train.data.tables.statistics import Statistics
from pympi_train.data.tables.stripes import Stripes
from pympi_train.data.tables.table import open_table, read_manifest
from pympi_train.datatools.duplicates import ColumnHashes
from pympi_train.datatools.folder import digest_of
from pympi_train.datatools.progress import progress
from pympi_train.errors import DataError

MAX_MESSAGES = 20  # of a kind, from a rank


def check_files(
    inputs, comm, *, columns=None, header=None, token_dtype="uint16", is_shown=True
):
    """Return what is wrong with data files, and their number of rows.

    Parameters
    ----------
    inputs, columns, header, token_dtype
        As for `data.tables.table.open`. Shards of a folder with a manifest are also
        compared with their checksums.
    comm : MPI.Comm
    is_shown : bool
        Whether progress is shown.

    Returns
    -------
    dict
        ``rows`` (None if the files cannot be opened) and ``findings``, a list of
        (kind, message). Kinds: "checksum", "unreadable", "absent", "missing",
        "infinite", "constant", "duplicate".

    Notes
    -----
    Collective. The same on every rank.
    """
    findings = _wrong_shards(inputs, comm)
    try:
        table = open_table(inputs, comm, columns, header, token_dtype)
    except DataError as error:  # agreed by all ranks
        return {"rows": None, "findings": [*findings, ("unreadable", str(error))]}
    stripes = Stripes(table, comm)
    statistics = Statistics(table.fields, stripes)
    hashes = ColumnHashes(table.fields)
    errors: list = []
    start, stop = stripes.own_rows
    with progress(comm, "check", stop - start, is_shown) as advance, together(comm):
        for stripe, batch in _readable(stripes, errors):
            statistics.add(stripe, batch)
            start, stop = stripes.row_range(stripe)
            hashes.add(start, batch)
            advance(stop - start)
    findings += [("absent", text) for text in table.remarks]
    unread = _gathered("unreadable", errors, comm)
    of_columns = _wrong_columns(statistics.agree(comm))
    duplicates = hashes.duplicates(comm)
    if not unread:  # else rows are missing from the hashes
        of_columns += [
            ("duplicate", f"column {name!r} has the values of {earlier!r}")
            for name, earlier in duplicates
        ]
    return {"rows": table.n, "findings": [*findings, *unread, *of_columns]}


def _readable(stripes, errors):
    """Yield the stripes of this rank that can be read; append the other's errors."""
    todo = stripes.own
    while todo:
        try:
            for stripe, batch in stripes.read(todo):
                todo = range(stripe + 1, todo.stop)
                yield stripe, batch
        except DataError as error:
            errors.append(str(error))
            todo = todo[1:]


def _gathered(kind, messages, comm):
    """Return findings of all ranks, each message once. Collective."""
    some = list(dict.fromkeys(messages))[:MAX_MESSAGES]
    every = [text for of_rank in comm.allgather(some) for text in of_rank]
    return [(kind, text) for text in dict.fromkeys(every)]


def _wrong_shards(inputs, comm):
    """Return findings of shards that differ from their manifest. Collective."""
    try:
        manifest = on_root(comm, lambda: read_manifest(inputs))
    except DataError as error:  # agreed by all ranks
        return [("checksum", str(error))]
    wrong = []
    with together(comm):
        shards = manifest["shards"] if manifest else []
        files = [file for shard in shards for file in shard["files"]]
        for file in files[comm.rank :: comm.size]:
            path = os.path.join(inputs, file["name"])
            try:
                if digest_of(path) != file["sha256"]:
                    wrong.append(f"{path}: its SHA-256 differs from the manifest's")
            except OSError as error:
                wrong.append(f"{path}: cannot be read: {error.strerror}")
        if manifest and comm.rank == 0:
            known = {file["name"] for file in files}
            wrong += [
                f"{os.path.join(inputs, name)}: not in the manifest"
                for name in sorted(os.listdir(inputs))
                if name[0] not in "._" and name not in known
            ]
    return _gathered("checksum", wrong, comm)


def _wrong_columns(statistics):
    """Return findings of columns: missing and infinite values, and constants."""
    found = []
    for one in statistics:
        name, n = one["name"], one["rows"]
        if one["missing"]:
            text = f"column {name!r}: {one['missing']:,} of {n:,} values are missing"
            found.append(("missing", text))
        if one.get("infinite"):
            text = f"column {name!r}: {one['infinite']:,} values are infinite"
            found.append(("infinite", text))
        if n > 1 and one["count"] and _is_constant(one):
            text = f"column {name!r}: all values are {_value(one)!r}"
            found.append(("constant", text))
    return found


def _is_constant(one):
    if one.get("distinct") is not None:
        return one["distinct"] == 1
    return "min" in one and not one.get("infinite") and one["min"] == one["max"]


def _value(one):
    value = one["labels"][0][0] if one.get("labels") else one["min"]
    return value[:40] if isinstance(value, str) else value
