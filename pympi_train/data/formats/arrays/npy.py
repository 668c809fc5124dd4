"""Reader of .npy arrays, which are mapped."""

import os

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.array_rows import rows_of_arrays
from pympi_train.data.formats.arrays.stored import (
    StoredArray,
    read_npy_header,
    require_complete,
)
from pympi_train.data.formats.files import file_size, find_files, format_of, of_each
from pympi_train.data.formats.rows import as_names
from pympi_train.errors import DataError


def read_npy(paths, comm, *, name, features, target, need_target, **options):
    """Read features from ``paths`` and targets from as many other files. Collective."""
    targets = []
    if need_target and target is not None:
        targets = find_files(_beside(paths[0], target), comm).paths
    with together(comm):
        _require_npy(name, paths, features, target, targets, need_target)
    stored = of_each([*paths, *targets], stored_npy, comm)
    tables = [([array], stored[i :: len(paths)][1:]) for i, array in enumerate(stored)]
    return rows_of_arrays(comm, tables[: len(paths)], name, **options)


def _beside(path, target):
    """Return the target's names, relative to the folder of the features."""
    folder = os.path.dirname(path)
    return [os.path.join(folder, os.fspath(name)) for name in as_names(target)]


def _require_npy(name, paths, features, target, targets, need_target):
    if features is not None:
        raise DataError(
            f"{name}: a .npy file holds one array without names, so features = "
            f"{features!r} cannot be chosen; leave features out"
        )
    if need_target and target is None:
        raise DataError(f"{name}: no target; set target to the .npy file that holds it")
    if need_target and len(targets) != len(paths):
        raise DataError(
            f"{name}: expected as many .npy files of targets as of features, "
            f"{len(paths)}, got {len(targets)}"
        )
    other = next((path for path in targets if format_of(path) != "npy"), None)
    if other is not None:
        raise DataError(f"{other}: expected an .npy file as target of {name}")


def stored_npy(path):
    """Return the StoredArray of an .npy file; raise DataError if it is not one."""
    size_bytes = file_size(path)
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = read_npy_header(file, path)
            array = StoredArray(path, path, shape, dtype, fortran, file.tell())
            array.require_readable()
            require_complete(array, size_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return array
