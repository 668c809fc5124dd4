"""Numba's cache: kept, shared by processes that start together, or not writable."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

numba = pytest.importorskip("numba")
from numba.core import caching  # noqa: E402

from pympi_train.backends.numba.jit import kernel  # noqa: E402

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
import numpy as np
from pympi_train.backends.numba import losses, ops, updates

dtype = sys.argv[1]
params, m, v = (np.zeros(1000, dtype) for _ in range(3))
grad = np.ones(1000, dtype)
how = dict(lr=0.5, beta1=0.9, beta2=0.999, eps=0.0, grad_scale=1.0, l2=0.0, decay=0.0)
ops.adam_update(params, grad, m, v, step=1, **how)
norm = ops.squared_norm(grad, grad, grad_scale=1.0, l2=0.0)
kernels = updates._adam, updates._sum_squares
stats = [kernel.stats for kernel in kernels]
print(json.dumps({
    "right": bool(np.allclose(params, -0.5)) and norm == 1000.0,
    "hits": sum(sum(s.cache_hits.values()) for s in stats),
    "misses": sum(sum(s.cache_misses.values()) for s in stats),
    "folder": stats[0].cache_path,
}))
"""


def start(cache, dtype="float32"):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, dtype],
        cwd=ROOT,
        env=kept | {"NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def test_compiled_once(tmp_path):
    first = result(start(tmp_path))
    assert first["right"] and (first["hits"], first["misses"]) == (0, 2)
    second = result(start(tmp_path))
    assert second["right"] and (second["hits"], second["misses"]) == (2, 0)
    assert Path(second["folder"]).is_relative_to(tmp_path)


def test_processes_that_start_at_once(tmp_path):
    dtypes = ["float32", "float64", "float32", "float64"]
    together = [result(p) for p in [start(tmp_path, dtype) for dtype in dtypes]]
    assert all(one["right"] for one in together)
    for dtype in set(dtypes):
        after = result(start(tmp_path, dtype))
        assert after["right"] and (after["hits"], after["misses"]) == (2, 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def double(a):
    return 2 * a


def run(dtype="float32"):
    """Compile or load ``double``, like a new process; return hits and misses."""
    fresh = kernel(double)
    got = fresh(np.ones(1, dtype))
    assert got.dtype == dtype and got == 2
    stats = fresh.stats
    return sum(stats.cache_hits.values()), sum(stats.cache_misses.values())


def test_entries_have_files_of_their_own(folder):
    assert run("float32") == run("float64") == (0, 1)
    names = [path.name for path in folder.rglob("*.nbc")]
    assert len(names) == 2
    assert all(name.endswith(".1.nbc") for name in names)  # no number to race for
    assert run("float32") == run("float64") == (1, 0)


def test_a_new_source_has_files_of_its_own(folder, monkeypatch):
    run()
    locator = caching._SourceFileBackedLocatorMixin
    monkeypatch.setattr(locator, "get_source_stamp", lambda self: b"new")
    assert run() == (0, 1)
    assert len(list(folder.rglob("*.nbc"))) == 2


def test_no_folder_can_be_written(monkeypatch):
    # Permission bits do not restrict root. Numba tests a folder by a temporary file.
    def refuse(*args, **kwargs):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(double)
    assert run() == run() == (0, 1)


def test_a_cache_folder_below_a_file_is_passed_over(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder / "file" / "cache"))
    used = kernel(double).stats.cache_path
    assert used is None or not used.startswith(str(folder))
    hits, misses = run()
    assert hits + misses == 1


@pytest.mark.parametrize("method", ["_save_data", "_save_index"])
def test_a_disk_that_fills_up(folder, monkeypatch, method):
    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, method, refuse)
    assert run() == run() == (0, 1)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("length", [0, 40])
def test_a_torn_file_is_replaced(folder, suffix, length):
    run()
    for path in folder.rglob(f"*.{suffix}"):
        path.write_bytes(path.read_bytes()[:length])
    assert run() == (0, 1)
    assert run() == (1, 0)
