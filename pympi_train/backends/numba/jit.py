"""Compilation of hot loops with Numba, cached on disk if possible."""

import contextlib
import hashlib

import numba
from numba.core import caching

# No fastmath, so that results are bitwise equal to NumPy's. The NumPy error model omits
# the check for division by zero, which would prevent vectorisation.
OPTIONS = {"nogil": True, "error_model": "numpy"}

helper = numba.njit(**OPTIONS)  # for functions that kernels of the same file call


def kernel(function):
    """Return ``function``, to be compiled or loaded from disk at its first call.

    If no cache folder is writable (``NUMBA_CACHE_DIR``, ``__pycache__`` beside the
    source, the user's cache folder), each process compiles for itself.

    Notes
    -----
    Numba's cache detects changes in the kernel's own file only. Helpers and constants
    that a kernel uses must therefore be in that file, or be arguments.
    """
    compiled = numba.njit(**OPTIONS)(function)
    try:
        compiled._cache = _Cache(function)
    except (RuntimeError, OSError):  # RuntimeError: "no locator available"
        pass
    return compiled


class _Cache(caching.FunctionCache):
    """Numba's cache, with a file for each signature, processor and source.

    Numba keeps an index of numbered files for each function. Two processes that save
    different entries at the same time (float32 and float64, two kinds of node on one
    file system, an old and a new version of the source) may use the same number, and a
    later process then runs machine code of the wrong entry. Here each entry has its own
    file name, so all processes that write a file write the same content.

    A full disk or a truncated file must not end the training: an unreadable entry is
    compiled again, and an entry that cannot be written is not kept.
    """

    def _load_overload(self, sig, target_context):
        self._use_file_of(sig, target_context.codegen())
        try:
            return super()._load_overload(sig, target_context)
        except Exception:  # unpickling a truncated file may raise any
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
