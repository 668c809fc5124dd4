"""The command line itself: help, version, usage, and who prints them."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import mpi_launch
import pytest

import pympi_train

NO_LIBRARY = {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}
COMMANDS = [
    [],
    ["train"],
    ["evaluate"],
    ["predict"],
    ["bench"],
    ["bench", "optimizer"],
    ["bench", "step"],
    ["bench", "exchange"],
]


def process(*argv, **env):
    """Run the command line in a new process where no MPI library can be loaded."""
    return subprocess.run(
        [sys.executable, "-m", "pympi_train", *argv],
        env=mpi_launch.environment({**NO_LIBRARY, **env}),
        cwd=mpi_launch.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_at_every_level(pympi_train, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # any import of it fails
    done = pympi_train(*command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(" ".join(["usage: pympi-train", *command]))


def test_help_without_library():
    done = process("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("train", "evaluate", "predict", "bench"):
        assert command in done.stdout


def test_version_without_library():
    done = process("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == pympi_train.__version__
    try:
        assert version("pympi-train") == pympi_train.__version__
    except PackageNotFoundError:  # a bare checkout
        pass


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "required: COMMAND"),
        (["fit"], "invalid choice: 'fit'"),
        (["train"], "required: CONFIG.toml"),
        (["train", "c.toml", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["evaluate", "run"], "required: --data"),
        (["predict", "run", "--data", "x.csv"], "required: --output"),
        (["bench"], "required: WHAT"),
        (["bench", "optimizer", "--name", "lion"], "invalid choice: 'lion'"),
        (["bench", "optimizer", "--size", "0"], "expected a whole number from 1"),
        (["bench", "step", "--layers", "784,x"], "expected a whole number from 1"),
    ],
)
def test_usage(pympi_train, argv, words):
    done = pympi_train(*argv)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("usage: pympi-train")
    assert words in done.err.splitlines()[-1]


@pytest.mark.parametrize("argv, status", [(["--help"], 0), (["fit"], 2)])
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_prints(pympi_train, monkeypatch, argv, status, rank):
    for names in (("PMI_SIZE", "PMI_RANK"), ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")):
        with monkeypatch.context() as patch:
            patch.setenv(names[0], "2")
            patch.setenv(names[1], str(rank))
            done = pympi_train(*argv)
        assert done.status == status
        assert bool(done.out + done.err) == (rank == 0)


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "c.toml", "--set", "train.epochs=7", "--set", "train.seed=5"],
        ["train", "c.toml", "--set", "train.epochs=7", "train.seed=5"],
        ["train", "c.toml", "--set", "train.epochs=7", "train.seed=5", "--json"],
        ["train", "--set", "train.epochs=7", "train.seed=5", "--json", "c.toml"],
    ],
)
def test_overrides_may_be_given_one_by_one_or_together(
    folder, pympi_train, monkeypatch, argv
):
    from pympi_train.runs import job

    seen = []
    monkeypatch.setattr(job, "train", lambda config, *rest: seen.append(config) or {})
    assert pympi_train(*argv).status == 0
    assert (seen[0].train.epochs, seen[0].train.seed) == (7, 5)
