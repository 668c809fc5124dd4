"""Sums of arrays over ranks, for the gradients of any framework."""

import math

import numpy as np

from pympi_train.backends import select
from pympi_train.comm.checks import require_equal
from pympi_train.comm.ranks import ranks_of
from pympi_train.comm.sums import compress
from pympi_train.errors import ConfigError, DataError
from pympi_train.flat.memory import Layout, Tensor, empty_block

COMPRESSIONS = ("none", *compress.COMPRESSIONS)
BUCKET_BYTES = 25 * 2**20
HOST_DEVICES = (1, 3, 11)  # DLPack's CPU, and host memory pinned for CUDA and ROCm


class Exchange:
    """Sums of arrays over ranks, in place, with optional compression.

    For gradients of any framework whose arrays lie in host memory and support DLPack
    or the buffer protocol: NumPy, torch, ``array.array``.

    Parameters
    ----------
    comm : Ranks or MPI.Comm, optional
        COMM_WORLD by default. For an MPI communicator, Ranks are made, and freed with
        this object.
    compression : {"none", "fp16", "bf16", "int8", "topk", "powersgd"}
        All but "none" lose a part of each sum. Error feedback adds this part to a
        later sum.
    bucket_bytes : int
        Maximum size of a message that combines several arrays. Used without
        compression.
    backend : {"auto", "numpy", "numba"}
        The backend that packs and unpacks compressed data.

    Attributes
    ----------
    comm : MPI.Comm or None
        None after `free`.
    sent_bytes : int
        Payload that this rank has sent so far.

    Raises
    ------
    ConfigError
        If there is no such compression.

    Notes
    -----
    Collective; `sum`, `sum_all` and `free` are too.

    The compression determines the messages and bytes (``comm/sums/compress.py``,
    ``topk.py``, ``powersgd.py``). Without compression, a rank sends at best
    ``2 n (P - 1) / P`` elements.

    Examples
    --------
    >>> import numpy as np
    >>> import pympi_train as pt
    >>> with pt.Exchange() as exchange:
    ...     grads = np.ones(3)
    ...     exchange.sum(grads)
    >>> bool((grads == exchange.size).all())
    True
    """

    def __init__(
        self,
        comm=None,
        *,
        compression="none",
        bucket_bytes=BUCKET_BYTES,
        backend="auto",
    ):
        if compression not in COMPRESSIONS:
            choices = ", ".join(COMPRESSIONS)
            raise ConfigError(
                f"compression must be one of {choices}; got {compression!r}"
            )
        if bucket_bytes < 1:
            raise ConfigError(f"bucket_bytes must be at least 1; got {bucket_bytes!r}")
        self._compression, self._bucket_bytes = compression, bucket_bytes
        self._ops = None if compression == "none" else select.select(backend).ops
        self._ranks, self._own = ranks_of(comm)
        self.comm, self._plans = self._ranks.comm, {}
        self.rank, self.size = self.comm.rank, self.comm.size

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is None:  # else the other ranks may not call ``free``
            self.free()

    def free(self):
        """Free the communicator and memory; further calls do nothing. Collective."""
        if self._own:
            self._ranks.free()
        self.comm = None

    @property
    def sent_bytes(self):
        return sum(plan.sent_bytes for plan in self._plans.values())

    def sum(self, array, name=""):
        """Replace ``array`` by its sum over the ranks; see `sum_all`. Collective."""
        self.sum_all([array], name)

    def sum_all(self, arrays, name=""):
        """Replace each of ``arrays`` by its sum over the ranks.

        Parameters
        ----------
        arrays : iterable of arrays, float32 or float64, C-contiguous, writable
            The same shapes and dtypes in the same order on every rank.
        name : str
            With compression, the lost part of a sum is kept for the next call with
            this name and the same shapes. Different gradients of the same shapes need
            different names.

        Raises
        ------
        DataError
            On this rank, if an array cannot be summed in place.
        RankMismatchError
            On every rank, if shapes or dtypes differ between ranks. They are compared
            at the first call with these shapes.

        Notes
        -----
        Collective.
        """
        if self.comm is None:
            raise RuntimeError("this Exchange was freed: make another one")
        blocks = [as_block(array, i) for i, array in enumerate(arrays)]
        key = name, tuple((block.shape, block.dtype.char) for block in blocks)
        if key not in self._plans:
            hint = "Every rank sums the same arrays in the same order."
            require_equal(self.comm, "what is summed (name, shapes)", key, hint=hint)
            self._plans[key] = self._plan(blocks)
        with np.errstate(all="ignore"):  # the caller checks for non-finite values
            self._plans[key].sum([block.reshape(-1) for block in blocks])

    def _plan(self, blocks):
        most = math.inf if self._ops else self._bucket_bytes
        buckets = []
        for dtype in (np.float32, np.float64):
            room = 0.0
            for i, block in enumerate(blocks):
                if block.dtype != dtype or block.size == 0:
                    continue
                if block.nbytes > room:
                    buckets.append([])
                    room = most
                buckets[-1].append(i)
                room -= block.nbytes
        return _Plan(self.comm, blocks, buckets, self._summer)

    def _summer(self, layout):
        return compress.compressed_sum(self._compression, self.comm, layout, self._ops)


