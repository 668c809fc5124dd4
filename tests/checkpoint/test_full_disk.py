"""A small file system that gets full, and system calls that are interrupted."""

import shutil
import subprocess
import sys

import full_disk
import mpi_launch
import pytest

MOUNT = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A folder that is a file system of 1 MB for what `mpirun` starts."""
    disk, launcher = tmp_path / "disk", tmp_path / "launcher"
    disk.mkdir()
    # In a namespace of its own, it goes with the last process, whatever happens.
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, disk]
    if shutil.which("unshare") is None:
        pytest.skip("a small tmpfs cannot be mounted: no unshare")
    tried = subprocess.run([*own, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {tried.stderr.strip()}")
    words = " ".join(f"'{word}'" for word in (*own, mpi_launch.find_mpirun()))
    launcher.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("MPIRUN", str(launcher))
    return disk


def test_disk_that_gets_full(small_disk, mpirun):
    argv = [sys.executable, "-m", "mpi4py", full_disk.__file__, small_disk]
    status, out, err = mpirun(3, argv)
    assert status == 0, err
    *errors, left = out.splitlines()
    assert left == "000002-step-30" and len(errors) == 3
    for error in errors:
        assert error.endswith("cannot be written: No space left on device"), error
        assert ".safetensors" in error
    assert list(small_disk.iterdir()) == []  # another file system was written to


INTERRUPTED = """
import sys
from pympi_train.checkpoint.durable import write_file
print(write_file(sys.argv[1], [b"ab" * 5000, b"cd" * 5000]).n_bytes)
"""


def test_interrupted_calls(tmp_path):
    """Every second write and fsync fails with EINTR before it does anything."""
    strace, path = shutil.which("strace"), tmp_path / "file"
    argv = [strace, "-qq", "-o", tmp_path / "log", "-P", path]
    argv += ["-e", "trace=write,fsync", "-e", "inject=write,fsync:error=EINTR:when=1+2"]
    works = strace and subprocess.run([*argv, "true"], capture_output=True)
    if not works or works.returncode:
        pytest.skip("strace is absent or not allowed: no call was interrupted")
    argv += [sys.executable, "-c", INTERRUPTED, path]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "20000\n"), done.stderr
    assert path.read_bytes() == b"ab" * 5000 + b"cd" * 5000
    log = (tmp_path / "log").read_text()
    assert log.count("EINTR") == 3 and log.count("= 10000") == 2
