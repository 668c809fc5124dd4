"""The machinery that runs MPI tests: what must not pass does not, and nothing is left.

A small test suite with every kind of trouble is run by a pytest of its own, in a
copy of this folder's conftest and harness.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import mpi_launch
import pytest
import strict_skips

TESTS = Path(__file__).parent

SUITE = '''
import os
import signal

import pytest

@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("word", ["a b", "c[/d"])
def test_passes(comm, word, mpi_tmp_path):
    assert comm.allreduce(1) == comm.size
    assert comm.allgather(mpi_tmp_path) == comm.size * [mpi_tmp_path]
    (mpi_tmp_path / str(comm.rank)).touch()
    comm.Barrier()
    assert len(list(mpi_tmp_path.iterdir())) == comm.size

@pytest.mark.mpi(min_size=3)
def test_three(comm):
    assert comm.size >= 3

@pytest.mark.mpi
def test_one_rank_fails(comm):
    print("printed before")
    if comm.rank == 1:
        raise RuntimeError("rank 1 alone")
    comm.Barrier()

@pytest.mark.mpi
def test_all_ranks_fail(comm):
    raise RuntimeError(f"this was rank {comm.rank}")

@pytest.mark.mpi(min_size=3)
def test_hangs(comm):
    if comm.rank == 0:
        comm.recv(source=1)

@pytest.mark.mpi
def test_killed(comm):
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.Barrier()

@pytest.mark.mpi
def test_skipped(comm):
    pytest.skip("on every rank")

@pytest.mark.mpi
def test_skipped_by_one_rank(comm):
    if comm.rank == 1:
        pytest.skip("on this rank")

@pytest.mark.mpi
@pytest.mark.xfail(strict=True)
def test_expected_to_fail(comm):
    raise RuntimeError

@pytest.mark.mpi
@pytest.mark.skipif(True, reason="by its mark")
def test_skipped_by_mark(comm):
    pass

@pytest.fixture
def breaks_at_the_end(comm):
    yield
    if comm.rank == 1:
        raise RuntimeError("in the teardown")

@pytest.mark.mpi
def test_teardown_fails(comm, breaks_at_the_end):
    pass

def test_serial(comm):
    assert comm.size == 1

@pytest.mark.mpi
class TestInClass:
    def test_passes(self, comm):
        assert comm.size > 1
'''


def suite(folder, text=SUITE):
    """A project with this folder's conftest and harness and one test module."""
    (folder / "tests").mkdir()
    shutil.copy(TESTS.parent / "setup.cfg", folder)
    shutil.copy(TESTS / "conftest.py", folder / "tests")
    for name in ("harness", "cpu_cuda"):
        built = shutil.ignore_patterns("build", "__pycache__")
        shutil.copytree(TESTS / name, folder / "tests" / name, ignore=built)
    (folder / "tests" / "test_suite.py").write_text(text)
    return folder


