#!/usr/bin/env python3
"""How long a rank of a pool waits for its next job while rank 0 is in long steps.

    mpirun -n 2 python scripts/bench/pool_answer.py [--jobs 30] [--steps 12]
    MPI4PY_RC_THREAD_LEVEL=serialized mpirun -n 2 python scripts/bench/pool_answer.py

Rank 0 trains one job with long steps; rank 1 trains short jobs, one after another.
Prints the seconds from the end of a short job to the order for the next one, on rank 1.
The second command does without the thread of rank 0 that coordinates.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import pympi_train as pt
from pympi_train.config.config import parse
from pympi_train.pool.agent import Agent

TEXT = """
[data]
train = "{name}.npz"
[model]
kind = "mlp"
hidden = {hidden}
[train]
epochs = 1
batch_size = {batch_size}
backend = "numpy"
"""


def main():
    """Run the pool and print the waits of rank 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=8192, help="of a long step")
    parser.add_argument("--steps", type=int, default=12)
    args, comm = parser.parse_args(), MPI.COMM_WORLD
    made = Path(tempfile.mkdtemp()) if comm.rank == 0 else None
    folder, spans = comm.bcast(made), note_spans()
    told = None
    with pt.Pool(directory=folder / "pool") as pool:
        if pool is not None:
            told = train_all(pool, folder, args)
    spans = comm.gather(spans)
    if comm.rank == 0:
        long = times_of(folder, "long")
        waits = [
            begin - end
            for (_, end), (begin, _) in zip(spans[1], spans[1][1:])
            if long["begin"] < end and begin < long["end"]
        ]
        print(f"steps of {told:.2f} s on rank 0; threads: {MPI.Query_thread() == 3}")
        print(f"waits of rank 1: n = {len(waits)}, median {np.median(waits):.3f} s, "
              f"maximum {max(waits):.3f} s")


def note_spans():
    """Return a list that gets begin and end of each job of this rank, in seconds."""
    take_part, spans = Agent._take_part, []

    def noted(self, order):
        began_s = time.time()
        take_part(self, order)
        spans.append((began_s, time.time()))

    Agent._take_part = noted
    return spans


def train_all(pool, folder, args):
    """Train all jobs; return the seconds of a step of the long one."""
    n_long = args.rows * args.steps
    make_rows(folder, "short", 64)
    make_rows(folder, "long", n_long)
    short = config_of(folder, "short", [4], 64)
    wide = config_of(folder, "long", [args.hidden] * 2, args.rows)
    futures = []
    for number in range(args.jobs):
        futures.append(pool.submit(short(number), max_ranks=1))
        if number == 0:  # the first job has rank 1
            long = pool.submit(wide("long"), name="long", max_ranks=1)
    result = long.result()
    for future in futures:
        future.result()
    return n_long / result["samples_per_s"] / args.steps


def make_rows(folder, name, n):
    x = np.random.default_rng(0).standard_normal((n, 64), dtype=np.float32)
    np.savez(folder / f"{name}.npz", x=x, y=np.arange(n) % 2)


def config_of(folder, name, hidden, batch_size):
    """Return a function of the run directory's name that gives the configuration."""
    text = TEXT.format(name=name, hidden=hidden, batch_size=batch_size)
    return lambda run: parse(
        text, folder=folder, overrides=[f"output.directory={folder}/{run}"]
    )


def times_of(folder, name):
    """Return the time of each event of a job, by kind."""
    lines = (folder / "pool" / "events.jsonl").read_text().splitlines()
    found = [event for event in map(json.loads, lines) if event.get("job") == name]
    return {event["event"]: event["time_s"] for event in found}


if __name__ == "__main__":
    main()
