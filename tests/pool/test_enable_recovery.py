"""Ranks that are killed under a launcher that goes on. Needs Open MPI 5."""

import json
import os
import signal
import sys

import pytest
from mpi_launch import Job, ranks_of
from small_runs import TEXT, write_rows

HOW = ["--enable-recovery", sys.executable, "-m", "pympi_train", "pool", "jobs.toml"]
# "two" is on ranks 1 and 2, "one" on rank 3; rank 0 begins "last" after "first".
JOBS = """
[pool]
directory = "pool"
[[job]]
name = "two"
config = "c.toml"
set = { train.epochs = 100000 }
min_ranks = 2
max_ranks = 2
[[job]]
name = "one"
config = "c.toml"
set = { train.epochs = 100000 }
max_ranks = 1
[[job]]
name = "first"
config = "c.toml"
max_ranks = 1
[[job]]
name = "last"
config = "c.toml"
max_ranks = 1
after = ["first"]
set = { train.epochs = 100000 }
"""


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path)
    (tmp_path / "c.toml").write_text(TEXT)
    (tmp_path / "jobs.toml").write_text(JOBS)
    return tmp_path


def events(folder):
    path = folder / "pool" / "events.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(folder, program, event, **about):
    """Return the first event with these values, when it is there."""
    for _ in range(12_000):
        for line in events(folder):
            found = json.loads(line) if line.endswith("}") else {}
            if found.get("event") == event and about.items() <= found.items():
                return found
        assert program.wait(0.01) is None, program.output()
    raise AssertionError(program.output())


def test_a_killed_rank_costs_its_job_only(folder, open_mpi_5):
    with Job(4, HOW, cwd=folder) as program:
        for name in ("two", "one", "last"):
            wait_for(folder, program, "begin", job=name)
        wait_for(folder, program, "end", job="first", status="finished")
        ranks = ranks_of(program)
        for name, number in (("two", -1), ("one", 0)):
            victim = wait_for(folder, program, "start", job=name)["ranks"][number]
            os.kill(ranks[victim], signal.SIGKILL)
        two = wait_for(folder, program, "end", job="two")
        one = wait_for(folder, program, "end", job="one")
        assert two["status"] == one["status"] == "failed"
        assert "see what its watchdog has printed" in two["error"]
        assert one["error"] == f"the process of rank {victim} of the pool has ended"
        os.kill(ranks[0], signal.SIGTERM)
        status = program.wait(120)
        out, err = program.output()
    assert status, err
    assert "its process is gone" in err
    *_, end, _ = map(json.loads, events(folder))  # the last one is of the pool
    assert end["job"] == "last" and end["status"] == "interrupted"
