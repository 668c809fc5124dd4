"""The files of a data set: a name, a list, a pattern or a folder."""

import contextlib
import glob
import os
import re
import stat
from dataclasses import dataclass

from pympi_train.comm.checks import on_root, together
from pympi_train.comm.messages import objects_of_ranks
from pympi_train.data.formats.rows import as_names, shown
from pympi_train.errors import DataError
from pympi_train.paths import is_remote

FORMATS = {
    ".npz": "npz",
    ".npy": "npy",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".svm": "svm",
    ".libsvm": "svm",
    ".h5": "h5",
    ".hdf5": "h5",
    ".zarr": "zarr",
    ".bin": "tokens",
}
TEXT = ("csv", "tsv", "svm")  # may be compressed
TABLES = ("csv", "tsv", "parquet")
COMPRESSIONS = (".gz", ".zst")
REMOTE = ("npy", "npz", "h5", "zarr", "parquet", *TEXT)  # also read behind a URL
NAMELESS = ("npy", "svm")  # formats without names of columns or arrays


@dataclass(frozen=True)
class Files:
    """The files of a data set, all of one format, in the order of their rows.

    Attributes
    ----------
    name : str
        For messages.
    paths : tuple of str
    format : str
        A value of FORMATS.
    """

    name: str
    paths: tuple
    format: str


def find_files(given, comm, format_=None):
    """Return the Files of a name, a pattern, a folder, or a list of these. Collective.

    Rank 0 looks, because what other nodes see of a network file system may be older.
    Files of a pattern or folder are in natural order: part2 comes before part10. A
    folder's files are those with the suffix of a format; names that begin with a dot
    or an underscore are not data.

    Parameters
    ----------
    given : str, path, or sequence of them
        A URL is looked up through fsspec, if it has a ``*`` or ends with a slash.
        A name with ``*``, ``?`` or ``[`` is a pattern unless such a file exists; ``**``
        stands for any folders.
    format_ : str, optional
        A value of FORMATS; by default the suffix of each name says it.

    Raises
    ------
    DataError
        If a pattern or folder has no file, a file comes twice, or formats differ.
    """
    return on_root(comm, lambda: seen_files(given, format_))


def seen_files(given, format_=None):
    """Return the Files as this rank sees them; arguments as for `find_files`."""
    if format_ is not None and format_ not in FORMATS.values():
        known = ", ".join(dict.fromkeys(FORMATS.values()))
        raise DataError(f"format must be one of {known}, got {format_!r}")
    names = [os.fspath(name) for name in as_names(given)]
    names = [n if is_remote(n) else n.rstrip("/") or "/" for n in names]
    paths = [path for name in names for path in expand_name(name, format_)]
    if not paths:
        raise DataError("expected the name of a data file, got an empty list")
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    first = format_ or format_of(paths[0])
    seen = set()
    for path in paths:
        if not format_ and format_of(path) != first:
            raise DataError(
                f"{path}: the files of a data set have one format, but {paths[0]} has "
                "another"
            )
        is_packed = path.partition("?")[0].lower().endswith(COMPRESSIONS)
        if is_remote(path) and (first not in REMOTE or is_packed):
            raise DataError(
                f"{path}: files of this format are not read from a URL; copy them, or "
                f"use {', '.join(key for key in FORMATS if FORMATS[key] in REMOTE)}"
            )
        real = path if is_remote(path) else os.path.realpath(path)
        if real in seen:
            raise DataError(f"{path}: comes twice among the files of {shown(name)}")
        seen.add(real)
    return Files(name, tuple(paths), first)


def expand_name(name, format_=None):
    """Return the paths that a name, pattern or folder stands for, in natural order."""
    if is_remote(name):
        from pympi_train.data.formats.remote import expand_remote

        def is_data(entry):
            return _is_data(entry, format_)

        return sorted(expand_remote(name, is_data), key=_natural)
    if os.path.isdir(name) and not is_zarr(name):
        found = [
            os.path.join(name, entry)
            for entry in os.listdir(name)
            if _is_data(entry, format_)
        ]
        if not found:
            raise DataError(
                f"{name}: a folder without data files; expected names that end in "
                f"{', '.join(FORMATS)}"
            )
    elif glob.has_magic(name) and not os.path.lexists(name):
        found = glob.glob(name, recursive=True)
        found = [p for p in found if is_zarr(p) or not os.path.isdir(p)]
        if not found:
            raise DataError(f"{name}: no file has a name of this pattern")
    else:
        return [name]
    return sorted(found, key=_natural)


def is_zarr(path):
    """Return whether a path is a Zarr, which is a folder."""
    return os.path.splitext(path)[1].lower() == ".zarr"


def _is_data(entry, format_):
    """Return whether the name of a file in a folder is that of a data file."""
    return entry[0] not in "._" and bool(format_ or suffix_of(entry) in FORMATS)


def _natural(path):
    """Return a sort key by which part2 comes before part10."""
    words = re.split(r"([0-9]+)", path)
    return [int(w) if w.isdecimal() else w for w in words], path


def suffix_of(path):
    """Return the suffix that says a file's format; none for a compressed binary file.

    Examples
    --------
    >>> suffix_of("a.CSV"), suffix_of("a.tsv.gz"), suffix_of("a.npy.gz")
    ('.csv', '.tsv', '.gz')
    """
    path = path.partition("?")[0] if is_remote(path) else path
    stem, suffix = os.path.splitext(path.rstrip("/"))
    inner = os.path.splitext(stem)[1].lower()
    is_text = suffix.lower() in COMPRESSIONS and FORMATS.get(inner) in TEXT
    return inner if is_text else suffix.lower()


def format_of(path):
    """Return the value of FORMATS for a file; raise DataError for another suffix."""
    suffix = suffix_of(path)
    if not suffix and not is_remote(path) and not os.path.exists(path):
        raise DataError(f"{path}: no such file or folder")
    if suffix not in FORMATS:
        raise DataError(
            f"{path}: unknown format {suffix!r}; expected one of {', '.join(FORMATS)} "
            "(text also with .gz or .zst after it), or [data] format"
        )
    return FORMATS[suffix]


def file_size(path):
    """Return the size of a file in bytes; raise DataError if there is no file."""
    if is_remote(path):
        from pympi_train.data.formats.remote import remote_size

        return remote_size(path)
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


@contextlib.contextmanager
def open_binary(path):
    """Open a file for reading, seekable; it may be remote."""
    if is_remote(path):
        from pympi_train.data.formats.remote import open_remote

        with open_remote(path) as file:
            yield file
    else:
        with open(path, "rb") as file:
            yield file


def of_each(paths, work, comm):
    """Return ``work(path)`` of each path, on every rank. Collective.

    Each is done by one rank, in turn: the same file may look unlike on several nodes.
    """
    with together(comm):
        mine = [work(path) for path in paths[comm.rank :: comm.size]]
    found = [None] * len(paths)
    for rank, part in objects_of_ranks(comm, mine or None).items():
        found[rank :: comm.size] = part
    return found
