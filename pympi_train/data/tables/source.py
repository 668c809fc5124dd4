"""`Table`: the interface of a table in files; its columns and their values."""

import math
from dataclasses import dataclass

import numpy as np

from pympi_train.data.formats.rows import listed
from pympi_train.errors import DataError

BATCH_BYTES = 8 << 20  # of a batch, unless its number of rows is given
TEXT_BYTES = 24  # assumed for a text, whose length is not known
LEAVE_OUT = "leave it out by naming the other columns (--columns)"


@dataclass(frozen=True)
class Field:
    """A column of a table.

    Parameters
    ----------
    name : str
    type : str
        A dtype of NumPy, such as "int64", "float32", "bool" or "datetime64[us]", or
        "text".
    shape : tuple of int
        Shape of the value of one row: () for a number or text, (28, 28) for an image.
    nullable : bool
        Whether integers or booleans may be missing. Their values are then a masked
        array. Missing floating-point numbers are NaN, dates NaT, and texts None.
    """

    name: str
    type: str
    shape: tuple = ()
    nullable: bool = False

    @property
    def dtype(self):
        """Dtype of the values in memory."""
        return np.dtype(object if self.is_text else self.type)

    @property
    def is_text(self):
        return self.type == "text"

    @property
    def is_number(self):
        return not self.is_text and np.dtype(self.type).kind in "biuf"

    @property
    def width(self):
        """Number of values of a row."""
        return math.prod(self.shape)

    @property
    def row_bytes(self):
        """Bytes of a row in memory; an estimate for texts."""
        return self.width * (TEXT_BYTES if self.is_text else self.dtype.itemsize)

    def labels(self):
        """Return the name of each value of a row: ``x``, or ``x[0]``, ``x[1]`` ..."""
        if not self.shape:
            return [self.name]
        places = np.ndindex(self.shape)
        return [f"{self.name}[{','.join(map(str, place))}]" for place in places]


class Table:
    """Rows of named columns in one or more files.

    Attributes
    ----------
    name : str
        For messages.
    files : tuple of str
    n : int
        Number of rows of all files.
    fields : tuple of Field
    remarks : tuple of str
        What may be wrong with the files.
    """

    remarks: tuple = ()

    def __init__(self, name, files, n, fields):
        self.name, self.files, self.n = name, tuple(files), n
        self.fields = tuple(fields)

    @property
    def names(self):
        """Names of the columns: tuple of str."""
        return tuple(field.name for field in self.fields)

    @property
    def row_bytes(self):
        """Bytes of a row in memory, at least 1; an estimate if there is text."""
        return max(1, sum(field.row_bytes for field in self.fields))

    @property
    def batch_rows(self):
        """Number of rows of a batch of about BATCH_BYTES."""
        return max(1, BATCH_BYTES // self.row_bytes)

    def pieces(self, start, stop):
        """Yield the rows from ``start`` to ``stop - 1`` in batches, of any sizes.

        A batch is ``{name: values}`` with the columns in order. No rank calls another.
        Memory does not depend on the number of rows.

        Raises
        ------
        DataError
            If a file cannot be read; the message has its name, and row and column if
            possible.
        """
        raise NotImplementedError

    def field(self, name):
        """Return the Field of a name; raise DataError if there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise DataError(
            f"{self.name}: no column {name!r}; there are {listed(self.names)}"
        )


def choose_fields(place, fields, columns):
    """Return the Fields that ``columns`` names, in its order; all of them for None.

    Raises
    ------
    DataError
        If a name is not there, or is asked for twice.
    """
    if columns is None:
        return tuple(fields)
    by_name = {field.name: field for field in fields}
    for i, name in enumerate(columns):
        if name not in by_name:
            raise DataError(
                f"{place}: no column {name!r}; there are {listed(list(by_name))}"
            )
        if name in columns[:i]:
            raise DataError(f"{place}: the column {name!r} is asked for twice")
    return tuple(by_name[name] for name in columns)


def require_filled(place, n):
    """Raise DataError if a file has no rows."""
    if n == 0:
        raise DataError(f"{place}: no rows")


def missing_mask(values):
    """Return which values of an array are missing: same shape, bool."""
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.getmaskarray(values)
    if values.dtype.kind == "O":
        return np.equal(values, None).astype(bool)
    if values.dtype.kind in "fM":
        return np.isnan(values) if values.dtype.kind == "f" else np.isnat(values)
    return np.zeros(values.shape, dtype=bool)


def flat_rows(values):
    """Return an array with one dimension of rows and one of values, also if empty."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def batch_length(batch):
    """Return the number of rows of a batch."""
    return len(next(iter(batch.values())))


def join_batches(batches):
    """Return several batches as one; a single one is not copied."""
    if len(batches) == 1:
        return batches[0]
    joined = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        is_masked = isinstance(parts[0], np.ma.MaskedArray)
        joined[name] = (np.ma if is_masked else np).concatenate(parts)
    return joined


def recut(batches, sizes):
    """Yield the rows of ``batches`` again, in batches of the given sizes.

    Parameters
    ----------
    batches : iterable of dict
    sizes : iterable of int
        Each at least 1; their sum is the number of rows.

    Raises
    ------
    DataError
        If there are fewer rows.
    """
    source, n_waiting = iter(batches), 0
    waiting: list = []
    for size in sizes:
        while n_waiting < size:
            waiting.append(next(source, None))
            if waiting[-1] is None:
                raise DataError("fewer rows than before: a file changed meanwhile")
            n_waiting += batch_length(waiting[-1])
        whole = join_batches(waiting)
        yield {name: values[:size] for name, values in whole.items()}
        n_waiting -= size
        waiting = [{name: values[size:] for name, values in whole.items()}]
