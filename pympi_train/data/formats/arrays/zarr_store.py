"""Reader of Zarr stores: arrays by name, only the chunks of own rows."""

import contextlib
import itertools
import json
import os
import threading
import warnings
from dataclasses import dataclass

import numpy as np

from pympi_train.backends.threads import affinity
from pympi_train.data.formats.arrays.named import choose_arrays, read_chosen
from pympi_train.data.formats.arrays.slabs import SlabArray
from pympi_train.data.formats.files import of_each
from pympi_train.data.formats.libraries import EXTRA, load_library
from pympi_train.data.formats.remote import storage_options
from pympi_train.data.formats.rows import listed
from pympi_train.errors import DataError
from pympi_train.paths import is_remote

# Files that say what a folder is: array or group in format 3, array, group in format 2.
_METADATA = ("zarr.json", ".zarray", ".zgroup")
MAX_THREADS = 8  # of a rank, that decode chunks
_one_at_a_time = threading.Lock()


def read_zarr(paths, comm, selection, *, name, **options):
    """Read arrays of Zarr stores. Collective."""
    wanted = selection.named()

    def choose(path):
        return choose_arrays(path, selection, zarr_arrays(path, wanted))

    chosen = of_each(paths, choose, comm)
    return read_chosen(paths, chosen, comm, selection, name=name, **options)


