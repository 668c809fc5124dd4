"""What is in data files: schema, statistics, and a [data] section for training."""

import os

from pympi_train.comm.checks import together
from pympi_train.data.formats.files import suffix_of
from pympi_train.data.formats.rows import as_names
from pympi_train.data.tables.readers.array_table import TOKEN
from pympi_train.data.tables.readers.sharded_table import ShardedTable
from pympi_train.data.tables.readers.svm_table import SvmTable
from pympi_train.data.tables.statistics import Statistics
from pympi_train.data.tables.stripes import Stripes
from pympi_train.data.tables.table import open_table
from pympi_train.datatools.progress import progress
from pympi_train.runs.speech import counted

TARGETS = ("target", "y", "label", "labels", "class", "answer", "outcome")
MAX_CATEGORIES = 100  # of a column of text that is suggested as a feature
MAX_CLASSES = 20  # of whole numbers that are suggested as classes
SHOWN_COLUMNS, SHOWN_LABELS = 40, 3
LEAST_OF_CLASS = 10  # rows from which a stratified split is suggested
ITERATIONS = 200
WINDOW, LEAST_WINDOW, LEAST_WINDOWS = 64, 4, 20  # of tokens
SCALES = 10.0  # ratio of standard deviations from which scaling is suggested


def describe_files(
    inputs, comm, *, columns=None, header=None, token_dtype="uint16", is_shown=True
):
    """Return schema and statistics of data files, and a suggested configuration.

    Parameters
    ----------
    inputs, columns, header, token_dtype
        As for `data.tables.table.open`.
    comm : MPI.Comm
    is_shown : bool
        Whether progress is shown.

    Returns
    -------
    dict
        ``files``, ``rows``, ``columns`` (see `TableRows.statistics`), ``remarks`` (a
        list of str) and ``suggestion``, a dict of the sections of a configuration.

    Notes
    -----
    Collective. The same on every rank, and on any number of ranks.
    """
    table = open_table(inputs, comm, columns, header, token_dtype)
    stripes = Stripes(table, comm)
    statistics = Statistics(table.fields, stripes)
    start, stop = stripes.own_rows
    with progress(comm, "info", stop - start, is_shown) as advance, together(comm):
        for stripe, batch in stripes.read():
            statistics.add(stripe, batch)
            advance(len(next(iter(batch.values()))))
    found = statistics.agree(comm)
    return {
        "files": len(table.files),
        "rows": table.n,
        "columns": found,
        "remarks": _remarks(found),
        "suggestion": suggest_sections(inputs, table, found, columns),
    }


def _remarks(statistics):
    """Return what the suggested configuration cannot make good."""
    return [
        f"column {one['name']!r} has {counted(one['infinite'], 'infinite value')}, "
        "which training refuses and [data] missing does not fill: store them as "
        "missing (empty, or NaN), or leave the column out ([data] drop)"
        for one in statistics
        if one.get("infinite")
    ]


def suggest_sections(inputs, table, statistics, columns=None):
    """Return the sections of a configuration that seem to fit: a dict of dicts.

    ``columns`` are those that were asked for, if not all.
    """
    names = [os.fspath(name) for name in as_names(inputs)]
    train = names[0] if len(names) == 1 else names
    if _are_tokens(table):
        return _sections_of_tokens(train, table)
    if isinstance(table, ShardedTable):
        files = {os.path.basename(path).rpartition("-")[0] for path in table.files}
        keys = {"train": "features", "target": "target", "weights": "weights"}
        data = {
            key: f"{train}/{name}-*.npy" for key, name in keys.items() if name in files
        }
    else:
        data = {"train": train}
    single = {one["name"]: one for one in statistics if one["name"] in table.names}
    target = _target(table)
    if target is None:
        return {"data": data}
    if "target" not in data and not isinstance(table, SvmTable):
        data = _named_columns(train, target, single, columns is not None)
    apart = {target, *data.get("drop", ())}
    numbers = [one for one in statistics if "std" in one and one["name"] not in apart]
    kept = [one for name, one in single.items() if name not in apart]
    if any(one["missing"] for one in [*numbers, *kept]):
        data["missing"] = "median"
    spreads = [one["std"] for one in numbers if one["std"] > 0]
    if spreads and max(spreads) > SCALES * min(spreads):
        data["standardize"] = True
    data["validation"] = 0.2
    kind = _kind(single.get(target))
    labels = single.get(target, {}).get("labels") or ()
    if kind != "linear" and min((n for _, n in labels), default=0) >= LEAST_OF_CLASS:
        data["split"] = "stratified"
    return {
        "data": data,
        "model": {"kind": kind},
        "optimizer": {"name": "lbfgs"},
        "train": {"epochs": ITERATIONS},
    }


