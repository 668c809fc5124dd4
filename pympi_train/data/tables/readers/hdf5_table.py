"""HDF5 files as a table: each data set is a column."""

from pympi_train.comm.checks import together
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.tables.readers.array_table import (
    ArrayTable,
    agreed_fields,
    array_field,
    is_wanted,
    plain_values,
    rows_side_by_side,
    steps_by_chunk,
)
from pympi_train.data.tables.source import explained, load_library
from pympi_train.errors import DataError

BROKEN = (RuntimeError, KeyError, UnicodeDecodeError)


def open_hdf5(files, comm, columns=None):
    """Return the Table of HDF5 files. Collective.

    A data set of a group is called ``group/name``.
    """
    with together(comm):
        load_library("h5py", "reading HDF5")
    found = of_each(files.paths, lambda path: _look(path, columns), comm)
    with together(comm):
        fields = agreed_fields(files.paths, [fields for fields, _ in found])

    def read(i, fields, start, stop, batch_rows):
        return _read(files.paths[i], fields, start, stop, batch_rows)

    return ArrayTable(files, fields, [n for _, n in found], read)


def _open(path):
    import h5py

    # Some parallel file systems refuse locks, which readers do not need.
    return h5py.File(path, "r", locking=False)


def _look(path, columns):
    """Return the Fields of a file, and its number of rows."""
    import h5py

    file_size(path)
    arrays: dict = {}

    def visit(name, found):
        if isinstance(found, h5py.Dataset) and is_wanted(name, found.shape, columns):
            arrays[name] = found

    with explained(path, *BROKEN), _open(path) as file:
        file.visititems(visit)
        fields = [_field(path, name, array) for name, array in arrays.items()]
        lengths = {name: array.shape[0] for name, array in arrays.items()}
    return rows_side_by_side(path, fields, lengths, columns)


def _field(path, name, array):
    import h5py

    place = f"{path}, data set {name!r}"
    if array.shape is None:
        raise DataError(f"{place}: is empty")
    if array.dtype.kind == "O" and h5py.check_string_dtype(array.dtype) is None:
        raise DataError(
            f"{place}: lists, references or objects, which are not read; leave it out "
            "by naming the other columns (--columns)"
        )
    return array_field(place, name, array.dtype, array.shape)


def _read(path, fields, start, stop, batch_rows):
    import h5py

    with explained(path, *BROKEN):
        file = _open(path)
    with file:
        with explained(path, *BROKEN):
            arrays = [file[field.name] for field in fields]
        chunk_rows = max(array.chunks[0] if array.chunks else 1 for array in arrays)
        for low, high in steps_by_chunk(start, stop, batch_rows, chunk_rows):
            batch = {}
            for field, array in zip(fields, arrays):
                place = f"{path}, data set {field.name!r}, rows {low} to {high - 1}"
                with explained(place, *BROKEN):
                    is_text = h5py.check_string_dtype(array.dtype) is not None
                    values = (array.asstr() if is_text else array)[low:high]
                batch[field.name] = plain_values(values, field, place)
            yield batch
