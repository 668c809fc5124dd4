"""Seconds and memory until a rank has planned its first batch of an epoch.

    python scripts/bench/first_batch.py

A batch has 256 rows per rank. Memory is the peak of Python's and NumPy's allocations;
seconds are those of a second plan, made without measuring memory. The last column has
the nanoseconds a row of the next 2,000 batches.
"""

import time
import tracemalloc

from pympi_train.data.epoch import EpochPlan
from pympi_train.data.windows.choice import choose_windows

BATCH_ROWS, N_BATCHES = 256, 2000
CASES = ((10**7, 40, 1), (10**9, 400, 100), (10**10, 1000, 1000), (10**10, 3000, 1))
MOST_LOCAL = 10**8  # rows of a rank in order "full": a plan has 1 or 2 bytes for each


def main():
    print("rows, bytes a row, ranks, order: first batch, peak memory, later batches")
    for n, row_bytes, size in CASES:
        for order in (None, choose_windows(n, row_bytes)):
            if order is None and n // size > MOST_LOCAL:
                continue
            args = n, 0, 0, 0, n // size, BATCH_ROWS * size, order
            tracemalloc.start()
            first_batch(args)
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            start_s = time.perf_counter()
            plan = first_batch(args)
            first_s = time.perf_counter() - start_s
            ns = later_batches(plan)
            print(
                f"{n:.0e}, {row_bytes}, {size}, {'window' if order else 'full'}: "
                f"{first_s:.4f} s, {peak_bytes / 1e6:.1f} MB, {ns:.0f} ns a row"
            )


def first_batch(args):
    plan = EpochPlan(*args)
    plan.read_ahead(0)
    plan.batch(0)
    return plan


def later_batches(plan):
    start_s, n_rows = time.perf_counter(), 0
    for index in range(1, min(N_BATCHES, plan.n_batches)):
        plan.read_ahead(index)
        n_rows += len(plan.batch(index))
    return (time.perf_counter() - start_s) / n_rows * 1e9


if __name__ == "__main__":
    main()
