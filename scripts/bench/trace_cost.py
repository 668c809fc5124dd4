#!/usr/bin/env python
"""Time of a training step with a trace, compared with the same step without.

    mpirun -n 2 python scripts/bench/trace_cost.py [--rounds 300] [--steps 512]

Steps with and without a trace take turns in one run, in blocks of ``--steps`` steps,
whose order changes from round to round. Other programs can only add to the seconds of a
step, so that the fastest tenth of the steps of a kind tells what it takes. There are
four kinds: without a trace; recorded; before a recorded one, which switches; the rest.
The last three count by their numbers. Printed is the median over 20 groups of rounds of
what a trace adds, on the slowest rank, with the interval that holds 95 % of the medians
of resampled groups.
"""

import argparse
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.comm.collectives import reduced
from pympi_train.comm.watch.recorder import GOLDEN, WORD

CASES = {  # model, rows a rank
    "linear, 4 features, 1 row": (lambda: pt.Linear(4), 4, 1),
    "MLP 64-32-10, 32 rows": (lambda: pt.MLP(64, [32], 10), 64, 32),
    "MLP 784-512-512-10, 64 rows": (lambda: pt.MLP(784, [512, 512], 10), 784, 64),
}
N_GROUPS = 20


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
                kinds = np.zeros(n_steps, int)
                if is_traced:
                    trainer.start_trace(max_share=share)
                    for _ in range(40):  # in which it finds which steps to record
                        step(rows)
                    every = trainer.trace_every
                    kinds = kinds_of(trainer.steps + 1 + np.arange(n_steps), every)
                seconds = block(ranks.comm, step, rows, n_steps)
                sides[is_traced].append((kinds, seconds))
                trainer.stop_trace()
    groups = np.array_split(np.arange(2, args.rounds + 2), N_GROUPS)
    plain, with_trace = (
        reduced(ranks.comm, [of_group(sides[side], one) for one in groups], op="MAX")
        for side in (False, True)
    )
    return line(f"{name}, every {every}", plain, with_trace)


def kinds_of(steps, every):
    """Return 1 for the steps that are recorded, 2 for those before them, else 0."""
    limit = (WORD + 1) // every
    kinds = np.where((steps + 1) * GOLDEN & WORD < limit, 2, 0)
    kinds[steps * GOLDEN & WORD < limit] = 1
    return kinds


def block(comm, step, rows, n_steps):
    """Return the seconds of each step of a block."""
    comm.Barrier()
    times = [perf_counter()]
    for _ in range(n_steps):
        step(rows)
        times.append(perf_counter())
    return np.diff(times)


def of_group(side, numbers):
    """Return the seconds of a step, from the fastest tenth of each kind."""
    kinds, seconds = (np.concatenate([side[i][k] for i in numbers]) for k in (0, 1))
    found = 0.0
    for kind in np.unique(kinds):
        own = seconds[kinds == kind]
        found += own.size / seconds.size * np.quantile(own, 0.1)
    return found


def line(name, plain, with_trace):
    draws = np.random.default_rng(0).integers(0, plain.size, (2000, plain.size))
    extra = with_trace - plain
    low, high = np.quantile(np.median(extra[draws], axis=1), (0.025, 0.975))
    found, base = np.median(extra), np.median(plain)
    share = 100 / base
    return (
        f"{name}: {1e6 * base:.2f} us a step without a trace; with it "
        f"{1e9 * found:+.0f} ns ({1e9 * low:+.0f} to {1e9 * high:+.0f}), "
        f"{share * found:+.2f} % ({share * low:+.2f} to {share * high:+.2f})"
    )


if __name__ == "__main__":
    main()
