#!/usr/bin/env python
"""What [train] gradient_noise adds to a step.

    mpirun -n 2 python scripts/bench/gradient_noise.py [--rounds 15] [--cpu]

Two trainings of the same model, with and without it, take turns of some steps. Figures
are the slowest rank's milliseconds a step: the least of all rounds, and the median over
the rounds of the ratio. On a busy machine, --cpu counts the seconds of the process, of
one rank: several ranks also spend them waiting.
"""

import argparse
import statistics
from time import perf_counter, process_time

import numpy as np

import pympi_train as pt
from pympi_train.comm.collectives import reduced

CASES = {  # layers, rows of the global batch, maximum rows of a micro-batch
    "digits": ([64, 64, 10], 64, 4096),
    "mlp": ([784, 512, 512, 10], 256, 4096),
    "mlp, 4 micro-batches": ([784, 512, 512, 10], 1024, 128),
    "wide": ([784, 2048, 2048, 10], 128, 4096),
}
ROUND_S = 0.2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    with pt.Ranks() as ranks:
        for name in CASES:
            line = compare(ranks, name, args)
            if ranks.rank == 0:
                print(line, flush=True)


def compare(ranks, name, args):
    sizes, batch_size, most = CASES[name]
    rng = np.random.default_rng(0)
    own = batch_size // ranks.size
    x = rng.standard_normal((own, sizes[0])).astype(np.float32)
    batch = pt.Batch(x, rng.integers(0, sizes[-1], own), None)
    how = {"backend": args.backend, "comm": ranks, "micro_batch_size": most}
    clock = process_time if args.cpu else perf_counter
    trainers = []
    for is_noisy in (False, True):
        model = pt.MLP(sizes[0], sizes[1:-1], sizes[-1])
        trainers.append(
            pt.Trainer(model, pt.Adam(1e-3), gradient_noise=is_noisy, **how)
        )
    for trainer in trainers:
        timed(ranks.comm, trainer, batch, 3, clock)
    steps = max(3, round(ROUND_S / timed(ranks.comm, trainers[0], batch, 3, clock)))
    rounds = [
        [timed(ranks.comm, t, batch, steps, clock) for t in trainers]
        for _ in range(args.rounds)
    ]
    n = trainers[0].model.layout.n_parameters
    for trainer in trainers:
        trainer.free()
    without, with_noise = zip(*rounds)
    ratio = statistics.median(b / a for a, b in rounds)
    return (
        f"{ranks.size} ranks, {name:21} {n:10,} parameters  "
        f"{1e3 * min(without):8.3f} {1e3 * min(with_noise):8.3f} ms  "
        f"{100 * (min(with_noise) / min(without) - 1):+5.1f} %  "
        f"median {100 * (ratio - 1):+5.1f} %"
    )


def timed(comm, trainer, batch, steps, clock):
    comm.Barrier()
    began_s = clock()
    for _ in range(steps):
        trainer.step(batch)
    seconds = (clock() - began_s) / steps
    return float(reduced(comm, [seconds], op="MAX")[0])


if __name__ == "__main__":
    main()
