"""Reads a checkpoint: each rank checks some files, and reads what it needs."""

import os
from typing import NamedTuple

import numpy as np

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.durable import Written, hash_file, naming
from pympi_train.checkpoint.tensor_file import StoredTensor
from pympi_train.checkpoint.write import region_key
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


def read_checkpoint(path, comm):
    """Return the `StoredState` of a checkpoint after a check of all its files.

    Parameters
    ----------
    path : str
        Its folder; equal on every rank.
    comm : MPI.Comm
        Their number may differ from that of the ranks that wrote it.

    Raises
    ------
    DataError
        On every rank, naming the file that is missing or is not the one that was
        written.

    Notes
    -----
    Collective. The ranks together read each file once, to check its hash.
    """
    data = b""
    with together(comm):
        if comm.rank == 0:
            data = _read_manifest(path)
    data = bytes_of_root(comm, data)
    with together(comm):
        content = manifest.content_of(data, os.path.join(path, manifest.NAME))
        names = sorted(content["files"])
        for name in names[comm.rank :: comm.size]:
            _check(os.path.join(path, name), content["files"][name])
    return lazily_read(path, content)


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


def _read_manifest(path):
    if not os.path.isdir(path):
        raise DataError(f"{path}: no such checkpoint")
    file = os.path.join(path, manifest.NAME)
    if not os.path.isfile(file):
        raise DataError(f"{path}: no {manifest.NAME}; is it a checkpoint?")
    with naming(path, "read"), open(file, "rb") as data:
        return data.read()


def _check(path, entry):
    """Raise DataError unless a file has the size and the hash of the manifest."""
    want = Written(**entry)
    if not os.path.isfile(path):
        raise DataError(f"{path}: missing; the checkpoint is not whole")
    found = hash_file(path)
    if found.n_bytes != want.n_bytes:
        raise DataError(
            f"{path}: expected {want.n_bytes} bytes, found {found.n_bytes}: it is not "
            "the file that was written"
        )
    if found != want:
        raise DataError(
            f"{path}: its BLAKE2 hash is not that of the manifest: a byte of it has "
            "changed, or it belongs to another checkpoint"
        )
