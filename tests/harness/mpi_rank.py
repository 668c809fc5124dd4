"""pytest inside a rank: after each MPI test the ranks meet before the next.

`RankRecorder` serves ranks that plain pytest started: it writes what happened to
a file of this rank, and a failure ends the whole launch. `RankMeeting` serves
``mpirun -n 3 python -m pytest --with-mpi``: a test that failed on one rank while
the others wait in a collective ends the job, one that failed on all does not.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pympi_train.comm.watch.abort import end

RECORDS = "PYMPI_TRAIN_TEST_RECORDS"
N_RANKS = "PYMPI_TRAIN_TEST_RANKS"

# How long a failed rank waits for the others: to fail too, or to meet it.
GRACE_S = 0.3
MEETING_S = 5.0
PATIENCE_S = 300.0


def started_by_pytest():
    """Whether this process is a rank that plain pytest started."""
    return RECORDS in os.environ


class RankRecorder:
    """Writes begin and end of each test of this rank, one JSON object a line."""

    def __init__(self, config):
        from mpi4py import MPI

        expected = int(os.environ[N_RANKS])
        if MPI.COMM_WORLD.size != expected:
            raise pytest.UsageError(
                f"mpirun started {expected} ranks, but MPI has "
                f"{MPI.COMM_WORLD.size}: it is another MPI's mpirun"
            )
        self._comm = MPI.COMM_WORLD.Dup()
        rank = self._comm.rank
        folder = Path(os.environ[RECORDS])
        config.option.basetemp = folder / f"tmp-{rank}"
        self._file = open(folder / f"{rank}.jsonl", "x", buffering=1)
        self._stacks = open(folder / f"{rank}.stacks", "x")
        # The parent sends it to ranks that hang; it works inside an MPI call.
        faulthandler.register(signal.SIGUSR1, self._stacks, all_threads=True)
        self._write(pid=os.getpid())
        self._reports = []

    def _write(self, **record):
        self._file.write(json.dumps(record) + "\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self._reports = []
        self._write(begin=item.nodeid)
        result = yield
        self._write(end=item.nodeid, **summary(self._reports))
        self._comm.Barrier()
        return result

    def pytest_runtest_logreport(self, report):
        self._reports.append(report)
        if report.failed:
            self._write(end=report.nodeid, **summary(self._reports))
            time.sleep(GRACE_S)  # the others may fail too, and should say so
            end(1)


def summary(reports):
    """One test on one rank: its outcome, with a text or a reason."""
    for report in reports:
        if report.failed:
            return {"outcome": "failed", "text": story(report)}
        if hasattr(report, "wasxfail") and report.skipped:
            return {"outcome": "xfailed", "reason": report.wasxfail}
        if report.skipped:
            reason = report.longrepr[2].removeprefix("Skipped: ")
            return {"outcome": "skipped", "reason": reason}
    if not any(report.when == "call" for report in reports):
        return {"outcome": "failed", "text": "was not called"}
    return {"outcome": "passed"}


def story(report):
    """The traceback of a failed report and what the test had printed."""
    parts = [f"({report.when})", report.longreprtext]
    parts += [f"--- {title} ---\n{text}" for title, text in report.sections]
    return "\n".join(parts)


class RankMeeting:
    """Lets ranks under ``pytest --with-mpi`` meet after each MPI test."""

    def __init__(self):
        from mpi4py import MPI

        self._comm = MPI.COMM_WORLD.Dup()
        self._failed = ""
        self._stderr = os.dup(2)  # pytest's capture takes the descriptor itself

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self._failed = ""
        result = yield
        if item.get_closest_marker("mpi"):
            self._meet(item.nodeid)
        return result

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._failed = story(report)

    def _meet(self, nodeid):
        request = self._comm.Ibarrier()
        end_s = time.monotonic() + (MEETING_S if self._failed else PATIENCE_S)
        while not request.Test():
            if time.monotonic() > end_s:
                self._abort(nodeid)
            time.sleep(1e-3)

    def _abort(self, nodeid):
        message = self._failed or "other ranks did not come to the end of this test"
        text = f"\n[rank {self._comm.rank}] {nodeid}: {message}\n"
        sys.stdout.flush()
        os.write(self._stderr, text.encode())
        end(1)
