"""The libraries and hardware that determine the last bits of a result."""

import sys

from pympi_train.backends.environment import flushes


def numerics(on_device=False):
    """Return the libraries and hardware that compute products and loops.

    Parameters
    ----------
    on_device : bool
        Whether a GPU is used.

    Returns
    -------
    dict
        ``numpy``: version. ``simd``: the instruction sets beyond the baseline that
        NumPy's loops use. ``blas``: library, version, kernels and number of threads of
        each loaded BLAS. ``numba``: version and target CPU; None if it is not loaded.
        ``subnormals``: "zero" if the CPU flushes them, else "kept". ``gpu``: name and
        compute capability, and the versions of driver, CuPy and cuBLAS; None without a
        GPU. Equal dicts give equal bits; other BLAS kernels or another number of BLAS
        threads give other bits.
    """
    import numpy as np
    from threadpoolctl import threadpool_info

    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return {
        "numpy": np.__version__,
        "simd": " ".join(simd.get("found", [])),
        "blas": "; ".join(sorted(map(_told, blas))),
        "numba": _numba(),
        "subnormals": "zero" if flushes() else "kept",
        "gpu": _gpu() if on_device else None,
    }


def _told(library):
    words = [library["internal_api"], library["version"]]
    words += [library.get("architecture"), f"{library['num_threads']} threads"]
    return " ".join(str(word) for word in words if word)


def _gpu():
    from pympi_train.backends.cuda import arrays as cuda_arrays

    return cuda_arrays.versions()


def _numba():
    if "numba" not in sys.modules:
        return None
    import llvmlite.binding
    import numba

    return f"{numba.__version__} {llvmlite.binding.get_host_cpu_name()}"
