"""The folder of a checkpoint: made, filled, completed and hidden."""

import os
import platform
import secrets

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
from pympi_train.checkpoint.tensor_file import chunks_of
from pympi_train.errors import DataError

HIDDEN = "."  # first character of the names of folders that are not whole


def begin_folder(path):
    """Make the hidden folder that becomes ``path``, and return its name."""
    parent, name = os.path.split(os.path.abspath(path))
    if os.path.lexists(path):
        raise DataError(f"{path}: cannot be written: it exists")
    make_folders(parent)
    with naming(path):
        folder = os.path.join(parent, f"{HIDDEN}{name}.{secrets.token_hex(4)}.tmp")
        os.mkdir(folder)
    return folder


def write_share(folder, rank, share, values):
    """Write this rank's tensors; return its part of the manifest."""
    entry = {"values": manifest.json_values(values), "tensors": {}, "files": {}}
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


def complete_folder(folder, path, entries, about, texts):
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
    content["about"] = manifest.json_values(about)
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
