"""Files of tensors in the format safetensors [1]_.

The library reads them. It writes only what lies in memory as one piece a second time,
and cannot hash what it writes: so the few lines for writing are here.

References
----------
.. [1] https://github.com/huggingface/safetensors, README, "Format".
"""

import json
import math
import sys

import numpy as np

from pympi_train.errors import DataError

KINDS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
ALIGNED_BYTES = 64  # where the first tensor starts


def chunks_of(tensors):
    """Yield the content of a file piece by piece.

    Parameters
    ----------
    tensors : dict of str to ndarray
        C-contiguous. They are yielded as they are, not copied.

    Yields
    ------
    bytes or memoryview
    """
    header, start = {}, 0
    for name, array in tensors.items():
        kind = KINDS[array.dtype.name]
        offsets = [start, start + array.nbytes]
        entry = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        header[name], start = entry, offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED_BYTES)
    yield len(text).to_bytes(8, "little") + text
    for array in tensors.values():
        if sys.byteorder == "big":
            array = array.astype(array.dtype.newbyteorder("<"))
        if array.nbytes:
            yield memoryview(array.reshape(-1).view(np.uint8))


class StoredTensor:
    """A tensor in a file, of which parts are read when they are asked for.

    Parameters
    ----------
    path : path
    key : str
        Its name in the file.
    shape : tuple of int
    dtype : dtype
    files : dict
        Of open files by path, which all tensors of a checkpoint share.

    Raises
    ------
    DataError
        On reading, if the file is not as expected.
    """

    def __init__(self, path, key, shape, dtype, files):
        self._path, self._key, self._files = path, key, files
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, index):
        """Return the part that ``index``, a tuple of slices, selects."""
        from safetensors import SafetensorError, safe_open

        try:
            if self._path not in self._files:
                self._files[self._path] = safe_open(self._path, "numpy")
            file = self._files[self._path]
            if math.prod(self.shape) == 0 or not self.shape:
                found = file.get_tensor(self._key)[index]
            else:
                found = file.get_slice(self._key)[index]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            text = f"{self._path}: {self._key} cannot be read: {error}"
            raise DataError(text) from error
        return found
