"""Small data files, and the command line run inside the test's own process."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import pytest

CONFIG = """
[data]
train = "good.csv"
target = "y"
validation = 0.25
standardize = true
[model]
kind = "softmax"
[optimizer]
learning_rate = 0.05
[train]
epochs = 2
batch_size = 8
[output]
directory = "run"
"""
N_ROWS = 40


class Done(NamedTuple):
    """What a command left: its exit status, and what this rank printed."""

    status: int
    out: str
    err: str


def run(*argv):
    """Run ``pympi-train`` in this process, as one rank of the world."""
    from pympi_train.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(map(str, argv)))
        except SystemExit as left:
            status = left.code
    return Done(status, out.getvalue(), err.getvalue())


def rows(n=N_ROWS):
    """Features (n, 2), and which of three blobs each row belongs to."""
    rng = np.random.default_rng(3)
    kind = np.arange(n) % 3
    return rng.standard_normal((n, 2)) + 3 * np.eye(3)[kind, :2], kind


def csv(n=N_ROWS, labels=("low", "mid", "high"), cell=None, header="a,b,y"):
    """Text of a .csv; ``cell`` is (row, text) of a feature to spoil."""
    lines = [header]
    for i, (x, kind) in enumerate(zip(*rows(n))):
        b = cell[1] if cell and cell[0] == i else repr(float(x[1]))
        lines.append(f"{float(x[0])!r},{b},{labels[kind]}")
    return "\n".join(lines) + "\n"


def write(folder):
    """Write the data files and ``c.toml`` into ``folder``."""
    x, kind = rows()
    spoiled = x.copy()
    spoiled[5, 1] = np.nan
    texts = {
        "c.toml": CONFIG,
        "good.csv": csv(),
        "integers.csv": csv(labels=(3, -1, 7)),
        "numbers.csv": csv(labels=(0.5, -1.25, 7)),
        "nan.csv": csv(cell=(5, "nan")),
        "malformed.csv": csv(cell=(5, "oops")),
        "short.csv": csv() + "1.0,2.0\n",
        "unseen.csv": csv(labels=("low", "mid", "huge")),
        "one_class.csv": csv(labels=("low", "low", "low")),
        "other_columns.csv": csv(header="a,c,y"),
        "empty.csv": "",
        "taken": "a file of mine",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes(csv().replace("mid", "m\xefd").encode("latin-1"))
    (folder / "folder.csv").mkdir()
    np.savez(folder / "good.npz", X=x, y=kind)
    np.savez(folder / "nan.npz", X=spoiled, y=kind)
    np.save(folder / "x.npy", x)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files, for one rank."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """A folder with the files and the run of ``c.toml``: only to be read."""
    path = tmp_path_factory.mktemp("trained")
    write(path)
    with contextlib.chdir(path):
        assert run("train", "c.toml").status == 0
    return path


@pytest.fixture
def shared_folder(mpi_tmp_path, comm):
    """A folder with the files that all ranks use. Collective."""
    if comm.rank == 0:
        write(mpi_tmp_path)
    comm.Barrier()
    with contextlib.chdir(mpi_tmp_path):
        yield mpi_tmp_path


@pytest.fixture
def pympi_train():
    """Runs the command line in this process; returns a `Done`."""
    return run
