"""What a checkpoint holds: tensors, progress, software and configuration."""

import os

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.read import lazily_read, manifest_content
from pympi_train.checkpointtools.found import size_text
from pympi_train.checkpointtools.listing import time_text
from pympi_train.comm.checks import together
from pympi_train.config import config as configuration
from pympi_train.paths import expanded
from pympi_train.runs import output
from pympi_train.runs.speech import counted, in_columns

TOLD = {  # keys of the configuration
    "data": ("train",),
    "model": ("kind", "hidden", "activation", "dtype", "l2"),
    "optimizer": ("name", "learning_rate", "schedule"),
    "train": ("epochs", "batch_size", "seed", "backend", "precision"),
    "parallel": ("strategy", "reduction", "compression"),
}
SHOWN_FILES = 3


def describe_checkpoint(path, comm):
    """Return what the manifest of a checkpoint says.

    Parameters
    ----------
    path : str
    comm : MPI.Comm

    Returns
    -------
    dict or None
        On rank 0: path, written_s, bytes, files (dict of name to bytes), software,
        numerics and mpi (None of states without), ranks, values (the state apart from
        tensors: progress, numbers of the optimizer), tensors (dict of name to shape,
        dtype and regions, each a box and its file), configuration (dict, or None).

    Raises
    ------
    DataError
        On every rank, if there is no manifest, or it was changed.

    Notes
    -----
    Collective. The files of the tensors are not read.
    """
    found = None
    with together(comm):
        if comm.rank == 0:
            path = expanded(path)
            found = _description(path, manifest_content(path))
    return found


def _description(path, content):
    saved = lazily_read(path, content)
    about, config = saved.about, saved.text(output.CONFIG)
    if config is not None:
        config = configuration.parse(config, where=path, literal_paths=True).to_dict()
    files = {name: entry["n_bytes"] for name, entry in content["files"].items()}
    files[manifest.NAME] = len(manifest.file_bytes(content))
    return {
        "path": path,
        "written_s": about.get("written_s"),
        "bytes": sum(files.values()),
        "files": files,
        "software": content["software"],
        "numerics": about.get("numerics"),
        "mpi": about.get("mpi"),
        "ranks": about.get("ranks"),
        "values": saved.state.values,
        "tensors": content["tensors"],
        "configuration": config,
    }


def contents_lines(found):
    """Return lines that describe what `describe_checkpoint` returned."""
    software = ", ".join(f"{name} {v}" for name, v in found["software"].items())
    ranks = f", {counted(found['ranks'], 'rank')}" if found["ranks"] else ""
    n_files = counted(len(found["files"]), "file")
    lines = [
        f"path      {found['path']}",
        f"written   {time_text(found['written_s'])} by {software}{ranks}",
        f"size      {size_text(found['bytes'])} in {n_files}",
    ]
    if found["numerics"]:
        told = (found["numerics"].get(name) for name in ("blas", "numba", "gpu"))
        told = [str(text) for text in (*told, found["mpi"]) if text]
        lines += [f"computed  with {'; '.join(told)}"]
    lines += [f"progress  {_progress(found['values'].get('progress', {}))}"]
    stopping = found["values"].get("stopping")
    if stopping is not None:
        best = stopping["best"]
        value = f"{stopping['monitor']} {best[stopping['monitor']]:.6g}"
        lines += [f"best      epoch {best['epoch']}: {value}"]
    for section, keys in TOLD.items() if found["configuration"] else ():
        table = found["configuration"][section]
        told = [f"{key} {table[key]}" for key in keys if key in table]
        lines.append(f"{section:10}{', '.join(told)}")
    return [*lines, "", *_tensor_lines(found["tensors"])]


def _progress(values):
    if not values:
        return "unknown"
    text = f"step {values['steps']:,}, {counted(values['epoch'], 'epoch')} done"
    if values["batch"]:
        text += f", and {counted(values['batch'], 'batch', 'batches')} of the next"
    return text


def _tensor_lines(tensors):
    rows = [("tensor", "shape", "dtype", "regions", "files")]
    for name, tensor in sorted(tensors.items()):
        regions = tensor["regions"]
        files = sorted({os.path.basename(region["file"]) for region in regions})
        more = len(files) - SHOWN_FILES
        told = files[:SHOWN_FILES] + ([f"and {more} more"] if more > 0 else [])
        shape = "x".join(map(str, tensor["shape"])) or "scalar"
        row = (name, shape, tensor["dtype"], f"{len(regions):,}", ", ".join(told))
        rows.append(row)
    return in_columns(rows)
