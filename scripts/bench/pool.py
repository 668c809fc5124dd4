#!/usr/bin/env python3
"""The same jobs in a pool, one rank a job, and on all ranks one after another.

    scripts/bench/pool.py [--ranks 4] [--jobs 20] [--seconds 20 120] [--folder DIR]

Makes trainings of unequal length, and does them three times: with ``pympi-train pool``;
with one ``mpirun -n 1`` for each job, as many at a time as there are ranks, as GNU
parallel does it (``xargs -P``); and with ``mpirun -n RANKS`` for one after another.
Prints seconds from the first start to the last end, and the utilisation: seconds of
ranks in steps and evaluation, divided by ranks times seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONFIG = """
[data]
train = "rows.npz"
validation = 0.2
[model]
kind = "mlp"
hidden = [128]
[train]
backend = "numpy"
batch_size = 1024
"""
JOB = """
[[job]]
name = "job-{number:02}"
config = "c.toml"
set = {{ train.epochs = {epochs}, train.seed = {number} }}
"""
PROGRAM = [sys.executable, "-m", "pympi_train"]
N_ROWS, N_FEATURES = 40_000, 100


def main():
    """Do the three, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(20.0, 120.0), metavar="S"
    )
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    epochs = make_jobs(folder, args)
    rows = [
        ("pool", *timed(lambda: in_pool(folder, args.ranks))),
        ("one rank a job", *timed(lambda: one_rank_a_job(folder, args.ranks, epochs))),
        ("all ranks in turn", *timed(lambda: in_turn(folder, args.ranks, epochs))),
    ]
    print(f"{args.jobs} jobs, {args.ranks} ranks, {len(os.sched_getaffinity(0))} CPUs")
    for name, wall_s, training_s in rows:
        used = training_s / (args.ranks * wall_s)
        ratio = wall_s / rows[0][1]
        print(f"{name:18} {wall_s:8.1f} s  {ratio:5.2f} x  {used:6.1%} used")


def make_jobs(folder, args):
    """Write data and job file; return the epochs of each job."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N_ROWS, N_FEATURES), dtype=np.float32)
    y = (x[:, :10].sum(axis=1) > 0).astype(int)
    np.savez(folder / "rows.npz", x=x, y=y)
    (folder / "c.toml").write_text(CONFIG)
    few = 20
    trial = train(folder, 1, f"trial-{time.time_ns()}", few, 0)
    epoch_s = seconds_of(trial) / few
    shortest_s, longest_s = args.seconds
    wanted_s = rng.permutation(np.geomspace(shortest_s, longest_s, args.jobs))
    epochs = [max(1, round(seconds / epoch_s)) for seconds in wanted_s]
    text = '[pool]\ndirectory = "pool"\n'
    text += "".join(JOB.format(number=i, epochs=n) for i, n in enumerate(epochs))
    (folder / "jobs.toml").write_text(text)
    print(f"one epoch takes {epoch_s:.3f} s; epochs: {epochs}", flush=True)
    return epochs


def timed(work):
    """Return the seconds of ``work()``, and what it returns."""
    began_s = time.perf_counter()
    found = work()
    return time.perf_counter() - began_s, found


def in_pool(folder, n_ranks):
    """Return the rank-seconds of training of all jobs."""
    argv = ["mpirun", "-n", str(n_ranks), *PROGRAM, "pool", "jobs.toml", "--json"]
    done = subprocess.run(argv, cwd=folder, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print("pool:", found["utilisation"], flush=True)
    return found["utilisation"]["training_s"]


def one_rank_a_job(folder, n_ranks, epochs):
    """As `in_pool`, with a program of one rank for each job."""
    lines = [" ".join(argv_of(1, f"one/{i}", n, i)) for i, n in enumerate(epochs)]
    argv = ["xargs", "-P", str(n_ranks), "-I{}", "sh", "-c", "{} >/dev/null"]
    subprocess.run(argv, cwd=folder, input="\n".join(lines), text=True, check=True)
    results = [result_of(folder / "one" / str(i)) for i in range(len(epochs))]
    return sum(map(seconds_of, results))


def in_turn(folder, n_ranks, epochs):
    """As `in_pool`, with all ranks for one job after another."""
    results = [train(folder, n_ranks, f"turn/{i}", n, i) for i, n in enumerate(epochs)]
    return n_ranks * sum(map(seconds_of, results))


def train(folder, n_ranks, name, n_epochs, seed):
    """Train; return the result."""
    argv = argv_of(n_ranks, name, n_epochs, seed)
    subprocess.run(argv, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return result_of(folder / name)


def argv_of(n_ranks, name, n_epochs, seed):
    """Return the command of one training."""
    keys = {"output.directory": name, "train.epochs": n_epochs, "train.seed": seed}
    told = [f"{key}={value}" for key, value in keys.items()]
    return ["mpirun", "-n", str(n_ranks), *PROGRAM, "train", "c.toml", "--set", *told]


def result_of(path):
    return json.loads((path / "result.json").read_text())


def seconds_of(result):
    """Return the seconds of a training in steps and evaluation, as the pool has them.

    Some 0.1 s in which the run directory is made counts too.
    """
    return result["wall_s"] - sum(result["startup_seconds"].values())


if __name__ == "__main__":
    main()
