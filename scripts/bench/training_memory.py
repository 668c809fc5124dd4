"""Memory of a rank that trains on files in the order "window".

    pip install -e '.[mpich,data]'
    python scripts/bench/training_memory.py FOLDER [--format npy|parquet|csv]
        [--sizes 1e9,4e9] [--ranks 2] [--json]

For each size, a file with rows of 768 numbers, 3 KB in memory, is written to FOLDER,
two epochs of linear regression are trained on it, from `pt.load` on, and the file is
removed. .npy files are mapped, .parquet and .csv streamed. A thread of each rank reads
/proc/self/status every 10 ms. The table has the largest sum of RssAnon and RssShmem of
each rank, in MB: memory that the kernel cannot drop, in contrast to the mapped pages of
the file (RssFile). The first figure is the sum before the data set is loaded: Python,
NumPy and MPI. Linux only.
"""

import argparse
import json
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

FEATURES = 768
EPOCHS = 2
GROUP_ROWS = 1024
FILE_ROWS = 20 * GROUP_ROWS
MPIRUN = Path(sys.executable).parent / "mpirun"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="1e9,4e9", help="bytes (%(default)s)")
    parser.add_argument("--format", choices=("npy", "parquet", "csv"), default="npy")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--order", choices=("full", "window"), default="window")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        return train(args)
    found = [measured(args, int(float(size))) for size in args.sizes.split(",")]
    if args.json:
        print(json.dumps(found))
        return
    print("RssAnon + RssShmem in MB of each rank: before loading, peak")
    for one in found:
        ranks = "   ".join(
            f"rank {rank}: {before / 1e6:4.0f}, {peak / 1e6:4.0f}"
            for rank, (before, peak) in enumerate(one["ranks"])
        )
        print(f"{one['bytes'] / 1e9:5.1f} GB   {ranks}   {one['seconds']:.0f} s")


def measured(args, n_bytes):
    """Return the result of a training on a new file of ``n_bytes``."""
    folder = args.folder / f"training-memory-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        write(folder, args.format, n_bytes // (4 * FEATURES))
        own = [sys.executable, __file__, str(folder), "--train", "--order", args.order]
        own += ["--format", args.format]
        prefix = [str(MPIRUN), "-n", str(args.ranks)]
        start_s = time.perf_counter()
        done = subprocess.run(
            prefix + own, stdout=subprocess.PIPE, text=True, check=True, timeout=3600
        )
        seconds = time.perf_counter() - start_s
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    ranks = json.loads(done.stdout.strip().splitlines()[-1])
    return {"bytes": n_bytes, "ranks": ranks, "seconds": seconds}


def write(folder, format_, n):
    if format_ != "npy":
        write_table(folder, format_, n)
        return
    shape, rng = (n, FEATURES), np.random.default_rng(0)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", "f4", shape)
    for start in range(0, n, 4096):
        part = x[start : start + 4096]
        rng.random(out=part, dtype=np.float32)
    np.save(folder / "y.npy", rng.random(n, dtype=np.float32))


def write_table(folder, format_, n):
    """Write columns x0, x1, ... and y: files of 64 MB with row groups of 3 MB."""
    import pyarrow
    from pyarrow import csv, parquet

    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(FEATURES)] + ["y"]
    schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
    kind = parquet.ParquetWriter if format_ == "parquet" else csv.CSVWriter
    for first in range(0, n, FILE_ROWS):
        end = min(first + FILE_ROWS, n)
        with kind(folder / f"x{first}.{format_}", schema) as writer:
            for start in range(first, end, GROUP_ROWS):
                shape = min(GROUP_ROWS, end - start), FEATURES + 1
                rows = rng.random(shape, np.float32)
                writer.write_table(pyarrow.table([*rows.T.copy()], schema=schema))


def train(args):
    """Train; rank 0 prints the bytes of each rank before and at the peak. Collective.
    """
    from mpi4py import MPI

    import pympi_train as pt

    comm = MPI.COMM_WORLD
    comm.Barrier()
    before, ended = resident(), threading.Event()
    peak = [before]

    def watch():
        while not ended.wait(0.01):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        data = pt.load(
            args.folder / f"x*.{args.format}",
            target="y.npy" if args.format == "npy" else "y",
            task="regression",
            memory="mapped" if args.format == "npy" else "stream",
            order=args.order,
            comm=comm,
        ).train
        with pt.Trainer(
            pt.Linear(FEATURES), pt.SGD(1e-4), backend="numpy", comm=comm
        ) as trainer:
            trainer.fit(data, epochs=EPOCHS)
    finally:
        ended.set()
        thread.join()
    found = comm.gather((before, peak[0]))
    if comm.rank == 0:
        print(json.dumps(found))


def resident():
    """Return RssAnon + RssShmem in bytes."""
    total = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    main()
