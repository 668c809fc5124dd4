"""Reads a checkpoint: each rank checks some files, and reads what it needs."""

import os
import stat
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.durable import Written, hash_file, naming
from pympi_train.checkpoint.folder import region_key
from pympi_train.checkpoint.tensor_file import StoredTensor, WholeTensor
from pympi_train.comm.checks import together
from pympi_train.comm.messages import bytes_of_root
from pympi_train.errors import DataError
from pympi_train.flat.state import Region, State


class StoredState(NamedTuple):
    """A checkpoint on the disk.

    Attributes
    ----------
    path : str
    state : State
        Of all ranks; its arrays are read from the files when they are asked for.
    about : dict
        As given to `write_checkpoint`.
    content : dict
        Of the manifest.
    """

    path: str
    state: State
    about: dict
    content: dict

    def tensors(self, prefix=""):
        """Return a `WholeTensor` of each tensor whose name begins with ``prefix``.

        A dict by the rest of the name, in the order of the names.
        """
        names = sorted(name for name in self.state.regions if name.startswith(prefix))
        regions = self.state.regions
        return {n.removeprefix(prefix): WholeTensor(n, regions[n]) for n in names}

    def text(self, name):
        """Return the content of one of the further files, or None without it."""
        if name not in self.content["files"]:
            return None
        path = os.path.join(self.path, name)
        try:
            with naming(path, "read"), open(path, encoding="utf-8") as file:
                return file.read()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8: {error}") from error


def read_checkpoint(path, comm=None):
    """Return the `StoredState` of a checkpoint after a check of all its files.

    Parameters
    ----------
    path : str
        Its folder; equal on every rank.
    comm : MPI.Comm, optional
        Their number may differ from that of the ranks that wrote it. Without ``comm``
        this process reads all, and needs no MPI.

    Raises
    ------
    DataError
        On every rank, naming the file that is missing or is not the one that was
        written.

    Notes
    -----
    Collective with ``comm``. The ranks together read each file once, to check its hash.
    """
    rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
    data = b""
    with nullcontext() if comm is None else together(comm):
        if rank == 0:
            data = _manifest_bytes(path)
    if comm is not None:
        data = bytes_of_root(comm, data)
    with nullcontext() if comm is None else together(comm):
        content = manifest.content_of(data, os.path.join(path, manifest.NAME))
        for name in sorted(content["files"])[rank::size]:
            check_file(os.path.join(path, name), content["files"][name])
    return lazily_read(path, content)


def manifest_content(path):
    """Return the content of a checkpoint's manifest; checks no other file.

    Raises
    ------
    DataError
        If there is none, or it was changed.
    """
    return manifest.content_of(
        _manifest_bytes(path), os.path.join(path, manifest.NAME)
    )


def lazily_read(path, content):
    """Return the `StoredState` of a manifest's content; checks none of its files."""
    state = State(manifest.values_of(content["values"]))
    files = {}
    for name, tensor in content["tensors"].items():
        dtype, shape = np.dtype(tensor["dtype"]), tuple(tensor["shape"])
        for region in tensor["regions"]:
            box = tuple(map(tuple, region["box"]))
            file = os.path.join(path, region["file"])
            own = tuple(high - low for low, high in box)
            stored = StoredTensor(file, region_key(name, box), own, dtype, files)
            regions = state.regions.setdefault(name, [])
            regions.append(Region(shape, box, stored, tensor["n_blocks"]))
    return StoredState(path, state, manifest.values_of(content["about"]), content)


def _manifest_bytes(path):
    file = os.path.join(path, manifest.NAME)
    if _size_of_file(file, path) is None:
        if not os.path.isdir(path):
            raise DataError(f"{path}: no such checkpoint")
        raise DataError(f"{path}: no {manifest.NAME}; is it a checkpoint?")
    with naming(path, "read"), open(file, "rb") as data:
        return data.read()


def _size_of_file(path, named):
    """Return the bytes of a file, or None if there is no such file.

    If the system cannot tell, that is an error about ``named``: a checkpoint that a
    user may not look into, or whose server does not answer, is not taken for a lost
    one.
    """
    with naming(named, "read"):
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def check_size(path, entry):
    """Raise DataError unless a file has the size of its entry in the manifest."""
    found = _size_of_file(path, path)
    if found is None:
        raise DataError(f"{path}: missing; the checkpoint is not whole")
    want = Written(**entry).n_bytes
    if found != want:
        raise DataError(
            f"{path}: expected {want} bytes, found {found}: it is not the file that "
            "was written"
        )


def check_file(path, entry):
    """Raise DataError unless a file has the size and the hash of the manifest."""
    check_size(path, entry)
    if hash_file(path) != Written(**entry):
        raise DataError(
            f"{path}: its BLAKE2 hash is not that of the manifest: a byte of it has "
            "changed, or it belongs to another checkpoint"
        )
