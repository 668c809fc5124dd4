"""Windows of token files, for models of sequences."""

import copy
from itertools import accumulate

import numpy as np

from pympi_train.comm.checks import on_root, require_equal, together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import key_of, resolve
from pympi_train.data.batch import Batch
from pympi_train.data.formats.arrays.stored import map_rows
from pympi_train.data.formats.files import Files, of_each
from pympi_train.data.formats.token_files import (
    require_right_tokens,
    require_token_settings,
    stored_tokens,
    token_paths,
)
from pympi_train.data.partition import own_range
from pympi_train.data.sources.advice import read_soon
from pympi_train.data.sources.base import Source, n_rows
from pympi_train.data.windows.choice import resolve_order
from pympi_train.errors import DataError
from pympi_train.paths import all_expanded

CHECKED_ROWS = 4096  # given to a model's check at once
CHECKED_TOKENS = 2**20  # looked at in one go


class TokenDataset(Source):
    r"""This rank's windows of token files, which stay in the files.

    Row ``i`` of a file with tokens :math:`t_0, t_1, \dots` has the inputs
    :math:`x_j = t_{iw + j}` and the targets :math:`y_j = t_{iw + j + 1}`,
    :math:`0 \le j < w`: rows do not overlap, and no row crosses files. Tokens after the
    last whole window of a file are not used.

    Parameters
    ----------
    files : str, path, list of them, or Files
        Files ``.bin``, which hold nothing but tokens of ``token_dtype`` in the byte
        order of this machine, or ``.npy``, 1-d arrays of integers; a pattern, or a
        folder of .npy files.
    window : int
        Tokens of a row, ``w``.
    token_dtype : str, default "uint16"
        Of .bin: "uint8", "uint16", "uint32" or "uint64".
    order : {"full", "window"} or WindowOrder, optional
        The order of the rows in an epoch; "full" by default.
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
        On every rank, for an invalid ``window``, ``token_dtype`` or ``order``.
    DataError
        On every rank, if a file is missing, is not of whole tokens, or has no window.

    Notes
    -----
    Collective.

    A batch has ``x`` and ``y`` of shape (k, w), int32, or int64 for tokens of 4 bytes
    or more. A row counts as one sample: a model whose loss is a mean over tokens
    divides its sum by ``w``. Pages of the files are read when batches need them.
    """

    def __init__(
        self, files, window, *, token_dtype="uint16", order=None, comm=None
    ):
        comm = resolve(comm)
        with together(comm):
            files = files if isinstance(files, Files) else all_expanded(files)
            require_token_settings(window, token_dtype)
        paths = on_root(comm, lambda: token_paths(files))

        def stored(path):
            return stored_tokens(path, np.dtype(token_dtype))

        self._arrays = of_each(paths, stored, comm)
        self.window, self._maps, self._y_dtype = window, {}, None
        self._below = None  # all tokens are below it, if known
        with together(comm):
            counts = [self._count(array) for array in self._arrays]
        self._starts = np.array([0, *accumulate(counts)])
        self._first, self.n = 0, int(self._starts[-1])
        self._place(*own_range(self.n, comm.rank, comm.size))
        self.key, self.n_ranks = key_of(comm), comm.size
        wide = max(array.dtype.itemsize for array in self._arrays) > 2
        self._dtype = np.dtype(np.int64 if wide else np.int32)
        with together(comm):
            self.order = resolve_order(order, self.n, self.row_bytes)
            self._open_own()
        require_equal(comm, "order of the rows", self.order)

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
        for i, _ in self._pieces(0, len(self)):
            self._tokens(i)

    def _owners(self, numbers):
        """Return the file of rows, which are numbered through all files."""
        return np.searchsorted(self._starts, numbers, side="right") - 1

    def _pieces(self, start, stop):
        """Yield (file, its windows as a slice) of the local rows start to stop - 1."""
        at, end = self._first + self.start + start, self._first + self.start + stop
        while at < end:
            i = int(self._owners(at))
            until = min(end, int(self._starts[i + 1]))
            yield i, slice(at - int(self._starts[i]), until - int(self._starts[i]))
            at = until

    def _tokens(self, i):
        """Return the tokens of a file, mapped."""
        if i not in self._maps:
            array = self._arrays[i]
            try:
                self._maps[i] = map_rows(array, 0, array.n)
            except (OSError, ValueError) as error:  # gone, or shorter
                raise DataError(f"{array.place}: cannot be read: {error}") from None
        return self._maps[i]

    def _windows(self, i):
        """Return the windows of a file with their last targets, shape (n_i, w + 1)."""
        tokens = self._tokens(i)
        step = tokens.itemsize
        return np.lib.stride_tricks.as_strided(
            tokens,
            (self._starts[i + 1] - self._starts[i], self.window + 1),
            (step * self.window, step),
            writeable=False,
        )

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
        each = each + self._first
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

    def read_ahead(self, ranges):
        """Let the kernel read rows that will be needed soon; see `Source.read_ahead`.
        """
        w = self.window
        for start, stop in ranges.tolist():
            for i, windows in self._pieces(start, stop):
                read_soon(self._tokens(i)[windows.start * w : windows.stop * w + 1])

    def largest(self, comm):
        """Return the largest token of all rows. Collective.

        Raises
        ------
        DataError
            On every rank, if a token is negative.
        """
        found = -1
        with together(comm):
            for place, first, tokens in self._own_tokens():
                require_right_tokens(tokens < 0, place, first, tokens, "0 or more")
                found = max(found, int(tokens.max()))
        found = int(reduced(comm, [found], op="MAX")[0])
        self._below = found + 1
        return found

    def require_below(self, n_tokens, comm):
        """Raise DataError on all ranks at the first token that is not below a number.

        Collective.
        """
        wanted = f"tokens from 0 to {n_tokens - 1}"
        with together(comm):
            for place, first, tokens in self._own_tokens():
                is_wrong = (tokens < 0) | (tokens >= n_tokens)
                require_right_tokens(is_wrong, place, first, tokens, wanted)
        self._below = n_tokens

    def _own_tokens(self):
        """Yield (file, place in it, tokens) of this rank's rows, some at a time."""
        w = self.window
        for i, windows in self._pieces(0, len(self)):
            end = windows.stop * w + 1
            for first in range(windows.start * w, end, CHECKED_TOKENS):
                tokens = self._tokens(i)[first : min(first + CHECKED_TOKENS, end)]
                yield self._arrays[i].place, first, tokens

    def part(self, start, stop, comm):
        """Return the rows from ``start`` to ``stop - 1`` of the whole, as a data set.

        Its rows are numbered from 0. The ranks share them evenly. Collective.
        """
        other = copy.copy(self)
        other._maps, other._first = {}, self._first + start
        other.n = stop - start
        other._place(*own_range(other.n, comm.rank, comm.size))
        with together(comm):
            other._open_own()
        return other

    def weight_of(self, rows):
        """Return the number of some rows."""
        return float(n_rows(rows))

    def targets(self):
        """Return the targets of this rank's rows, shape (k, w), in memory."""
        return self.batch(slice(0, len(self))).y

    def row_weights(self):
        """Return None: all rows count alike."""

    def check(self, model):
        """Let ``model`` check all rows once, some at a time; see `Source.check`.

        Tokens that are known to be below the model's ``n_tokens`` are not read again.
        """
        if not hasattr(model, "check"):
            return
        is_known = self._below is not None and self._below <= getattr(
            model, "n_tokens", 0
        )
        stop = min(len(self), 1) if is_known else len(self)
        for start in range(0, stop, CHECKED_ROWS):
            model.check(self.batch(slice(start, min(start + CHECKED_ROWS, stop))))

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
