"""Reader of .npz arrays: mapped if uncompressed, streamed if compressed."""

import os
import struct
import zipfile

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.array_rows import rows_of_arrays
from pympi_train.data.formats.arrays.compressed import BROKEN
from pympi_train.data.formats.arrays.csr_npz import (
    Stored,
    choose_csr,
    holds_csr,
    read_csr,
)
from pympi_train.data.formats.arrays.stored import (
    StoredArray,
    read_npy_header,
    require_complete,
)
from pympi_train.data.formats.files import file_size, of_each
from pympi_train.data.formats.rows import listed
from pympi_train.errors import DataError

LOCAL_HEADER_BYTES = 30  # .ZIP File Format Specification 6.3.10, section 4.3.7


def read_npz(paths, comm, selection, *, name, **options):
    """Read arrays of .npz files, or the sparse matrix that they hold. Collective."""
    chosen = of_each(paths, lambda path: _choose(path, selection), comm)
    if any(isinstance(one, Stored) for one in chosen):
        with together(comm):
            for path, one in zip(paths, chosen):
                if not isinstance(one, Stored):
                    raise DataError(f"{path}: no sparse matrix, unlike other files")
        return read_csr(chosen, comm, selection, name=name, **options)
    names, uses, _ = chosen[0]
    with together(comm):
        for path, (found, *_) in zip(paths, chosen):
            if found != names:
                raise DataError(
                    f"{path}: the features are the arrays {listed(found)}, unlike in "
                    f"{paths[0]}, {listed(names)}; the files of a data set hold the "
                    "same arrays"
                )
    return rows_of_arrays(
        comm,
        [arrays for *_, arrays in chosen],
        uses,
        name,
        names=names,
        others=selection.others,
        lacking=selection.lacking,
        **options,
    )


def stored_arrays(path):
    """Return ``{name: StoredArray}`` for the .npy members, in the file's order.

    Raises
    ------
    DataError
        If the file is not a zip archive, or a member is not an .npy array.
    """
    arrays = {}
    file_size(path)  # raises if it is no file
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    name = info.filename.removesuffix(".npy")
                    arrays[name] = _stored(path, archive, info, name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except BROKEN as error:
        raise DataError(f"{path}: not a complete .npz archive: {error}") from None
    return arrays


def _stored(path, archive, info, name):
    place = f"{path}, array {name!r}"
    if info.flag_bits & 1:
        raise DataError(f"{place}: encrypted; store it without a password")
    with archive.open(info) as stream:
        shape, fortran, dtype = read_npy_header(stream, place)
        header_bytes = stream.tell()
    if info.compress_type != zipfile.ZIP_STORED:
        array = StoredArray(
            path, place, shape, dtype, fortran, header_bytes, info.filename
        )
        if not dtype.hasobject:
            require_complete(array, info.file_size)
        return array
    # The extra field here may be longer than the copy in the central directory.
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local = file.read(LOCAL_HEADER_BYTES)
        n_name, n_extra = struct.unpack("<HH", local[26:30])
        start = info.header_offset + LOCAL_HEADER_BYTES + n_name + n_extra
        array = StoredArray(path, place, shape, dtype, fortran, start + header_bytes)
        if not dtype.hasobject:
            require_complete(array, min(start + info.file_size, _size(file)))
    return array


def _size(file):
    return os.fstat(file.fileno()).st_size


def _choose(path, selection):
    """Return the names of the features, and the use and StoredArray of each array.

    A `Stored`, if the file holds a sparse matrix.
    """
    arrays = stored_arrays(path)
    if holds_csr(arrays):
        return choose_csr(path, arrays, selection)
    chosen = selection.choose(path, "array", list(arrays))
    for name in chosen.targets:
        arrays[name].require_readable()
    names = chosen.features
    if names is None:
        names = _fitting(path, arrays, chosen.rest, chosen.targets)
    uses = ["feature"] * len(names)
    categories, dates = selection.places(path, "array", names)
    for use, places in (("category", categories), ("date", dates)):
        for i in places:
            uses[i] = use
    of_target = "label" if selection.target_kind == "label" else "target"
    uses += [of_target] * len(chosen.targets)
    uses += ["weights"] * len(chosen.weights) + ["other"] * len(chosen.others)
    stored = [*names, *chosen.targets, *chosen.weights, *chosen.others]
    for name in stored:
        arrays[name].require_readable()
    return tuple(names), uses, [arrays[name] for name in stored]


def _fitting(path, arrays, others, targets):
    """Return the names of the arrays whose first dimension is the number of rows."""
    shapes = [arrays[name].shape for name in others]
    lengths = {shape[0] for shape in shapes if shape}
    if targets:
        lengths = {arrays[targets[0]].n}
    elif len(lengths) > 1:
        raise DataError(
            f"{path}: arrays of different lengths, so it is not clear which hold the "
            f"features; set features to some of {listed(others)}"
        )
    names = [name for name, shape in zip(others, shapes) if lengths & {*shape[:1]}]
    unequal = [name for name, shape in zip(others, shapes) if shape]
    if unequal and not names:
        raise DataError(
            f"{path}: features and target must have the same number of rows: "
            f"{unequal[0]!r} has {arrays[unequal[0]].n} rows, {targets[0]!r} "
            f"{arrays[targets[0]].n}"
        )
    if not names:
        raise DataError(
            f"{path}: no array for the features beside {listed(targets)}; present: "
            f"{listed(list(arrays))}"
        )
    return names
