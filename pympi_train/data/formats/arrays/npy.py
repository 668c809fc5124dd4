"""Reader of .npy arrays, which are mapped."""

import os

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.array_rows import rows_of_arrays
from pympi_train.data.formats.arrays.ranged import file_array
from pympi_train.data.formats.arrays.stored import read_npy_header, require_complete
from pympi_train.data.formats.files import (
    file_size,
    find_files,
    format_of,
    of_each,
    open_binary,
)
from pympi_train.data.formats.rows import as_names
from pympi_train.errors import DataError
from pympi_train.paths import beside


def read_npy(paths, comm, selection, *, name, **options):
    """Read features from ``paths``; targets and weights from as many others.

    Collective.
    """
    with together(comm):
        _require_npy(name, selection)
    groups = [list(paths)]
    for use, names, is_needed in (
        ("target", selection.target, selection.need_target),
        ("weights", selection.weights, selection.need_weights),
    ):
        found = ()
        if is_needed and names is not None:
            found = find_files(_beside(paths[0], names), comm).paths
            with together(comm):
                _require_pairs(name, use, paths, found)
        groups.append(list(found))
    stored = of_each(sum(groups, []), stored_npy, comm)
    tables = [stored[i :: len(paths)] for i in range(len(paths))]
    uses = ["feature"]
    if groups[1]:
        uses.append("label" if selection.target_kind == "label" else "target")
    uses += ["weights"] if groups[2] else []
    options["lacking"] = selection.lacking
    return rows_of_arrays(comm, tables, uses, name, **options)


def _beside(path, names):
    """Return the names of other files, relative to the folder of the features."""
    folder = os.path.dirname(path)
    return [beside(folder, name) for name in as_names(names)]


def _require_npy(name, selection):
    if selection.features is not None:
        raise DataError(
            f"{name}: a .npy file holds one array without names, so features = "
            f"{selection.features!r} cannot be chosen; leave features out"
        )
    selection.require_nameless(name, "an .npy")
    if selection.need_target and selection.target is None:
        raise DataError(f"{name}: no target; set target to the .npy file that holds it")


def _require_pairs(name, use, paths, found):
    if len(found) != len(paths):
        raise DataError(
            f"{name}: expected as many .npy files of {use} as of features, "
            f"{len(paths)}, got {len(found)}"
        )
    other = next((path for path in found if format_of(path) != "npy"), None)
    if other is not None:
        raise DataError(f"{other}: expected an .npy file as {use} of {name}")


def stored_npy(path):
    """Return the FileArray of an .npy file of numbers or text in a table.

    Raises
    ------
    DataError
        As for `npy_array`, or if it has neither one nor two dimensions.
    """
    array = npy_array(path)
    array.require_readable()
    return array


def npy_array(path):
    """Return the FileArray of an .npy file, of any number of dimensions.

    Raises
    ------
    DataError
        If it is not one, or the file is not complete, or holds Python objects.
    """
    size_bytes = file_size(path)
    try:
        with open_binary(path) as file:
            shape, fortran, dtype = read_npy_header(file, path)
            array = file_array(path, path, shape, dtype, fortran, file.tell())
            array.require_plain()
            require_complete(array, size_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return array
