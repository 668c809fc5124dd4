"""Compiling hot loops with Numba: kept on disk where possible, else in memory."""

import contextlib
import hashlib

import numba
from numba.core import caching

# No fastmath: results equal NumPy's to the bit. The NumPy error model divides by
# zero without a branch, and without it loops with a division are not vectorised.
OPTIONS = {"nogil": True, "error_model": "numpy"}

helper = numba.njit(**OPTIONS)  # for what kernels of the same file call


def kernel(function):
    """Return ``function`` compiled at its first call, or loaded from the disk.

    Where no cache folder can be written (``NUMBA_CACHE_DIR``, ``__pycache__``
    beside the source, the user's cache folder), each process compiles for itself.

    Notes
    -----
    Numba's cache knows the source of the kernel's own file alone: helpers and
    constants that a kernel uses have to stand in that file, or be arguments.
    """
    compiled = numba.njit(**OPTIONS)(function)
    try:
        compiled._cache = _Cache(function)
    except (RuntimeError, OSError):  # RuntimeError: "no locator available"
        pass
    return compiled


class _Cache(caching.FunctionCache):
    """Numba's cache with a file for each signature, processor and source.

    Numba keeps an index of numbered files for each function. Two processes that
    save different entries at once (float32 and float64, two kinds of node on one
    file system, an old version of the source and a new one) may take the same
    number, and the next process runs machine code made for the other entry. With
    a name for each entry, all who write a file write the same.

    A full disk or a torn file must not end the training either: what cannot be
    read is compiled again, what cannot be written is not kept.
    """

    def _load_overload(self, sig, target_context):
        self._use_file_of(sig, target_context.codegen())
        try:
            return super()._load_overload(sig, target_context)
        except Exception:  # of a torn file, unpickling may raise any
            with contextlib.suppress(OSError):
                self._cache_file.flush()
            return None

    def _save_overload(self, sig, data):
        self._use_file_of(sig, data.codegen)
        with contextlib.suppress(OSError):
            super()._save_overload(sig, data)

    def _use_file_of(self, sig, codegen):
        stamp = self._impl.locator.get_source_stamp()
        key = self._index_key(sig, codegen)
        entry = (str(key), stamp, numba.__version__, str(OPTIONS))
        digest = hashlib.sha256(repr(entry).encode()).hexdigest()[:16]
        self._cache_file = caching.IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=f"{self._impl.filename_base}-{digest}",
            source_stamp=stamp,
        )
