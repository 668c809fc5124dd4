#!/usr/bin/env python
"""Time of a training step with a trace, compared with the same step without.

    mpirun -n 2 python scripts/bench/trace_cost.py [--rounds 200] [--steps 200]

Steps with and without a trace take turns in one run, in blocks of ``--steps`` steps,
whose order changes from round to round. Printed are the medians over the rounds of the
slowest rank's seconds a step, and of the difference, with the interval that holds 95 %
of the medians of resampled rounds. A block counts with the fastest of its tenths, so
that a pause by the system does not.
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
TENTHS = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200)
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
        n_steps = max(TENTHS, args.steps if n_features < 700 else args.steps // 10)
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
    """Return the seconds a step of the fastest tenth of a block."""
    comm.Barrier()
    tenth, fastest = n_steps // TENTHS, np.inf
    for _ in range(TENTHS):
        began_s = perf_counter()
        for _ in range(tenth):
            step(rows)
        fastest = min(fastest, (perf_counter() - began_s) / tenth)
    return fastest


def line(name, plain, with_trace):
    extra, rng = with_trace - plain, np.random.default_rng(0)
    draws = rng.integers(0, extra.size, (2000, extra.size))
    low, high = np.quantile(np.median(extra[draws], axis=1), (0.025, 0.975))
    base, mean = np.median(plain), np.median(extra)
    share = 100 / base
    return (
        f"{name}: {1e6 * base:.2f} us a step without a trace; with it "
        f"{1e9 * mean:+.0f} ns ({1e9 * low:+.0f} to {1e9 * high:+.0f}), "
        f"{share * mean:+.2f} % ({share * low:+.2f} to {share * high:+.2f})"
    )


if __name__ == "__main__":
    main()
