"""The arguments of ``pympi-train launch``, which starts no MPI."""

import sys
from types import SimpleNamespace

import pytest

TRAIN = ["--", "train", "c.toml"]


@pytest.mark.parametrize(
    "argv, words",
    [
        (TRAIN, "required: -n"),
        (["-n", "0", *TRAIN], "expected a whole number from 1"),
        (["-n", "2", "--restarts", "-1", *TRAIN], "expected a whole number from 0"),
        (["-n", "2", "--min-ranks", "3", *TRAIN], "--min-ranks 3 is more than -n 2"),
        (["-n", "2"], "expected -- train CONFIG.toml"),
        (["-n", "2", "--", "predict", "run"], "expected -- train CONFIG.toml"),
        (["-n", "2", "--", "train"], "required: CONFIG.toml"),
        (["-n", "2", *TRAIN, "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_usage(pympi_train, monkeypatch, argv, words):
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # any import of it fails
    done = pympi_train("launch", *argv)
    assert (done.status, done.out) == (2, "")
    assert words in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    "more, first, then",
    [
        ([], ["--resume"], ["--resume"]),
        (["--resume"], ["--resume", "--resume"], ["--resume", "--resume"]),
        (["--resume", "a"], ["--resume", "a"], ["--resume", "a", "--resume"]),
    ],
)
def test_command_of_each_start(folder, pympi_train, monkeypatch, more, first, then):
    from pympi_train.launch import supervise

    seen = []

    def run(self):
        for name in (None, "000001-step-3"):
            if name:
                (folder / "run" / "checkpoints" / name).mkdir(parents=True)
            seen.append(self._training.command())
        return 75

    monkeypatch.setattr(supervise.Supervisor, "run", run)
    argv = ["train", "--set", "train.epochs=3", "c.toml", *more]
    assert pympi_train("launch", "-n", "2", "--", *argv).status == 75
    program = [sys.executable, "-m", "pympi_train", *argv[:4]]
    assert seen == [[*program, *first], [*program, *then]]


def test_time_limit_counts_from_the_launch_on(folder, pympi_train, monkeypatch):
    from pympi_train.launch import supervise, training

    seen = []
    monkeypatch.setattr(
        supervise.Supervisor,
        "run",
        lambda self: seen.append(self._training.command()) or 75,
    )
    clock = iter([1000.0, 1070.0])
    stopped = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(training, "time", stopped)
    argv = ["train", "c.toml", "--set", "checkpoint.max_time=100"]
    assert pympi_train("launch", "-n", "2", "--", *argv).status == 75
    assert seen[0][-3:] == ["--resume", "--set", "checkpoint.max_time=30.000"]