def run(folder, *options):
    """Run the suite of ``folder``; its outcomes by test and all that was printed."""
    argv = [sys.executable, "-m", "pytest", "-rA", "--color=no", "tests", *options]
    done = subprocess.run(
        [*argv, "-p", "no:cacheprovider"],
        cwd=folder,
        env=mpi_launch.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    line = re.compile(r"^([A-Z]+) \S*?test_suite.py::(.*?)(?: - .*)?$", re.M)
    found = line.findall(done.stdout)
    return {test: outcome for outcome, test in found}, done.stdout, done.returncode


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    folder = suite(tmp_path_factory.mktemp("troubled"))
    return run(folder, "--ranks", "2,3", "--ranks-timeout", "30")


def test_tests_run_at_each_number_of_ranks_from_their_least(troubled):
    outcomes, _, _ = troubled
    for word in ("a b", "c[/d"):
        for n in (2, 3):
            assert outcomes[f"test_passes[{word}-{n}ranks]"] == "PASSED"
    assert outcomes["test_three[3ranks]"] == "PASSED"
    assert "test_three[2ranks]" not in outcomes
    assert outcomes["test_serial"] == "PASSED"
    assert outcomes["TestInClass::test_passes[3ranks]"] == "PASSED"


@pytest.mark.parametrize(
    "test",
    [
        "test_one_rank_fails[2ranks]",
        "test_one_rank_fails[3ranks]",
        "test_all_ranks_fail[3ranks]",
        "test_hangs[3ranks]",
        "test_killed[2ranks]",
        "test_killed[3ranks]",
        "test_skipped_by_one_rank[2ranks]",
        "test_teardown_fails[2ranks]",
    ],
)
def test_trouble_on_any_rank_is_a_failure(troubled, test):
    outcomes, _, returncode = troubled
    assert returncode == 1
    assert outcomes[test] == "FAILED"


def test_skip_and_expected_failure_are_no_pass(troubled):
    _, text, _ = troubled
    assert re.search(r"SKIPPED \[2\] \S*test_suite.py:\d+: on every rank", text)
    assert re.search(r"SKIPPED \[2\] \S*test_suite.py:\d+: by its mark", text)
    assert "2 xfailed" in text
    assert "4 skipped" in text


def test_report_shows_each_rank(troubled):
    _, text, _ = troubled
    assert "RuntimeError: rank 1 alone" in text
    assert "printed before" in text
    for rank in range(3):  # all of them get to say it, though the first one aborts
        assert f"RuntimeError: this was rank {rank}" in text
    assert "RuntimeError: in the teardown" in text
    assert re.search(r"2 of 3 ranks passed\nrank 0: unfinished\nrank 1: passed", text)
    assert re.search(r"rank 0 was here:\n.*\n.* in test_hangs", text)
    assert "1 of 2 ranks passed\nrank 0: passed\nrank 1: skipped on this rank" in text


FAILS_FIRST = """
from pathlib import Path

import pytest

@pytest.mark.mpi(min_size=2)
def test_fails(comm):
    assert False

@pytest.mark.mpi(min_size=2)
def test_comes_after(comm):
    Path(__file__).with_name("launched").touch()
"""


@pytest.mark.parametrize("options, is_launched", [((), True), (("-x",), False)])
def test_nothing_is_launched_after_the_first_failure_with_x(
    tmp_path, options, is_launched
):
    folder = suite(tmp_path, FAILS_FIRST)
    outcomes, _, returncode = run(folder, "--ranks", "2", *options)
    assert (outcomes["test_fails[2ranks]"], returncode) == ("FAILED", 1)
    assert (folder / "tests" / "launched").exists() is is_launched


def test_works_without_pytest_mpi(tmp_path):
    folder = suite(tmp_path)
    outcomes, text, returncode = run(
        folder, "-p", "no:mpi", "--ranks", "2", "-k", "test_passes or one_rank_fails"
    )
    assert outcomes["test_one_rank_fails[2ranks]"] == "FAILED"
    assert "1 failed, 3 passed" in text
    assert returncode == 1


def test_killed_at_finalize_is_the_failure_of_the_last_test(tmp_path):
    text = (
        "import atexit, os, pytest\n"
        "@pytest.mark.mpi\n"
        "def test_ends_badly(comm):\n"
        "    atexit.register(os.kill, os.getpid(), 9)\n"
    )
    outcomes, text, _ = run(suite(tmp_path, text), "--ranks", "2")
    assert outcomes == {"test_ends_badly[2ranks]": "FAILED"}
    assert "all ranks came to its end; then" in text


WITH_MPI = '''
import pytest

@pytest.mark.mpi(min_size=2)
def test_all_ranks_fail(comm):
    raise RuntimeError("together")

@pytest.mark.mpi(min_size=2)
def test_passes(comm):
    assert comm.allreduce(1) == comm.size

@pytest.mark.mpi(min_size=3)
def test_too_few(comm):
    raise RuntimeError("not reached")

@pytest.mark.mpi(min_size=2)
def test_one_rank_fails(comm):
    if comm.rank == 1:
        raise RuntimeError("rank 1 alone")
    comm.Barrier()
'''


def with_mpi(folder, *options):
    argv = [sys.executable, "-m", "pytest", "--with-mpi", "-q", "--color=no"]
    argv += ["-p", "no:cacheprovider", "tests", *options]
    return mpi_launch.mpirun(2, argv, cwd=folder, timeout=120)


def test_under_mpirun_a_failure_of_one_rank_ends_the_job(tmp_path):
    pytest.importorskip("pytest_mpi")
    returncode, _, stderr = with_mpi(suite(tmp_path, WITH_MPI))
    assert returncode != 0
    assert re.search(r"\[rank 1\] \S*::test_one_rank_fails", stderr)
    assert "RuntimeError: rank 1 alone" in stderr


def test_under_mpirun_a_failure_of_all_ranks_does_not(tmp_path):
    pytest.importorskip("pytest_mpi")
    unwanted = "tests/test_suite.py::test_one_rank_fails"
    returncode, stdout, _ = with_mpi(suite(tmp_path, WITH_MPI), "--deselect", unwanted)
    assert returncode == 1
    summary = "1 failed, 1 passed, 1 skipped, 1 deselected"
    assert stdout.count(summary) == 2  # one a rank


def test_ranks_are_refused_without_the_option(tmp_path):
    folder = suite(tmp_path, WITH_MPI)
    argv = [sys.executable, "-m", "pytest", "tests"]
    returncode, _, stderr = mpi_launch.mpirun(2, argv, cwd=folder, timeout=60)
    assert returncode != 0
    assert "add --with-mpi" in stderr


def test_mpirun_gives_status_and_output(mpirun):
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    returncode, stdout, stderr = mpirun(2, [sys.executable, "-c", code])
    assert returncode == 3
    assert "out" in stdout
    assert "err" in stderr


def test_mpirun_leaves_no_process_after_its_time(mpirun, tmp_path):
    code = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()\n"
        "print('started', flush=True)\n"
        "time.sleep(600)"
    )
    with pytest.raises(mpi_launch.StillRunning, match="still ran after 4 s"):
        mpirun(2, [sys.executable, "-c", code], timeout=4)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    for pid in pids:
        assert not alive(pid)


