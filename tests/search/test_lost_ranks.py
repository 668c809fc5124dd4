"""A trial that hangs costs its ranks; the search goes on with the others."""

import json
import sys

from small_runs import TEXT, write_rows

# Rank 2 never ends its first step with the rate 0.125.
PROGRAM = """
import runpy, time
from mpi4py import MPI
from pympi_train.optim.sgd import SGD

update = SGD.update

def planted(self, *args, **kwargs):
    if self.lr == 0.125 and MPI.COMM_WORLD.rank == 2:
        time.sleep(1000)
    return update(self, *args, **kwargs)

SGD.update = planted
runpy.run_module("pympi_train", run_name="__main__", alter_sys=True)
"""
HOW = ["search", "c.toml", "--param", "optimizer.learning_rate=0.125,0.01"]
HOW += ["--lanes", "off", "--folds", "2", "--min-ranks", "2"]
SET = ["parallel.timeout_s=3", "optimizer.schedule=constant", "optimizer.name=sgd"]


def test_the_others_end_without_a_traceback(tmp_path, mpirun):
    write_rows(tmp_path)
    (tmp_path / "c.toml").write_text(TEXT)
    (tmp_path / "program.py").write_text(PROGRAM)
    argv = [sys.executable, "program.py", *HOW, "--set", *SET]
    done = mpirun(4, argv, cwd=tmp_path, timeout=300)
    assert done.returncode == 1 and "failed: ending the job" not in done.stderr, done
    found = json.loads((tmp_path / "run" / "search.json").read_text())
    assert [trial["status"] for trial in found["trials"]] == ["failed", "finished"]
    assert found["best"]["parameters"] == found["trials"][1]["parameters"]
