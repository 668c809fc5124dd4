"""Kernels called by name on NumPy arrays: on the CPU, or on a GPU where there is one.

Arrays lie between canaries, at any distance from a multiple of 16 bytes, so that a
kernel that writes beside them is found on either.
"""

import ctypes
import os
from functools import cache

import emulator
import numpy as np

from pympi_train.backends.cuda.sources import kernel_source

CANARY, MARGIN = 0xA5, 64
GRID = 3  # blocks, of 256 threads: few, so that larger arrays need several rounds
SANITIZED = "PYMPI_TRAIN_TEST_SANITIZED"  # set in a process that has ASan loaded

CELLS = {
    "p": ctypes.c_void_p,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
    "i": ctypes.c_int,
    "l": ctypes.c_longlong,
}
LETTERS = {"float32": "f", "float64": "d", "int32": "i", "int64": "l"}


class Kind:
    """A type of elements that kernels are compiled for.

    Attributes
    ----------
    dtype, wide : dtype
        In memory (bfloat16 as uint16); and of scalars, state and arithmetic.
    eps : float
        Relative rounding of an element.
    """

    def __init__(self, suffix):
        self.suffix = suffix
        self.dtype = np.dtype(
            {"f32": "f4", "f64": "f8", "f16": "f2", "bf16": "u2"}[suffix]
        )
        self.wide = np.dtype("f8" if suffix == "f64" else "f4")
        self.eps = {"f32": 2**-24, "f64": 2**-53, "f16": 2**-11, "bf16": 2**-8}[suffix]

    def __repr__(self):
        return self.suffix

    def store(self, values):
        """Return float64 ``values`` rounded to this type."""
        if self.suffix != "bf16":
            with np.errstate(over="ignore"):
                return np.asarray(values).astype(self.dtype)
        bits = np.asarray(values).astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        nan = np.isnan(np.asarray(values))
        return np.where(nan, 0x7FC0, rounded).astype(np.uint16)

    def read(self, array):
        """Return an array of this type as float64."""
        if self.suffix != "bf16":
            return array.astype(np.float64)
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class Arrays:
    """Places arrays between canaries."""

    def __init__(self):
        self._buffers = []

    def place(self, values, shift=0):
        """Return a copy of ``values`` that begins ``shift`` elements after a multiple
        of 16 bytes."""
        values = np.ascontiguousarray(values)
        offset = MARGIN + shift * values.itemsize
        buffer = np.full(offset + values.nbytes + MARGIN + 16, CANARY, np.uint8)
        offset += -(buffer.ctypes.data + MARGIN) % 16
        whole = buffer[offset : offset + values.nbytes]
        array = whole.view(values.dtype).reshape(values.shape)
        array[...] = values
        self._buffers.append((array, buffer, offset))
        return array

    def buffer_of(self, array):
        """Return (buffer, byte offset of the array)."""
        for placed, buffer, offset in self._buffers:
            if placed is array:  # an empty one's address may be any
                return buffer, offset
        raise ValueError("an array that was not placed")

    def check(self):
        """Raise if a byte beside an array has changed."""
        for array, buffer, offset in self._buffers:
            around = np.r_[buffer[:offset], buffer[offset + array.nbytes :]]
            assert (around == CANARY).all(), "a kernel wrote beside an array"


class Emulated:
    """Runs kernels on the CPU."""

    def __init__(self, arrays, reverse):
        self._arrays, self._reverse = arrays, reverse

    def __call__(self, file, name, *args, grid=GRID):
        """Run ``name`` of a type, such as ``adam_f32``, from a file's kernels.

        ``args`` are placed arrays, None for a null pointer, and NumPy scalars of the
        parameters' very types.
        """
        kernel = _emulated(file, name)
        given = "".join(map(_letter, args))
        assert given == kernel.signature, f"{name} takes {kernel.signature}"
        cells = [CELLS[c](_value(arg)) for c, arg in zip(given, args)]
        grid = grid if isinstance(grid, tuple) else (grid,)
        kernel(grid, (256,), cells, reverse=self._reverse)
        self._arrays.check()


class OnDevice:
    """Runs kernels on the GPU, as CuPy compiles them."""

    def __init__(self, arrays):
        self._arrays = arrays

    def __call__(self, file, name, *args, grid=GRID):
        import cupy as cp

        from pympi_train.backends.cuda.launch import module

        moved, passed = [], []
        for arg in args:
            if isinstance(arg, np.ndarray):
                buffer, offset = self._arrays.buffer_of(arg)
                there = cp.asarray(buffer)
                moved.append((buffer, there))
                passed.append(there[offset:])
            else:
                passed.append(np.intp(0) if arg is None else arg)
        suffix = name.rpartition("_")[2]
        kernel = module(file, suffix if suffix in KINDS else "f32").get_function(name)
        kernel(grid if isinstance(grid, tuple) else (grid,), (256,), tuple(passed))
        for buffer, there in moved:
            buffer[:] = there.get()
        self._arrays.check()


KINDS = ("f32", "f64", "f16", "bf16")


@cache
def _emulated(file, name):
    suffix = name.rpartition("_")[2]
    only = suffix if suffix in KINDS else "f32"
    library = emulator.compiled(
        kernel_source(file),
        (f"ONLY_{only.upper()}",),
        sanitized=SANITIZED in os.environ,
    )
    return emulator.Kernel(emulator.load(library), name)


def _letter(arg):
    if arg is None or isinstance(arg, np.ndarray):
        return "p"
    return LETTERS[arg.dtype.name]


def _value(arg):
    if isinstance(arg, np.ndarray):
        return arg.ctypes.data
    return arg if arg is None else arg.item()
