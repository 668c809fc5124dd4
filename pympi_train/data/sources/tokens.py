"""Windows of token files, for models of sequences."""

import copy
import os
from itertools import accumulate

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.ranks import key_of, resolve
from pympi_train.data.batch import Batch
from pympi_train.data.formats.arrays.npy import stored_npy
from pympi_train.data.formats.arrays.stored import FileArray, map_rows
from pympi_train.data.formats.files import (
    expand_name,
    file_size,
    of_each,
    suffix_of,
)
from pympi_train.data.formats.rows import as_names, on_root
from pympi_train.data.partition import own_range
from pympi_train.data.sources.base import Source, n_rows
from pympi_train.errors import ConfigError, DataError
from pympi_train.paths import all_expanded, is_remote

SUFFIXES = (".bin", ".npy")
DTYPES = ("uint8", "uint16", "uint32", "uint64")
CHECKED_ROWS = 4096  # given to a model's check at once


class TokenDataset(Source):
    r"""This rank's windows of token files, which stay in the files.

    Row ``i`` of a file with tokens :math:`t_0, t_1, \dots` has the inputs
    :math:`x_j = t_{iw + j}` and the targets :math:`y_j = t_{iw + j + 1}`,
    :math:`0 \le j < w`: rows do not overlap, and no row crosses files. Tokens after the
    last whole window of a file are not used.

    Parameters
    ----------
    files : str, path, or list of them
        Files ``.bin``, which hold nothing but tokens of ``token_dtype`` in the byte
        order of this machine, or ``.npy``, 1-d arrays of integers; a pattern, or a
        folder of .npy files.
    window : int
        Tokens of a row, ``w``.
    token_dtype : str, default "uint16"
        Of .bin: "uint8", "uint16", "uint32" or "uint64".
    comm : Ranks or MPI.Comm, optional
        The ranks that share the rows; COMM_WORLD by default.

    Attributes
    ----------
    n, start, stop
        As for `Source`.
    window : int

    Raises
    ------
    ConfigError
        On every rank, for an invalid ``window`` or ``token_dtype``.
    DataError
        On every rank, if a file is missing, is not of whole tokens, or has no window.

    Notes
    -----
    Collective.

    A batch has ``x`` and ``y`` of shape (k, w), int32, or int64 for tokens of 4 bytes
    or more. A row counts as one sample: a model whose loss is a mean over tokens
    divides its sum by ``w``. Pages of the files are read when batches need them.
    """

    def __init__(self, files, window, *, token_dtype="uint16", comm=None):
        comm = resolve(comm)
        with together(comm):
            files = all_expanded(files)
            _require_settings(window, token_dtype)
        paths = on_root(comm, lambda: _paths(files))

        def stored(path):
            return _stored(path, np.dtype(token_dtype))

        self._arrays = of_each(paths, stored, comm)
        self.window, self._maps, self._y_dtype = window, {}, None
        with together(comm):
            counts = [self._count(array) for array in self._arrays]
        self._starts = np.array([0, *accumulate(counts)])
        self.n = int(self._starts[-1])
        self._place(*own_range(self.n, comm.rank, comm.size))
        self.key, self.n_ranks = key_of(comm), comm.size
        wide = max(array.dtype.itemsize for array in self._arrays) > 2
        self._dtype = np.dtype(np.int64 if wide else np.int32)
        with together(comm):
            self._open_own()

    def _count(self, array):
        count = (array.n - 1) // self.window
        if count < 1:
            raise DataError(
                f"{array.place}: {array.n} tokens, but a window of {self.window} needs "
                f"{self.window + 1}: one more for the last target"
            )
        return count

    def _place(self, start, stop):
        self.start, self.stop = start, stop

    def _open_own(self):
        """Map the files that hold own rows."""
        if len(self):
            first, last = self._owners(np.array([self.start, self.stop - 1]))
            for i in range(first, last + 1):
                self._windows(i)

    def _owners(self, numbers):
        return np.searchsorted(self._starts, numbers, side="right") - 1

    def _windows(self, i):
        """Return the windows of a file with their last targets, shape (n_i, w + 1)."""
        if i not in self._maps:
            array = self._arrays[i]
            try:
                tokens = map_rows(array, 0, array.n)
            except (OSError, ValueError) as error:  # gone, or shorter
                raise DataError(f"{array.place}: cannot be read: {error}") from None
            step = tokens.itemsize
            self._maps[i] = np.lib.stride_tricks.as_strided(
                tokens,
                (self._starts[i + 1] - self._starts[i], self.window + 1),
                (step * self.window, step),
                writeable=False,
            )
        return self._maps[i]

    @property
    def kinds(self):
        """A Batch of (shape of a row, dtype), with None for absent fields."""
        y = None if self._y_dtype is False else self._y_dtype or self._dtype
        shape = (self.window,)
        return Batch((shape, self._dtype), None if y is None else (shape, y))

    def batch(self, rows, out=None):
        """Return some of this rank's rows; see `Source.batch`."""
        k, numbers = n_rows(rows), self.numbers(rows)
        x, y, *_ = self.room(k) if out is None else out
        x, y = x[:k], None if y is None else y[:k]
        each = numbers
        if isinstance(numbers, slice):
            each = np.arange(numbers.start, numbers.stop)
        owner = self._owners(each)
        for i in np.unique(owner).tolist():
            mine = owner == i
            found = self._windows(i)[each[mine] - self._starts[i]]
            if found.dtype.kind == "i" and found.size and found.min() < 0:
                raise DataError(f"{self._arrays[i].place}: a token is {found.min()}")
            x[mine] = found[:, :-1]
            if y is not None:
                y[mine] = found[:, 1:]
        return Batch(x, y, None, numbers)

    def weight_of(self, rows):
        """Return the number of some rows."""
        return float(n_rows(rows))

    def targets(self):
        """Return the targets of this rank's rows, shape (k, w), in memory."""
        return self.batch(slice(0, len(self))).y

    def row_weights(self):
        """Return None: all rows count alike."""

    def check(self, model):
        """Let ``model`` check all rows once, some at a time; see `Source.check`."""
        if hasattr(model, "check"):
            for start in range(0, len(self), CHECKED_ROWS):
                stop = min(start + CHECKED_ROWS, len(self))
                model.check(self.batch(slice(start, stop)))

    def with_targets(self, dtype):
        """Return the same rows with targets of ``dtype``; see `Source.with_targets`."""
        if self._y_dtype is False:
            return self
        other = copy.copy(self)
        other._y_dtype = np.dtype(dtype)
        return other

    def features_only(self):
        """Return the same rows without targets."""
        other = copy.copy(self)
        other._y_dtype = False
        return other

    def moved(self, old, new, comm):
        """Return the rows by the cuts ``new``; only row numbers change. Collective."""
        other = copy.copy(self)
        other._maps = {}
        other._place(new[comm.rank], new[comm.rank + 1])
        with together(comm):
            other._open_own()
        return other


