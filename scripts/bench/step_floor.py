#!/usr/bin/env python
"""Time of a training step compared with its floor: unavoidable products and traffic.

    mpirun -n 2 python scripts/bench/step_floor.py [--rounds 15] [--strategy auto]

The floor of a rank is the time of its matrix products, computed by NumPy alone on
separate memory, plus the bytes of sum and update over the rate of a triad (STREAM's
``a <- b + s c``) on arrays of that size, while all ranks do the same. With n float32
parameters and R ranks on the node, a rank reads its slice of n / R elements from R
gradients and writes it once, and Adam moves 28 bytes per element. If each rank updates
all parameters, the slice is the whole block.
Floor and step take turns; figures are the slowest rank's medians over the rounds.
"""

import argparse
import statistics
from time import perf_counter

import numpy as np

import pympi_train as pt
from pympi_train.comm.collectives import reduced

CASES = (  # layers, rows per rank, calls per round
    ((784, 512, 512, 10), 64, 20),
    ((784, 512, 512, 10), 256, 10),
    ((300, 700, 700, 700, 50), 96, 20),
    ((1024, 2048, 2048, 1000), 64, 4),
)
ADAM_BYTES = 28  # p, g, m, v read; p, m, v written


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--strategy", default="auto")
    args = parser.parse_args()
    with pt.Ranks() as ranks:
        ranks.use_threads()
        for layers, rows, n_calls in CASES:
            found = measure(ranks, layers, rows, n_calls, args)
            if ranks.rank == 0:
                print(found, flush=True)


def measure(ranks, layers, rows, n_calls, args):
    rng = np.random.default_rng(ranks.rank)
    x = rng.standard_normal((rows, layers[0])).astype(np.float32)
    y = rng.integers(0, layers[-1], rows)
    data = pt.Dataset(x, y, comm=ranks)
    model = pt.MLP(layers[0], layers[1:-1], layers[-1])
    parallel = pt.Parallel(strategy=args.strategy)
    with pt.Trainer(model, pt.Adam(), parallel=parallel, comm=ranks) as trainer:
        step, whole = trainer.prepare(data), slice(0, rows)
        for _ in range(10):
            step(whole)
        while trainer.choosing:
            step(whole)
        strategy = trainer.exchange["strategy"]
        n_owners = ranks.size if strategy == "hierarchical" else 1
        traffic = Triad(model.layout.size, ranks.size, n_owners)
        calls = {
            "products": products(layers, rows, rng),
            "traffic": traffic,
            "step": lambda: step(whole),
        }
        seconds = in_turn(ranks.comm, calls, args.rounds, n_calls)
    told = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [
        step_s / (products_s + traffic_s)
        for products_s, traffic_s, step_s in zip(*seconds.values())
    ]
    return (
        f"{'-'.join(map(str, layers))}, {rows} rows a rank, {strategy}: "
        + ", ".join(f"{name} {1e3 * s:.2f} ms" for name, s in told.items())
        + f"; step / floor {statistics.median(ratios):.2f}"
        f" ({min(ratios):.2f} to {max(ratios):.2f}); triad {traffic.rate():.1f} GB/s"
    )


def products(layers, rows, rng):
    """Return a function that computes all products of one step."""
    work = []
    for i, (n_in, n_out) in enumerate(zip(layers, layers[1:])):
        x, w, delta = (
            rng.standard_normal(shape).astype(np.float32)
            for shape in ((rows, n_in), (n_in, n_out), (rows, n_out))
        )
        work.append((x, w, np.empty_like(delta)))
        work.append((x.T, delta, np.empty_like(w)))
        if i:
            work.append((delta, w.T, np.empty_like(x)))

    def run():
        for a, b, out in work:
            np.matmul(a, b, out)

    return run


class Triad:
    """Moves as many bytes as a rank's sum and update of ``n`` parameters."""

    def __init__(self, n, n_ranks, n_owners):
        own = n // n_owners
        n_bytes = own * (4 * (n_ranks + 1) + ADAM_BYTES)
        # As many elements as in the seven arrays of the update, for the same cache use.
        self._b, self._c, self._a = (np.ones(own * 7 // 3, np.float32) for _ in "bca")
        self._times = n_bytes / (12 * self._a.size)
        self.n_bytes, self._seconds = n_bytes, []

    def __call__(self):
        began_s = perf_counter()
        whole, part = divmod(self._times, 1)
        for _ in range(int(whole)):
            self._pass(self._a.size)
        self._pass(int(part * self._a.size))
        self._seconds.append(perf_counter() - began_s)

    def _pass(self, n):
        step = 16384  # elements per ufunc call, so that the product stays in cache
        for i in range(0, n, step):
            piece = slice(i, min(i + step, n))
            np.multiply(self._c[piece], np.float32(0.5), out=self._a[piece])
            np.add(self._a[piece], self._b[piece], out=self._a[piece])

    def rate(self):
        """Return GB/s."""
        return self.n_bytes / statistics.median(self._seconds) / 1e9


def in_turn(comm, calls, rounds, n_calls):
    """Return the slowest rank's seconds of each call in each round."""
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            comm.Barrier()
            began_s = perf_counter()
            for _ in range(n_calls):
                call()
            seconds[name].append((perf_counter() - began_s) / n_calls)
    return {
        name: reduced(comm, values, op="MAX").tolist()
        for name, values in seconds.items()
    }


if __name__ == "__main__":
    main()
