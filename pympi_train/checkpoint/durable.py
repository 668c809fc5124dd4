"""Files that survive a crash of the machine once a call has returned."""

import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pympi_train.errors import DataError, UnreadableError

READ_BYTES = 2**22  # at once, to hash a file
DIGEST_BYTES = 32  # of BLAKE2b
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


class Written(NamedTuple):
    """The size and the hash of a file.

    Attributes
    ----------
    n_bytes : int
    blake2b : str
        BLAKE2b of its bytes with a digest of 256 bits, hex.
    """

    n_bytes: int
    blake2b: str


@contextmanager
def naming(path, what="written"):
    """Convert system errors in the body into a DataError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        is_there = what == "read" and not isinstance(error, FileNotFoundError)
        kind = UnreadableError if is_there else DataError
        raise kind(f"{path}: cannot be {what}: {reason}") from error


def new_hash():
    """Return a new hash object."""
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def write_file(path, chunks):
    """Write a new file, and wait until it is on the disk.

    Parameters
    ----------
    path : path
        Must not exist.
    chunks : iterable of bytes-like
        Its content. Each is hashed and written as it is, without a copy.

    Returns
    -------
    Written

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    found, n_bytes = new_hash(), 0
    with naming(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for chunk in chunks:
                found.update(chunk)
                n_bytes += _write_all(file, chunk)
            os.fsync(file)
        finally:
            os.close(file)
    return Written(n_bytes, found.hexdigest())


def _write_all(file, chunk):
    rest = memoryview(chunk).cast("B")
    size = len(rest)
    while rest:
        n_bytes = os.write(file, rest)
        if n_bytes == 0:  # for ever, perhaps
            raise OSError(errno.EIO, "the system writes no byte and gives no reason")
        rest = rest[n_bytes:]
    return size


def sync_folder(path):
    """Wait until the names in a folder are on the disk.

    Raises
    ------
    DataError
        If the system reports an error. File systems without such a call, as some in
        user space, are left to do as they do.
    """
    with naming(path):
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC:
                raise
        finally:
            os.close(file)


def make_folders(path):
    """Make a folder and those above it, and wait until they are on the disk.

    Folders above it that exist may have been made a moment ago by code that did not
    wait, so it waits for those too, up to the border of the file system.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    made = path
    while not os.path.isdir(parent := os.path.dirname(made)):
        made = parent
    with naming(path):
        os.makedirs(path, exist_ok=True)
    while path != made:
        path = os.path.dirname(path)
        sync_folder(path)
    sync_folder(parent)
    while not os.path.ismount(parent):
        parent = os.path.dirname(parent)
        with suppress(DataError):  # of somebody else, perhaps, and not to be opened
            sync_folder(parent)


def rename(old, new):
    """Rename a file or folder, and wait until the new name is on the disk.

    After an error, it has its old name.
    """
    with naming(new):
        os.rename(old, new)
    try:
        sync_folder(os.path.dirname(new))
    except DataError:
        # The system reports an error of the disk once: a second fsync proves nothing.
        with suppress(OSError):
            os.rename(new, old)
        raise


def hash_file(path):
    """Return the `Written` of a file.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    found, n_bytes = new_hash(), 0
    with naming(path, "read"), open(path, "rb") as file:
        while chunk := file.read(READ_BYTES):
            found.update(chunk)
            n_bytes += len(chunk)
    return Written(n_bytes, found.hexdigest())
