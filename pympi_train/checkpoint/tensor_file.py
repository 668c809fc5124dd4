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
from pympi_train.flat.boxes import size_of
from pympi_train.flat.state import State

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


def chunks_of(tensors, metadata=None):
    """Yield the content of a file piece by piece.

    Parameters
    ----------
    tensors : dict of str to ndarray, StoredTensor or WholeTensor
        Arrays are C-contiguous; they are yielded as they are, not copied. Others are
        read one at a time.
    metadata : dict of str to str, optional
        Stored with them.

    Yields
    ------
    bytes or memoryview
    """
    header, start = {"__metadata__": metadata} if metadata else {}, 0
    for name, array in tensors.items():
        kind = KINDS[array.dtype.name]
        offsets = [start, start + math.prod(array.shape) * array.dtype.itemsize]
        entry = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        header[name], start = entry, offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED_BYTES)
    yield len(text).to_bytes(8, "little") + text
    for array in tensors.values():
        array = np.asarray(array[...], order="C")
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
        """Return the part that ``index``, a tuple of slices or ``...``, selects."""
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


class WholeTensor:
    """A tensor of which regions lie in several files; parts are read when asked for.

    Parameters
    ----------
    name : str
    regions : list of Region
        Their arrays may be StoredTensors.

    Attributes
    ----------
    shape : tuple of int
        If each rank has a block of its own, the first dimension is the rank.
    dtype : dtype

    Raises
    ------
    DataError
        On reading, if a part is missing or cannot be read.
    """

    def __init__(self, name, regions):
        self._name, self._state = name, State(regions={name: regions})
        self.shape, self.dtype = regions[0].shape, regions[0].array.dtype

    def __getitem__(self, index):
        """Return the part that ``index``, a tuple of slices or ``...``, selects."""
        index = () if index is Ellipsis else index
        index += (slice(None),) * (len(self.shape) - len(index))
        box = tuple(s.indices(n)[:2] for s, n in zip(index, self.shape))
        out = np.empty([max(high - low, 0) for low, high in box], self.dtype)
        if size_of(box):
            self._state.read(self._name, self.shape, box, out)
        return out
