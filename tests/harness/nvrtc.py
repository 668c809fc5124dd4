"""Kernels compiled by NVRTC as CuPy does it, for GPUs that need not be here."""

import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pympi_train.backends.cuda.sources import OPTIONS, kernel_names, kernel_source

ARCHITECTURES = (75, 80, 90, 100, 120)
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Compiled:
    """A source for one architecture.

    Attributes
    ----------
    kernels : dict
        By name: registers, and bytes of stack and spills.
    cubin : bytes
    """

    def __init__(self, file, source, architecture):
        from cupy._core import core  # private; its include paths are RawModule's own
        from cupy.cuda import nvrtc

        options = core.assemble_cupy_compiler_options(OPTIONS)
        # What CuPy's compiler adds itself, and the one thing more that makes it tell.
        options += ("-ftz=true", f"-arch=sm_{architecture}", "--ptxas-options=-v")
        program = nvrtc.createProgram(source, f"{file}.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError:
            raise AssertionError(nvrtc.getProgramLog(program)) from None
        log = nvrtc.getProgramLog(program)
        self.kernels = {
            entry["name"]: {
                "registers": int(entry["registers"]),
                "spilled": sum(int(entry[k]) for k in ("stack", "stores", "loads")),
            }
            for entry in _ENTRY.finditer(log)
        }
        # CuPy cuts off what it takes for a NUL at the end.
        self.cubin = nvrtc.getCUBIN(program) + b"\0"

    @property
    def sass(self):
        """Return the instructions of each kernel, a dict of lists of opcodes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernels.cubin"
            path.write_bytes(self.cubin)
            text = subprocess.run(
                [_tool("nvdisasm"), "-c", str(path)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        found, name = {}, None
        for line in text.splitlines():
            section = re.match(r"\s*\.section\s+\.text\.(\w+)", line)
            if section:
                name = section[1]
                found[name] = []
            operation = re.match(
                r"\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", line
            )
            if operation and name:
                found[name].append(operation[1])
        return found


def _tool(name):
    import nvidia

    for folder in nvidia.__path__:
        for path in sorted(Path(folder).glob(f"cu*/bin/{name}")):
            return str(path)
    raise FileNotFoundError(f"{name}: pip install nvidia-cuda-{name} ({sys.prefix})")


@cache
def everything():
    """Return all sources for all architectures, by (file, architecture)."""
    pairs = [(file, arch) for file in kernel_names() for arch in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:  # NVRTC lets go of the interpreter
        found = pool.map(lambda p: Compiled(p[0], kernel_source(p[0]), p[1]), pairs)
        return dict(zip(pairs, found))


def nvrtc_version():
    """Return the version of NVRTC, such as (13, 5)."""
    from cupy.cuda import nvrtc

    return tuple(nvrtc.getVersion())
