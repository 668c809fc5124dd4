"""A rank that fails alone ends the job, with its number and its traceback.

Nothing is timed: a job that did not end by itself is ended by the harness, which
raises.
"""

import re
import sys
import textwrap
import types

import pytest

from pympi_train.comm.watch import abort

BEGIN = """
import sys
from pympi_train.comm.checks import together
from pympi_train.comm.mesh import world

comm = world()
"""

# Others wait in a collective that rank 1 never enters.
FAILURES = {
    "plain code": "if comm.rank == 1: raise ValueError('lost my way')",
    "a thread": """
import threading

def work():
    raise ValueError('lost my way')

if comm.rank == 1:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
""",
    "after an error that all caught": """
try:
    with together(comm):
        raise OSError('of all')
except Exception:
    pass
if comm.rank == 1: raise ValueError('lost my way')
""",
    "an error of one rank's own group": """
from mpi4py import MPI

if comm.rank == 1:
    with together(MPI.COMM_SELF):
        raise ValueError('lost my way')
""",
}


def script(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(BEGIN + code))
    return [sys.executable, str(path)]


@pytest.mark.parametrize("failure", FAILURES)
def test_job_ends_with_rank_and_traceback(mpirun, tmp_path, failure):
    code = FAILURES[failure] + "\ncomm.Barrier()\nprint('all well', flush=True)"
    done = mpirun(3, script(tmp_path, code))
    assert done.returncode != 0
    assert "all well" not in done.stdout
    assert "rank 1 of 3 failed: ending the job" in done.stderr
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.count("ValueError: lost my way") == 1
    assert "script.py" in done.stderr


def test_a_rank_whose_abort_comes_back_goes_no_further(monkeypatch):
    from mpi4py import MPI

    did = []
    world = types.SimpleNamespace(Abort=lambda status: did.append(("Abort", status)))
    monkeypatch.setattr(MPI, "COMM_WORLD", world)
    monkeypatch.setattr(abort.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(abort.os, "_exit", lambda status: did.append(("exit", status)))
    abort.end(130)
    assert did == [("Abort", 130), ("exit", 130)]


def test_agreed_error_is_printed_once_with_the_story_of_its_rank(mpirun, tmp_path):
    code = """
with together(comm):
    if comm.rank == 1:
        raise ValueError('lost my way')
"""
    done = mpirun(3, script(tmp_path, code))
    assert done.returncode != 0
    assert "ending the job" not in done.stderr
    assert done.stderr.count("RemoteRankError: rank 1: ValueError: lost my way") == 1
    assert "Traceback of rank 1:" in done.stderr
    assert "raise ValueError('lost my way')" in done.stderr


def test_job_ends_where_one_rank_caught_what_all_raised(mpirun, tmp_path):
    code = """
try:
    with together(comm):
        if comm.rank == 1: raise ValueError('lost my way')
except ValueError:  # the others have a RemoteRankError
    pass
comm.Barrier()
print('all well', flush=True)
"""
    done = mpirun(2, script(tmp_path, code))
    assert done.returncode != 0
    assert "all well" not in done.stdout
    assert "rank 0 of 2 failed: ending the job" in done.stderr
    assert "RemoteRankError: rank 1: ValueError: lost my way" in done.stderr


def test_thread_may_end_itself_and_ranks_may_leave(mpirun, tmp_path):
    code = """
import threading

thread = threading.Thread(target=sys.exit)
thread.start()
thread.join()
comm.Barrier()
print('all well', flush=True)
"""
    done = mpirun(2, script(tmp_path, code))
    assert done.returncode == 0
    assert done.stdout.count("all well") == 2


LEAVES = {
    "sys.exit": "sys.exit(3)",
    "raise": "raise SystemExit(3)",
    "builtin": "exit(3)",
    "from import": "early(3)",
    "text": "raise SystemExit('no such mesh')",
    "status 0": "sys.exit()",
}


@pytest.mark.parametrize("how", LEAVES)
def test_job_ends_where_one_rank_leaves_and_others_wait_for_it(mpirun, tmp_path, how):
    code = f"""
from sys import exit as early
from pympi_train.comm.ranks import resolve

comm = resolve(None)
if comm.rank == 1:
    {LEAVES[how]}
comm.Barrier()
print('all well', flush=True)
"""
    done = mpirun(3, script(tmp_path, code))
    assert done.returncode != 0
    assert "all well" not in done.stdout
    waits = r"in Barrier \(call \d of its communicator; for a rank whose program"
    assert re.search(waits, done.stderr)
    assert re.search(r"^  rank 1: .*its program has ended", done.stderr, re.M)


def test_a_rank_may_have_less_to_do(mpirun, tmp_path):
    code = """
import time
from pympi_train.comm.ranks import Ranks

comm.Barrier()
with Ranks() as ranks:
    half = ranks.comm.Split(int(comm.rank > 0))
    if comm.rank:
        half.Barrier()
        time.sleep(4)  # longer than a watchdog has patience with who has left
        half.Barrier()
    half.Free()
print('all well', flush=True)
"""
    done = mpirun(3, script(tmp_path, code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all well") == 3


def test_ranks_that_all_exit_need_no_abort(mpirun, tmp_path):
    returncode, _, stderr = mpirun(3, script(tmp_path, "sys.exit(3)"))
    assert returncode == 3
    assert "ending the job" not in stderr
