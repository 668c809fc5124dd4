"""The floating-point environment that a rank trains and measures in."""

import contextlib
import ctypes
import platform
import sys
import threading

import numpy as np

N_WORDS = 64  # of 32 bits: more than any C library's fenv_t takes
# Which bits of fenv_t, (word, mask), make the processor take subnormal numbers as zero.
# glibc and musl, <bits/fenv.h>: on x86-64 the last word is MXCSR, whose bits 15 (FTZ)
# and 6 (DAZ) do it; on AArch64 the first is FPCR, whose bit 24 (FZ) does.
FLUSH_BITS = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}


class _State(threading.local):
    """How deep a thread is in `computing`."""

    depth = 0


_state = _State()
_calls: list = []  # [(fegetenv, fesetenv) or None], once they have been looked for


class computing(contextlib.ContextDecorator):
    """Context in which NaN and infinity warn nobody and subnormal numbers are zero.

    What is not finite ends in one DivergenceError, not in warnings of every rank; and a
    product in OpenBLAS may raise "invalid" for what it finds beside the operands.

    Numbers below the smallest normal one, 1.2e-38 in float32, come up wherever a model
    is sure of its answers, and the momentum of weights that no row moves decays to
    them. A processor takes a hundred cycles for each: seen, an MLP 1024-2048-2048-1000
    whose steps took five times as long once it had learnt its rows. GPUs have no such
    cost, and keep them.

    Notes
    -----
    Where the C library or the processor is an unknown one, they stay what they are. Of
    the thread that enters alone: what starts other threads hands it on, by `handed_on`.

    Examples
    --------
    >>> with computing():
    ...     inverse = np.float32(1.0) / np.zeros(1, np.float32)
    >>> float(inverse[0])
    inf
    """

    def _recreate_cm(self):
        return type(self)()  # a decorated function may call itself

    def __enter__(self):
        self._errors = np.errstate(all="ignore")
        self._errors.__enter__()
        _state.depth += 1
        self._before = _flush() if _state.depth == 1 else None
        return self

    def __exit__(self, *error):
        _state.depth -= 1
        if self._before is not None:
            _calls[0][1](self._before)
        self._errors.__exit__(*error)


def handed_on(function):
    """Return ``function``, to be called by another thread in this one's environment.

    A thread has that of the one that started it, and keeps it.
    """
    calls = _found_calls()
    if calls is None:
        return function
    environment = _environment()
    calls[0](environment)

    def run(*args):
        calls[1](environment)
        return function(*args)

    return run


def flushes():
    """Return whether subnormal numbers are zero within `computing` on this machine."""
    with computing() as entered:
        return entered._before is not None or _is_flushing()


def _flush():
    """Take subnormal numbers as zero; return the environment to go back to, or None."""
    calls = _found_calls()
    if calls is None:
        return None
    before = _environment()
    calls[0](before)
    calls[1](_flushing(before))
    return before


def _environment():
    return (ctypes.c_uint32 * N_WORDS)()


def _flushing(environment):
    """Return a copy that takes subnormal numbers as zero."""
    word, mask = FLUSH_BITS[platform.machine()]
    copy = type(environment).from_buffer_copy(environment)
    copy[word] |= mask
    return copy


def _found_calls():
    """Return fegetenv and fesetenv, or None where they are not known to do it."""
    if not _calls:
        _calls.append(_tried_calls())
    return _calls[0]


def _tried_calls():
    if not sys.platform.startswith("linux") or platform.machine() not in FLUSH_BITS:
        return None
    try:
        library = ctypes.PyDLL(None)  # which Python itself is linked with
        calls = library.fegetenv, library.fesetenv
    except (OSError, AttributeError):
        return None
    before = _environment()
    calls[0](before)
    calls[1](_flushing(before))
    works = _is_flushing()
    calls[1](before)
    return calls if works and not _is_flushing() else None


def _is_flushing():
    return not (np.full(1, 1.2e-38, np.float32) * np.float32(0.5)).any()
