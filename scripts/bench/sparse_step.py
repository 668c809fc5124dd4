#!/usr/bin/env python
"""Microseconds of the phases of a training step on sparse rows.

    mpirun -n 2 python scripts/bench/sparse_step.py [--batch-size 256] [--steps 4000]

The rows and the model of "epoch, logistic, sparse" in vs_peers.py: SGD in float32 on
100,000 x 20,000 with 40 entries a row. Figures are 5th percentiles over the steps, of
the rank with the larger one: steps that other work on the machine did not interrupt.
"""

import argparse

import numpy as np

import pympi_train as pt
from pympi_train.backends.csr import CSR
from pympi_train.comm.collectives import reduced
from pympi_train.trace.laps import BREAK, PHASES

N_ROWS, N_COLUMNS, ENTRIES = 100_000, 20_000, 40


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4000)
    args = parser.parse_args()
    with pt.Ranks() as ranks:
        data = rows(ranks)
        how = {"batch_size": args.batch_size, "comm": ranks}
        with pt.Trainer(pt.Logistic(N_COLUMNS), pt.SGD(0.5), **how) as trainer:
            trainer.fit(data, epochs=1)
            events: list = []
            trainer.laps.append = events.append  # as a Trace does
            epochs = -(-args.steps * args.batch_size // N_ROWS)
            trainer.fit(data, epochs=epochs)
        steps = 1e6 * seconds_by_phase(events)
        parts = [steps, steps.sum(axis=1, keepdims=True)]
        found = np.percentile(np.concatenate(parts, axis=1), 5, axis=0)
        names = [*PHASES, "whole step"]
        told = zip(names, reduced(ranks.comm, found, op="MAX").tolist())
        if ranks.rank == 0:
            text = ", ".join(f"{name} {us:.0f}" for name, us in told)
            print(f"{ranks.size} ranks, batches of {args.batch_size}, us: {text}")


def rows(ranks):
    """Return this rank's rows; the same whole at any number of ranks."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(N_COLUMNS)
    step = N_COLUMNS // ENTRIES  # an entry in each range of columns: ascending
    columns = rng.integers(0, step, (N_ROWS, ENTRIES)) + step * np.arange(ENTRIES)
    values = rng.standard_normal(columns.shape).astype(np.float32)
    score = (values * truth[columns]).sum(axis=1)
    y = (score + 3 * rng.logistic(size=N_ROWS) > 0).astype(np.int64)
    pointers = np.arange(0, values.size + 1, ENTRIES)
    indices = columns.astype(np.int32).reshape(-1)
    x = CSR.of_pointers(pointers, indices, values.reshape(-1), N_COLUMNS)
    return pt.SparseDataset.split(x, y, comm=ranks)


def seconds_by_phase(events):
    """Return the seconds of each step and phase, given the laps and their ends."""
    steps, step, last_s = [], dict.fromkeys(PHASES, 0.0), 0.0
    for phase, end_s in zip(events[::2], events[1::2]):
        if phase == BREAK:  # a new epoch
            step = dict.fromkeys(PHASES, 0.0)
        else:
            step[phase] += end_s - last_s
        last_s = end_s
        if phase == "update":
            steps.append(list(step.values()))
            step = dict.fromkeys(PHASES, 0.0)
    return np.array(steps)


if __name__ == "__main__":
    main()
