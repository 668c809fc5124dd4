"""A GPU for tests: the real one through CuPy, or the stand-in of tests/cpu_cuda."""

import importlib.util
import os
import sys
from pathlib import Path

import emulator
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
STANDIN = ROOT / "tests" / "cpu_cuda" / "standin"
EMULATED = "PYMPI_TRAIN_TEST_EMULATED"  # set to 1: not the GPU, though there is one
STANDIN_ON_PATH = str(STANDIN) in os.environ.get("PYTHONPATH", "").split(os.pathsep)


def _is_present():
    """Whether there is a GPU and a CuPy to use it; a driver alone is no reason to."""
    # The latter in the Linux of Windows.
    there = any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg"))
    wanted = os.environ.get(EMULATED, "0") == "0" and not STANDIN_ON_PATH
    return there and wanted and importlib.util.find_spec("cupy") is not None


PRESENT = _is_present()


def missing():
    """Return why there is nothing to run kernels on, or None."""
    return None if PRESENT else emulator.missing()


def offer():
    """Let this process import CuPy; the stand-in where there is no GPU."""
    if not PRESENT and str(STANDIN) not in sys.path:
        sys.path.insert(0, str(STANDIN))  # before a real CuPy that has no GPU


def use():
    """Import CuPy, or the stand-in where there is no GPU, or skip the test."""
    if missing():
        pytest.skip(missing())
    offer()
    return __import__("cupy")


def environment(**more):
    """Return the variables of processes that shall import CuPy, as `use` does here."""
    if PRESENT:
        return more
    paths = [str(STANDIN), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


class HostFacade:
    """The functions of ``cuda.ops`` on NumPy arrays, which are moved there and back."""

    def __init__(self):
        use()
        from pympi_train.backends.cuda import ops as cuda_ops

        self._ops, self.__all__ = cuda_ops, cuda_ops.__all__

    def __getattr__(self, name):
        function = getattr(self._ops, name)

        def call(*args, **kwargs):
            moved = []
            there = [self._moved(arg, moved) for arg in args]
            result = function(*there, **kwargs)
            for array, device in moved:
                array[...] = self._ops.to_host(device).reshape(array.shape)
            return float(result) if hasattr(result, "__float__") else result

        return call

    def _moved(self, arg, moved):
        if not isinstance(arg, np.ndarray):
            return arg
        if arg.ndim == 2 and arg.T.flags.c_contiguous and not arg.flags.c_contiguous:
            return self._moved(arg.T, moved).T
        device = self._ops.empty(arg.shape, arg.dtype)
        self._ops.from_host(arg, device)
        if arg.flags.writeable:
            moved.append((arg, device))
        return device


def require_transport(name, comm):
    """Skip where the ranks' real GPUs or their MPI cannot do it. Collective."""
    from pympi_train.comm.devices import local_rank, ranks_by_gpu
    from pympi_train.comm.transports import cuda_aware

    if name == "nccl":
        from pympi_train.backends import gpu
        from pympi_train.backends.cuda import nccl as cuda_nccl

        gpu.unavailable(local_rank(comm))
        reason = cuda_nccl.unavailable()
        if len(ranks_by_gpu(comm)) < comm.size:
            reason = reason or "NCCL needs a GPU a rank"
    else:
        fits = name == "staged" or cuda_aware.supported()
        reason = None if fits else "MPI is not CUDA-aware"
    if any(comm.allgather(reason)):
        pytest.skip(f"transport {name}: {reason}")
