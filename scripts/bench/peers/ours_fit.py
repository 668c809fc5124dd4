"""The questions of ``fits.py``, answered by this package: on the ranks that run it."""

import json
import statistics
import sys
import time
from pathlib import Path

import rows

import pympi_train as pt


def main(name, held, folder, limit, target):
    x, y = rows.load(folder, name)
    data = read(folder, name)
    n_features = x.shape[1]

    def solve(tolerance, epochs=300):
        began_s = time.perf_counter()
        with pt.Trainer(
            pt.Logistic(n_features, intercept=False),
            pt.LBFGS(tolerance=tolerance),
            l2=1 / data.n,
        ) as trainer:
            trainer.fit(data, epochs=epochs)
            seconds = time.perf_counter() - began_s
            return seconds, trainer.params[:n_features].copy()

    solve(1.0, epochs=1)  # compiles or loads the loops
    found = {"solve": rows.solved(solve, x, y, limit)}
    with pt.Trainer(pt.Logistic(n_features), pt.SGD(0.5), batch_size=256) as trainer:
        records = trainer.fit(data, epochs=6)
    seconds = [record["wall_s"] for record in records[1:]]
    found["epoch"] = {"s": statistics.median(seconds)}
    with pt.Trainer(pt.Logistic(n_features), pt.AdaGrad(), batch_size=256) as trainer:
        records = trainer.fit(data, read(folder, held), epochs=10, target=target)
    spent_s = sum(record["wall_s"] for record in records)
    loss = records[-1]["validation_loss"]
    found["score"] = {"s": spent_s if loss <= target else None, "epochs": len(records)}
    if trainer.comm.rank == 0:
        print(json.dumps(found), flush=True)


def read(folder, name):
    """Return this rank's rows."""
    path = folder / f"{name}.npz"
    if name.startswith("dense"):
        return pt.load(path, features="X", target="y").train
    return pt.load(path, sparse=True).train


if __name__ == "__main__":
    name, held, folder, limit, target = sys.argv[1:]
    main(name, held, Path(folder), float(limit), float(target))
