"""What decides the last bits of a result: builds, and what they run on."""

import sys

from pympi_train.backends.environment import flushes


def numerics(on_device=False):
    """Return what the products of matrices and the loops run on, as a dict of str.

    Parameters
    ----------
    on_device : bool
        Whether that is a GPU.

    Returns
    -------
    dict
        ``numpy``: version; ``simd``: the instruction sets beyond its baseline that
        NumPy's own loops use; ``blas``: library, version, kernels, and threads of each
        BLAS that is loaded; ``numba``: version and CPU it compiles for, None where it
        is not loaded; ``subnormals``: "zero" where a CPU takes them as that, or
        "kept"; ``gpu``: its name and compute capability, and the versions of
        driver, CuPy and cuBLAS, None without one. Equal dicts, equal bits; other
        kernels or another number of BLAS threads give others.
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
