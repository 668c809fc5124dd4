"""The parameters of a checkpoint or a run, in a file for other programs."""

import json
import math
import os
import zipfile

import numpy as np

from pympi_train.checkpoint import store
from pympi_train.checkpoint.tensor_file import chunks_of
from pympi_train.checkpointtools.onnx_file import onnx_bytes
from pympi_train.comm.checks import together
from pympi_train.config import config as configuration
from pympi_train.config.build import build_model
from pympi_train.errors import DataError
from pympi_train.paths import expanded
from pympi_train.runs import output
from pympi_train.runs.earlier.weights import open_earlier
from pympi_train.runs.trained import TrainedModel

SUFFIXES_OF_EXPORT = (".safetensors", ".npz", ".onnx")


def export_weights(source, path, comm):
    """Write the parameters to a file: .safetensors, .npz or .onnx.

    Parameters
    ----------
    source : str
        A checkpoint, or the directory of a run that ended.
    path : str
        A file that is there is replaced when all is written.
    comm : MPI.Comm
        All ranks check the files of a checkpoint; rank 0 writes.

    Returns
    -------
    dict or None
        On rank 0: output, tensors and parameters (counts), remarks (list of str: what
        the inputs of an ONNX model are).

    Raises
    ------
    DataError
        On every rank, if the source is damaged, the file cannot be written or would be
        one of a checkpoint or of a run, or its format cannot hold the model.

    Notes
    -----
    Collective. For .safetensors and .npz, one tensor at a time is in memory.
    """
    with together(comm):
        source, path = expanded(source), expanded(path)
        if not path.endswith(SUFFIXES_OF_EXPORT):
            raise DataError(
                f"{path}: cannot be written: expected a name that ends in "
                f"{', '.join(SUFFIXES_OF_EXPORT)}"
            )
        if comm.rank == 0:
            _require_free(path)
    earlier, found = open_earlier(source, comm), None
    with together(comm):
        if comm.rank == 0:  # of a link, the file that it names
            found = {"output": path} | _write(earlier, os.path.realpath(path))
    return found


def _require_free(path):
    """Raise DataError if the file would be one of a checkpoint or of a run."""
    folder, name = os.path.split(os.path.realpath(path))
    is_of_run = name in output.FILES and output.is_run(folder)
    if store.is_checkpoint(folder) or is_of_run:
        raise DataError(
            f"{path}: cannot be written: it would be a file of {folder}; choose "
            "another"
        )


def _write(earlier, path):
    """Write the file; return the facts on it."""
    remarks = []
    if path.endswith(".onnx"):
        model = TrainedModel(
            earlier.path, *earlier.config_and_schema(), earlier.tensors
        )
        data, remarks = onnx_bytes(model, earlier.path)
        tensors = model.weights()
        with output.replacing(path) as temporary:
            temporary.write_bytes(data)
    else:
        tensors = _in_model_order(earlier)
        with output.replacing(path) as temporary:
            write = _write_npz if path.endswith(".npz") else _write_safetensors
            write(temporary, tensors)
    n = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return {"tensors": len(tensors), "parameters": n, "remarks": remarks}


def _in_model_order(earlier):
    """Return the tensors in the order of the model, if its configuration is there."""
    text = earlier.text(output.CONFIG)
    if earlier.saved is None or text is None:
        return earlier.tensors
    config = configuration.parse(text, where=earlier.path, literal_paths=True)
    layout = build_model(config.model, earlier.config_and_schema()[1]).layout
    return {tensor.name: earlier.tensors[tensor.name] for tensor in layout.tensors}


def _write_safetensors(path, tensors):
    metadata = {"format": "np", "order": json.dumps(list(tensors))}
    with open(path, "wb") as file:
        for chunk in chunks_of(tensors, metadata):
            file.write(chunk)


def _write_npz(path, tensors):
    with zipfile.ZipFile(path, "w") as archive:
        for name, tensor in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, tensor[...], allow_pickle=False)
