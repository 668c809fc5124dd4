"""Reader of HDF5 files: data sets by name, own rows only."""

import contextlib
import os
from dataclasses import dataclass

import numpy as np

from pympi_train.data.formats.arrays.named import choose_arrays, read_chosen
from pympi_train.data.formats.arrays.ranged import file_array
from pympi_train.data.formats.arrays.slabs import SlabArray
from pympi_train.data.formats.arrays.stored import require_complete
from pympi_train.data.formats.files import file_size, of_each, open_binary
from pympi_train.data.formats.libraries import load_library
from pympi_train.data.formats.rows import listed
from pympi_train.errors import DataError
from pympi_train.paths import is_remote

# What h5py raises for files that are damaged, and for links that lead nowhere.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError)


def read_hdf5(paths, comm, selection, *, name, **options):
    """Read data sets of HDF5 files. Collective."""
    kind = "data set"
    wanted = selection.named()

    def choose(path):
        return choose_arrays(path, selection, datasets(path, wanted), kind)

    chosen = of_each(paths, choose, comm)
    how = {"name": name, "kind": kind, **options}
    return read_chosen(paths, chosen, comm, selection, **how)


@dataclass(frozen=True)
class Hdf5Array(SlabArray):
    """A data set of an HDF5 file that is chunked or not stored in the file itself."""

    def fetch(self, start, stop):
        """Return the rows ``start`` to ``stop - 1`` in memory."""
        with _opened(self.path, self.place) as file:
            dataset = file[self.name]
            self.require_unchanged(dataset.shape, _plain_dtype(dataset))
            if dataset.is_virtual:
                _require_sources(dataset, self, start, stop)
            _require_external(dataset, self)
            return self.gather(dataset, start, stop)


def datasets(path, wanted=()):
    """Return ``{name: StoredArray}`` for the data sets of a file, by name.

    Data sets behind soft and external links are only found if they are ``wanted``.

    Raises
    ------
    DataError
        If the file is not an HDF5 file, or a wanted name is a link that leads nowhere.
    """
    file_size(path)  # raises if it is no file
    found, names = {}, []
    with _opened(path, path) as file:
        file.visit(names.append)
        for name in names:
            item = _item(file, name)
            if not hasattr(item, "keys"):
                found[name] = _array_of(path, file, name, item)
        for name in wanted:
            if name not in found and file.get(name, getlink=True) is not None:
                found[name] = _array_of(path, file, name, _item(file, name))
    return found


