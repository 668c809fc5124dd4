"""Log the rows that trainings visit, and check that each epoch visits each row once.

    python visits.py make FOLDER --rows N
    mpirun -n P python visits.py train FOLDER --rows N --epochs E [--batch-size B]
    python visits.py check FOLDER --rows N --epochs E

``train`` runs every case: rows in memory and mapped, orders "full" and "window", fast
and exact sums, and a training that stops and goes on in the middle of an epoch. The
first feature of row i is i. The model logs that number, not what the loader says of a
batch, so the check knows nothing of the loader. Each rank writes a file an epoch of raw
int64. ``check`` counts them, and prints JSON: visits, logs, and problems.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path

import numpy as np

CHUNK_ROWS = 1 << 20
MEMORY = ("in-memory", "mapped")
ORDERS = {
    "full": {"order": "full"},
    "window": {"order": "window"},
    "short": {"order": "window", "order_shards": 64, "order_window": 31},
}
WAYS = ("fast", "exact")
RESUMED = [("in-memory", "full", "resumed"), ("mapped", "short", "resumed")]


def cases():
    """Return (memory, order, way) of each training."""
    return [*product(MEMORY, ORDERS, WAYS), *RESUMED]


def make(folder, n):
    """Write the features (i, 1) of rows i < n, and their targets."""
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", "f8", (n, 2))
    for start in range(0, n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, n)
        x[start:stop] = 1
        x[start:stop, 0] = np.arange(start, stop)
    np.save(folder / "y.npy", np.zeros(n, "f4"))


def train(folder, n_epochs, batch_size):
    """Run and log all cases. Collective."""
    from mpi4py import MPI

    import pympi_train as pt

    comm = MPI.COMM_WORLD

    class Logging(pt.Linear):
        """Logs the first feature of every row whose loss it computes."""

        def loss(self, params, batch):
            self.log.write(batch.x[:, 0].astype(np.int64).tobytes())
            return super().loss(params, batch)

    for memory, order, way in cases():
        name = f"{comm.size}-{memory}-{order}-{way}"
        exact = pt.Parallel(reduction="exact", virtual_shards=8, timeout_s=0)
        parallel = exact if way == "exact" else pt.Parallel(timeout_s=0)
        data = pt.load(
            folder / "x.npy",
            target="y.npy",
            task="regression",
            dtype="float64",
            memory=memory,
            virtual_shards=8 if way == "exact" else None,
            comm=comm,
            **ORDERS[order],
        ).train
        with pt.Trainer(
            Logging(2, dtype="float64"),
            pt.SGD(1e-30),
            batch_size=batch_size,
            backend="numpy",
            parallel=parallel,
            comm=comm,
        ) as trainer:
            for epoch in range(n_epochs):
                path = folder / f"{name}.{epoch}.{comm.rank}.i64"
                with open(path, "wb") as trainer.model.log:
                    fit(trainer, data, stops=way == "resumed")


def fit(trainer, data, stops):
    """Train an epoch; if it ``stops``, after every third of it. Collective."""

    def on_step(epoch, done, total):
        if stops and done in (total // 3, 2 * total // 3):
            trainer.request_stop()

    epoch = trainer.epoch
    while trainer.epoch == epoch:
        trainer.fit(data, epochs=1, on_step=on_step)


def check(folder, n, n_epochs):
    """Return the number of visits in the logs, and what is wrong with them."""
    logs: dict = {}
    for path in folder.glob("*.i64"):
        name, epoch, rank, _ = path.name.split(".")
        logs.setdefault((name, int(epoch)), []).append(path)
    n_visits, problems = 0, []
    for (name, epoch), paths in sorted(logs.items()):
        where, counts = f"{name}, epoch {epoch}", np.zeros(n, np.int64)
        if len(paths) != int(name.partition("-")[0]) or epoch >= n_epochs:
            problems.append(f"{where}: {len(paths)} logs")
        for path in paths:
            with open(path, "rb") as file:
                while len(rows := np.fromfile(file, np.int64, CHUNK_ROWS)):
                    n_visits += len(rows)
                    if rows.min() < 0 or rows.max() >= n:
                        problems.append(f"{where}: a row beyond 0 ... {n - 1}")
                        break
                    counts += np.bincount(rows, minlength=n)
        wrong = np.flatnonzero(counts != 1)
        if len(wrong):
            problems.append(
                f"{where}: {len(wrong)} rows not visited once; row {wrong[0]} "
                f"{counts[wrong[0]]} times"
            )
    return {"visits": n_visits, "logs": len(logs), "problems": problems}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "train", "check"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=256)
    args = parser.parse_args(argv)
    if args.what == "make":
        make(args.folder, args.rows)
    elif args.what == "train":
        train(args.folder, args.epochs, args.batch_size)
    else:
        found = check(args.folder, args.rows, args.epochs)
        print(json.dumps(found))
        return bool(found["problems"])


if __name__ == "__main__":
    sys.exit(main())