def _require_settings(window, token_dtype):
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise ConfigError(f"window must be an integer of 1 or more, got {window!r}")
    if token_dtype not in DTYPES:
        raise ConfigError(
            f"token_dtype must be one of {', '.join(DTYPES)}, got {token_dtype!r}"
        )


def _paths(files):
    """Return the names of the token files."""
    paths = [path for name in as_names(files) for path in expand_name(os.fspath(name))]
    odd = next((path for path in paths if suffix_of(path) not in SUFFIXES), None)
    if odd is not None or not paths:
        raise DataError(f"expected token files, {' or '.join(SUFFIXES)}, got {odd}")
    if is_remote(paths[0]):
        raise DataError(f"{paths[0]}: token files are not read from a URL; copy them")
    return paths


def _stored(path, dtype):
    """Return the FileArray of a token file."""
    if suffix_of(path) == ".bin":
        size_bytes = file_size(path)
        if size_bytes % dtype.itemsize:
            raise DataError(
                f"{path}: {size_bytes} bytes are no whole number of {dtype} tokens; is "
                "token_dtype right?"
            )
        return FileArray(path, path, (size_bytes // dtype.itemsize,), dtype, False, 0)
    array = stored_npy(path)
    if len(array.shape) != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected tokens, an array of integers of shape (n,), found shape "
            f"{array.shape} of {array.dtype}"
        )
    return array
