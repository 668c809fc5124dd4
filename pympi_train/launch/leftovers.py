"""What killed ranks and launchers leave in /dev/shm and in the temporary folder."""

import glob
import os
import shutil
import tempfile
from contextlib import suppress

FOLDER = "/dev/shm"
# Names that MPI libraries give to theirs; this package has all of its own from MPI.
PATTERNS = (
    "mpich_shm_*",
    "mpich_boot_*",
    "mpich_shar_tmp*",
    "sm_segment.*",
    "vader_segment.*",
    "osc_sm.*",
    "osc_rdma.*",
    "ucx_shm_*",
)
CLOCK_S = 0.1  # how much older than the system's clock a new file may seem


def remove_shared_memory(since_s, folder=FOLDER):
    """Remove segments of MPI libraries that this user's dead ranks have left here.

    Parameters
    ----------
    since_s : float
        ``time.time()`` before the ranks were started: older ones are not theirs.
    folder : str

    Notes
    -----
    A segment that a process of this machine has mapped or open stays. So does one of
    another job, because its ranks have theirs mapped as soon as it exists.
    """
    found = {}
    for pattern in PATTERNS:
        for path in glob.glob(os.path.join(folder, pattern)):
            with suppress(OSError):
                status = os.stat(path)
                is_new = status.st_ctime >= since_s - CLOCK_S
                if is_new and status.st_uid == os.getuid():
                    found[path] = None
    for path in found.keys() - _in_use(folder) if found else ():
        with suppress(OSError):
            os.unlink(path)


def remove_session(pid):
    """Remove the temporary folder of an Open MPI launcher that has ended."""
    folder, user = tempfile.gettempdir(), os.getuid()
    for name in (f"ompi.{pid}", f"ompi.*.{user}/pid.{pid}"):  # Open MPI 5, 4
        for path in glob.glob(os.path.join(glob.escape(folder), name)):
            shutil.rmtree(path, ignore_errors=True)


def _in_use(folder):
    """Return the files of a folder that processes have mapped or open."""
    used, prefix = set(), os.path.join(folder, "")
    for process in glob.glob("/proc/[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            with open(f"{process}/maps", encoding="utf-8", errors="replace") as maps:
                for line in maps:
                    before, found, rest = line.partition(prefix)
                    if found:
                        used.add(prefix + rest.rstrip("\n"))
            for file in glob.glob(f"{process}/fd/*"):
                with suppress(OSError):
                    used.add(os.readlink(file))
    return used
