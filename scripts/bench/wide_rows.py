"""Time steps on sparse rows by touched columns beside dense steps, for wide models.

    pip install -e '.[mpich,fast]'
    python scripts/bench/wide_rows.py [--columns 1000000,10000000] [--cpu]
    mpirun -n 2 python scripts/bench/wide_rows.py

Logistic regression of 50,000 rows with 40 entries in uniformly random columns; AdaGrad
and SGD, float32, global batches of 256 rows. The seconds of an epoch are those of the
second; the forms of a step take turns. With --cpu, they are seconds of the processor.
Bytes are those that a rank sends in an epoch.
"""

import argparse
import time

import numpy as np

import pympi_train as pt
from pympi_train.backends.csr import CSR
from pympi_train.parallel.lazy import touched

ROWS, ENTRIES = 50_000, 40


def main():
    from mpi4py import MPI

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", default="1000000,10000000")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    comm = MPI.COMM_WORLD
    clock = time.process_time if args.cpu else time.perf_counter
    for n_columns in map(int, args.columns.split(",")):
        data = random_rows(n_columns, comm)
        for make in (pt.SGD, pt.AdaGrad):
            found = [measure(data, make(0.1), least, clock) for least in (0, 2**60)]
            (own_s, own_bytes), (dense_s, dense_bytes) = found
            if comm.rank == 0:
                print(
                    f"{n_columns:>11,} columns, {make.__name__:8} by column "
                    f"{own_s:6.2f} s, dense {dense_s:6.2f} s: {own_s / dense_s:.2f}"
                    + f"; {own_bytes / 1e6:,.1f} and {dense_bytes / 1e6:,.1f} MB sent"
                )


def random_rows(n_columns, comm):
    rng = np.random.default_rng(comm.rank)
    k = ROWS // comm.size
    indices = np.sort(rng.integers(0, n_columns, (k, ENTRIES)), axis=1).ravel()
    pointers = np.arange(0, k * ENTRIES + 1, ENTRIES)
    values = rng.standard_normal(k * ENTRIES).astype(np.float32)
    made_of = pointers, indices.astype(np.int32), values, n_columns
    return pt.SparseDataset(CSR.of_pointers(*made_of), rng.integers(0, 2, k), comm=comm)


def measure(data, optimizer, least_bytes, clock):
    """Return seconds and sent bytes of an epoch; ``least_bytes`` decides the form."""
    touched.LEAST_BYTES = least_bytes
    times = []
    parallel = pt.Parallel(strategy="allreduce", overlap="off")
    how = {"batch_size": 256, "backend": "numba", "parallel": parallel}
    with pt.Trainer(pt.Logistic(data.x.shape[1]), optimizer, **how) as trainer:
        records = trainer.fit(
            data, epochs=2, on_epoch=lambda record: times.append(clock())
        )
    return times[1] - times[0], records[-1]["sent_bytes"]


if __name__ == "__main__":
    main()