def test_ranks_end_with_a_session_that_is_terminated(tmp_path):
    text = (
        "import os, pathlib, pytest, time\n"
        "@pytest.mark.mpi\n"
        "def test_sleeps(comm):\n"
        "    pathlib.Path(f'pid{os.getpid()}').touch()\n"  # in the root, its cwd
        "    time.sleep(600)\n"
    )
    argv = [sys.executable, "-m", "pytest", "tests", "--ranks", "2"]
    folder, env = suite(tmp_path, text), mpi_launch.environment()
    with subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE) as session:
        until(lambda: len(list(tmp_path.glob("pid*"))) == 2)
        session.terminate()
        printed, _ = session.communicate(timeout=60)
    assert session.returncode == 128 + signal.SIGTERM
    assert b"SIGTERM received" in printed
    for path in tmp_path.glob("pid*"):
        assert not alive(int(path.name.removeprefix("pid")))


def until(condition, timeout_s=60.0):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "did not happen in time"
        time.sleep(0.05)


def alive(pid):
    """Whether the process runs: a zombie does not."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
def test_shared_memory_of_the_dead_is_removed_and_no_other():
    name = f"/dev/shm/mpich_shm_{uuid.uuid4().hex}"
    dead, used, foreign = (Path(name + end) for end in ("_dead", "_used", "_foreign"))
    foreign = foreign.with_name("other_" + foreign.name)
    dead.touch()
    foreign.touch()
    try:
        with open(used, "w"):
            mpi_launch._remove_shared_memory(dead.stat().st_ctime)
            assert not dead.exists()
            assert used.exists()
            assert foreign.exists()
    finally:
        for path in (dead, used, foreign):
            path.unlink(missing_ok=True)


def test_environment_forgets_the_outer_job(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "7")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    env = mpi_launch.environment({"EXTRA": "yes"})
    assert not {"PMI_SIZE", "OMPI_COMM_WORLD_RANK"} & set(env)
    assert env["EXTRA"] == "yes"
    assert env["PYTHONPATH"].split(os.pathsep)[0] == str(TESTS.parent)


def test_unexpected_skip_fails_a_strict_session(tmp_path):
    reason = f"{strict_skips.EXPECTED[0]}: and more"
    text = f"import pytest\ndef test_a():\n    pytest.skip('{reason}')\n"
    folder = suite(tmp_path, text)
    assert run(folder, "--strict-skips")[2] == 0
    (folder / "tests" / "test_suite.py").write_text(text.replace(reason, "why"))
    _, text, returncode = run(folder, "--strict-skips")
    assert returncode == 1
    assert "SKIPPED UNEXPECTEDLY tests/test_suite.py::test_a" in text
    assert run(folder)[2] == 0
