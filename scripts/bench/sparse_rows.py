"""Time training on sparse rows beside LIBLINEAR and Vowpal Wabbit.

    pip install -e '.[mpich,fast,test]' vowpalwabbit
    python scripts/bench/sparse_rows.py [--repeats 3] [--rows 100000] [--cpu] [--json]

Synthetic sets: "wide", 100,000 x 20,000 with 40 entries a row, with a fifth as many
rows held out; and "ones", 32,561 x 123 with 14 ones a row, as in LIBLINEAR's a9a. One
thread a side; all sides take turns, so that changes of the machine affect all. With
--cpu, figures are seconds of a rank's processor, for a machine that others use too.

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
import importlib.util
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

WIDTHS = {"wide": 20_000, "ones": 123}
TOLERANCES = {"wide": 3e-6, "ones": 3e-5}  # of L-BFGS: within 1e-5 of LIBLINEAR
PASSES = 3
MPIRUN = Path(sys.executable).parent / "mpirun"
CPU = "SPARSE_ROWS_CPU"  # environment variable of the parts
SIZES = (5, 8, 5, 16, 5, 7, 14, 6, 5, 2, 2, 2, 5, 41)  # categories of a column of a9a
VW = "--loss_function logistic --holdout_off --quiet -b 18"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        (part, name), folder = args.part[0].split(), args.part[1]
        found = PARTS[part](Path(folder), name)
        return print(json.dumps(found)) if is_first() else None
    if args.cpu:
        os.environ[CPU] = "1"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_data(folder, args.rows)
        rounds = [one_round(folder) for _ in range(args.repeats)]
    found = {
        name: statistics.median(one[name] for one in rounds) for name in rounds[0]
    }
    print(json.dumps(found) if args.json else report(found))


def make_data(folder, n):
    """Write both sets as .npz with a CSR matrix, the wide one for Vowpal Wabbit too."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(WIDTHS["wide"])
    for name, n_rows in (("wide", n), ("held", n // 5)):
        columns = np.sort(rng.integers(0, len(truth), (n_rows, 40)), axis=1)
        keep = np.ones(columns.shape, bool)
        keep[:, 1:] = columns[:, 1:] > columns[:, :-1]  # a column once a row
        values = rng.standard_normal(columns.shape).astype(np.float32)
        score = (values * truth[columns] * keep).sum(axis=1)
        y = score + 3 * rng.logistic(size=n_rows) > 0
        save(folder / f"{name}.npz", columns, values, keep, y, len(truth))
        with open(folder / f"{name}.vw", "w", encoding="ascii") as file:
            for label, row, numbers, there in zip(y, columns, values, keep):
                pairs = zip(row[there].tolist(), numbers[there].tolist())
                text = " ".join(f"{j}:{v:.7g}" for j, v in pairs)
                file.write(f"{2 * int(label) - 1} | {text}\n")
    n_rows, starts = 32_561, np.cumsum([0, *SIZES])
    kinds = [np.minimum(rng.geometric(min(0.9, 2.5 / s), n_rows), s) for s in SIZES]
    columns = np.stack(kinds, axis=1) - 1 + starts[:-1]
    score = rng.standard_normal(starts[-1])[columns].sum(axis=1)
    y = score + rng.logistic(size=n_rows) > np.quantile(score, 0.76)
    ones = np.ones(columns.shape, np.float32)
    save(folder / "ones.npz", columns, ones, ones > 0, y, starts[-1])


def save(path, columns, values, keep, y, width):
    np.savez(
        path,
        indptr=np.concatenate(([0], np.cumsum(keep.sum(axis=1)))),
        indices=columns[keep].astype(np.int32),
        data=values[keep],
        shape=(len(y), width),
        format=b"csr",
        y=y.astype(np.int64),
    )


def one_round(folder):
    found = {}
    for name in TOLERANCES:
        theirs = launch(1, f"liblinear {name}", folder)
        best = objective(folder, "liblinear", name)
        found[f"liblinear_{name}_s"] = theirs
        for n_ranks in (1, 2):
            ours = launch(n_ranks, f"lbfgs {name}", folder)
            excess = objective(folder, "lbfgs", name) / best - 1
            found[f"lbfgs_{name}_{n_ranks}_s"] = ours
            found[f"lbfgs_{name}_{n_ranks}_ratio"] = ours / theirs
            found[f"lbfgs_{name}_{n_ranks}_excess"] = excess
    for name in ("memory", "mapped"):
        found[f"sgd_{name}_s"] = launch(1, f"sgd {name}", folder)
    found |= launch(1, "adagrad held", folder)
    if has_vw():
        found |= launch(1, "vw wide", folder)
        for name in ("memory", "mapped"):
            found[f"sgd_{name}_ratio"] = found[f"sgd_{name}_s"] / found["vw_pass_s"]
    return found


def launch(n_ranks, part, folder):
    """Return what a part printed, on so many ranks."""
    argv = [sys.executable, __file__, "--part", part, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [MPIRUN, "-n", str(n_ranks), *argv],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def is_first():
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank == 0


def now_s():
    return time.process_time() if CPU in os.environ else time.perf_counter()


def objective(folder, who, name):
    """Return LIBLINEAR's objective at C = 1 of some saved weights, in float64."""
    x, y = scipy_rows(folder, name)
    w = np.load(folder / f"{who}.npy").astype(np.float64)
    margins = np.where(y == 1, 1, -1) * (x @ w)
    return float(np.logaddexp(0, -margins).sum() + 0.5 * w @ w)


def scipy_rows(folder, name):
    from scipy import sparse

    return sparse.load_npz(folder / f"{name}.npz"), np.load(folder / f"{name}.npz")["y"]


def liblinear(folder, name):
    from sklearn.linear_model import LogisticRegression

    x, y = scipy_rows(folder, name)
    x = x.astype(np.float64)
    warnings.simplefilter("ignore")  # the name of an argument is deprecated
    model = LogisticRegression(solver="liblinear", C=1.0, fit_intercept=False)
    began_s = now_s()
    model.fit(x, y)
    seconds = now_s() - began_s
    np.save(folder / "liblinear.npy", model.coef_[0])
    return seconds


def rows(folder, name, mapped=False):
    import pympi_train as pt
    from pympi_train.data.loading import finish

    if mapped:
        finish.RESIDENT_BYTES = 0
    return pt.load(folder / f"{name}.npz", sparse=True).train


def lbfgs(folder, name):
    import pympi_train as pt

    data = rows(folder, name)
    for epochs in (1, 300):  # the first compiles or loads the loops
        began_s = now_s()
        with pt.Trainer(
            pt.Logistic(WIDTHS[name], intercept=False),
            pt.LBFGS(tolerance=TOLERANCES[name]),
            l2=1 / data.n,
            backend="numba",
        ) as trainer:
            trainer.fit(data, epochs=epochs)
            seconds = now_s() - began_s
            weights = trainer.params[: WIDTHS[name]].copy()
    if is_first():
        np.save(folder / "lbfgs.npy", weights)
    return seconds


def sgd(folder, name):
    import pympi_train as pt

    data = rows(folder, "wide", mapped=name == "mapped")
    times = []
    with pt.Trainer(
        pt.Logistic(WIDTHS["wide"]), pt.SGD(0.5), batch_size=256, backend="numba"
    ) as trainer:
        trainer.fit(data, epochs=10, on_epoch=lambda record: times.append(now_s()))
    return statistics.median(np.diff(times))


def adagrad(folder, name):
    import pympi_train as pt

    train, held = rows(folder, "wide"), rows(folder, name)
    with pt.Trainer(
        pt.Logistic(WIDTHS["wide"]), pt.AdaGrad(), batch_size=256, backend="numba"
    ) as trainer:
        records = trainer.fit(train, held, epochs=PASSES)
    losses = [record["validation_loss"] for record in records]
    return {f"adagrad_loss_{i}": loss for i, loss in enumerate(losses, 1)}


def has_vw():
    return importlib.util.find_spec("vowpalwabbit") is not None


def vw(folder, name):
    found = {}
    train = f"{VW} -d {folder / name}.vw --cache_file {folder / 'cache'}"
    x, y = scipy_rows(folder, "held")
    run_vw(train)
    found["vw_pass_s"] = run_vw(train)
    model, raw = folder / "model", folder / "raw"
    for passes in range(1, PASSES + 1):
        run_vw(f"{train} --passes {passes} -f {model}")
        run_vw(f"--quiet -t -i {model} -d {folder / 'held.vw'} -r {raw}")
        scores = np.array([float(line.split()[0]) for line in open(raw)])
        margins = np.where(y == 1, 1, -1) * scores
        found[f"vw_loss_{passes}"] = float(np.logaddexp(0, -margins).mean())
    return found


def run_vw(arguments):
    """Return the seconds of a run of Vowpal Wabbit over its data."""
    from vowpalwabbit import Workspace

    began_s = now_s()
    workspace = Workspace(arguments)  # reads the data
    seconds = now_s() - began_s
    workspace.finish()
    return seconds


PARTS = {part.__name__: part for part in (liblinear, lbfgs, sgd, adagrad, vw)}


def report(found):
    lines = []
    for name in TOLERANCES:
        theirs = found[f"liblinear_{name}_s"]
        lines.append(f"{name}: LIBLINEAR solver 0, C = 1 {theirs:17.3f} s")
        for n_ranks in (1, 2):
            what = f"lbfgs_{name}_{n_ranks}"
            ranks = f"{n_ranks} rank{'s' if n_ranks > 1 else ''}"
            lines.append(
                f"{name}: L-BFGS, float32, {ranks:18} {found[f'{what}_s']:10.3f} s  "
                f"{found[f'{what}_ratio']:.2f} of LIBLINEAR, objective "
                f"{found[f'{what}_excess']:+.1e}"
            )
    a_pass = found.get("vw_pass_s")
    if a_pass:
        lines.append(f"wide: Vowpal Wabbit, a pass of its cache {a_pass:10.3f} s")
    for name in ("memory", "mapped"):
        ratio = found.get(f"sgd_{name}_ratio")
        beside = f"  {ratio:.2f} of Vowpal Wabbit" if ratio else ""
        lines.append(
            f"wide: SGD, an epoch, {name:19} {found[f'sgd_{name}_s']:10.3f} s{beside}"
        )
    for i in range(1, PASSES + 1):
        other = found.get(f"vw_loss_{i}")
        beside = f", Vowpal Wabbit {other:.4f}" if other else ""
        loss = found[f"adagrad_loss_{i}"]
        lines.append(f"wide: held-out loss, epoch {i}: AdaGrad {loss:.4f}{beside}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
