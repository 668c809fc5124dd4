#!/usr/bin/env python
"""Time of a training step with a trace, compared with the same step without.

    mpirun -n 2 python scripts/bench/trace_cost.py [--rounds 300] [--steps 512]

Steps with and without a trace take turns in one run, in blocks of ``--steps`` steps,
whose order changes from round to round. Of each side, the lower quartile of the blocks'
seconds a step counts, on the slowest rank: other programs can only add to it. Printed
is the difference, with the interval that holds 95 % of those of resampled rounds.

A block has to hold many of the steps that are recorded, one of 32 at least: a shorter
part that is chosen as the fastest would be one without any.
"""

import argparse
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.comm.collectives import reduced

CASES = {  # model, rows a rank
    "linear, 4 features, 1 row": (lambda: pt.Linear(4), 4, 1),
    "MLP 64-32-10, 32 rows": (lambda: pt.MLP(64, [32], 10), 64, 32),
    "MLP 784-512-512-10, 64 rows": (lambda: pt.MLP(784, [512, 512], 10), 784, 64),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--steps", type=int, default=512)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--all-steps", action="store_true", help="record each step")
    args = parser.parse_args()
    with pt.Ranks() as ranks:
        ranks.use_threads()
        for name, case in CASES.items():
            told = measure(ranks, name, *case, args)
            if ranks.rank == 0:
                print(told, flush=True)


def measure(ranks, name, make, n_features, n_rows, args):
    rng = np.random.default_rng(ranks.rank)
    x = rng.standard_normal((n_rows, n_features)).astype(np.float32)
    y = rng.integers(0, 10, n_rows) if "MLP" in name else x[:, :1]
    data = pt.Dataset(x, y, comm=ranks)
    parallel = pt.Parallel(strategy=args.strategy)
    with pt.Trainer(make(), pt.Adam(lr=1e-6), parallel=parallel, comm=ranks) as trainer:
        step, rows = trainer.prepare(data), slice(0, n_rows)
        n_steps = args.steps if n_features < 700 else max(1, args.steps // 64)
        while trainer.choosing:
            step(rows)
        share = None if args.all_steps else 0.01
        sides = {False: [], True: []}
        for number in range(args.rounds + 2):
            for is_traced in (number % 2 == 0, number % 2 == 1):
                if is_traced:
                    trainer.start_trace(max_share=share)
                    for _ in range(40):  # in which it finds which steps to record
                        step(rows)
                    every = trainer.trace_every
                sides[is_traced].append(block(ranks.comm, step, rows, n_steps))
                trainer.stop_trace()
    plain, with_trace = (
        reduced(ranks.comm, sides[side][2:], op="MAX") for side in (False, True)
    )
    return line(f"{name}, every {every}", plain, with_trace)


def block(comm, step, rows, n_steps):
    """Return the seconds a step of a block."""
    comm.Barrier()
    began_s = perf_counter()
    for _ in range(n_steps):
        step(rows)
    return (perf_counter() - began_s) / n_steps


def line(name, plain, with_trace):
    draws = np.random.default_rng(0).integers(0, plain.size, (2000, plain.size))
    extra = quartile(with_trace[draws]) - quartile(plain[draws])
    low, high = np.quantile(extra, (0.025, 0.975))
    base = quartile(plain)
    found, share = quartile(with_trace) - base, 100 / base
    return (
        f"{name}: {1e6 * base:.2f} us a step without a trace; with it "
        f"{1e9 * found:+.0f} ns ({1e9 * low:+.0f} to {1e9 * high:+.0f}), "
        f"{share * found:+.2f} % ({share * low:+.2f} to {share * high:+.2f})"
    )


def quartile(seconds):
    """Return the lower quartile over the last axis."""
    return np.quantile(seconds, 0.25, axis=-1)


if __name__ == "__main__":
    main()
