"""Start ranks under mpirun and leave nothing behind: no process, no shared memory."""

import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TAG = "PYMPI_TRAIN_TEST_TAG"

# What a launcher tells its ranks: a test run inside a job must not hand it on.
LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "HYDI_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_")

# Set for every launch; MPICH needs none of them and ignores them.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
    "OMPI_MCA_btl": "^ofi",  # probing for fabrics costs one second a start
    "OMPI_MCA_osc": "^ucx",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}

# The bits of products and exponentials differ between processors: these make every x86
# processor with AVX2 compute as one without AVX-512 does.
SAME_BITS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}

SHARED_MEMORY = ("mpich_shm_*", "mpich_boot_*", "sm_segment.*", "vader_segment.*")


class Finished(NamedTuple):
    """How a launch ended: exit status of mpirun and what the ranks printed."""

    returncode: int
    stdout: str
    stderr: str


class StillRunning(Exception):
    """The ranks were ended because their time was up."""

    def __init__(self, n_ranks, argv, timeout_s, stdout, stderr):
        super().__init__(
            f"mpirun -n {n_ranks} {' '.join(map(str, argv))}\n"
            f"still ran after {timeout_s:g} s and was ended.\n{stdout}\n{stderr}"
        )


def find_mpirun():
    """The launcher of this environment's MPI: $MPIRUN, beside Python, or on PATH.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    beside = Path(sys.executable).parent / "mpirun"
    found = os.environ.get("MPIRUN") or (beside if beside.exists() else None)
    found = found or shutil.which("mpirun")
    if found is None:
        raise FileNotFoundError(
            f"no mpirun beside {sys.executable} and none on PATH; install one "
            "(pip install mpich) or name it in the variable MPIRUN"
        )
    return str(found)


def is_open_mpi_5():
    """Return whether the launcher is that of Open MPI 5, or later."""
    asked = [find_mpirun(), "--version"]
    said = subprocess.run(asked, env=environment(), capture_output=True, text=True)
    return re.search(r"\(Open MPI\) [5-9]", said.stdout) is not None


def environment(extra=None):
    """Variables of a launch: this process's, less what belongs to an outer job."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(LAUNCHER_PREFIXES) and name != "PYTEST_ADDOPTS"
    }
    env.update(OPEN_MPI)
    env["OMP_NUM_THREADS"] = "1"
    # The checkout is found from any working directory, installed or not.
    paths = [str(ROOT), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    env.update(extra or {})
    return env


class Job:
    """One mpirun and its ranks; leaving the ``with`` block ends all that is left.

    Parameters
    ----------
    n_ranks : int
    argv : list of str
        The program that each rank runs, with its arguments.
    env : dict, optional
        Variables to add to, or replace in, `environment`.
    cwd : path, optional

    Attributes
    ----------
    tag : str
        Its processes have it in their environment: see `tagged`.
    """

    def __init__(self, n_ranks, argv, *, env=None, cwd=None):
        self.tag = uuid.uuid4().hex
        self._began_s = time.time()
        # Files, not pipes: an orphan that keeps a pipe open would be waited for.
        self._out = tempfile.TemporaryFile()
        self._err = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [find_mpirun(), "-n", str(n_ranks), *map(str, argv)],
            env=environment({**(env or {}), TAG: self.tag}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    def wait(self, timeout_s):
        """Wait for mpirun; its exit status, or None if it still runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def output(self):
        """What the ranks printed so far: (stdout, stderr)."""
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return tuple(texts)

    def end(self):
        """End mpirun and every process it started, wherever it put them."""
        if self._process.poll() is None:
            self._process.terminate()
            self.wait(2)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        _end_all(self.tag)
        if self._process.returncode:
            _remove_shared_memory(self._began_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self._out.close()
        self._err.close()


def mpirun(n_ranks, argv, *, timeout=120.0, env=None, cwd=None):
    """Run ``argv`` on ``n_ranks`` ranks to the end.

    Returns
    -------
    Finished
        (returncode, stdout, stderr)

    Raises
    ------
    StillRunning
        After ``timeout`` seconds, with what was printed; all ranks are ended.
    """
    with Job(n_ranks, argv, env=env, cwd=cwd) as job:
        returncode = job.wait(timeout)
        if returncode is None:
            job.end()
            raise StillRunning(n_ranks, argv, timeout, *job.output())
        return Finished(returncode, *job.output())


def tagged(tag):
    """Processes that were started with ``tag`` in their environment."""
    needle = f"{TAG}={tag}".encode()
    found = []
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            if needle in Path(path).read_bytes():
                found.append(int(path.split("/")[2]))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def ranks_of(job):
    """The processes of a job's ranks, by rank. Of Open MPI only."""
    found = {}
    for pid in tagged(job.tag):
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        name = b"OMPI_COMM_WORLD_RANK="
        rank = [w.removeprefix(name) for w in words if w.startswith(name)]
        if rank:
            found[int(rank[0])] = pid
    return found


def _end_all(tag):
    """Kill the tagged processes and see them gone, a few seconds at most."""
    for _ in range(100):
        pids = tagged(tag)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _remove_shared_memory(since_s):
    """Remove segments of killed ranks: new, this user's, in use by no process."""
    for pattern in SHARED_MEMORY:
        for path in map(Path, glob.glob(f"/dev/shm/{pattern}")):
            try:
                status = path.stat()
                ours = status.st_uid == os.getuid() and status.st_ctime >= since_s - 1
                if ours and not _in_use(str(path)):
                    path.unlink()
            except FileNotFoundError:
                continue


def _in_use(path):
    """Whether a process has ``path`` mapped or open."""
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if path in Path(folder, "maps").read_text(errors="replace"):
                return True
            if any(os.readlink(fd) == path for fd in glob.glob(f"{folder}/fd/*")):
                return True
        except OSError:
            continue
    return False
