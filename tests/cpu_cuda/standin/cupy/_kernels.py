"""Kernels: compiled for the CPU, launched when their stream is waited for."""

import ctypes
import sys
from pathlib import Path

import numpy as np
from cupy._array import ndarray
from cupy._queue import get_current_stream

sys.path.append(str(Path(__file__).parents[2]))
import emulator  # noqa: E402

CELLS = {
    "p": ctypes.c_void_p,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
    "i": ctypes.c_int,
    "l": ctypes.c_longlong,
}
LETTERS = {"f": "f", "d": "d", "i": "i", "l": "l"}  # by NumPy's character


class RawModule:
    """As cupy.RawModule, from source text."""

    def __init__(
        self,
        code=None,
        *,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=None,
    ):
        if code is None or path is not None:
            raise TypeError("path is that of a cubin or PTX file: give code")
        if backend != "nvrtc" or not isinstance(options, tuple):
            raise TypeError("options are a tuple, for NVRTC")
        self._code, self._library = code, None
        self._defines = tuple(o[2:] for o in options if o.startswith("-D"))
        known = ("-D", "-std=", "-default-device")
        others = [o for o in options if not o.startswith(known)]
        if others:
            raise NotImplementedError(f"options {others}")

    def get_function(self, name):
        if self._library is None:
            self._library = emulator.load(emulator.compiled(self._code, self._defines))
        return _Function(emulator.Kernel(self._library, name))


class _Function:
    def __init__(self, kernel):
        self._kernel = kernel

    def __call__(self, grid, block, args, shared_mem=0):
        kernel, cells, used = self._kernel, [], []
        given = "".join(map(_letter, args))
        for c, mine, arg in zip(kernel.signature, given, args):
            if c != mine and not (c == "p" and arg == 0):
                break
            if isinstance(arg, ndarray):
                used.append(arg._buffer)
                cells.append(CELLS[c](arg.data.ptr))
            else:
                cells.append(CELLS[c](None if c == "p" else arg.item()))
        if len(cells) != len(kernel.signature) or len(args) != len(cells):
            raise TypeError(
                f"{kernel.name} takes {kernel.signature}, got {given}: CUDA would read "
                "arguments that are not there"
            )
        if any(n < 1 or n > 2**31 - 1 for n in grid) or any(
            n > 65535 for n in grid[1:]
        ):
            raise ValueError(f"{kernel.name}: invalid configuration {grid}")

        def run():
            kernel(grid, block, cells)
            for buffer in used:
                buffer.check(kernel.name)

        get_current_stream()._queue(run)


def _letter(arg):
    if isinstance(arg, ndarray):
        return "p"
    if not isinstance(arg, np.generic):
        raise TypeError(f"{arg!r} has no type of its own: CuPy would guess one")
    return LETTERS.get(arg.dtype.char, "?")
