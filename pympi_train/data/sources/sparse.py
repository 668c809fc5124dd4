"""Data sets of sparse rows, in memory or in files."""

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.backends.numpy.arrays import take_rows
from pympi_train.comm.checks import require_equal, together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.ranks import resolve
from pympi_train.data.batch import Batch
from pympi_train.data.formats.sparse.sparse_rows import require_sparse_rows
from pympi_train.data.moving import moved
from pympi_train.data.sources.arrays import is_mapped
from pympi_train.data.sources.base import n_rows
from pympi_train.data.sources.dataset import Dataset
from pympi_train.data.windows.choice import resolve_order
from pympi_train.errors import DataError


class SparseDataset(Dataset):
    """A `Dataset` whose features are sparse rows.

    Parameters
    ----------
    x : CSR, or a sparse matrix or array of SciPy, shape (k, d)
        Features of this rank's rows. Entries that come twice in a row of a SciPy
        matrix are added up.
    y, weights, order, comm
        As for `Dataset`.

    Raises
    ------
    DataError, RankMismatchError
        As for `Dataset`.

    Notes
    -----
    Collective.
    """

    is_sparse = True
    is_plain = True  # products with sparse rows do not depend on their place

    @property
    def can_move(self):
        """Whether the rows are in memory; see `Source`."""
        return not isinstance(self.x, FileCSR) and not is_mapped(self.x.indices)

    def __init__(self, x, y, *, weights=None, order=None, comm=None):
        comm, self._row_bytes = resolve(comm), 1
        super().__init__(as_csr(x), y, weights=weights, comm=comm)
        n_bytes = int(reduced(comm, [self.nbytes])[0])
        self._row_bytes = -(-n_bytes // self.n)
        if order is not None:
            with together(comm):
                self.order = resolve_order(order, self.n, self.row_bytes)
            require_equal(comm, "order of the rows", self.order)

    @classmethod
    def split(cls, x, y, *, weights=None, order=None, comm=None):
        """Return a data set of this rank's rows of arrays that all ranks have whole.

        See `Dataset.split`. Collective.
        """
        return super().split(as_csr(x), y, weights=weights, order=order, comm=comm)

    @property
    def row_bytes(self):
        """Mean bytes of a row, over all ranks."""
        return self._row_bytes

    @property
    def nbytes(self):
        """Bytes that this rank's rows take in memory."""
        others = (a for a in (self.y, self.weights) if a is not None)
        return self.x.nbytes + sum(a.nbytes for a in others)

    def room(self, k):
        """Return memory for targets and weights: features are not copied."""
        return Batch(
            None,
            *(
                None if kind is None else np.empty((k, *kind[0]), kind[1])
                for kind in self.kinds[1:3]
            ),
        )

    def batch(self, rows, out=None):
        """Return some of this rank's rows; see `Source.batch`."""
        if isinstance(rows, slice):
            batch = super().batch(rows, out)
            return batch if out is None else batch._replace(x=self.x[rows])
        k = n_rows(rows)
        out = self.room(k) if out is None else out
        y, weights = self.y, self.weights
        if y is not None:
            y = out.y[:k]
            take_rows(self.y, rows, y)
        if weights is not None:
            weights = out.weights[:k]
            take_rows(self.weights, rows, weights)
        return Batch(self.x[rows], y, weights, self.numbers(rows))

    def _moved_features(self, old, new, comm):
        return moved(self.x[:], old, new, comm)


class FileCSR(CSR):
    """Sparse rows of a file that are scaled and cast when a batch needs them.

    Parameters
    ----------
    x : CSR
        Its indices and values are views of a file.
    prepare : callable
        From a CSR of some rows to what the model takes. It treats each entry alone.
    dtype : dtype
        Of the values that it returns.
    """

    def __init__(self, x, prepare, dtype):
        made_of = x.starts, x.stops, x.indices, x.values, x.shape[1]
        super().__init__(*made_of)
        self._prepare, self.dtype = prepare, np.dtype(dtype)

    def __getitem__(self, rows):
        """Return the rows of a slice, of indices or of a mask, as a plain CSR."""
        return self._prepare(super().__getitem__(rows).compact())


def as_csr(x):
    """Return a CSR, given one or a sparse matrix of SciPy; checks the latter.

    Raises
    ------
    DataError
        If ``x`` is neither, or a value is NaN or infinite.
    """
    if isinstance(x, CSR):
        return x
    if not hasattr(x, "tocsr"):
        raise DataError(
            f"features must be a sparse matrix, got {type(x).__name__}: "
            "scipy.sparse.csr_matrix() makes one, pt.Dataset takes dense rows"
        )
    x = x.tocsr()
    if not x.has_canonical_format:
        x = x.copy()
        x.sum_duplicates()
    if x.data.dtype.kind not in "biuf":
        raise DataError(f"features must be numbers, got dtype {x.data.dtype}")
    indices = x.indices.astype(np.int32, copy=False)
    rows = CSR.of_pointers(x.indptr.astype(np.int64), indices, x.data, x.shape[1])
    require_sparse_rows(rows, "features")
    return rows
