"""Time of one training step by strategy, on the same ranks and rows, in turn.

    mpirun -n 2 python scripts/bench/step_strategies.py [--rounds 7] [--json]
        [allreduce hierarchical ...]

Same models, same rows per rank, float32, Adam. Strategies take turns of a few steps, so
that changes of the machine affect all of them. A figure is the median over the rounds
of the slowest rank's median step (on a shared machine, --quantile 0.1 is more
reliable); a ratio is the median of the rounds' ratios to the first strategy.
"""

import argparse
import json
import statistics
from functools import partial
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.comm.collectives import reduced
from pympi_train.comm.mesh import world

CASES = (  # layers, rows per rank, steps per turn
    ((784, 512, 512, 10), 64, 40),
    ((784, 512, 512, 10), 256, 15),
    ((1024, 2048, 2048, 1000), 64, 6),
)
PHASES = ("compute", "communication", "update")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("strategies", nargs="*", default=["allreduce", "hierarchical"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--case", type=int, help="only this one, from 0")
    parser.add_argument("--quantile", type=float, default=0.5, help="of a turn's steps")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    comm = world()
    cases = CASES if args.case is None else CASES[args.case : args.case + 1]
    found = [compare(comm, *case, args) for case in cases]
    if comm.rank:
        return
    if args.json:
        print(json.dumps(found))
        return
    for row in found:
        print(f"MLP {row['layers']}, {row['rows']} rows a rank, {comm.size} ranks")
        for name, side in row["strategies"].items():
            phases = ", ".join(f"{p} {1e3 * side[p]:.2f}" for p in PHASES)
            ratios = " ".join(f"{ratio:.2f}" for ratio in side["ratios"])
            print(
                f"  {name:13} {1e3 * side['step_s']:7.3f} ms  (mean: {phases})  "
                f"x {statistics.median(side['ratios']):.2f}  ({ratios})"
            )


def compare(comm, layers, rows, steps, args):
    """Time steps of each strategy in turn. Collective."""
    names = args.strategies
    rng = np.random.default_rng(comm.rank)
    x = rng.standard_normal((rows, layers[0])).astype(np.float32)
    data = pt.Dataset(x, rng.integers(0, layers[-1], rows), comm=comm)
    trainers, calls = {}, {}
    for name in names:
        model = pt.MLP(layers[0], layers[1:-1], layers[-1])
        trainers[name] = pt.Trainer(
            model, pt.Adam(1e-3), comm=comm, parallel=pt.Parallel(strategy=name)
        )
        calls[name] = partial(trainers[name].prepare(data), slice(0, rows))
    seconds = {name: [] for name in names}
    phases = {name: [] for name in names}
    for turn in range(args.rounds + 1):
        for name in names:
            step, laps = time(comm, trainers[name], calls[name], steps)
            if turn:  # the first is a warm-up
                seconds[name].append(np.quantile(step, args.quantile))
                phases[name].append(laps)
    for trainer in trainers.values():
        trainer.free()
    first = seconds[names[0]]
    sides = {
        name: {
            "step_s": float(np.median(seconds[name])),
            "ratios": (np.array(seconds[name]) / first).tolist(),
            **dict(zip(PHASES, np.median(phases[name], axis=0).tolist())),
        }
        for name in names
    }
    return {"layers": list(layers), "rows": rows, "strategies": sides}


def time(comm, trainer, step, steps):
    """Return the slowest rank's seconds of each step, and the phases' mean seconds.

    Collective.
    """
    step()
    comm.Barrier()
    trainer.laps.reset()
    seconds, last = [], perf_counter()
    for _ in range(steps):
        step()
        now = perf_counter()
        seconds.append(now - last)
        last = now
    laps = [trainer.laps.seconds[phase] / steps for phase in PHASES]
    slowest = reduced(comm, seconds, op="MAX")
    return slowest, (reduced(comm, laps) / comm.size).tolist()


if __name__ == "__main__":
    main()
