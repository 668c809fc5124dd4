"""Training beside a rank of half the speed, with and without ``[elastic] balance``.

    python scripts/bench/slow_rank.py --count 64
    mpirun -n 3 python scripts/bench/slow_rank.py [--epochs 10] [--rows 30000]
        [--row-us 100] [--rounds 3] [--exact]

A rank's computing is a sleep of ``row-us`` microseconds a row, so that ranks may share
cores; the last rank's is twice as long. Three trainings take turns: undisturbed, slow,
and slow with balance. The table has medians of seconds, and their ratios within a round
to the undisturbed one. The ideal ratio is ``P / (P - 1/2)``. ``--count P`` times
nothing: it prints the ratio to the ideal for P ranks if each batch takes as long as its
slowest rank, which has some rows more or less than its share.
"""

import argparse
import time

import numpy as np

import pympi_train as pt
from pympi_train.data.balanced import balanced_cuts
from pympi_train.data.epoch import EpochPlan
from pympi_train.data.partition import bounds
from pympi_train.flat.memory import Tensor

FEATURES, BATCH = 8, 1024
CASES = {"undisturbed": (1, False), "slow": (2, False), "balanced": (2, True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--row-us", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--exact", action="store_true", help="reduction exact")
    parser.add_argument("--count", type=int, metavar="P", help="count, do not time")
    args = parser.parse_args()
    if args.count:
        count(args.count)
        return
    with pt.Ranks() as ranks:
        times, weights = {name: [] for name in CASES}, {}
        for _ in range(args.rounds):
            for name, how in CASES.items():
                seconds, weights[name], shares = trained(args, ranks, *how)
                times[name].append(seconds)
        if ranks.comm.rank == 0:
            show(times, weights, shares, args.rows, ranks.comm.size)


def count(size, n=200_000):
    """Print the ratios to the ideal for batches of 1, 4, 16 and 128 rows per rank."""
    speeds, cuts = np.ones(size), bounds(n, size)
    speeds[-1] = 0.5
    for _ in range(10):
        cuts = balanced_cuts(cuts, speeds)
    for rows in (1, 4, 16, 128):
        longest = np.zeros(-(-n // (rows * size)))
        for speed, start, stop in zip(speeds, cuts, cuts[1:]):
            plan = EpochPlan(n, 0, 1, start, stop, rows * size)
            own = [len(plan.batch(i)) for i in range(plan.n_batches)]
            longest = np.maximum(longest, np.divide(own, speed))
        ratio = longest.sum() / (n / speeds.sum())
        print(f"{size} ranks, {rows:3} rows of a batch per rank: {ratio:.2f}")


def trained(args, ranks, factor, balance):
    """Return seconds of a training, its weights, and (fewest, most) rows of a rank."""
    comm, rng = ranks.comm, np.random.default_rng(0)
    x = rng.standard_normal((args.rows, FEATURES))
    y = x.sum(axis=1, keepdims=True) + rng.standard_normal((args.rows, 1))
    data = pt.Dataset.split(x, y, comm=ranks)
    row_s = 1e-6 * args.row_us * (factor if comm.rank == comm.size - 1 else 1)

    def half_squares(params, batch, grads):
        time.sleep(row_s * len(batch.x))
        error = batch.x @ params["w"] - batch.y
        grads["w"][...] = batch.x.T @ error
        return 0.5 * float((error**2).sum())

    model = pt.FunctionModel([Tensor("w", (FEATURES, 1))], half_squares)
    how = {"strategy": "allreduce"}
    if args.exact:
        how = {"reduction": "exact", "virtual_shards": 64}
    made_of = model, pt.SGD(0.01)
    parallel = pt.Parallel(**how)
    with pt.Trainer(
        *made_of, batch_size=BATCH, backend="numpy", parallel=parallel, comm=ranks
    ) as trainer:
        comm.Barrier()
        started = time.perf_counter()
        records = trainer.fit(data, epochs=args.epochs, balance=balance)
        comm.Barrier()
        seconds = time.perf_counter() - started
        shares = [records[-1].get(key) for key in ("rows_least", "rows_most")]
        return seconds, trainer.params.copy(), shares


def show(times, weights, shares, n, size):
    base = times["undisturbed"]
    for name, found in times.items():
        ratio = np.median(np.divide(found, base))
        away = np.abs(weights[name] - weights["undisturbed"]).max()
        print(
            f"{name:12}{np.median(found):7.2f} s  {ratio:5.2f} times undisturbed  "
            f"weights differ by at most {away:.1g}"
        )
    ideal = size / (size - 0.5)
    of_ideal = np.median(np.divide(times["balanced"], base)) / ideal
    fewest, most = (100 * share / n for share in shares)
    print(f"ideal: {ideal:.2f} times undisturbed; balanced: {of_ideal:.2f} times that,")
    print(f"with {fewest:.0f} to {most:.0f} % of the rows on a rank at the end")


if __name__ == "__main__":
    main()
