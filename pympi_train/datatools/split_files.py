"""Training and validation rows in folders of their own."""

import os
from types import SimpleNamespace

import numpy as np

from pympi_train.checkpoint.durable import naming
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.data.formats.text_column import TextLabels
from pympi_train.data.loading.split import split_rows
from pympi_train.data.tables.readers.array_table import TOKEN
from pympi_train.data.tables.source import missing_mask
from pympi_train.data.tables.statistics import Statistics
from pympi_train.data.tables.stripes import Stripes
from pympi_train.data.tables.table import open_table
from pympi_train.datatools.convert import SHARD_BYTES, described_columns
from pympi_train.datatools.folder import new_folder, write_manifest, write_stripes
from pympi_train.datatools.progress import progress
from pympi_train.datatools.writers import make_writer
from pympi_train.errors import ConfigError, DataError

MAX_CLASSES = 100_000
PARTS = ("train", "validation")


def split_files(
    inputs,
    output,
    comm,
    *,
    fraction,
    seed=0,
    stratify=None,
    group=None,
    columns=None,
    rows=None,
    header=None,
    token_dtype="uint16",
    is_shown=True,
    **how,
):
    """Write training and validation rows to ``output/train`` and ``output/validation``.

    The rows are those that ``[data] validation = fraction`` holds out with this seed,
    on any number of ranks. A shard of the input becomes one of each part.

    Parameters
    ----------
    inputs, output, comm, columns, rows, header, token_dtype, is_shown
        As for `convert_files`.
    fraction : float
        Of the rows, for validation; in (0, 1).
    seed : int
    stratify : str, optional
        A column of classes: the same fraction of each.
    group : str, optional
        A column: rows with one value stay together.
    **how
        ``format``, ``target``, ``weights``, ``dtype`` as for `convert_files`.

    Returns
    -------
    dict or None
        Rows of each part, on rank 0.

    Notes
    -----
    Collective.
    """
    with together(comm):
        if not 0 < fraction < 1:
            raise ConfigError(f"the fraction must lie between 0 and 1, got {fraction}")
        if stratify is not None and group is not None:
            raise ConfigError("--stratify and --group exclude each other")
    table = open_table(inputs, comm, columns, header, token_dtype)
    with together(comm):
        if table.names == (TOKEN,):
            raise DataError(
                f"{table.name}: single tokens, chosen at random, are no text any more; "
                "[data] validation = 0.1 holds out the last windows"
            )
        writer = make_writer(table=table, **how)
    stripes = Stripes(table, comm, rows or max(1, SHARD_BYTES // table.row_bytes))
    column = stratify if stratify is not None else group
    groups, stratum = None, None
    if column is not None:
        labels = _read_labels(inputs, comm, column, header, stripes, table)
        if stratify is not None:
            stratum = _codes_of_classes(labels, table.name, column, comm)
        else:
            groups = labels
    first, stop = stripes.own_rows
    held = split_rows(
        SimpleNamespace(
            n=table.n, start=first, stop=stop, y=stratum, others={group: groups}
        ),
        np.ones(stop - first, dtype=bool),
        SimpleNamespace(
            holds_out=True,
            group=group,
            split="random" if stratify is None else "stratified",
            fold=None,
            validation=float(fraction),
            seed=seed,
        ),
        table.name,
        comm,
    )
    counts = reduced(comm, [part.sum() for part in held])
    with together(comm):
        for part, count in zip(PARTS, counts):
            if not count:
                raise DataError(f"{table.name}: no row of {table.n} is for {part}")
    described = {"seed": seed, "fraction": fraction, "by": column}
    return _write_parts(table, output, comm, writer, stripes, held, described, is_shown)


def _write_parts(table, output, comm, writer, stripes, held, described, is_shown):
    """Write the rows of the masks ``held`` to a folder each. Collective."""
    first, stop = stripes.own_rows
    entries: dict = {part: [] for part in PARTS}
    statistics = {part: Statistics(table.fields, stripes) for part in PARTS}
    with new_folder(output, comm) as folder:
        folders = {part: os.path.join(folder, part) for part in PARTS}
        with together(comm), naming(folder):
            for part in PARTS if comm.rank == 0 else ():
                os.mkdir(folders[part])
        with progress(comm, "split", stop - first, is_shown) as advance, together(comm):
            for stripe, batch in stripes.read():
                low, high = (row - first for row in stripes.row_range(stripe))
                for part, mask in zip(PARTS, held):
                    some = {n: v[mask[low:high]] for n, v in batch.items()}
                    statistics[part].add(stripe, some)
                    one = [(stripe, some)]
                    entries[part] += write_stripes(folders[part], one, writer.write)
                advance(high - low)
        counts = {}
        for part in PARTS:
            manifest = write_manifest(
                folders[part],
                comm,
                entries[part],
                format=writer.format,
                **writer.facts(),
                columns=described_columns(table),
                part=part,
                split=described,
                statistics=statistics[part].agree(comm),
            )
            counts[part] = manifest and manifest["rows"]
    return counts if comm.rank == 0 else None


def _read_labels(inputs, comm, column, header, stripes, table):
    """Return the values of a column in this rank's rows, as TextLabels. Collective."""
    single = open_table(inputs, comm, [column], header)
    start, stop = stripes.own_rows
    known: dict = {}
    codes = np.empty(stop - start, dtype=np.intp)
    with together(comm):
        at = 0
        for batch in single.pieces(start, stop) if start < stop else ():
            values = batch[column]
            if values.ndim > 1:
                text = f"{table.name}: column {column!r} has several values a row"
                raise DataError(text)
            gaps = np.flatnonzero(missing_mask(values))
            if len(gaps):
                raise DataError(
                    f"{table.name}: row {start + at + int(gaps[0])} (from 0) has no "
                    f"value in the column {column!r}"
                )
            texts = map(str, np.ma.getdata(values).tolist())
            part = [known.setdefault(text, len(known)) for text in texts]
            codes[at : at + len(part)] = part
            at += len(part)
    return TextLabels(np.array([*known, ""], dtype=str), codes)


def _codes_of_classes(labels, name, column, comm):
    """Return the number of each row's class among those of all ranks. Collective."""
    own = labels.values[:-1].tolist()

    def merge(a, b):
        return a | b if len(a) + len(b) <= 2 * MAX_CLASSES else a

    known = sorted(comm.bcast(comm.reduce(set(own), op=merge, root=0), root=0))
    with together(comm):
        if max(len(known), len(own)) > MAX_CLASSES:
            raise DataError(
                f"{name}: column {column!r} has more than {MAX_CLASSES:,} values; a "
                "split by class needs a column of classes"
            )
        place = {text: i for i, text in enumerate(known)}
        return np.array([*(place[text] for text in own), 0])[labels.codes]
