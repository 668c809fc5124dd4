"""Check whether this process can use a GPU; if not, give the reason in one line."""

import importlib
import importlib.util
import os
from importlib import metadata

EXTRAS = "pip install 'pympi-train[cuda13]', or [cuda12], whichever the driver has"
NOT_INSTALLED = f"CuPy is not installed ({EXTRAS})"


def is_installed():
    """Return whether CuPy is installed, without importing it, which takes seconds."""
    return importlib.util.find_spec("cupy") is not None


_found: list = []  # result of the first call: a process keeps its GPU and its data


def unavailable(local_rank):
    """Bind this process to a GPU and test it; return why it is unusable, or None.

    Only the first call does this; later calls return its result.

    Parameters
    ----------
    local_rank : int
        Rank of this process among those of its node, which share the node's GPUs.

    Returns
    -------
    str or None
        None if a test kernel ran and gave the right result.

    Notes
    -----
    Never raises, because CuPy has no common exception for missing components. Creates a
    CUDA context, so the process must not be forked afterwards.
    """
    if not _found:
        _found.append(_find(local_rank))
    return _found[0]


def _find(local_rank):
    if not is_installed():
        return NOT_INSTALLED
    wheels = _wheels()
    if len(wheels) > 1:
        return (
            f"{' and '.join(wheels)} are both installed, and overwrite each other: "
            f"pip uninstall {' '.join(wheels)}, then install one again"
        )
    try:
        cuda = importlib.import_module("pympi_train.backends.cuda.device")
    except Exception as error:  # also OSError, RuntimeError of a partial installation
        return f"CuPy cannot be imported: {_first_line(error)}"
    try:
        return _try(cuda, local_rank)
    except Exception as error:
        return _told(error)


def _wheels():
    """Return the names of the CuPy distributions that are installed."""
    names = (dist.metadata["Name"] or "" for dist in metadata.distributions())
    return sorted({name for name in names if name.startswith("cupy-cuda")})


def _try(cuda, local_rank):
    if cuda.runtime.driverGetVersion() == 0:
        return "there is no NVIDIA driver on this node"
    cuda.bind(local_rank)
    arrays = importlib.import_module("pympi_train.backends.cuda.arrays")
    arrays.probe(cuda.device().index)
    return None


def _told(error):
    """Explain an exception of CuPy to the user, in one line."""
    text, line = str(error), _first_line(error)
    if type(error).__name__ == "DynamicLibNotFoundError" or "nvrtc" in line.lower():
        return f"a library of CUDA is missing ({EXTRAS}): {line}"
    if "cuda_fp16.h" in text or "cuda_bf16.h" in text:
        return f"CUDA's headers are missing ({EXTRAS}): {line}"
    if "cudaErrorNoDevice" in text:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return f"the driver shows no GPU{shown}"
    if "InsufficientDriver" in text:
        return f"no GPU can be used: {line}"
    return f"a kernel that tries the GPU failed: {type(error).__name__}: {line}"


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
