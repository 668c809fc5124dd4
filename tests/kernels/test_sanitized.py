"""All kernels of all types with the address and undefined-behaviour sanitizers.

They detect accesses outside arrays, shared ones included, and 16-byte accesses at
unaligned addresses.
"""

import os
import subprocess
import sys

import emulator
import gpus
import kernel_runs
import pytest
from mpi_launch import ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpus.PRESENT, reason="compute-sanitizer does this on a GPU"),
]


def sanitized(*argv):
    """Run Python with the sanitizers' libraries loaded first."""
    libraries = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    env = {
        **os.environ,
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        kernel_runs.SANITIZED: "1",
    }
    argv = [sys.executable, *argv]
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


# Elements of 4 and of 2 bytes: the widest accesses, and the narrowest.
@pytest.mark.parametrize(
    "kinds",
    ["not f64 and not bf16", pytest.param("f64 or bf16", marks=pytest.mark.grid)],
)
def test_kernels_touch_nothing_beside_their_arrays(kinds):
    if emulator.missing():
        pytest.skip(emulator.missing())
    argv = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/kernels"]
    # One order of threads is enough: it does not change a thread's accesses.
    status, text = sanitized(*argv, "-k", f"forward and ({kinds})")
    assert status == 0, text[-4000:]
    assert " passed" in text


@pytest.mark.parametrize(
    "planted, told",
    [
        ("x[n] = 1", "heap-buffer-overflow"),
        ("shared[33] = x[0]; x[0] = shared[1]", "index 33 out of bounds"),
        ("*reinterpret_cast<uint4*>(x + 1) = uint4{}", "misaligned address"),
    ],
)
def test_what_they_look_for_is_found(tmp_path, planted, told):
    if emulator.missing():
        pytest.skip(emulator.missing())
    source = f"""
extern "C" __global__ void wrong(float* x, int n) {{
    __shared__ float shared[33];
    shared[0] = 0;
    {planted};
}}
"""
    program = f"""
import sys
sys.path[:0] = {[str(ROOT / "tests" / name) for name in ("cpu_cuda",)]!r}
import ctypes, emulator, numpy as np
library = emulator.load(emulator.compiled({source!r}, sanitized=True))
x = np.zeros(8, np.float32)
cells = [ctypes.c_void_p(x.ctypes.data), ctypes.c_int(x.size)]
emulator.Kernel(library, "wrong")((1,), (32,), cells)
"""
    status, text = sanitized("-c", program)
    assert status != 0 and told in text, text[-2000:]
