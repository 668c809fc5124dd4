#!/usr/bin/env python3
"""The same search by this package, a shell loop, scikit-learn and Optuna.

    scripts/bench/search.py [--rows 100000] [--features 50] [--ranks 2] [--repeats 3]

Logistic regression by SGD: 9 learning rates x 5 folds, 5 epochs. The ways take turns;
the table has medians of seconds by the clock from the start of the program to its end,
the best rate, its mean loss, and the lines that a user writes (those between the marks
in this file). The folds of this package are its own; the others' are contiguous fifths
of the rows, which are in random order.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONFIG = """
[data]
train = "rows.npz"
[model]
kind = "logistic"
[optimizer]
name = "sgd"
[train]
epochs = 5
batch_size = 256
backend = "numpy"
"""
LANES = """
mpirun -n {ranks} {program} search c.toml --folds 5 \
--param optimizer.learning_rate=log:1e-3..1:9 --set output.directory={out}
"""
POOL = """
mpirun -n {ranks} {program} search c.toml --folds 5 --lanes off \
--param optimizer.learning_rate=log:1e-3..1:9 --set output.directory={out}
"""
SHELL = """
for rate in 0.001 0.002371 0.005623 0.01334 0.03162 0.07499 0.1778 0.4217 1.0
do
    for fold in 0 1 2 3 4
    do
        mpirun -n {ranks} {program} train c.toml --set optimizer.learning_rate=$rate \
data.validation=0.2 data.fold=$fold output.directory={out}/$rate/$fold >/dev/null
    done
done
{python} -c '
import json, pathlib, statistics
found = {{}}
for path in pathlib.Path("{out}").glob("*/*/result.json"):
    loss = json.loads(path.read_text())["validation"]["loss"]
    found.setdefault(float(path.parts[-3]), []).append(loss)
best = min(found, key=lambda rate: statistics.mean(found[rate]))
print(best, statistics.mean(found[best]))'
"""
SKLEARN = """
import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV
file = np.load("rows.npz")
model = SGDClassifier(
    loss="log_loss", penalty=None, learning_rate="constant", max_iter=5, tol=None
)
rates = {{"eta0": np.geomspace(1e-3, 1, 9)}}
search = GridSearchCV(
    model, rates, scoring="neg_log_loss", cv=5, n_jobs={ranks}, refit=False
)
search.fit(file["x"], file["y"])
print(search.best_params_["eta0"], -search.best_score_)
"""
OPTUNA = """
import sys
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import cross_val_score
file = np.load("rows.npz")
def objective(trial):
    model = SGDClassifier(
        loss="log_loss", penalty=None, learning_rate="constant", max_iter=5, tol=None,
        eta0=trial.suggest_categorical("eta0", RATES),
    )
    return -cross_val_score(
        model, file["x"], file["y"], scoring="neg_log_loss", cv=5
    ).mean()
RATES = np.geomspace(1e-3, 1, 9).tolist()
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(
    storage=JournalStorage(JournalFileBackend("{out}.log")), study_name="rates",
    load_if_exists=True, sampler=optuna.samplers.GridSampler({{"eta0": RATES}}),
)
study.optimize(objective)
if sys.argv[1] == "0":
    print(study.best_params["eta0"], study.best_value)
"""
WAYS = {
    "search, lanes": ("sh", LANES),
    "search, pool": ("sh", POOL),
    "shell loop": ("sh", SHELL),
    "GridSearchCV": ("python", SKLEARN),
    "Optuna, processes": ("optuna", OPTUNA),
}


def main():
    """Search in all ways, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = Path(tempfile.mkdtemp())
    write_rows(folder, args.rows, args.features)
    seconds, best = {way: [] for way in args.ways}, {}
    for number in range(args.repeats):
        for way in args.ways:
            began_s = time.perf_counter()
            best[way] = searched(folder, way, number, args.ranks)
            seconds[way].append(time.perf_counter() - began_s)
    first_s = statistics.median(seconds[args.ways[0]])
    for way in args.ways:
        median_s = statistics.median(seconds[way])
        lines = len(WAYS[way][1].strip().splitlines())
        lines += len(CONFIG.strip().splitlines()) if "train c" in WAYS[way][1] else 0
        lines += len(CONFIG.strip().splitlines()) if "search c" in WAYS[way][1] else 0
        rate, loss = best[way]
        ratio = median_s / first_s
        print(
            f"{way:18} {median_s:8.2f} s {ratio:6.1f} x  rate {rate:.3g}, loss "
            f"{loss:.5f}, {lines} lines",
            flush=True,
        )


def write_rows(folder, n, d):
    """Write rows of two overlapping classes, and the configuration."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), dtype=np.float32)
    score = x @ rng.standard_normal(d) / np.sqrt(d) + rng.logistic(size=n)
    np.savez(folder / "rows.npz", x=x, y=(score > 0).astype(int))
    (folder / "c.toml").write_text(CONFIG)


def searched(folder, way, number, n_ranks):
    """Search in one way; return the best rate and its mean loss."""
    kind, text = WAYS[way]
    out = f"out-{way.split()[-1]}-{number}"
    program = f"{sys.executable} -m pympi_train"
    told = {"ranks": n_ranks, "program": program, "out": out}
    text = text.format(**told, python=sys.executable)
    argv = ["sh", "-c", text] if kind == "sh" else [sys.executable, "-c", text]
    if kind == "optuna":
        many = [started([*argv, str(i)], folder) for i in range(n_ranks)]
        printed = [process.communicate()[0] for process in many][0]
    else:
        printed = started(argv, folder).communicate()[0]
    if "search" in way:
        best = json.loads((folder / out / "search.json").read_text())["best"]
        return best["parameters"]["optimizer.learning_rate"], best["mean"]
    return tuple(map(float, printed.split()[-2:]))


def started(argv, folder):
    return subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
