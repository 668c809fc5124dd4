"""Times lanes against one training, scikit-learn's GridSearchCV and its L-BFGS.

    OMP_NUM_THREADS=1 python scripts/bench/lanes.py [--quick]
    OMP_NUM_THREADS=1 mpirun -n 2 python scripts/bench/lanes.py --peers

The second command gives lanes as many processes as scikit-learn (n_jobs=2). While that
runs on rank 0, the other ranks sleep.

The sides of a line run in turn; the numbers are medians of the repeats. One training
and lanes are compared by CPU seconds, as both run in one thread; scikit-learn starts
processes, and is compared by the clock.
"""

import argparse
import statistics
import time
import warnings

import numpy as np
from mpi4py import MPI

import pympi_train as pt
from pympi_train.data.order import fold_numbers
from pympi_train.lanes.folds import rows_of_fold
from pympi_train.lanes.lane import Lane
from pympi_train.lanes.train import train_lanes

N, D, FOLDS, EPOCHS = 100_000, 50, 5, 5
RATES = np.geomspace(1e-3, 1.0, 9).tolist()
COMM = MPI.COMM_WORLD
OWN = slice(*(N * (COMM.rank + i) // COMM.size for i in (0, 1)))  # this rank's rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="no scikit-learn")
    parser.add_argument("--peers", action="store_true", help="scikit-learn alone")
    parser.add_argument("--batches", default="256,1024,8192")
    asked = parser.parse_args()
    x, y = rows()
    folds = fold_numbers(N, FOLDS, 0, 0, N)
    for dtype in () if asked.peers else ("float32", "float64"):
        for batch_size in map(int, asked.batches.split(",")):
            against_one(x.astype(dtype), y.astype(dtype), folds, batch_size, asked)
    if not asked.quick:
        for batch_size in (256, 1024):
            against_grid_search(x, y, folds, batch_size, asked)
        against_logistic_cv(x, y, folds, asked)


def rows():
    """Return features and labels, 0 or 1, that no linear model separates."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D))
    logits = x @ rng.standard_normal(D) / np.sqrt(D) * 2
    return x, (rng.random(N) < 1 / (1 + np.exp(-logits))).astype(float)


def in_turn(calls, repeats, clock=time.perf_counter):
    """Return the median seconds of each call, made in turn, and the last results."""
    seconds, found = {name: [] for name in calls}, {}
    for _ in range(repeats):
        for name, call in calls.items():
            began_s = clock()
            found[name] = call()
            seconds[name].append(clock() - began_s)
    return {name: statistics.median(s) for name, s in seconds.items()}, found


def against_one(x, y, folds, batch_size, asked):
    """Time 9 rates x 5 folds, and one of these trainings by itself.

    Once with the batches of a lane, all rows with weights of 0, and once with the
    training rows alone. All run in this thread, so its CPU seconds are compared: other
    work on the machine then counts less.
    """
    data, out = pt.Dataset(x, y, comm=COMM), folds == 0
    plain = pt.Dataset(x[~out], y[~out], comm=COMM)
    train, held = rows_of_fold(data, folds, 0, COMM)
    dtype = x.dtype.name
    lanes = [Lane(rate, 0.0, fold) for rate in RATES for fold in range(FOLDS)]
    how = {"batch_size": batch_size, "comm": COMM}

    def one(rows):
        with pt.Trainer(pt.Logistic(D, dtype=dtype), pt.SGD(0.1), **how) as trainer:
            trainer.fit(rows, held, epochs=EPOCHS)

    def all_lanes():
        model = pt.Logistic(D, dtype=dtype)
        train_lanes(model, pt.SGD(1), lanes, data, folds=folds, epochs=EPOCHS, **how)

    one(train), all_lanes()  # compile
    calls = {
        "as a lane": lambda: one(train),
        "training rows": lambda: one(plain),
        "lanes": all_lanes,
    }
    seconds, _ = in_turn(calls, asked.repeats, time.process_time)
    ratios = [seconds["lanes"] / seconds[name] for name in list(calls)[:2]]
    print(
        f"{dtype}, batches of {batch_size}: one training {seconds['as a lane']:.3f} s, "
        f"of the training rows alone {seconds['training rows']:.3f} s, {len(lanes)} "
        f"lanes {seconds['lanes']:.3f} s: ratios {ratios[0]:.2f}, {ratios[1]:.2f}",
        flush=True,
    )


def splits(folds):
    """Return the folds as scikit-learn takes them."""
    places = np.arange(len(folds))
    return [(places[folds != f], places[folds == f]) for f in range(FOLDS)]


def against_grid_search(x, y, folds, batch_size, asked):
    """Time lanes and GridSearchCV(SGDClassifier) over the same rates and folds."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import GridSearchCV

    x = x.astype("float32")
    data = pt.Dataset(x[OWN], y.astype("float32")[OWN], comm=COMM)
    lanes = [Lane(rate, 0.0, fold) for rate in RATES for fold in range(FOLDS)]

    def grid():
        model = SGDClassifier(
            loss="log_loss",
            penalty=None,
            learning_rate="constant",
            max_iter=EPOCHS,
            tol=None,
            random_state=0,
        )
        search = GridSearchCV(
            model, {"eta0": RATES}, cv=splits(folds), n_jobs=2, refit=False
        )
        return search.fit(x, y).best_score_

    def all_lanes():
        results = train_lanes(
            pt.Logistic(D),
            pt.SGD(1),
            lanes,
            data,
            folds=folds[OWN],
            epochs=EPOCHS,
            batch_size=batch_size,
            comm=COMM,
        )
        scores = [r.records[-1]["accuracy"] for r in results]
        return max(np.reshape(scores, (len(RATES), FOLDS)).mean(axis=1))

    name = f"GridSearchCV(SGDClassifier), lanes with batches of {batch_size}"
    told(name, grid, all_lanes, min(asked.repeats, 3))


def against_logistic_cv(x, y, folds, asked):
    """Time lanes of l2 by L-BFGS and LogisticRegressionCV over the same grid."""
    from sklearn.linear_model import LogisticRegressionCV

    strengths = np.geomspace(1e-4, 1e4, 10)
    n_train = N * (FOLDS - 1) // FOLDS
    data = pt.Dataset(x[OWN], y[OWN], comm=COMM)
    lanes = [
        Lane(None, 1 / (c * n_train), fold) for c in strengths for fold in range(FOLDS)
    ]

    def cross():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegressionCV(
                Cs=strengths,
                cv=splits(folds),
                solver="lbfgs",
                tol=1e-4,
                max_iter=100,
                n_jobs=2,
                refit=False,
                scoring="accuracy",
            ).fit(x, y)
        scores = np.asarray(model.scores_[1] if isinstance(model.scores_, dict)
                            else model.scores_)
        return scores.reshape(FOLDS, len(strengths)).mean(axis=0).max()

    def all_lanes():
        results = train_lanes(
            pt.Logistic(D, dtype="float64"),
            pt.LBFGS(tolerance=1e-4),
            lanes,
            data,
            folds=folds[OWN],
            epochs=100,
            comm=COMM,
        )
        scores = [r.records[-1]["accuracy"] for r in results]
        return max(np.reshape(scores, (len(strengths), FOLDS)).mean(axis=1))

    told("LogisticRegressionCV", cross, all_lanes, min(asked.repeats, 3))


def on_rank_0(call):
    """Return what ``call`` returns on rank 0; the other ranks sleep meanwhile."""
    found = call() if COMM.rank == 0 else None
    done = COMM.Ibarrier()
    while not done.Test():
        time.sleep(0.01)
    return found


def told(name, theirs, ours, repeats):
    """Time both in turn and print them, with the best scores."""
    ours()  # compile
    calls = {"theirs": lambda: on_rank_0(theirs), "ours": ours}
    seconds, found = in_turn(calls, repeats)
    if COMM.rank:
        return
    ranks = f" on {COMM.size} ranks" if COMM.size > 1 else ""
    print(
        f"{name}: {seconds['theirs']:.2f} s, best score {found['theirs']:.4f}; lanes"
        f"{ranks} {seconds['ours']:.2f} s, {found['ours']:.4f}; ratio "
        f"{seconds['theirs'] / seconds['ours']:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