class _Plan:
    """Buckets of arrays that are sent together, with the object that sums each."""

    def __init__(self, comm, blocks, buckets, summer):
        self._alone, self._parts = comm.size == 1, []
        for indices in [] if self._alone else buckets:
            tensors = [_tensor(i, blocks[i]) for i in indices]
            layout = Layout(tensors, blocks[indices[0]].dtype)
            # A single array that fills its layout needs no copy.
            in_place = len(indices) == 1 and layout.size == blocks[indices[0]].size
            staged = None if in_place else empty_block(layout)
            self._parts.append((indices, layout, staged, summer(layout)))

    @property
    def sent_bytes(self):
        return sum(summer.sent_bytes for *_, summer in self._parts)

    def sum(self, blocks):
        for indices, layout, staged, summer in self._parts:
            if staged is None:
                summer.sum(blocks[indices[0]])
                continue
            views = [view.reshape(-1) for view in layout.views(staged)]
            for i, view in zip(indices, views):
                view[:] = blocks[i]
            summer.sum(staged)
            for i, view in zip(indices, views):
                blocks[i][:] = view


def _tensor(i, block):
    """Return the Tensor of an array. Arrays of 3 or more dimensions become matrices."""
    shape = block.shape
    if len(shape) > 2:
        shape = (shape[0], math.prod(shape[1:]))
    return Tensor(str(i), shape, is_weight=len(shape) == 2)


def as_block(array, index=0):
    """Return ``array`` as a writable ndarray over the same memory.

    Raises
    ------
    DataError
        If ``array`` lies on a device, is read-only or not contiguous, or if its dtype
        is neither float32 nor float64.
    """
    what = f"array {index} ({type(array).__module__}.{type(array).__name__})"
    block = _as_array(array, what)
    if block.dtype not in (np.float32, np.float64) or not block.dtype.isnative:
        raise DataError(f"{what}: expected float32 or float64, got {block.dtype}")
    if not block.flags.c_contiguous:
        raise DataError(
            f"{what}: expected a C-contiguous array, got shape {block.shape} with "
            f"strides {block.strides}: sum a contiguous copy"
        )
    if not block.flags.writeable:
        raise DataError(
            f"{what} is read-only, as JAX's arrays are: sum a copy, such as "
            "numpy.array(x)"
        )
    return block


def _as_array(array, what):
    if isinstance(array, np.ndarray):
        return array
    if not hasattr(array, "__dlpack__"):
        try:
            return np.asarray(memoryview(array))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{what} speaks neither DLPack nor the buffer protocol"
            ) from error
    try:
        device = array.__dlpack_device__()[0]
        if device not in HOST_DEVICES:
            raise DataError(
                f"{what} lies on a device (DLPack type {int(device)}) that this "
                "process cannot reach: sum a copy in host memory"
            )
        block = np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{what} gives no access to its memory: {error}") from error
    if not block.flags.writeable:  # always the case with NumPy before 2.1
        block = _writable(array, block)
    return block


def _writable(array, block):
    """Return the array's own view of this memory if it is writable, else ``block``."""
    try:
        other = np.asarray(array)
    except (TypeError, ValueError, RuntimeError):
        return block
    same = other.ctypes.data == block.ctypes.data and other.shape == block.shape
    return other if same and other.flags.writeable else block
