"""A million visits: each epoch visits each row once, on 1 to 4 ranks, in all modes."""

import sys
from pathlib import Path

import numpy as np
import visits

N, EPOCHS = 9001, 2  # not a multiple of any number of ranks, groups or shards
PROGRAM = Path(visits.__file__)


def test_each_row_is_visited_once_an_epoch(mpirun, tmp_path):
    visits.make(tmp_path, N)
    train = [sys.executable, PROGRAM, "train", tmp_path, "--rows", N]
    for size in (1, 2, 3, 4):
        argv = [*train, "--epochs", EPOCHS, "--batch-size", 2251]
        done = mpirun(size, list(map(str, argv)), timeout=120)
        assert done.returncode == 0, done.stderr
    found = visits.check(tmp_path, N, EPOCHS)
    assert found == {
        "visits": 4 * EPOCHS * len(visits.cases()) * N,
        "logs": 4 * EPOCHS * len(visits.cases()),
        "problems": [],
    }
    assert found["visits"] > 10**6


def test_the_checker_finds_what_is_wrong(tmp_path):
    def log(name, *rows):
        np.array(rows, np.int64).tofile(tmp_path / f"{name}.i64")

    def problems():
        return visits.check(tmp_path, 5, 1)["problems"]

    log("2-a.0.0", 0, 4, 2)
    log("2-a.0.1", 3, 1)
    assert problems() == []
    log("2-a.0.1", 3, 3)
    assert problems() == [
        "2-a, epoch 0: 2 rows not visited once; row 1 0 times",
    ]
    log("2-a.0.1", 3, 5, 1)
    assert "a row beyond 0 ... 4" in problems()[0]
    (tmp_path / "2-a.0.1.i64").unlink()
    assert problems()[0] == "2-a, epoch 0: 1 logs"
