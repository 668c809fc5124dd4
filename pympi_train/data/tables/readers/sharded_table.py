"""Folders of .npy shards with a manifest, made by ``data convert``, as a table."""

import math
import os
from itertools import accumulate

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.npy import npy_array
from pympi_train.data.formats.files import Files, of_each
from pympi_train.data.tables.readers.array_table import ArrayTable, plain_values
from pympi_train.data.tables.source import Field, choose_fields
from pympi_train.errors import DataError


def open_shards(folder, manifest, comm, columns=None):
    """Return the Table of a folder of .npy shards. Collective.

    Parameters
    ----------
    folder : str
    manifest : dict
        As `datatools.manifest` describes.
    comm : MPI.Comm
    columns : list of str, optional
    """
    with together(comm):
        try:
            arrays = [_Stored(**one) for one in manifest["arrays"]]
            shards = [[one["name"] for one in s["files"]] for s in manifest["shards"]]
            counts = [shard["rows"] for shard in manifest["shards"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder}: the manifest is incomplete: {error}") from None
    paths = [os.path.join(folder, name) for names in shards for name in names]
    stored = of_each(paths, npy_array, comm)
    starts = [0, *accumulate(map(len, shards))]
    shard_arrays = [stored[a:b] for a, b in zip(starts, starts[1:])]
    with together(comm):
        for count, found in zip(counts, shard_arrays):
            for array, expected in zip(found, arrays):
                expected.require(array, count)
        every = [field for array in arrays for field in array.fields]
        fields = choose_fields(folder, every, columns)

    files = Files(folder, tuple(paths), "npy")
    return ShardedTable(files, fields, shard_arrays, arrays)


class ShardedTable(ArrayTable):
    """Rows of .npy shards with a manifest; see `open_shards`."""

    def __init__(self, files, fields, arrays, stored):
        self._stored = stored  # a _Stored for each array of a shard
        super().__init__(files, fields, arrays)

    def _rows_of(self, i, start, stop, fields):
        whole = [one.field for one in self._stored]
        for values in super()._rows_of(i, start, stop, whole):
            parts: dict = {}
            for one, part in zip(self._stored, values):
                parts.update(one.split(part, self.name))
            yield [parts[field.name] for field in fields]


class _Stored:
    """An array of each shard, and the columns that it holds.

    Parameters are those of an entry of ``arrays`` in a manifest.
    """

    def __init__(self, name, dtype, columns, shape=None):
        self._shape = tuple(shape or ())
        kind = "text" if dtype == "text" else dtype
        self._splits = shape is None
        # Files have a matrix of rows, whatever shape a value has.
        width = len(columns) if self._splits else math.prod(self._shape)
        is_single = not self._splits and not self._shape
        self.field = Field(name, kind, () if is_single else (width,))
        shapes = [() if self._splits else self._shape for _ in columns]
        self.fields = [Field(c, kind, s) for c, s in zip(columns, shapes)]

    def require(self, array, n):
        """Raise DataError unless a StoredArray is the one of the manifest."""
        if array.shape != (n, *self.field.shape):
            raise DataError(
                f"{array.path}: has the shape {array.shape}, but "
                f"{(n, *self.field.shape)} in the manifest"
            )

    def split(self, values, place):
        """Return {column: values} of the rows of the array."""
        if not self._splits:
            values = values.reshape(len(values), *self._shape)
            return {self.fields[0].name: values}
        columns = values.T
        return {
            field.name: plain_values(column, field, place)
            for field, column in zip(self.fields, columns)
        }
