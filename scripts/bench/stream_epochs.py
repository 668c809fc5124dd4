"""Epochs of training from a stream or a mapped file, in turn with rows in memory.

    pip install -e '.[mpich,data]'
    python scripts/bench/stream_epochs.py FOLDER [--format parquet|npy]
        [--group-rows 16384] [--size 3e8] [--model mlp|linear] [--rounds 3]

A file with 768 features and a target of float32 is written to FOLDER, and removed. The
table has medians of seconds, of CPU seconds of the training thread, and of all threads,
and the median of the ratio of seconds within a round. One rank, NumPy.
"""

import argparse
import contextlib
import secrets
import time
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

import pympi_train as pt

FEATURES = 768


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", choices=("parquet", "npy"), default="parquet")
    parser.add_argument("--group-rows", type=int, default=1 << 14)
    parser.add_argument("--size", type=float, default=3e8, help="bytes of the rows")
    parser.add_argument("--model", choices=("mlp", "linear"), default="mlp")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folder = args.folder / f"stream-epochs-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        times = measured(args, *write(args, folder))
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    for name, found in times.items():
        wall, thread, process = np.median(found, axis=0)
        ratio = np.median(np.divide(found, times["in-memory"])[:, 0])
        print(
            f"{name:10}{wall:7.3f} s, CPU {thread:6.3f} s in the training thread, "
            f"{process:6.3f} s in all: {ratio:.2f} times in-memory"
        )


def write(args, folder):
    """Return the path of a new file, and the name of its target."""
    n, rng = int(args.size) // (4 * FEATURES), np.random.default_rng(0)
    x, y = rng.random((n, FEATURES), np.float32), rng.random(n, np.float32)
    if args.format == "npy":
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)
        return folder / "x.npy", folder / "y.npy"
    columns = {f"x{i}": column for i, column in enumerate(x.T.copy())} | {"y": y}
    path = folder / "x.parquet"
    parquet.write_table(pyarrow.table(columns), path, row_group_size=args.group_rows)
    return path, "y"


def measured(args, path, target):
    """Return (seconds, of the thread's CPU, of all CPU) of each round, by memory."""
    trainers, data, opened = {}, {}, contextlib.ExitStack()
    for memory in ("in-memory", "mapped" if args.format == "npy" else "stream"):
        how = {"task": "regression", "order": "window", "memory": memory}
        data[memory] = pt.load(path, target=target, **how).train
        model = pt.Linear(FEATURES)
        if args.model == "mlp":
            model = pt.MLP(FEATURES, [256], 1, task="regression")
        trainer = pt.Trainer(model, pt.SGD(1e-5), backend="numpy", batch_size=256)
        trainers[memory] = opened.enter_context(trainer)
    times = {memory: [] for memory in trainers}
    for round_ in range(args.rounds + 1):  # the first is not counted
        for memory, trainer in trainers.items():
            before = clocks()
            # Two epochs: the second one's first windows are read during the first.
            trainer.fit(data[memory], epochs=2)
            if round_:
                times[memory].append((clocks() - before) / 2)
    opened.close()
    return times


def clocks():
    return np.array([time.perf_counter(), time.thread_time(), time.process_time()])


if __name__ == "__main__":
    main()