@contextlib.contextmanager
def _opened(path, place):
    """Open a file for reading; convert h5py's errors into DataError.

    Files are not locked: parallel file systems may refuse locks, and other ranks read
    too.
    """
    try:
        with _open(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _BROKEN as error:
        raise DataError(
            f"{place}: cannot be read, perhaps not a complete HDF5 file: {_said(error)}"
        ) from None


@contextlib.contextmanager
def _open(path):
    h5py = load_library("h5py", f"{path}: reading HDF5")
    with contextlib.ExitStack() as stack:
        if is_remote(path):
            file = h5py.File(stack.enter_context(open_binary(path)), "r")
        else:
            try:
                file = h5py.File(path, "r", locking=False)
            except (TypeError, ValueError):  # built against HDF5 before 1.12.1
                file = h5py.File(path, "r")
        with file:
            yield file


def _said(error):
    """Return the text of an error without KeyError's quotes or an error number."""
    text = getattr(error, "strerror", None)
    return text or str(error.args[0] if error.args else error)


def _item(file, name):
    """Return an object of a file; raise DataError for a link that leads nowhere."""
    try:
        return file[name]
    except KeyError as error:
        link = file.get(name, getlink=True)
        to = getattr(link, "path", None)
        if to is None:
            raise
        other = getattr(link, "filename", None)
        where = f"{to} in the file {other!r}" if other else to
        raise DataError(
            f"{file.filename}: {name!r} is a link to {where}, which cannot be opened: "
            f"{_said(error)}"
        ) from None


def _array_of(path, file, name, item):
    """Return the StoredArray of an object of the file."""
    place = f"{path}, data set {name!r}"
    if hasattr(item, "keys"):
        flaw = f"is a group, not a data set; it holds {listed([*item])}"
        return Hdf5Array(path, place, (), np.dtype("V1"), name, (), flaw=flaw)
    try:
        dtype = _plain_dtype(item)
        flaw = _flaw(dtype, item) or _lacking_filter(item)
    except TypeError as error:  # a type that NumPy lacks
        dtype, flaw = np.dtype("V1"), f"of a type that is not read: {error}"
    shape = item.shape or ()  # None of an empty data space
    offset_bytes = _offset(file, item) if flaw is None and dtype != object else None
    if offset_bytes is not None:
        array = file_array(path, place, shape, dtype, False, offset_bytes)
        require_complete(array, file_size(path))
        return array
    chunks = item.chunks or (1, *shape[1:])
    return Hdf5Array(path, place, shape, dtype, name, chunks, flaw=flaw)


def _offset(file, dataset):
    """Return where the elements of a data set begin in the file, or None.

    None if they are in chunks, in another file, or not written; or if their bytes are
    no numbers for NumPy.
    """
    import h5py

    is_number = dataset.dtype.kind in "biuf" and dataset.id.get_type().equal(
        h5py.h5t.py_create(dataset.dtype, logical=True)
    )
    is_other = dataset.file.filename != file.filename or dataset.external
    # With a user block, HDF5 returns its size less 1 for a data set without elements.
    if not is_number or is_other or file.userblock_size:
        return None
    return dataset.id.get_offset()


def _plain_dtype(dataset):
    """Return the dtype as which a data set is read; object for text of any length."""
    dtype = dataset.dtype
    plain = dtype.kind in "biufSM" and dtype.subdtype is None
    return np.dtype(dtype.str) if plain else dtype


def _flaw(dtype, dataset):
    """Return why a data set of this dtype cannot be read, or None."""
    import h5py

    if dtype.names:
        fields = listed(list(dtype.names))
        return f"a compound data set with the fields {fields}; store a data set of each"
    if dtype == object and h5py.check_string_dtype(dataset.dtype) is None:
        what = "references" if h5py.check_ref_dtype(dataset.dtype) else (
            "arrays of any length"
        )
        return f"expected numbers, text or dates, found {what}"
    return None


def _lacking_filter(dataset):
    """Return that a filter of a data set is not installed, or None."""
    import h5py

    filters = dataset.id.get_create_plist()
    for i in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(i)
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            import hdf5plugin  # noqa: F401  registers its filters
        if not h5py.h5z.filter_avail(code):
            name = f"{code} ({name.decode(errors='replace')})" if name else code
            return (
                f"compressed with the HDF5 filter {name}, which is not installed; "
                "hdf5plugin has many (pip install hdf5plugin)"
            )
    return None


def _require_external(dataset, array):
    """Raise DataError if a file of raw elements ends early: HDF5 would return zeros.

    HDF5 itself raises if there is no such file.
    """
    for name, offset, n_bytes in dataset.external or ():
        with contextlib.suppress(OSError):
            size = os.path.getsize(name)
            if offset + n_bytes > size and n_bytes < 2**63:  # else unlimited
                raise DataError(
                    f"{array.place}: its file {name} ends early: expected "
                    f"{offset + n_bytes} bytes, found {size}"
                )


def _require_sources(dataset, array, start, stop):
    """Raise DataError if a file with some of these rows of a virtual one is absent.

    HDF5 would return the fill value.
    """
    folder = os.path.dirname(os.path.abspath(dataset.file.filename))
    for source in dataset.virtual_sources():
        first, last = source.vspace.get_select_bounds()
        if source.file_name == "." or first[0] >= stop or last[0] < start:
            continue
        path = os.path.join(folder, source.file_name)
        if "%b" in path:
            continue
        try:
            with _open(path) as file:
                file[source.dset_name]
        except _BROKEN as error:
            raise DataError(
                f"{array.place}: its rows {first[0]} to {last[0]} are in {path}, which "
                f"cannot be read: {_said(error)}"
            ) from None
