"""Compile CUDA sources for the CPU, and call their kernels: for tests alone."""

import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
BUILT = HERE / "build"
HEADER = HERE / "cuda_cpu.h"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-w")
# A write beyond an array, an address that is no multiple of 16: only with these.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

_SHARED = re.compile(r"__shared__\s+([\w:<> ]+?)\s+(\w+)((?:\[[^\]]+\])+)\s*;")
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\('
)


class BuildError(Exception):
    """g++ refused a source; the text is what it said."""


def missing():
    """Return why nothing can be compiled here, or None."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    if include_folders() is None:
        return (
            "CUDA's headers are not installed: pip install nvidia-cuda-runtime "
            "nvidia-cuda-crt nvidia-cuda-cccl (extra emulation)"
        )
    return None


@cache
def include_folders():
    """Return the folders of cuda_fp16.h and of what it includes, or None."""
    candidates = []
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        candidates += sorted(Path(folder).glob("cu*/include"))
    nvcc = shutil.which("nvcc")
    if nvcc:
        candidates.append(Path(nvcc).resolve().parents[1] / "include")
    for folder in candidates:
        cccl = [f for f in (folder, folder / "cccl") if (f / "nv/target").is_file()]
        if cccl and (folder / "cuda_fp16.h").is_file():
            return folder, cccl[0]
    return None


def kernels_in(source, defines=()):
    """Return the names of the kernels of a source, its macros expanded."""
    text = re.sub(r"^\s*#\s*include.*$", "", source, flags=re.MULTILINE)
    argv = ["g++", "-E", "-P", *_options(defines), "-x", "c++", "-"]
    return _KERNEL.findall(_run(argv, text))


def compiled(source, defines=(), *, sanitized=False):
    """Return the path of a library with the kernels of ``source``; made if need be.

    Several processes may ask for the same one at once.

    Parameters
    ----------
    source : str
    defines : tuple of str
        Macros, such as ``ONLY_F32``.
    sanitized : bool
        For a process that was started with AddressSanitizer's library.
    """
    flags = (*FLAGS, *(SANITIZERS if sanitized else ()))

    def make(out):
        argv = ["g++", *flags, "-shared", *_options(defines), *_includes()]
        argv += ["-include", str(_header(flags)), "-x", "c++", "-", "-o", str(out)]
        _run(argv, _translated(source, defines))

    return _made((source, *flags, *defines), ".so", make)


def _header(flags):
    """Return the header's path, precompiled beside it: it takes longer than kernels."""

    def make(out):
        argv = ["g++", *flags, *_includes(), "-x", "c++-header", str(HEADER)]
        _run([*argv, "-o", str(out)], "")

    return _made(flags, ".h.gch", make).with_suffix("")


def _made(key, suffix, make):
    """Return a file of BUILT that ``make(path)`` writes, if it is not there yet."""
    parts = (*key, HEADER.read_text(), Path(__file__).read_text())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    path = BUILT / f"{digest}{suffix}"
    if not path.exists():
        BUILT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILT) as scratch:
            make(Path(scratch) / path.name)
            os.replace(Path(scratch) / path.name, path)
    return path


def _includes():
    return [f"-I{folder}" for folder in include_folders()]


def _options(defines):
    return [f"-D{name}" for name in defines]


def _translated(source, defines):
    """Return a source that a C++ compiler takes: shared arrays, and exports."""
    body = _SHARED.sub(r"auto& \2 = cuda_cpu::shared<\1\3, __COUNTER__>();", source)
    exports = [
        f'extern "C" const char* run_{name}(const unsigned* grid, '
        "const unsigned* block, void** arguments, int reverse) "
        "{ return cuda_cpu::launch("
        f"{name}, grid, block, arguments, reverse); }}\n"
        f'extern "C" const char* signature_{name}() '
        f"{{ return cuda_cpu::signature({name}); }}"
        for name in kernels_in(source, defines)
    ]
    return f"{body}\n" + "\n".join(exports) + "\n"


def _run(argv, text):
    done = subprocess.run(argv, input=text, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(argv)}\n{done.stderr[-8000:]}")
    return done.stdout


class LaunchFailed(Exception):
    """A kernel that would not run on a GPU, or not as meant."""


class Kernel:
    """One kernel of a compiled library.

    Attributes
    ----------
    signature : str
        A letter a parameter: p pointer, f float, d double, i 4 bytes, l 8 bytes.
    """

    def __init__(self, library, name):
        self.name = name
        self._run = getattr(library, f"run_{name}")
        self._run.restype = ctypes.c_char_p
        signature = getattr(library, f"signature_{name}")
        signature.restype = ctypes.c_char_p
        self.signature = signature().decode()

    def __call__(self, grid, block, cells, reverse=False):
        """Run it: ``cells`` are ctypes objects, one a parameter, of its type.

        Raises
        ------
        LaunchFailed
            Where threads wait for others that do not come.
        """
        sizes = [(ctypes.c_uint * 3)(*(tuple(n) + (1, 1))[:3]) for n in (grid, block)]
        arguments = (ctypes.c_void_p * len(cells))(*map(ctypes.addressof, cells))
        wrong = self._run(*sizes, arguments, int(reverse))
        if wrong:
            raise LaunchFailed(f"{self.name}: {wrong.decode()}")


@cache
def load(path):
    """Return the library at ``path``."""
    return ctypes.CDLL(str(path))
