"""Print what a table of short trainings ends with, as JSON.

    mpirun -n 3 python recorded_runs.py [WORDS]     rows whose name has one of the words

Prints ``{"software": ..., "rows": {name: "weights records"}}``. Each row runs on 1, 2
or 3 ranks, as its name says. ``weights`` are the first 16 digits of the SHA-256 of the
trained tensors (``weights_sha256`` of a run), ``records`` the first 8 of that of the
losses and metrics of all epochs. The program uses public names of the package alone, so
that it runs on older and newer versions alike.
"""

import hashlib
import json
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from mpi4py import MPI

import pympi_train as pt
from pympi_train.optim import schedule

StepDecay = getattr(schedule, "StepDecay", None) or schedule.Step  # its older name

# Odd widths; a last batch that is short; batches that leave a rank without a row.
N, N_HELD, D, C, T, BATCH, EPOCHS = 90, 23, 13, 4, 2, 16, 3
SIZES = (1, 2, 3)
MEASURED = ("train_loss", "validation_loss", "accuracy", "rmse", "r2")

MODELS = {
    "softmax": partial(pt.Softmax, D, C),
    "logistic": partial(pt.Logistic, D),
    "linear": partial(pt.Linear, D, T),
    "mlp": partial(pt.MLP, D, [10, 7], C, init="he"),
    "mlp-regression": partial(
        pt.MLP, D, [9], T, activation="gelu", task="regression", init="he"
    ),
    "mlp-tanh": partial(pt.MLP, D, [9, 6, 5], C, activation="tanh"),
}
OPTIMIZERS = {
    "gd": lambda: pt.GD(0.1),
    "sgd": lambda: pt.SGD(0.05),
    "momentum": lambda: pt.SGD(0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: pt.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: pt.Adam(0.01, weight_decay=0.001),
    "adamw": lambda: pt.AdamW(0.01),
    "lbfgs": lambda: pt.LBFGS(),
}
CONVEX = ("softmax", "logistic", "linear")
COMPRESSIONS = ("fp16", "bf16", "int8", "topk", "powersgd")
# Name: keys of [parallel].
STRATEGIES = {
    "overlap": {"strategy": "allreduce", "overlap": "on", "bucket_bytes": 1024},
    "hierarchical": {"strategy": "hierarchical"},
    "sharded-1": {"strategy": "sharded", "stage": 1},
    "sharded-2": {"strategy": "sharded", "stage": 2},
    "sharded-3": {"strategy": "sharded", "stage": 3},
    "server": {"strategy": "server"},
    "server-int8": {"strategy": "server", "compression": "int8"},
    "local": {"strategy": "local", "local_steps": 3},
    "local-nesterov": {"strategy": "local", "local_steps": 4, "outer": "nesterov"},
    **{f"allreduce-{kind}": {"compression": kind} for kind in COMPRESSIONS},
    **{
        f"local-{kind}": {"strategy": "local", "local_steps": 2, "compression": kind}
        for kind in COMPRESSIONS
    },
    "exact": {"reduction": "exact"},
}
# What the arguments of Trainer and fit may be, on softmax and MLP with Adam.
ARGUMENTS = {
    "micro-batches": {"micro_batch_size": 3},
    "l2": {"l2": 0.1},
    "clipped": {"clip_norm": 0.3, "l2": 0.01},
    "cosine": {"schedule": lambda: schedule.Cosine(0.1, warmup_epochs=0.5)},
    "steps": {"schedule": lambda: StepDecay(1, 0.5)},
    "seed": {"seed": 7},
    "full": {"batch_size": 1000},
}


def rows_of(task):
    """Return features, targets and weights; the last N_HELD rows are for validation."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N + N_HELD, D))
    noise = rng.standard_normal((N + N_HELD, C))
    scores = x[:, :C] + noise
    targets = {
        "classes": scores.argmax(axis=1),
        "two": (scores[:, 0] > 0).astype(np.intp),
        "numbers": scores[:, :T],
    }
    return x, targets[task], rng.random(N + N_HELD) + 0.1


def task_of(model):
    if model == "logistic":
        return "two"
    return "numbers" if model in ("linear", "mlp-regression") else "classes"


class Table:
    """Runs the rows whose name has one of ``words``, and keeps their hashes."""

    def __init__(self, words):
        self._words = words
        self.rows = {}
        world = MPI.COMM_WORLD
        self.rank = world.rank
        self._comms = {
            size: world.Split(0 if world.rank < size else MPI.UNDEFINED, world.rank)
            for size in SIZES
            if size <= world.size
        }

    def add(self, name, run, sizes=SIZES):
        """Call ``run(comm)``, which returns weights and records, on each size."""
        for size, comm in self._comms.items():
            row = f"{name} {size}"
            wanted = not self._words or any(word in row for word in self._words)
            if size in sizes and wanted and comm != MPI.COMM_NULL:
                found = run(comm)
                if comm.rank == 0:
                    self.rows[row] = found
        MPI.COMM_WORLD.Barrier()

    def add_training(self, name, model, optimizer, sizes=SIZES, **kwargs):
        run = partial(train, model, OPTIMIZERS[optimizer], **kwargs)
        self.add(f"{name} {model} {optimizer}", run, sizes)


def train(
    model,
    optimizer,
    comm,
    *,
    dtype="float32",
    backend="numpy",
    parallel=None,
    weighted=False,
    validation=True,
    patience=None,
    fits=1,
    schedule=None,
    **kwargs,
):
    x, y, weights = rows_of(task_of(model))
    x = x.astype(dtype)
    y = y if y.dtype.kind == "i" else y.astype(dtype)
    weights = weights.astype(dtype)
    parallel = pt.Parallel(**{"check_every": 2, "timeout_s": 0.0, **(parallel or {})})
    kwargs = {"batch_size": BATCH, **kwargs}
    serves = parallel.strategy == "server" and comm.rank == comm.size - 1
    mine = comm
    if parallel.strategy == "server":
        mine = comm.Split(int(serves), comm.rank)
    data = held = None
    if not serves:
        w = weights[:N] if weighted else None
        data = pt.Dataset.split(x[:N], y[:N], weights=w, comm=mine)
        if validation:
            held = pt.Dataset.split(x[N:], y[N:], comm=mine)
    with pt.Trainer(
        MODELS[model](dtype=dtype),
        optimizer(),
        comm=comm,
        backend=backend,
        parallel=parallel,
        schedule=schedule and schedule(),
        **kwargs,
    ) as trainer:
        records = []
        for _ in range(fits):
            records += trainer.fit(data, held, epochs=EPOCHS, patience=patience)
        return hashes(trainer.weights(), records)


def hashes(tensors, records):
    weights = hashlib.sha256()
    for array in tensors.values():
        little = array.dtype.newbyteorder("<")
        weights.update(np.ascontiguousarray(array, dtype=little).tobytes())
    told = [{k: float(r[k]).hex() for k in MEASURED if k in r} for r in records]
    records = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    return f"{weights.hexdigest()[:16]} {records.hexdigest()[:8]}"


def software():
    """Return what else decides the bits, in words."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    library = " ".join(MPI.Get_library_version().split()[:3]).rstrip(",")
    return (
        f"NumPy {np.__version__}, {blas['name']} {blas['version']}, {library}, "
        f"{platform.machine()}"
    )


def load_and_train(folder, name, comm, *, loading, parallel=None):
    """A training from a file, by the library's way of reading it."""
    exact = (parallel or {}).get("reduction") == "exact"
    loaded = pt.load(
        folder / name,
        **loading,
        virtual_shards=8 if exact else None,
        seed=3,
        comm=comm,
    )
    schema = loaded.schema
    if schema.task == "regression":
        model = pt.Linear(schema.n_features, schema.n_targets)
    else:
        model = pt.MLP(schema.n_features, [8], len(schema.classes), init="he")
    with pt.Trainer(
        model,
        pt.Adam(0.01),
        batch_size=BATCH,
        comm=comm,
        backend="numpy",
        parallel=pt.Parallel(**(parallel or {})),
    ) as trainer:
        records = trainer.fit(loaded.train, loaded.validation, epochs=EPOCHS)
        return hashes(trainer.weights(), records)


def write_files(folder):
    x, y, _ = rows_of("classes")
    x = (x + 1e3).astype(np.float32)
    names = np.array(["ant", "bee", "cat", "dog"])[y]
    np.savez(folder / "rows.npz", x=x, y=y)
    np.savez_compressed(folder / "packed.npz", x=x.astype(np.float64), y=names)
    np.save(folder / "x.npy", np.asfortranarray(x.astype(np.float64)))
    np.save(folder / "y.npy", y)
    columns = [f"a{i}" for i in range(D)]
    lines = [",".join([*columns, "label"])]
    lines += [",".join([*map(repr, row), n]) for row, n in zip(x.tolist(), names)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    lines = [
        " ".join([str(c), *(f"{i + 1}:{v!r}" for i, v in enumerate(row) if i % 3)])
        for row, c in zip(x.tolist(), y.tolist())
    ]
    (folder / "rows.svm").write_text("\n".join(lines) + "\n")


def add_models(table):
    """Every model with every optimizer, in both dtypes and by both CPU backends."""
    for model in MODELS:
        for optimizer in OPTIMIZERS:
            if optimizer == "lbfgs" and model not in CONVEX:
                continue
            table.add_training("plain", model, optimizer)
    for model in MODELS:
        for optimizer in ("momentum", "adam"):
            table.add_training("f64", model, optimizer, dtype="float64", weighted=True)
            table.add_training("numba", model, optimizer, backend="numba", l2=0.01)
    for name, kwargs in ARGUMENTS.items():
        for model in ("softmax", "mlp"):
            table.add_training(name, model, "adam", weighted=True, **kwargs)
    for model in ("softmax", "linear", "mlp"):
        for name, fits in (("patience", 1), ("patience-twice", 2)):
            table.add_training(
                name, model, "momentum", patience=1, fits=fits, l2=0.3
            )
        table.add_training("unmeasured", model, "adam", validation=False)


def add_strategies(table):
    """Every strategy, with two optimizers, with and without micro-batches and l2."""
    for name, parallel in STRATEGIES.items():
        sizes = (2, 3) if parallel.get("strategy") == "server" else SIZES
        for model in ("softmax", "mlp"):
            for optimizer in ("momentum", "adam"):
                table.add_training(name, model, optimizer, sizes, parallel=parallel)
        how = {"micro_batch_size": 3, "l2": 0.01, "clip_norm": 0.5, "weighted": True}
        table.add_training(
            f"{name}-micro", "mlp-tanh", "adamw", sizes, parallel=parallel, **how
        )
        table.add_training(
            f"{name}-f64",
            "mlp-regression",
            "nesterov",
            sizes,
            parallel=parallel,
            dtype="float64",
        )
    for model in CONVEX:
        exact = STRATEGIES["exact"]
        table.add_training("exact", model, "lbfgs", parallel=exact)
        table.add_training("exact", model, "gd", parallel=exact)


def add_files(table, folder):
    """Trainings from files of every format."""
    if table.rank == 0:
        write_files(folder)
    MPI.COMM_WORLD.Barrier()
    label = {"target": "y", "validation": 0.2, "standardize": True}
    kinds = {
        "rows.npz": {**label, "class_weights": "balanced"},
        "packed.npz": label,
        "x.npy": {**label, "target": "y.npy"},
        "rows.csv": {**label, "target": "label", "class_weights": {"bee": 3.0}},
        "rows.svm": {"target": "y", "validation": 0.3},
    }
    for name, loading in kinds.items():
        for reduction in ("fast", "exact"):
            run = partial(
                load_and_train,
                folder,
                name,
                loading=loading,
                parallel={"reduction": reduction},
            )
            table.add(f"file {name} {reduction}", run)
    regression = {"target": ["a1", "a5"], "task": "regression"}
    regression["features"] = ["a0", "a2", "a3", "a7"]
    run = partial(load_and_train, folder, "rows.csv", loading=regression)
    table.add("file rows.csv regression", run)


def main(words):
    table = Table(words)
    folder = tempfile.mkdtemp() if table.rank == 0 else None
    folder = Path(MPI.COMM_WORLD.bcast(folder, root=0))
    add_models(table)
    add_strategies(table)
    add_files(table, folder)
    rows = {}
    for part in MPI.COMM_WORLD.allgather(table.rows):
        rows.update(part)
    if table.rank == 0:
        print(json.dumps({"software": software(), "rows": rows}, indent=0))


if __name__ == "__main__":
    main(sys.argv[1:])
