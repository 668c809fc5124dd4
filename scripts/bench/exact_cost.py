"""Cost of the exact reduction: time of a step compared with the fast reduction.

    OMP_NUM_THREADS=1 mpirun -n 2 python scripts/bench/exact_cost.py [--json]

MLP 784-512-512-10, float32, Adam, 8 groups. The two sides take turns of a few steps on
the same rows. A figure is the median over the rounds of the slowest rank's median step,
a ratio the median of the rounds' ratios. One thread per rank on both sides.
"""

import argparse
import json
import statistics
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.backends.threads import limit_to_one
from pympi_train.comm.collectives import reduced
from pympi_train.comm.mesh import world

LAYERS = (784, 512, 512, 10)
CASES = ((128, 30), (1024, 6))  # rows of the global batch, steps a turn
PHASES = ("compute", "communication", "update")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    comm = world()
    found = [compare(comm, *case, args.rounds) for case in CASES]
    if comm.rank == 0 and args.json:
        print(json.dumps(found))
    elif comm.rank == 0:
        for case in found:
            tell(case)


def tell(case):
    print(
        f"{case['ranks']} ranks, global batch {case['batch']}: exact takes "
        f"{case['ratio']:.2f} x fast ({case['least']:.2f} to {case['most']:.2f})"
    )
    for name in ("fast", "exact"):
        side = case[name]
        phases = ", ".join(f"{p} {1e3 * side[p]:.2f}" for p in PHASES)
        print(f"  {name:6}{1e3 * side['step_s']:8.3f} ms  (mean: {phases})")


def compare(comm, batch, steps, rounds):
    rows = batch // comm.size
    rng = np.random.default_rng(comm.rank)
    x = rng.standard_normal((rows, LAYERS[0])).astype(np.float32)
    data = pt.Dataset(x, rng.integers(0, LAYERS[-1], rows), comm=comm)
    trainers, calls, seconds, phases = {}, {}, {}, {}
    for name in ("fast", "exact"):
        model = pt.MLP(LAYERS[0], LAYERS[1:-1], LAYERS[-1])
        # All fixed, so that no choice depends on measurements on a busy machine.
        parallel = pt.Parallel(strategy="allreduce", reduction=name, overlap="off")
        trainers[name] = pt.Trainer(model, pt.Adam(1e-3), comm=comm, parallel=parallel)
        calls[name] = trainers[name].prepare(data)
        seconds[name], phases[name] = [], []
    limit_to_one()
    for turn in range(rounds + 1):
        for name, trainer in trainers.items():
            median, laps = take(comm, trainer, calls[name], steps, rows)
            if turn:  # the first is a warm-up
                seconds[name].append(median)
                phases[name].append(laps)
    for trainer in trainers.values():
        trainer.free()
    ratios = [a / b for a, b in zip(seconds["exact"], seconds["fast"])]
    sides = {
        name: {
            "step_s": statistics.median(seconds[name]),
            **dict(zip(PHASES, np.median(phases[name], axis=0).tolist())),
        }
        for name in trainers
    }
    return {
        "ranks": comm.size,
        "batch": batch,
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        **sides,
    }


def take(comm, trainer, step, steps, rows):
    """Return the slowest rank's median seconds of a step, and the phases' means."""
    step(slice(0, rows))
    comm.Barrier()
    trainer.laps.reset()
    seconds, last = [], perf_counter()
    for _ in range(steps):
        step(slice(0, rows))
        now = perf_counter()
        seconds.append(now - last)
        last = now
    laps = [trainer.laps.seconds[phase] / steps for phase in PHASES]
    slowest = reduced(comm, seconds, op="MAX")
    return float(np.median(slowest)), (reduced(comm, laps) / comm.size).tolist()


if __name__ == "__main__":
    main()
