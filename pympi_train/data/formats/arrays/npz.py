"""Reader of .npz arrays: mapped if uncompressed, streamed if compressed."""

import struct
import zipfile

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.compressed import BROKEN, CompressedArray
from pympi_train.data.formats.arrays.named import choose_arrays, read_chosen
from pympi_train.data.formats.arrays.ranged import file_array
from pympi_train.data.formats.arrays.stored import read_npy_header, require_complete
from pympi_train.data.formats.files import file_size, of_each, open_binary
from pympi_train.data.formats.sparse.csr_npz import (
    Stored,
    choose_csr,
    holds_csr,
    read_csr,
)
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
    return read_chosen(paths, chosen, comm, selection, name=name, **options)


def _choose(path, selection):
    """Return the arrays that are chosen; a `Stored`, if they are a sparse matrix."""
    arrays = stored_arrays(path)
    if holds_csr(arrays):
        return choose_csr(path, arrays, selection)
    return choose_arrays(path, selection, arrays)


def stored_arrays(path):
    """Return ``{name: FileArray}`` for the .npy members, in the file's order.

    Raises
    ------
    DataError
        If the file is not a zip archive, or a member is not an .npy array.
    """
    arrays = {}
    size_bytes = file_size(path)  # raises if it is no file
    try:
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    array = _stored(path, size_bytes, file, archive, info)
                    arrays[info.filename.removesuffix(".npy")] = array
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except BROKEN as error:
        raise DataError(f"{path}: not a complete .npz archive: {error}") from None
    return arrays


def _stored(path, size_bytes, file, archive, info):
    name = info.filename.removesuffix(".npy")
    place = f"{path}, array {name!r}"
    if info.flag_bits & 1:
        raise DataError(f"{place}: encrypted; store it without a password")
    with archive.open(info) as stream:
        shape, fortran, dtype = read_npy_header(stream, place)
        header_bytes = stream.tell()
    if info.compress_type != zipfile.ZIP_STORED:
        array = CompressedArray(
            path, place, shape, dtype, fortran, header_bytes, info.filename
        )
        if not dtype.hasobject:
            require_complete(array, info.file_size)
        return array
    # The extra field here may be longer than the copy in the central directory.
    file.seek(info.header_offset)
    local = file.read(LOCAL_HEADER_BYTES)
    n_name, n_extra = struct.unpack("<HH", local[26:30])
    start = info.header_offset + LOCAL_HEADER_BYTES + n_name + n_extra
    array = file_array(path, place, shape, dtype, fortran, start + header_bytes)
    if not dtype.hasobject:
        require_complete(array, min(start + info.file_size, size_bytes))
    return array
