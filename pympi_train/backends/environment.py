"""The floating-point environment of training and evaluation."""

import contextlib
import ctypes
import platform
import sys
import threading

import numpy as np

N_WORDS = 64  # 32-bit words: more than the fenv_t of any C library
# The bits of fenv_t, as (word, mask), that make the processor treat subnormal numbers
# as zero. From <bits/fenv.h> of glibc and musl: on x86-64, bits 15 (FTZ) and 6 (DAZ) of
# the last word, MXCSR; on AArch64, bit 24 (FZ) of the first word, FPCR.
FLUSH_BITS = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}


class _State(threading.local):
    """Nesting depth of `computing` in this thread."""

    depth = 0


_state = _State()
_calls: list = []  # [(fegetenv, fesetenv) or None], after the first look-up


class computing(contextlib.ContextDecorator):
    """Context without floating-point warnings, in which subnormal numbers are zero.

    Non-finite values lead to one DivergenceError instead of warnings on every rank.
    OpenBLAS may also raise "invalid" for values that it reads beyond the operands.

    Subnormal numbers, below 1.2e-38 in float32, occur in the gradients of a confident
    model, and in the momentum of weights whose gradient stays zero. A CPU takes about a
    hundred cycles for each: the steps of an MLP 1024-2048-2048-1000 took five times as
    long once it had fitted its rows. GPUs have no such cost and are not affected.

    Notes
    -----
    With an unknown C library or processor, subnormal numbers are kept. The setting is
    local to the thread that enters; `handed_on` passes it to another thread.

    Examples
    --------
    >>> with computing():
    ...     inverse = np.float32(1.0) / np.zeros(1, np.float32)
    >>> float(inverse[0])
    inf
    """

    def _recreate_cm(self):
        return type(self)()  # a decorated function may be recursive

    def __enter__(self):
        _state.depth += 1
        if _state.depth == 1:  # a small step within ``fit`` must not pay for it again
            self._errors = np.errstate(all="ignore")
            self._errors.__enter__()
            self._before = _flush()
        return self

    def __exit__(self, *error):
        _state.depth -= 1
        if _state.depth == 0:
            if self._before is not None:
                _calls[0][1](self._before)
            self._errors.__exit__(*error)


def is_computing():
    """Return whether this thread is within `computing`."""
    return _state.depth > 0


def handed_on(function):
    """Return ``function``, to be called by another thread in this thread's environment.

    Without this, a thread keeps the environment that its creator had at its start.
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
    with computing():
        return _is_flushing()


def _flush():
    """Treat subnormal numbers as zero; return the environment to restore, or None."""
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
    """Return a copy of ``environment`` that treats subnormal numbers as zero."""
    word, mask = FLUSH_BITS[platform.machine()]
    copy = type(environment).from_buffer_copy(environment)
    copy[word] |= mask
    return copy


def _found_calls():
    """Return fegetenv and fesetenv, or None if they cannot flush subnormal numbers."""
    if not _calls:
        _calls.append(_tried_calls())
    return _calls[0]


def _tried_calls():
    if not sys.platform.startswith("linux") or platform.machine() not in FLUSH_BITS:
        return None
    try:
        library = ctypes.PyDLL(None)  # the libraries that Python is linked with
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
