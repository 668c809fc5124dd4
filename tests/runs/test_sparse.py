"""A run on sparse rows: trained, evaluated and predicted from every format."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pympi_train.config import config as configuration
from pympi_train.runs import job
from pympi_train.runs.inference import Run, load_model

sparse = pytest.importorskip("scipy.sparse")
CONFIG = """
[data]
train = "rows.svm"
standardize = true
validation = 0.2
n_features = 12
[model]
kind = "{kind}"
class_weights = "balanced"
[optimizer]
name = "adam"
learning_rate = 0.05
[train]
epochs = 3
batch_size = 16
{more}
[output]
directory = "{kind}"
"""


def write(folder):
    rng = np.random.default_rng(0)
    x = sparse.random_array((80, 12), density=0.3, format="csr", rng=rng)
    y = (x.toarray() @ rng.standard_normal(12) > 0).astype(int)
    lines = []
    for i, label in enumerate(y):
        part = slice(x.indptr[i], x.indptr[i + 1])
        pairs = zip((x.indices[part] + 1).tolist(), x.data[part].tolist())
        lines.append(" ".join([str(label), *(f"{j}:{v!r}" for j, v in pairs)]))
    (folder / "rows.svm").write_text("\n".join(lines) + "\n")
    arrays = {"indptr": x.indptr, "indices": x.indices, "data": x.data}
    np.savez(folder / "csr.npz", shape=x.shape, format=b"csr", y=y, **arrays)
    np.savez(folder / "dense.npz", x=x.toarray(), y=y)
    return x


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_a_run_takes_every_format(comm, mpi_tmp_path, kind):
    x = None
    if comm.rank == 0:
        x = write(mpi_tmp_path)
    x = comm.bcast(x, root=0)
    text = CONFIG.format(kind=kind, more="")
    config = configuration.parse(text, folder=mpi_tmp_path)
    assert config.keeps_sparse == (kind == "logistic")
    result = job.train(config, comm)
    assert result["validation"]["accuracy"] > 0.3
    directory = mpi_tmp_path / kind
    schema = json.loads((directory / "schema.json").read_text())
    is_centred = any(schema["preparation"]["scaling"]["mean"])
    assert is_centred == (kind == "mlp")
    run = Run(directory, comm)
    found = [
        run.evaluate(mpi_tmp_path / name, **how)["loss"]
        for name, how in (
            ("rows.svm", {}),
            ("csr.npz", {"target": "y"}),
            ("dense.npz", {"target": "y"}),
        )
    ]
    assert_allclose(found, found[0], rtol=1e-5)
    labels = mpi_tmp_path / f"{kind}-labels.npy"
    run.predict(mpi_tmp_path / "rows.svm", labels)
    comm.barrier()
    model = load_model(directory)
    want = np.load(labels)
    assert_array_equal(model.predict(x), want)
    assert_array_equal(model.predict(x.toarray()), want)


def test_where_rows_stay_sparse_by_default():
    for kind, more, want in (
        ("linear", "", True),
        ("mlp", "", False),
        ("mlp", "sparse = true", True),
        ("softmax", "sparse = false", False),
        ("softmax", 'missing = "mean"', False),
        ("softmax", '[train]\nbackend = "cuda"', False),
        ("softmax", '[train]\nprecision = "float16"', False),
        ("softmax", 'sparse = true\n[train]\nbackend = "cuda"', True),
    ):
        text = f'[model]\nkind = "{kind}"\n[data]\ntrain = "a.svm"\n{more}'
        assert configuration.parse(text).keeps_sparse == want


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "optimizer, more, is_lazy",
    [
        ('name = "adagrad"', "", True),
        ('name = "sgd"', "", True),
        ('name = "sgd"\nmomentum = 0.9', "", False),
        ('name = "adagrad"', "[model]\nl2 = 0.1", False),
    ],
)
def test_wide_rows_are_updated_by_column(
    comm, mpi_tmp_path, optimizer, more, is_lazy
):
    if comm.rank == 0:
        rows = [f"{i % 2} {1 + 997 * i}:1 {2 + 31 * i}:-2 400000:1" for i in range(40)]
        (mpi_tmp_path / "wide.svm").write_text("\n".join(rows) + "\n")
    comm.barrier()
    name = "".join(c for c in optimizer + more if c.isalnum())
    kind = 'kind = "logistic"\n'
    model = f"[model]\n{kind}" + more.removeprefix("[model]\n")
    text = (
        f'[data]\ntrain = "wide.svm"\n{model}\n[optimizer]\n{optimizer}\n'
        "learning_rate = 0.1\n[train]\nepochs = 2\nbatch_size = 8\n"
        f'[output]\ndirectory = "{name}"\n'
    )
    config = configuration.parse(text, folder=mpi_tmp_path)
    exchange = job.train(config, comm)["exchange"]
    assert (exchange.get("update") == "touched columns") == is_lazy
    if is_lazy:
        assert exchange["strategy"] == "allreduce"


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning")
def test_a_gpu_trains_evaluates_and_predicts_on_sparse_rows(tmp_path):
    import gpus
    from mpi4py import MPI

    gpus.use()
    x, comm = write(tmp_path), MPI.COMM_SELF
    found = []
    for backend in ("cuda", "numpy"):
        text = CONFIG.format(kind="logistic", more=f'backend = "{backend}"')
        text = text.replace("[model]", "sparse = true\n[model]", 1)
        text = text.replace('directory = "logistic"', f'directory = "{backend}"')
        loss = job.train(configuration.parse(text, folder=tmp_path), comm)["train_loss"]
        run = Run(tmp_path / backend, comm, backend)
        other = Run(tmp_path / "cuda", comm, backend)  # on either
        outputs = [other.evaluate(tmp_path / "rows.svm")["loss"]]
        found.append([loss, *outputs, *run.trained.predict_proba(x).ravel()])
    assert_allclose(*found, rtol=1e-5)
