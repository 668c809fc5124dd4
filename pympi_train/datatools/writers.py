"""Shards of .npy and Parquet, written from batches of a table."""

import os

import numpy as np

from pympi_train.data.formats.libraries import load_library
from pympi_train.data.formats.rows import listed, require_unique
from pympi_train.data.tables.readers.arrow_values import arrow_of_array
from pympi_train.data.tables.source import (
    batch_length,
    flat_rows,
    missing_mask,
)
from pympi_train.datatools.folder import shard_name
from pympi_train.errors import ConfigError, DataError

DATES_OF_PARQUET = [f"datetime64[{unit}]" for unit in ("s", "ms", "us", "ns")]
GROUP_BYTES = 1 << 21  # of a row group: what a stream decodes at once


def make_writer(format, table, target=None, weights=None, dtype=None):
    """Return the writer of a format: a ParquetShards or NpyShards.

    Raises
    ------
    ConfigError, DataError
        If options do not fit the format, or columns do not.
    """
    if format == "npy":
        return NpyShards(table, target, weights, dtype)
    given = {"target": target, "weights": weights, "dtype": dtype}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"--{name} is for --format npy; a Parquet keeps each column with its "
                "name and type"
            )
    return ParquetShards(table)


class ParquetShards:
    """Writes each stripe to a Parquet file of one row group: ``part-00000.parquet``."""

    format = "parquet"

    def __init__(self, table):
        load_library("pyarrow.parquet", f"{table.name}: writing Parquet")
        self._fields = table.fields
        labels = [label for field in table.fields for label in field.labels()]
        require_unique(table.name, labels)  # an array x may meet a column "x[0]"
        # Dictionaries of distinct fractions take several times as long, for nothing.
        self._repeating = [
            label
            for field in table.fields
            if field.dtype.kind != "f"
            for label in field.labels()
        ]
        for field in table.fields:
            if "datetime64[D]" != field.type and field.type.startswith("datetime64"):
                if field.type not in DATES_OF_PARQUET:
                    raise DataError(
                        f"{table.name}: column {field.name!r} is {field.type}, which "
                        "Parquet cannot hold"
                    )

    def facts(self):
        """Return the entries of the manifest about the arrays: none."""
        return {}

    def write(self, folder, number, batch):
        """Write a batch; return (rows, names of the files)."""
        import pyarrow
        from pyarrow import parquet

        n = batch_length(batch)
        if not n:
            return 0, []
        names, columns = [], []
        for field in self._fields:
            values = flat_rows(batch[field.name])
            for label, column in zip(field.labels(), values.T):
                names.append(label)
                columns.append(arrow_of_array(column, field))
        table = pyarrow.table(columns, names=names)
        name = shard_name("part", number, ".parquet")
        with open(os.path.join(folder, name), "xb") as file:
            parquet.write_table(
                table,
                file,
                row_group_size=max(1, n * GROUP_BYTES // max(1, table.nbytes)),
                use_dictionary=self._repeating,
            )
            file.flush()
            os.fsync(file.fileno())
        return n, [name]


class NpyShards:
    """Writes each stripe to ``features-00000.npy``, ``target-00000.npy``, ...

    Parameters
    ----------
    table : Table
    target, weights : str, optional
        Columns with files of their own.
    dtype : str, optional
        Of the features. By default their common dtype; float64 for integers with
        fractions, or with missing values.

    Notes
    -----
    Features are a matrix, (k, d), which training reads; a single column is (k,).
    """

    format = "npy"

    def __init__(self, table, target=None, weights=None, dtype=None):
        self._place, self._fields = table.name, {f.name: f for f in table.fields}
        apart = {"target": target, "weights": weights}
        self._apart = {u: table.field(n) for u, n in apart.items() if n is not None}
        used = [field.name for field in self._apart.values()]
        if len(set(used)) < len(used):
            raise ConfigError(f"--target and --weights are the same column, {target!r}")
        self._features = [f for f in table.fields if f.name not in used]
        wrong = [field.name for field in self._features if not field.is_number]
        if wrong:
            raise DataError(
                f"{table.name}: an .npy of features holds numbers, unlike the columns "
                f"{listed(wrong)}: name the others (--columns), name a target "
                "(--target), or choose --format parquet"
            )
        self._dtype = np.dtype(dtype or _common_dtype(self._features))
        self._is_rounded = dtype is not None
        alone = len(self._features) == 1
        self._shape = self._features[0].shape if alone else None

    def facts(self):
        """Return the entries of the manifest about the arrays."""
        arrays = []
        if self._features:
            labels = [label for field in self._features for label in field.labels()]
            one = {"name": "features", "dtype": str(self._dtype), "columns": labels}
            if self._shape is not None:
                one["columns"] = [self._features[0].name]
                one["shape"] = list(self._shape)
            arrays.append(one)
        for use, field in self._apart.items():
            kind = "text" if field.is_text else str(_single_dtype(field))
            shape = list(field.shape)
            one = {"name": use, "dtype": kind, "columns": [field.name], "shape": shape}
            arrays.append(one)
        return {"arrays": arrays}

    def write(self, folder, number, batch):
        """Write a batch; return (rows, names of the files)."""
        n, names = batch_length(batch), []
        arrays = {"features": self._matrix(n, batch)} if self._features else {}
        for use, field in self._apart.items():
            arrays[use] = self._alone(batch[field.name], field)
        for use, array in arrays.items() if n else ():
            names.append(shard_name(use, number, ".npy"))
            with open(os.path.join(folder, names[-1]), "xb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        return n, names

    def _matrix(self, n, batch):
        parts = []
        for field in self._features:
            part = self._cast(batch[field.name], field)
            parts.append(part if self._shape == () else flat_rows(part))
        matrix = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return np.ascontiguousarray(matrix)

    def _cast(self, values, field):
        """Return values in the dtype of the features; raise DataError for losses."""
        mask, plain = missing_mask(values), np.ma.getdata(values)
        if plain.dtype == self._dtype and field.dtype.kind == "f":
            return plain
        if mask.any() and self._dtype.kind != "f":
            raise DataError(
                f"{self._place}: column {field.name!r} has missing values, which "
                f"{self._dtype} cannot hold; choose --dtype float64"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            cast = plain.astype(self._dtype)
            lost = self._lost(plain, cast) & ~mask
        if lost.any():
            value = plain[lost].ravel()[0]
            raise DataError(
                f"{self._place}: column {field.name!r} has {value}, which "
                f"{self._dtype} cannot hold; choose --format parquet, another --dtype, "
                "or leave the column out"
            )
        if mask.any():
            cast[mask] = np.nan
        return cast

    def _lost(self, plain, cast):
        """Return which values changed by more than the rounding that was asked for."""
        if self._dtype.kind == "f" and self._is_rounded:
            return np.isinf(cast) & np.isfinite(plain.astype(np.float64))
        if plain.dtype.kind == "f" and self._dtype.kind == "f":
            return np.zeros(plain.shape, dtype=bool)
        limit = 2.0**63 if plain.dtype.kind == "i" else 2.0**64
        back = np.where(cast < limit, cast, 0).astype(plain.dtype)
        return back != plain

    def _alone(self, values, field):
        """Return the values of a target or of weights."""
        mask = missing_mask(values)
        if field.is_text:
            texts = np.where(mask, "", values).tolist()
            return np.array(texts, dtype=str)
        plain, dtype = np.ma.getdata(values), _single_dtype(field)
        if field.nullable:
            plain = plain.astype(np.float64)
            plain[mask] = np.nan
        return np.ascontiguousarray(plain, dtype=dtype)


def _single_dtype(field):
    return np.dtype(np.float64) if field.nullable else field.dtype


def _common_dtype(fields):
    """Return the dtype that holds the features."""
    kinds = [np.float64 if field.nullable else field.dtype for field in fields]
    return np.result_type(*kinds) if kinds else np.float64
