"""Time the host's part of a batch of sparse rows for a GPU.

    python scripts/bench/sort_entries.py [--rows 25000] [--entries 40] [--repeats 5]

Prints nanoseconds per entry for the runs by row and by column, the least of the
repeats, for several numbers of columns.
"""

import argparse
import json
from time import perf_counter

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.backends.entry_runs import runs_of_columns, runs_of_rows


def rows_of(n_rows, n_each, n_columns):
    """Return a CSR of ``n_rows`` rows with ``n_each`` entries each."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, n_columns, (n_rows, n_each), np.int32)
    indices.sort(axis=1)
    pointers = np.arange(0, n_rows * n_each + 1, n_each)
    values = np.ones(indices.size, np.float32)
    return CSR.of_pointers(pointers, indices.ravel(), values, n_columns)


def least_ns(make, x, repeats):
    """Return the least time per entry of some calls."""
    times_s = []
    for _ in range(repeats):
        began_s = perf_counter()
        make(x)
        times_s.append(perf_counter() - began_s)
    return round(1e9 * min(times_s) / x.n_entries, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--entries", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for n_columns in (1000, 65_536, 1_000_000):
        x = rows_of(args.rows, args.entries, n_columns)
        found = {
            "columns": n_columns,
            "by_row_ns": least_ns(runs_of_rows, x, args.repeats),
            "by_column_ns": least_ns(runs_of_columns, x, args.repeats),
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
