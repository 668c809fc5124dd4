"""The stand-in for CuPy compared with the real one: names, arguments, failures.

Needs the real CuPy and no GPU. Each runs in its own process, because both have the same
name.
"""

import json
import subprocess
import sys

import gpus
import pytest
from mpi_launch import ROOT

pytestmark = pytest.mark.nvrtc
CONTRACT = ROOT / "tests" / "cpu_cuda" / "contract.py"
# Built differently.
DIFFERENT = {"cupy.ndarray", "cupy.ndarray.reshape"}


def offered(*names, standin):
    env = {"PATH": "/usr/bin:/bin"}
    if standin:
        env["PYTHONPATH"] = str(gpus.STANDIN)
    done = subprocess.run(
        [sys.executable, str(CONTRACT), *names],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_every_name_of_the_standin_is_cupys_with_the_same_arguments():
    here = offered(standin=True)
    there = offered(*here, standin=False)
    assert len(here) > 60
    assert [name for name, found in there.items() if found is None] == []
    differ = {
        name: (mine, there[name])
        for name, mine in here.items()
        if isinstance(mine, list)
        and isinstance(there[name], list)
        and mine != there[name][: len(mine)]  # the real one may take more
        and name not in DIFFERENT
    }
    assert not differ


def test_the_contract_sees_what_is_not_there():
    names = ("cupy.cuda.Device.count", "cupy.cuda.runtime.memcpyAsync")
    found = offered(*names, standin=False)
    assert found[names[0]] is None
    assert found[names[1]] == ["dst", "src", "size", "kind", "stream"]


REASON = """
import sys
from pympi_train.backends import gpu
print(gpu.unavailable(0))
"""


def reason(tmp_path, spoil=""):
    """Return the reason why there is no GPU, with the real CuPy."""
    done = subprocess.run(
        [sys.executable, "-c", spoil + REASON],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = done.stdout.splitlines()
    return line


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
def test_no_driver(tmp_path):
    assert reason(tmp_path) == "there is no NVIDIA driver on this node"


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
def test_a_driver_that_is_too_old(tmp_path):
    spoil = (
        "from cupy.cuda import runtime\n"
        "from pympi_train.backends.cuda import device as cuda\n"
        "class Pretending:\n"
        "    driverGetVersion = staticmethod(lambda: 9000)\n"
        "    def __getattr__(self, name): return getattr(runtime, name)\n"
        "cuda.runtime = Pretending()\n"
    )
    found = reason(tmp_path, spoil)
    assert found.startswith("no GPU can be used: cudaErrorInsufficientDriver")


def test_cupy_that_is_broken(tmp_path):
    (tmp_path / "cupy").mkdir()
    text = "raise OSError('libcublas.so.13: cannot open\\nmore')"
    (tmp_path / "cupy" / "__init__.py").write_text(text)
    spoil = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    found = reason(tmp_path, spoil)
    assert found == "CuPy cannot be imported: libcublas.so.13: cannot open"
