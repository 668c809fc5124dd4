"""Find the CUDA sources, in an installed package or in a checkout."""

import re
from importlib import resources
from pathlib import Path

# -default-device is for CUDA 12, which takes a lambda in a kernel for a host function.
OPTIONS = ("-std=c++17", "-default-device")
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


def kernel_source(name):
    """Return the text of ``kernels/<name>.cu``, with its own headers inlined.

    NVRTC then needs no include folder, and CuPy's cache of compiled kernels detects a
    changed header.

    Raises
    ------
    FileNotFoundError
        If a file is in neither the installed package nor the checkout.
    """
    return _INCLUDE.sub(lambda match: _read(match[1]), _read(f"{name}.cu"))


def kernel_names():
    """Return the names of all sources, sorted."""
    files = {path.name for folder in _folders() for path in folder.iterdir()}
    return sorted(name.removesuffix(".cu") for name in files if name.endswith(".cu"))


def _folders():
    folders = [Path(__file__).parents[3] / "kernels"]
    try:
        folders.insert(0, resources.files("pympi_train._kernels"))
    except ModuleNotFoundError:  # a checkout that is not installed
        pass
    return [folder for folder in folders if folder.is_dir()]


def _read(file):
    for folder in _folders():
        path = folder.joinpath(file)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(
        f"no CUDA source {file} in pympi_train._kernels or in kernels/ of a checkout: "
        f"install the package again"
    )
