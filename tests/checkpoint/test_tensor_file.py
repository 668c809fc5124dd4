"""Files of tensors are those of the library safetensors."""

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from pympi_train.checkpoint.durable import hash_file, write_file
from pympi_train.checkpoint.tensor_file import KINDS, StoredTensor, chunks_of
from pympi_train.errors import DataError

TENSORS = {
    **{f"of {name}": np.arange(3).astype(name) for name in KINDS},
    "matrix": np.arange(12.0).reshape(3, 4),
    "no dimension": np.array(2.5),
    "empty": np.empty((0, 3), np.float32),
    'blank, "quote", ö\n': np.array([1.0]),
}


def test_library_reads_them():
    found = load(b"".join(bytes(chunk) for chunk in chunks_of(TENSORS)))
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_tensors_are_not_copied_and_the_first_one_is_aligned():
    header, *rest = chunks_of({"a": TENSORS["matrix"]})
    assert len(header) % 64 == 0
    assert np.shares_memory(np.frombuffer(rest[0]), TENSORS["matrix"])


def test_hash_is_that_of_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    written = write_file(path, chunks_of(TENSORS))
    assert hash_file(path) == written
    assert written.n_bytes == path.stat().st_size
    assert len(load_file(path)) == len(TENSORS)
    with pytest.raises(DataError, match="a.safetensors: cannot be written: File exis"):
        write_file(path, [b"other"])


def test_parts_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write_file(path, chunks_of(TENSORS))
    files = {}
    for name, array in TENSORS.items():
        stored = StoredTensor(path, name, array.shape, array.dtype, files)
        every = tuple(slice(0, n) for n in array.shape)
        np.testing.assert_array_equal(stored[every], array)
    matrix = StoredTensor(path, "matrix", (3, 4), np.dtype(float), files)
    np.testing.assert_array_equal(matrix[1:3, 2:3], TENSORS["matrix"][1:3, 2:3])
    with pytest.raises(DataError, match="a.safetensors: other cannot be read"):
        StoredTensor(path, "other", (3,), np.dtype(float), files)[0:3]
