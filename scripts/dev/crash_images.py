#!/usr/bin/env python3
"""Check that a checkpoint survives a loss of power on a real file system; needs root.

    scripts/dev/crash_images.py                 ext4
    scripts/dev/crash_images.py --type xfs        or btrfs

Writes the checkpoints of scripts/dev/crash_states.py to a file system in a file, which
it copies before each system call: it then holds what has reached the disk. Each copy is
mounted, which repairs it as after a crash, and must hold the last checkpoint that was
written, or the next one, whole. The exit status is 1 if one does not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "harness")]
SIZES_MB = {"ext4": 16, "xfs": 300, "btrfs": 120}  # the smallest that are allowed
OWN_MOUNTS = "CRASH_IMAGES_OWN_MOUNTS"


@contextmanager
def mounted(image, folder):
    """Mount a file in the body. It is not asked to write anything at the end."""
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def copied_while_writing(image, folder, copies, comm):
    """Write checkpoints; return (copy, step that was written) for each call."""
    import crash_runs
    from file_calls import watched

    found, told = [], [0]

    def copy():
        path = copies / str(len(found))
        # Only what the file system has handed to the disk is in the file.
        subprocess.run(["cp", "--sparse=always", image, path], check=True)
        found.append((path, told[0]))

    def observe(call):
        copy()
        return call.real()

    with mounted(image, folder), watched(folder, observe):
        crash_runs.run(folder, comm, lambda step: told.__setitem__(0, step))
        copy()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", choices=SIZES_MB, default="ext4")
    parser.add_argument("--folder", default="/dev/shm", help="default: /dev/shm")
    kind, where = vars(parser.parse_args()).values()
    if OWN_MOUNTS not in os.environ:  # nothing stays mounted, whatever happens
        os.environ[OWN_MOUNTS] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])

    import crash_runs
    from mpi4py import MPI

    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=where) as own:
        image, folder, copies = (Path(own) / n for n in ("image", "disk", "copies"))
        folder.mkdir(), copies.mkdir()
        with open(image, "wb") as file:
            file.truncate(SIZES_MB[kind] * 2**20)
        subprocess.run(
            [f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL
        )
        found = copied_while_writing(image, folder, copies, MPI.COMM_SELF)
        checker, steps = crash_runs.Checker(folder, MPI.COMM_SELF), []
        for number, (copy, told) in enumerate(found):
            with mounted(copy, folder):
                step = checker.newest_step(f"before call {number}")
            crash_runs.require_step(step, told, f"before call {number}")
            steps.append(step)
    counts = ", ".join(f"{steps.count(s)} with step {s}" for s in sorted({*steps}))
    print(
        f"{kind}: {len(steps)} crashes, all as expected ({counts}); "
        f"{time.monotonic() - began_s:.0f} s"
    )


if __name__ == "__main__":
    main()
