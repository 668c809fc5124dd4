"""Writes a checkpoint: all ranks write tensors, rank 0 the manifest."""

import os
import platform
import secrets
import shutil

import numpy as np

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.durable import (
    Written,
    make_folders,
    naming,
    rename,
    sync_folder,
    write_file,
)
from pympi_train.checkpoint.shares import own_share
from pympi_train.checkpoint.tensor_file import chunks_of
from pympi_train.comm.checks import together
from pympi_train.comm.messages import gathered_bytes
from pympi_train.errors import DataError

HIDDEN = "."  # first character of the names of folders that are not whole


def write_checkpoint(state, path, comm, *, about=None, texts=None):
    """Write the state of a training to a new folder.

    The folder appears under its name when everything in it is on the disk.

    Parameters
    ----------
    state : State
        This rank's part.
    path : str
        The folder, which must not exist; equal on every rank. Folders above it are
        made.
    comm : MPI.Comm
        All ranks that have a part of the state.
    about : dict, optional
        Plain values to be stored in the manifest; rank 0's count.
    texts : dict of str to str, optional
        Further files and their content; rank 0's are written.

    Returns
    -------
    int
        Bytes of all files, on every rank.

    Raises
    ------
    DataError
        On every rank, if a rank cannot write, or the folder exists. Nothing is left of
        the checkpoint.

    Notes
    -----
    Collective.

    Ranks that hold the same elements write equal shares of them, of at least 4 MiB. The
    files are in the format safetensors, and a rank's is named after it; a JSON file,
    the manifest, says which region of which tensor lies where.
    """
    folder = None
    try:
        with together(comm):
            if comm.rank == 0:
                folder = _begin(path)
        folder = comm.bcast(folder, root=0)
        share = own_share(comm, state)
        with together(comm):
            entry = _write_share(folder, comm.rank, share, state.values)
        entries = gathered_bytes(comm, manifest.packed(entry))
        n_bytes = 0
        with together(comm):
            if comm.rank == 0:
                found = map(manifest.unpacked, entries)
                n_bytes = _finish(folder, path, found, about or {}, texts or {})
        return comm.bcast(n_bytes, root=0)
    except BaseException:
        if comm.rank == 0 and folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _begin(path):
    """Make the hidden folder that becomes ``path``, and return its name."""
    parent, name = os.path.split(os.path.abspath(path))
    if os.path.lexists(path):
        raise DataError(f"{path}: cannot be written: it exists")
    make_folders(parent)
    with naming(path):
        folder = os.path.join(parent, f"{HIDDEN}{name}.{secrets.token_hex(4)}.tmp")
        os.mkdir(folder)
    return folder


def _write_share(folder, rank, share, values):
    """Write this rank's tensors; return its part of the manifest."""
    entry = {"values": manifest.plain_values(values), "tensors": {}, "files": {}}
    if not share:
        return entry
    file, arrays, tensors = f"rank-{rank:06d}.safetensors", {}, entry["tensors"]
    for name, region in share:
        arrays[_key(name, region)] = np.asarray(region.array, order="C")
        tensor = tensors.setdefault(name, _described(region))
        tensor["regions"].append({"box": region.box, "file": file})
    path = os.path.join(folder, file)
    entry["files"][file] = write_file(path, chunks_of(arrays))._asdict()
    return entry


def _described(region):
    return {
        "shape": region.shape,
        "dtype": region.array.dtype.name,
        "n_blocks": region.n_blocks,
        "regions": [],
    }


def region_key(name, box):
    """Return the name in a file of a region of a tensor, such as "params/w[0:2,0:5]".
    """
    return f"{name}[{','.join(f'{low}:{high}' for low, high in box)}]"


def _key(name, region):
    return region_key(name, region.box)


def _finish(folder, path, entries, about, texts):
    """Write the other files of a checkpoint, and rename it; return its bytes."""
    content = {"values": {}, "tensors": {}, "files": {}}
    for entry in entries:
        for name, value in entry["values"].items():
            content["values"].setdefault(name, value)
        content["files"].update(entry["files"])
        for name, tensor in entry["tensors"].items():
            known = content["tensors"].setdefault(name, {**tensor, "regions": []})
            known["regions"] += tensor["regions"]
    for name, text in texts.items():
        written = write_file(os.path.join(folder, name), [text.encode()])
        content["files"][name] = written._asdict()
    content["about"] = manifest.plain_values(about)
    content["format"], content["software"] = manifest.FORMAT, _software()
    data = manifest.file_bytes(content)
    write_file(os.path.join(folder, manifest.NAME), [data])
    sync_folder(folder)
    rename(folder, os.path.abspath(path))
    return len(data) + sum(Written(**f).n_bytes for f in content["files"].values())


def _software():
    from pympi_train import __version__

    return {
        "pympi_train": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def hide(path):
    """Give a checkpoint that is to be removed a hidden name; return its new path."""
    parent, name = os.path.split(os.path.abspath(path))
    hidden = os.path.join(parent, f"{HIDDEN}{name}.{secrets.token_hex(4)}.old")
    with naming(path, "removed"):
        os.rename(path, hidden)
    return hidden