def _are_tokens(table):
    """Return whether the only column has the name and the type of tokens."""
    field, *others = table.fields
    is_whole = not field.is_text and field.dtype.kind in "iu" and not field.shape
    return field.name == TOKEN and is_whole and not others


def _sections_of_tokens(train, table):
    """Return the sections of a configuration of a language model."""
    data = {"train": train}
    if suffix_of(table.files[0]) != ".bin":
        data["format"] = "tokens"
    elif table.fields[0].type != "uint16":
        data["token_dtype"] = table.fields[0].type
    window = max(LEAST_WINDOW, min(WINDOW, table.n // LEAST_WINDOWS))
    return {
        "data": {**data, "window": window, "validation": 0.1},
        "model": {"kind": "neural-ngram"},
    }


def _named_columns(train, target, columns, is_part):
    """Return the section [data] of files whose columns have names.

    Features are named if ``columns`` are only a part of the file.
    """
    features = {name: one for name, one in columns.items() if name != target}
    drop = [name for name, one in features.items() if _is_useless(one)]
    kept = {name: one for name, one in features.items() if name not in drop}
    groups = {
        "features": list(kept) if is_part else [],
        "drop": [] if is_part else drop,
        "categorical": [n for n, one in kept.items() if one["type"] == "text"],
        "dates": [n for n, one in kept.items() if one["type"].startswith("datetime")],
    }
    found = {key: names for key, names in groups.items() if names}
    return {"train": train, "target": target, **found}


def _target(table):
    """Return the column that is probably the target, or None."""
    names = [field.name for field in table.fields if not field.shape]
    if not names or len(table.fields) == 1:
        return None
    for name in names:
        if name.casefold() in TARGETS:
            return name
    return names[-1]


def _is_useless(one):
    """Return whether a column is constant, an identifier, free text, or not finite."""
    if one.get("distinct") == 1 or not one["count"] or one.get("infinite"):
        return True
    if one["type"] == "text":
        return one["distinct"] is None or one["distinct"] > MAX_CATEGORIES
    is_whole = one["type"].startswith(("int", "uint")) and "min" in one
    return is_whole and one["rows"] >= 10 and one["max"] - one["min"] + 1 == one["rows"]


def _kind(target):
    if target is None or target["type"].startswith("float"):
        return "linear"
    distinct = target["distinct"]
    if target["type"] not in ("text", "bool"):
        if distinct is None or distinct > MAX_CLASSES:
            return "linear"
    return "logistic" if distinct == 2 else "softmax"


def info_lines(found):
    """Yield the lines in which a person reads the result of `describe_files`."""
    import tomli_w

    # Values of arrays, x[0], x[1] ..., come last.
    columns = sorted(found["columns"], key=lambda one: one["name"].endswith("]"))
    size = f"{counted(found['files'], 'file')}, {counted(found['rows'], 'row')}"
    yield f"{size}, {counted(len(columns), 'column')}"
    yield f"{'column':20} {'type':14} {'missing':>9} {'mean':>11} {'std':>11}  values"
    for one in columns[:SHOWN_COLUMNS]:
        mean, std = (_number(one.get(key)) for key in ("mean", "std"))
        line = (
            f"{_short(one['name'], 20):20} {one['type']:14} {one['missing']:9,} "
            f"{mean:>11} {std:>11}  {_values(one)}"
        )
        yield line.rstrip()
    if len(columns) > SHOWN_COLUMNS:
        yield f"... and {len(columns) - SHOWN_COLUMNS:,} more; --json has all"
    for remark in found["remarks"][:SHOWN_COLUMNS]:
        yield remark
    one = columns[0]
    if len(columns) == 1 and one["name"] == TOKEN and "max" in one:
        yield (
            f"\nToken files: {counted(one['rows'], 'token')} of {one['type']}, the "
            f"largest is {one['max']:,}."
        )
    yield "\nThis configuration may fit:\n"
    yield tomli_w.dumps(found["suggestion"]).rstrip()
    if "model" not in found["suggestion"]:
        yield "# and the target: the column, array or file to predict"


def _number(value):
    return "" if value is None else f"{value:.5g}"


def _end(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _values(one):
    """Return the range of a column, or its most frequent values."""
    labels = one.get("labels")
    if labels is None or ("min" in one and len(labels) > SHOWN_LABELS):
        distinct = one.get("distinct", 0) is None
        many = ", many values" if distinct and "min" not in one else ""
        ends = " ... ".join(_end(one[key]) for key in ("min", "max") if key in one)
        return (ends + many).removeprefix(", ")
    shown = [f"{_short(str(v), 20)!r}: {n:,}" for v, n in labels[:SHOWN_LABELS]]
    more = one["distinct"] - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _short(text, width):
    return text if len(text) <= width else text[: width - 3] + "..."
