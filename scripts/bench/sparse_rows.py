"""Time training on sparse rows beside LIBLINEAR and Vowpal Wabbit.

    pip install -e '.[mpich,fast,test]' vowpalwabbit
    python scripts/bench/sparse_rows.py [--repeats 3] [--rows 100000] [--json]

A synthetic set: 100,000 x 20,000 with 40 entries a row, and a fifth as many rows held
out. One thread a side; all sides take turns, so that changes of the machine affect all.

* L-BFGS in float32 on one and on two ranks, and scikit-learn's LIBLINEAR (solver 0,
  L2, no intercept) at C = 1: seconds of training alone, and how far the objective, in
  float64, lies above LIBLINEAR's.
* An epoch of SGD with batches of 256 rows, from memory and from a mapped file, and a
  pass of Vowpal Wabbit from its cache; without vowpalwabbit, ours alone.
* The held-out loss after each epoch of AdaGrad with batches of 256 rows, and after as
  many passes of Vowpal Wabbit, both with their default learning rates.

Figures are medians over the rounds; a ratio is the median of those of each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

COLUMNS, ENTRIES = 20_000, 40
PASSES = 3
MPIRUN = Path(sys.executable).parent / "mpirun"
VW = "--loss_function logistic --holdout_off --quiet -b 18"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        name, folder = args.part
        return print(json.dumps(PARTS[name](Path(folder))))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_data(folder, args.rows)
        rounds = [one_round(folder) for _ in range(args.repeats)]
    found = {
        name: statistics.median(one[name] for one in rounds) for name in rounds[0]
    }
    print(json.dumps(found) if args.json else report(found))


def make_data(folder, n):
    """Write the rows as .npz with a CSR matrix, and for Vowpal Wabbit."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(COLUMNS)
    for name, n_rows in (("train", n), ("held", n // 5)):
        columns = rng.integers(0, COLUMNS, (n_rows, ENTRIES))
        columns.sort(axis=1)
        keep = np.ones(columns.shape, bool)
        keep[:, 1:] = columns[:, 1:] > columns[:, :-1]  # a column once a row
        values = rng.standard_normal(columns.shape).astype(np.float32)
        score = (values * truth[columns] * keep).sum(axis=1)
        y = (score + 3 * rng.logistic(size=n_rows) > 0).astype(np.int64)
        np.savez(
            folder / f"{name}.npz",
            indptr=np.concatenate(([0], np.cumsum(keep.sum(axis=1)))),
            indices=columns[keep].astype(np.int32),
            data=values[keep],
            shape=(n_rows, COLUMNS),
            format=b"csr",
            y=y,
        )
        with open(folder / f"{name}.vw", "w", encoding="ascii") as file:
            for label, row, numbers, there in zip(y, columns, values, keep):
                pairs = zip(row[there].tolist(), numbers[there].tolist())
                text = " ".join(f"{j}:{v:.7g}" for j, v in pairs)
                file.write(f"{2 * label - 1} | {text}\n")


def one_round(folder):
    found = launch(1, "liblinear", folder)
    best = objective(folder, "liblinear")
    for n_ranks in (1, 2):
        found[f"lbfgs_{n_ranks}_s"] = launch(n_ranks, "lbfgs", folder)["lbfgs_s"]
        excess = objective(folder, "lbfgs") / best - 1
        found[f"lbfgs_{n_ranks}_excess"] = excess
    for name in ("memory", "mapped", "adagrad"):
        found |= launch(1, name, folder)
    for n_ranks in (1, 2):
        ours = found[f"lbfgs_{n_ranks}_s"]
        found[f"lbfgs_{n_ranks}_ratio"] = ours / found["liblinear_s"]
    if has_vw():
        found |= launch(1, "vw", folder)
        for name in ("memory", "mapped"):
            found[f"sgd_{name}_ratio"] = found[f"sgd_{name}_s"] / found["vw_pass_s"]
    return found


def launch(n_ranks, name, folder):
    argv = [sys.executable, __file__, "--part", name, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [MPIRUN, "-n", str(n_ranks), *argv],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def objective(folder, name):
    """Return LIBLINEAR's objective at C = 1 of some saved weights, in float64."""
    x, y = scipy_rows(folder, "train")
    w = np.load(folder / f"{name}.npy").astype(np.float64)
    margins = np.where(y == 1, 1, -1) * (x @ w)
    return float(np.logaddexp(0, -margins).sum() + 0.5 * w @ w)


def scipy_rows(folder, name):
    from scipy import sparse

    return sparse.load_npz(folder / f"{name}.npz"), np.load(folder / f"{name}.npz")["y"]


def liblinear(folder):
    from sklearn.linear_model import LogisticRegression

    x, y = scipy_rows(folder, "train")
    x = x.astype(np.float64)
    warnings.simplefilter("ignore")  # the name of an argument is deprecated
    model = LogisticRegression(solver="liblinear", C=1.0, fit_intercept=False)
    began_s = time.perf_counter()
    model.fit(x, y)
    seconds = time.perf_counter() - began_s
    np.save(folder / "liblinear.npy", model.coef_[0])
    return {"liblinear_s": seconds}


def rows(folder, name="train", mapped=False):
    import pympi_train as pt
    from pympi_train.data.loading import finish

    if mapped:
        finish.RESIDENT_BYTES = 0
    return pt.load(folder / f"{name}.npz", sparse=True).train


def lbfgs(folder):
    import pympi_train as pt

    data = rows(folder)
    for epochs in (1, 300):  # the first compiles or loads the loops
        began_s = time.perf_counter()
        with pt.Trainer(
            pt.Logistic(COLUMNS, intercept=False),
            pt.LBFGS(tolerance=3e-6),
            l2=1 / data.n,
            backend="numba",
        ) as trainer:
            trainer.fit(data, epochs=epochs)
            seconds = time.perf_counter() - began_s
            weights = trainer.params[:COLUMNS].copy()
    np.save(folder / "lbfgs.npy", weights)
    return {"lbfgs_s": seconds}


def sgd_epoch(folder, name):
    import pympi_train as pt

    data = rows(folder, mapped=name == "mapped")
    with pt.Trainer(
        pt.Logistic(COLUMNS), pt.SGD(0.5), batch_size=256, backend="numba"
    ) as trainer:
        records = trainer.fit(data, epochs=1 + 2 * PASSES)
    seconds = statistics.median(record["wall_s"] for record in records[1:])
    return {f"sgd_{name}_s": seconds}


def adagrad(folder):
    import pympi_train as pt

    train, held = rows(folder), rows(folder, "held")
    with pt.Trainer(
        pt.Logistic(COLUMNS), pt.AdaGrad(), batch_size=256, backend="numba"
    ) as trainer:
        records = trainer.fit(train, held, epochs=PASSES)
    losses = [record["validation_loss"] for record in records]
    return {f"adagrad_loss_{i}": loss for i, loss in enumerate(losses, 1)}


def has_vw():
    try:
        import vowpalwabbit  # noqa: F401
    except ImportError:
        return False
    return True


def vw(folder):
    found = {}
    source, cache = folder / "train.vw", folder / "train.cache"
    x, y = scipy_rows(folder, "held")
    run_vw(f"{VW} -d {source} --cache_file {cache}")
    found["vw_pass_s"] = run_vw(f"{VW} -d {source} --cache_file {cache}")
    for passes in range(1, PASSES + 1):
        model, raw = folder / "model", folder / "raw"
        how = f"--passes {passes} -f {model}"
        run_vw(f"{VW} -d {source} --cache_file {cache} {how}")
        run_vw(f"--quiet -t -i {model} -d {folder / 'held.vw'} -r {raw}")
        scores = np.array([float(line.split()[0]) for line in open(raw)])
        margins = np.where(y == 1, 1, -1) * scores
        found[f"vw_loss_{passes}"] = float(np.logaddexp(0, -margins).mean())
    return found


def run_vw(arguments):
    """Return the seconds of a run of Vowpal Wabbit over its data."""
    from vowpalwabbit import Workspace

    began_s = time.perf_counter()
    workspace = Workspace(arguments)  # reads the data
    seconds = time.perf_counter() - began_s
    workspace.finish()
    return seconds


PARTS = {
    "liblinear": liblinear,
    "lbfgs": lbfgs,
    "memory": lambda folder: sgd_epoch(folder, "memory"),
    "mapped": lambda folder: sgd_epoch(folder, "mapped"),
    "adagrad": adagrad,
    "vw": vw,
}


def report(found):
    theirs = found["liblinear_s"]
    lines = [f"LIBLINEAR solver 0, C = 1        {theirs:7.2f} s"]
    for n_ranks in (1, 2):
        ours = found[f"lbfgs_{n_ranks}_s"]
        excess = found[f"lbfgs_{n_ranks}_excess"]
        ranks = f"{n_ranks} rank{'s' if n_ranks > 1 else ''}"
        lines.append(
            f"L-BFGS, float32, {ranks:15} {ours:7.2f} s  "
            f"{found[f'lbfgs_{n_ranks}_ratio']:.2f} of LIBLINEAR, "
            f"objective {excess:+.1e}"
        )
    a_pass = found.get("vw_pass_s")
    if a_pass:
        lines.append(f"Vowpal Wabbit, a pass of its cache {a_pass:5.3f} s")
    for name in ("memory", "mapped"):
        ours = found[f"sgd_{name}_s"]
        ratio = ""
        if a_pass:
            ratio = f"  {found[f'sgd_{name}_ratio']:.2f} of Vowpal Wabbit"
        lines.append(f"SGD, an epoch, {name:17} {ours:7.3f} s{ratio}")
    for i in range(1, PASSES + 1):
        other = found.get(f"vw_loss_{i}")
        beside = f", Vowpal Wabbit {other:.4f}" if other else ""
        loss = found[f"adagrad_loss_{i}"]
        lines.append(f"held-out loss, epoch {i}: AdaGrad {loss:.4f}{beside}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
