"""The weights of a run directory or a checkpoint, with configuration and schema."""

import json
import os
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from pympi_train.checkpoint import store
from pympi_train.checkpoint.read import StoredState, read_checkpoint
from pympi_train.checkpoint.tensor_file import KINDS, StoredTensor
from pympi_train.comm.checks import together
from pympi_train.config import config as configuration
from pympi_train.errors import MALFORMED, DataError
from pympi_train.runs import output
from pympi_train.runs.earlier.files import (
    read_run_config,
    read_run_result,
    read_run_text,
)
from pympi_train.runs.schema_file import schema_of

DTYPES = {kind: name for name, kind in KINDS.items()}


class Earlier(NamedTuple):
    """The result of an earlier training, on the disk.

    Attributes
    ----------
    path : str
    tensors : dict of str to StoredTensor or WholeTensor
        The parameters; parts of them are read when they are asked for.
    saved : StoredState or None
        The checkpoint; None: ``path`` is a run directory.
    """

    path: str
    tensors: dict[str, Any]
    saved: StoredState | None = None

    def text(self, name):
        """Return the content of a file of text, or None without it."""
        if self.saved is not None:
            return self.saved.text(name)
        return read_run_text(self.path, name)

    def config_and_schema(self):
        """Return the text of the configuration, and the Schema.

        Raises
        ------
        DataError
            If a file is missing or malformed.
        """
        texts = [self.text(name) for name in (output.CONFIG, output.SCHEMA)]
        for name, text in zip((output.CONFIG, output.SCHEMA), texts):
            if text is None:
                raise DataError(
                    f"{self.path}: no {name}: pympi-train train did not write this "
                    "checkpoint; make the model, and call Trainer.load"
                )
        try:
            return texts[0], schema_of(json.loads(texts[1]))
        except MALFORMED as error:
            path = os.path.join(self.path, output.SCHEMA)
            raise DataError(f"{path}: malformed: {error}") from error


def open_earlier(path, comm=None):
    """Return the `Earlier` of a run directory or a checkpoint.

    Parameters
    ----------
    path : str
        Equal on every rank.
    comm : MPI.Comm, optional
        Without it, no MPI is needed.

    Raises
    ------
    DataError
        On every rank, if ``path`` is neither, or a file is missing or damaged.

    Notes
    -----
    Collective with ``comm``. Rank 0 looks at the file system for all; the files of a
    checkpoint are checked by all ranks together.
    """
    rank, shapes, is_saved = 0 if comm is None else comm.rank, None, False
    with nullcontext() if comm is None else together(comm):
        if rank == 0:
            is_saved = store.is_checkpoint(path)
            if not is_saved:
                shapes = _shapes(path)
    if comm is not None:
        is_saved, shapes = comm.bcast((is_saved, shapes), root=0)
    if is_saved:
        saved = read_checkpoint(path, comm)
        return Earlier(path, saved.tensors("params/"), saved)
    file, files = os.path.join(path, output.WEIGHTS), {}
    tensors = {
        name: StoredTensor(file, name, shape, np.dtype(dtype), files)
        for name, (shape, dtype) in shapes.items()
    }
    return Earlier(path, tensors)


def _shapes(path):
    """Return {name: (shape, name of the dtype)} of a run's weights, in model order."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isdir(path):
        raise DataError(f"{path}: no such run directory; train writes one")
    for name in (output.CONFIG, output.SCHEMA, output.WEIGHTS):
        if not os.path.isfile(os.path.join(path, name)):
            raise DataError(f"{path}: no {name}{_advice(path)}")
    file = os.path.join(path, output.WEIGHTS)
    try:
        with safe_open(file, "numpy") as tensors:
            names = list(tensors.keys())
            order = json.loads((tensors.metadata() or {}).get("order", "null"))
            if order is not None and sorted(order) == sorted(names):
                names = order
            _require_hash(path, file, map(tensors.get_tensor, names))
            slices = {name: tensors.get_slice(name) for name in names}
            return {
                name: (tuple(found.get_shape()), DTYPES[found.get_dtype()])
                for name, found in slices.items()
            }
    except KeyError as error:
        raise DataError(f"{file}: holds numbers of type {error}") from error
    except (OSError, SafetensorError, *MALFORMED) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error


def _require_hash(path, file, arrays):
    """Raise DataError if ``arrays`` do not have the hash in the run's result.

    Most flipped bits of a safetensors file are numbers that load. The weights are
    written before the result: without one there is no hash to compare.
    """
    wanted = (read_run_result(path) or {}).get("weights_sha256")
    if wanted is not None and output.weights_sha256(arrays) != wanted:
        raise DataError(
            f"{file}: damaged or replaced: its numbers do not have the weights_sha256 "
            f"of {output.RESULT}; take a checkpoint of this run, or, if you changed "
            f"the weights on purpose, remove {os.path.join(path, output.RESULT)}"
        )


def _advice(path):
    """Return what follows "no weights" in the message about a folder."""
    saved = saved_in(path)
    if not saved:
        return "; is it the [output] directory of a run that ended?"
    newest = saved[-1].path
    if not os.path.isfile(os.path.join(path, output.SCHEMA)):
        return f"; it holds checkpoints: name one, such as the newest, {newest}"
    return (
        ": its training has not ended; let it go on with pympi-train train --resume, "
        f"or name a checkpoint, such as the newest, {newest}"
    )


def saved_in(path):
    """Return the Entries of a run's checkpoints, or of those of a folder; oldest first.

    Raises
    ------
    DataError
        If a folder cannot be read.
    """
    if os.path.isfile(os.path.join(path, output.SCHEMA)):
        return store.entries(folder_of_checkpoints(path))
    return store.entries(path)


def folder_of_checkpoints(run):
    """Return the folder of a run's checkpoints, also if the run was moved.

    Raises
    ------
    ConfigError, DataError
        If the run's configuration is malformed or cannot be read.
    """
    config = read_run_config(run)
    inside = os.path.join(run, configuration.CHECKPOINTS)
    return (config and config.checkpoint.directory) or inside
