"""What every test may use: communicators, shared folders, and mpirun.

MPI tests run in two ways. ``mpirun -n 3 python -m pytest --with-mpi`` runs them on
the ranks it is given. Plain ``pytest`` starts mpirun itself for each of them, on 3
ranks, or on 2, 3 and 4 (``--ranks`` chooses); see harness/mpi_parent.py.
"""

import os
from pathlib import Path

import gpus
import mpi_launch
import mpi_parent
import mpi_rank
import pytest
import seconds
import strict_skips

collect_ignore = ["harness", "cpu_cuda"]


def pytest_addoption(parser):
    group = parser.getgroup("ranks that pytest starts")
    group.addoption(
        "--ranks",
        help="numbers of ranks for all MPI tests, e.g. 2,3,4",
    )
    group.addoption(
        "--ranks-timeout",
        type=float,
        default=120.0,
        help="seconds without a finished test until a launch is ended",
    )
    parser.addoption(
        "--all",
        action="store_true",
        help="the tests marked grid as well: further points of a grid of cases",
    )
    parser.addoption(
        "--seconds",
        metavar="FILE",
        help="add the seconds of each folder to FILE; see harness/seconds.py",
    )
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail if a test is skipped for no expected reason",
    )


def _with_mpi(config):
    """Whether pytest itself was started under mpirun, with pytest-mpi's option."""
    names = ("with_mpi", "only_mpi")
    return any(config.getoption(name, default=False) for name in names)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    # MPI tests that use one rank only start MPI in this very process.
    for name, value in mpi_launch.OPEN_MPI.items():
        os.environ.setdefault(name, value)
    if not _asked_for(config, "nvrtc"):  # which is about the real CuPy
        gpus.offer()  # the modules with doctests are all imported
    if config.getoption("--strict-skips"):
        config.pluginmanager.register(strict_skips.StrictSkips(), "strict skips")
    if config.getoption("--seconds") and not hasattr(config, "workerinput"):
        kept = seconds.FolderSeconds(config.getoption("--seconds"))
        config.pluginmanager.register(kept, "seconds")
    if mpi_rank.started_by_pytest():
        config.pluginmanager.register(mpi_rank.RankRecorder(config), "ranks")
    elif _with_mpi(config):
        config.pluginmanager.register(mpi_rank.RankMeeting(), "ranks")
    else:
        import hypothesis

        _refuse_ranks()
        # A loaded machine is slow: no example may fail for its time.
        hypothesis.settings.register_profile("patient", deadline=None)
        hypothesis.settings.load_profile("patient")
        asked = config.getoption("--ranks")
        counts = [int(n) for n in asked.split(",")] if asked else None
        timeout_s = config.getoption("--ranks-timeout")
        plugin = mpi_parent.MpiTests(counts, timeout_s)
        config.pluginmanager.register(plugin, "ranks")


def _asked_for(config, mark):
    return mark in (config.getoption("markexpr", default="") or "")


def _refuse_ranks():
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        if int(os.environ.get(name, "1")) > 1:
            raise pytest.UsageError(
                f"pytest runs on {os.environ[name]} ranks and would start ranks of "
                "its own: add --with-mpi, or leave out mpirun"
            )


def pytest_collection_modifyitems(config, items):
    """Drop what needs more than is installed, or more time, unless it was asked for."""
    unwanted = [mark for mark in ("reference", "nvrtc") if not _asked_for(config, mark)]
    if not config.getoption("--all"):
        unwanted.append("grid")
    dropped = [i for i in items if any(map(i.get_closest_marker, unwanted))]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(autouse=True)
def _on_the_cpu(request, monkeypatch):
    """Backend "auto" takes a GPU, or the stand-in, in tests marked gpu alone."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr("pympi_train.backends.gpu.is_installed", lambda: False)


@pytest.fixture(scope="session")
def comm():
    """A duplicate of COMM_WORLD, so that tests cannot meet another's messages."""
    from mpi4py import MPI

    duplicate = MPI.COMM_WORLD.Dup()
    yield duplicate
    duplicate.Free()


@pytest.fixture
def mpi_tmp_path(tmp_path, comm):
    """Rank 0's temporary folder, the same path on every rank. Collective."""
    return Path(comm.bcast(str(tmp_path), root=0))


@pytest.fixture(scope="session")
def mpirun(request):
    """Start a command on several ranks: ``mpirun(n, argv, timeout=120, env={})``.

    Returns (returncode, stdout, stderr); no process of it outlives the call.
    """
    if _with_mpi(request.config) or mpi_rank.started_by_pytest():
        pytest.skip("starts mpirun itself: run plain pytest")
    return mpi_launch.mpirun


@pytest.fixture(scope="session")
def open_mpi_5(mpirun):
    """Skip the test unless the launcher is that of Open MPI 5."""
    if not mpi_launch.is_open_mpi_5():
        pytest.skip("no ULFM: the launcher is not that of Open MPI 5")
