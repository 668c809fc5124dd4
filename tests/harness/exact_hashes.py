"""Print what short trainings end with, as JSON: run on different numbers of ranks.

    mpirun -n 3 python exact_hashes.py FOLDER exact fast

Under each reduction, for each case: the SHA-256 of the weights and the last losses
and metrics, with every bit.
"""

import json
import sys
from pathlib import Path

import numpy as np

import pympi_train as pt
from pympi_train.comm.mesh import world
from pympi_train.config.config import parse
from pympi_train.data.epoch import EpochPlan
from pympi_train.data.partition import bounds
from pympi_train.runs import job
from pympi_train.runs.output import weights_sha256

# Odd widths; batches of 13 rows of 150 leave groups without one.
N, N_TRAIN, D, C, BATCH, EPOCHS = 203, 150, 37, 5, 13, 3
MODELS = {"softmax": lambda: pt.Softmax(D, C), "mlp": lambda: pt.MLP(D, [33, 17], C)}
OPTIMIZERS = {
    "adam": lambda: pt.Adam(0.01),
    "sgd": lambda: pt.SGD(0.05, momentum=0.9),
    "gd": lambda: pt.GD(0.1),
}
JOB = """
[data]
train = "{folder}/rows.csv"
target = "label"
validation = 0.25
standardize = true
[model]
kind = "mlp"
hidden = [16]
class_weights = "balanced"
[optimizer]
name = "adam"
learning_rate = 0.02
clip_norm = 0.5
[train]
epochs = 30
batch_size = 20
patience = 2
[parallel]
reduction = "{reduction}"
[output]
directory = "{folder}/run"
"""
REGRESSION_JOB = """
[data]
train = "{folder}/rows.csv"
target = ["a0", "label"]
validation = 0.2
standardize = true
[model]
kind = "linear"
[optimizer]
name = "lbfgs"
[train]
epochs = 3
[parallel]
reduction = "{reduction}"
[output]
directory = "{folder}/run"
"""


def make_rows():
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal((N, D)).astype(np.float32)
    noise = rng.standard_normal((N, C))
    return x, (x[:, :C] + noise).argmax(axis=1), rng.random(N).astype(np.float32)


def require_a_group_without_a_row(n_groups=8):
    cuts = bounds(N_TRAIN, n_groups)
    for epoch in range(EPOCHS):
        plan = EpochPlan(N_TRAIN, 0, epoch, 0, N_TRAIN, BATCH)
        groups = [np.searchsorted(cuts, plan.batch(b), "right") for b in range(12)]
        if min(len(np.unique(of_batch)) for of_batch in groups) < n_groups:
            return
    raise AssertionError("every group has a row in every batch: not what is tested")


def train(comm, model, optimizer, reduction):
    x, y, weights = make_rows()
    train, held = slice(0, N_TRAIN), slice(N_TRAIN, N)
    parallel = pt.Parallel(reduction=reduction)
    kwargs = {"batch_size": BATCH, "micro_batch_size": 3, "l2": 0.01}
    data = pt.Dataset.split(x[train], y[train], weights=weights[train], comm=comm)
    other = pt.Dataset.split(x[held], y[held], comm=comm)
    with pt.Trainer(
        model(), optimizer(), comm=comm, clip_norm=0.5, parallel=parallel, **kwargs
    ) as trainer:
        record = trainer.fit(data, other, epochs=EPOCHS)[-1]
        kept = ("train_loss", "validation_loss", "accuracy")
        digest = weights_sha256(trainer.weights().values())
        return [digest, *(record[key] for key in kept)]


def write_csv(path, x, y):
    names = [f"a{column}" for column in range(D)] + ["label"]
    rows = [[*map(str, row), str(label)] for row, label in zip((x + 1e3).tolist(), y)]
    path.write_text("\n".join(map(",".join, [names, *rows])) + "\n")


def run_job(comm, text, folder, reduction):
    config = parse(text.format(folder=folder, reduction=reduction))
    result = job.train(config, comm)
    kept = ("weights_sha256", "train_loss", "kept_epoch", "validation", "ended")
    return [result[key] for key in kept]


def main(folder, reductions):
    comm = world()
    require_a_group_without_a_row()
    if comm.rank == 0:
        write_csv(folder / "rows.csv", *make_rows()[:2])
    comm.Barrier()
    found = {}
    for reduction in reductions:
        found[reduction] = cases = {}
        for m, model in MODELS.items():
            for o, optimizer in OPTIMIZERS.items():
                cases[f"{m} {o}"] = train(comm, model, optimizer, reduction)
        cases["job"] = run_job(comm, JOB, folder, reduction)
        cases["regression"] = run_job(comm, REGRESSION_JOB, folder, reduction)
    if comm.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
