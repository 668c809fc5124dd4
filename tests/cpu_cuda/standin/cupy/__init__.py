"""The part of CuPy that pympi_train uses, without a GPU: for its tests alone.

Work is queued and done as late as CUDA allows, when something waits for it: where a
wait is missing, numbers are wrong every time. Kernels are the real ones, compiled for
the CPU (``tests/cpu_cuda/emulator.py``). ``tests/backends/test_standin.py`` holds names
and arguments against the real CuPy's.
"""

from cupy import cuda  # noqa: F401
from cupy._array import asarray, empty, ndarray, zeros  # noqa: F401
from cupy._kernels import RawModule  # noqa: F401
from cupy._memory import get_default_memory_pool  # noqa: F401

__version__ = "standin"