@dataclass(frozen=True)
class ZarrArray(SlabArray):
    """An array of a Zarr store."""

    may_lack_chunks = True

    def fetch(self, start, stop):
        """Return the rows ``start`` to ``stop - 1`` in memory."""
        with _reading(self.place):
            array = _open(self.path, self.name)
            self.require_unchanged(array.shape, _plain_dtype(array))
            return self.gather(array, start, stop)

    def count_absent(self, start, stop):
        """Return the number of absent chunks, or shards, that begin in these rows.

        0 if the store is remote, where asking takes as long as reading.
        """
        if is_remote(self.path):
            return 0
        with _reading(self.place):
            array = _open(self.path, self.name)
            unit = array.shards or array.chunks
            ranges = [range(-(-start // unit[0]), -(-stop // unit[0]))]
            ranges += [range(-(-n // c)) for n, c in zip(array.shape[1:], unit[1:])]
            folder, key = os.path.join(self.path, self.name), array.metadata
            keys = map(key.encode_chunk_key, itertools.product(*ranges))
            return sum(not os.path.exists(os.path.join(folder, key)) for key in keys)


def zarr_arrays(path, wanted=(), lone=None):
    """Return ``{name: ZarrArray}`` for the arrays of a store, by name.

    Parameters
    ----------
    path : str
    wanted : sequence of str
        A group of such a name is an array with a flaw.
    lone : str, optional
        Name of the array of a store that is a single one; by default such a store is
        an error.

    Raises
    ------
    DataError
        If the folder is not a Zarr group.
    """
    _require_zarr(path)
    if is_remote(path):
        return _remote_arrays(path, wanted)
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "nothing of this name"
        raise DataError(f"{path}: expected the folder of a Zarr store, found {found}")
    with _reading(path):
        kind = _kind_of(path)
        if kind is None:
            raise DataError(
                f"{path}: not a Zarr store: the folder has none of the files "
                f"{', '.join(_METADATA)}"
            )
        if kind == "array" and lone is not None:
            return {lone: _array_of(path, "", lone)}
        if kind == "array":
            raise DataError(
                f"{path}: a single Zarr array, which has no name here; expected a "
                "group that holds features and target as arrays"
            )
        groups = []
        found = {name: _array_of(path, name) for name in sorted(_walk(path, groups))}
    for name in set(wanted) & set(groups):
        inside = [other for other in found if other.startswith(f"{name}/")]
        flaw = f"is a group, not an array; it holds {listed(inside)}"
        found[name] = _flawed(path, name, flaw)
    return found


def _require_zarr(path):
    zarr = load_library("zarr", f"{path}: reading Zarr")
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise DataError(
            f"{path}: reading Zarr needs zarr 3 or later, found {zarr.__version__}: "
            f"{EXTRA}"
        )


@contextlib.contextmanager
def _reading(place):
    """Convert what Zarr and its codecs raise, which is of any class, to DataError.

    Threads that Zarr starts here are few.
    """
    zarr = load_library("zarr", f"{place}: reading Zarr")
    # By default 32 threads, whatever CPUs a rank has.
    limits = {"threading.max_workers": min(MAX_THREADS, len(affinity()))}
    try:
        with zarr.config.set(limits):
            yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(
            f"{place}: cannot be read, perhaps not a complete Zarr store: "
            f"{type(error).__name__}: {error}"
        ) from None


def _kind_of(folder):
    """Return "array", "group", or None if the folder is not a Zarr node."""
    for name in _METADATA:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            if name != "zarr.json":
                return {".zarray": "array", ".zgroup": "group"}[name]
            with open(path, encoding="utf-8") as file:
                return json.load(file).get("node_type", "array")
    return None


def _walk(root, groups, inside=""):
    """Yield the names of the arrays in a group; append those of its groups.

    Chunks are not looked at: there may be millions.
    """
    with os.scandir(os.path.join(root, inside)) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    for name in names:
        name = f"{inside}/{name}" if inside else name
        try:
            kind = _kind_of(os.path.join(root, name))
        except ValueError:  # no JSON; opening the array says what is wrong
            kind = "array"
        if kind == "array":
            yield name
        elif kind == "group":
            groups.append(name)
            yield from _walk(root, groups, name)


def _open(path, name):
    import zarr

    with _quiet():
        if is_remote(path):
            options = storage_options(path)
            name = f"{path.rstrip('/')}/{name}"
            return zarr.open_array(name, mode="r", storage_options=options)
        return zarr.open_array(os.path.join(path, name), mode="r")


@contextlib.contextmanager
def _quiet():
    """Ignore warnings of types whose form in version 3 is not settled: short texts."""
    # The filters belong to all threads, and a stream is read by two.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _remote_arrays(path, wanted):
    """Return ``{name: ZarrArray}`` for the arrays of a remote store.

    A web server lists no folders: without consolidated metadata, only the ``wanted``
    are known.
    """
    import zarr

    with _reading(path), _quiet():
        options = storage_options(path)
        group = zarr.open_group(path, mode="r", storage_options=options)
        is_known = group.metadata.consolidated_metadata is not None
        names = list(wanted)
        if is_known or not path.startswith("http"):
            members = group.members(max_depth=None)
            names = [name for name, node in members if hasattr(node, "shape")]
    return {name: _array_of(path, name) for name in sorted(names)}


def _array_of(path, name, called=None):
    """Return the ZarrArray of a name; one with a flaw if it cannot be opened."""
    place = f"{path}, array {(called or name)!r}"
    try:
        with _reading(place):
            array = _open(path, name)
            with _quiet():
                dtype, flaw = _plain_dtype(array), _flaw(array)
    except DataError as error:
        return _flawed(path, name, str(error).removeprefix(f"{place}: "))
    return ZarrArray(path, place, array.shape, dtype, name, array.chunks, flaw=flaw)


def _flawed(path, name, flaw):
    place = f"{path}, array {name!r}"
    return ZarrArray(path, place, (), np.dtype("V1"), name, (), flaw=flaw)


def _plain_dtype(array):
    """Return the dtype as which an array is read; object for text of any length."""
    dtype = array.dtype
    if dtype.kind in "TO":
        return np.dtype(object)
    return np.dtype(dtype.str) if dtype.kind in "biufSUM" else dtype


def _flaw(array):
    """Return why an array cannot be read, or None."""
    parts = array.metadata.to_dict()
    codecs = [parts.get(key) for key in ("filters", "compressor", "codecs")]
    if "pickle" in str(codecs).lower():
        return "holds Python objects, which would have to be unpickled and never are"
    if array.dtype.names:
        fields = listed(list(array.dtype.names))
        return f"a structured array with the fields {fields}; store an array of each"
    return None
