"""Plain pytest runs MPI tests too: here they become items that start mpirun.

A test marked ``mpi`` becomes one item a number of ranks. The items of one module
and one number share a launch, since a start costs more than most tests. The ranks
write what happened, test by test (`mpi_rank`), and meet between tests; so a crash
or a hang belongs to the first test that did not end on all of them. That test
fails, and the ones after it run in a new launch. Exit status 0 is no pass: a test
has passed when every rank says so.
"""

import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mpi_launch import ROOT, Job
from mpi_rank import N_RANKS, RECORDS
from seconds import folder_of

# Unless pytest is told numbers of ranks: that of a usual test, and those of tests whose
# arithmetic knows it: powers of two, nodes, slices.
USUAL = (3,)
COUNTED = (2, 3, 4)
COUNTED_PATHS = ("tests/comm/", "tests/parallel/sharded/", "test_hierarchical.py::")

# The last so many characters of what the ranks printed are enough for a report.
TAIL = 6000


class RanksFailed(Exception):
    """A test that did not pass on every rank; the text is the whole report."""


class RanksItem(pytest.Item):
    """One MPI test on one number of ranks."""

    def __init__(self, *, function, n_ranks, launches, **kwargs):
        super().__init__(**kwargs)
        self.own_markers.extend(function.own_markers)
        self.keywords.update(function.keywords)
        self.test_id = function.nodeid
        self.n_ranks = n_ranks
        self._launches = launches
        self._where = function.reportinfo()
        # To start Python with pytest on all ranks takes longer than most tests. Those
        # of a GPU import CuPy, or what stands in for it: in processes of their own.
        on_gpu = function.get_closest_marker("gpu") is not None
        self.group = (folder_of(function.nodeid), on_gpu, n_ranks)

    def runtest(self):
        result = self._launches.result(self)
        if result["outcome"] == "skipped":
            raise pytest.skip.Exception(result["reason"], _use_item_location=True)
        if result["outcome"] == "xfailed":
            pytest.xfail(result["reason"])
        if result["outcome"] != "passed":
            raise RanksFailed(result["text"])

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, RanksFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self._where


class MpiTests:
    """Makes the items, and launches the ranks when their results are asked for.

    Parameters
    ----------
    ranks : list of int or None
        Numbers of ranks to run each test on, where its ``min_size`` and ``max_size``
        allow; None for the usual ones.
    timeout_s : float
        A launch that finishes no test for so long is ended.
    """

    def __init__(self, ranks, timeout_s):
        self._ranks = ranks
        self._timeout_s = timeout_s
        self._groups = {}
        self._results = {}

    def pytest_sessionstart(self, session):
        # `timeout` and batch systems send it; the ranks have to end with the session.
        signal.signal(signal.SIGTERM, _leave)
        # pytest-mpi skips tests marked mpi unless it is given its option.
        manager = session.config.pluginmanager
        for plugin in list(manager.get_plugins()):
            if type(plugin).__module__ == "pytest_mpi":
                manager.unregister(plugin)

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self):
        made = yield
        if not isinstance(made, list):
            return made
        return [item for one in made for item in self._spread(one)]

    def _spread(self, item):
        mark = item.get_closest_marker("mpi")
        if mark is None or not isinstance(item, pytest.Function):
            return [item]
        least = mark.kwargs.get("min_size", 1)
        most = mark.kwargs.get("max_size", math.inf)
        counts = [n for n in self._counts(item) if least <= n <= most] or [least]
        return [
            RanksItem.from_parent(
                item.parent,
                name=_with_parameter(item.name, f"{n}ranks"),
                function=item,
                n_ranks=n,
                launches=self,
            )
            for n in counts
        ]

    def _counts(self, item):
        if self._ranks is not None:
            return self._ranks
        on_gpu = item.get_closest_marker("gpu") is not None
        is_counted = any(path in item.nodeid for path in COUNTED_PATHS)
        return COUNTED if is_counted and not on_gpu else USUAL

    def pytest_collection_finish(self, session):
        for item in session.items:
            if isinstance(item, RanksItem):
                self._groups.setdefault(item.group, []).append(item.test_id)

    def result(self, item):
        """The result of one item; launches its group from the first test without one.

        A launch ends at the first failure, and so does a session with ``-x``: tests
        after it are launched only when they are asked for.
        """
        key = (item.test_id, item.n_ranks)
        while key not in self._results:
            pending = self._groups[item.group]
            launch = Launch(pending, item.n_ranks, self._timeout_s)
            results = launch.results()
            for test_id, result in results.items():
                self._results[test_id, item.n_ranks] = result
            self._groups[item.group] = [one for one in pending if one not in results]
        return self._results[key]


def _leave(number, _):
    pytest.exit(f"{signal.Signals(number).name} received", returncode=128 + number)


def _with_parameter(name, parameter):
    if name.endswith("]"):
        return f"{name[:-1]}-{parameter}]"
    return f"{name}[{parameter}]"


class Launch:
    """One mpirun over some tests of one folder, and what its ranks recorded."""

    def __init__(self, test_ids, n_ranks, timeout_s):
        self._ids = test_ids
        self._n = n_ranks
        self._timeout_s = timeout_s
        self._ended = None  # how, in words, if the ranks ended badly
        self._output = ""
        self._folder = Path(tempfile.mkdtemp(prefix="pympi_train-ranks-"))

    def results(self):
        """Run the ranks; results of at least the first test, in order."""
        try:
            self._run()
            return self._judge()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self):
        list_of_tests = self._folder / "tests"
        list_of_tests.write_text("\n".join(self._ids))
        argv = [sys.executable, "-m", "mpi4py", "-m", "pytest"]
        argv += ["-q", "--color=no", "--no-header", "--all"]  # of those that are named
        # Hypothesis' plugin imports all of it for its summary, used or not.
        for plugin in ("cacheprovider", "mpi", "xdist", "hypothesispytest"):
            argv += ["-p", f"no:{plugin}"]
        argv += ["--rootdir", str(ROOT), "-c", str(ROOT / "setup.cfg")]
        env = {RECORDS: str(self._folder), N_RANKS: str(self._n)}
        env["CI"] = "true"  # Hypothesis draws the same examples on every rank
        with Job(self._n, [*argv, f"@{list_of_tests}"], env=env, cwd=ROOT) as job:
            self._ended = self._wait(job)
            job.end()
            stdout, stderr = job.output()
            self._output = f"{stdout}\n{stderr}".strip()[-TAIL:]

    def _wait(self, job):
        """Wait while tests go on ending; None, or how the launch went wrong."""
        files = [self._folder / f"{rank}.jsonl" for rank in range(self._n)]
        seen, since_s = None, time.monotonic()
        while (status := job.wait(0.05)) is None:
            now = [file.stat().st_size for file in files if file.exists()]
            if now != seen:
                seen, since_s = now, time.monotonic()
            elif time.monotonic() - since_s > self._timeout_s:
                self._ask_for_stacks()
                return f"no progress for {self._timeout_s:g} s, so they were ended"
        if status < 0:
            return f"mpirun died of {signal.Signals(-status).name}"
        return f"mpirun ended with exit status {status}" if status else None

    def _ask_for_stacks(self):
        for records in self._records():
            if records:
                os.kill(records[0]["pid"], signal.SIGUSR1)
        time.sleep(0.5)

    def _records(self):
        """What each rank wrote: a list of records a rank."""
        ranks = []
        for rank in range(self._n):
            file = self._folder / f"{rank}.jsonl"
            lines = file.read_text().splitlines() if file.exists() else []
            ranks.append([json.loads(line) for line in lines])
        return ranks

    def _judge(self):
        """Results up to the first test that did not end well on every rank."""
        records = self._records()
        ends = [{one["end"]: one for one in rank if "end" in one} for rank in records]
        results = {}
        for test_id in self._ids:
            ranks = [rank.get(test_id, {"outcome": "unfinished"}) for rank in ends]
            results[test_id] = merge(ranks)
            if any(rank["outcome"] in ("failed", "unfinished") for rank in ranks):
                results[test_id]["text"] += self._epilogue(records)
                return results
        if self._ended:  # after the last test, so it is the last one's
            text = "all ranks came to its end; then:" + self._epilogue(records)
            results[test_id] = {"outcome": "failed", "text": text}
        return results

    def _epilogue(self, records):
        """How the launch ended: status, stacks of ranks that hung, output."""
        pids = ", ".join(str(rank[0]["pid"]) if rank else "none" for rank in records)
        text = f"\n{self._n} ranks, pids {pids}: {self._ended or 'exit status 0'}"
        for rank in range(self._n):
            file = self._folder / f"{rank}.stacks"
            stack = file.read_text() if file.exists() else ""
            if stack:
                text += f"\n\nrank {rank} was here:\n{_without_pytest(stack)}"
        return f"{text}\n\nwhat the ranks printed:\n{self._output or '(nothing)'}"


def _without_pytest(stack):
    noise = ("/_pytest/", "/pluggy/", "/pytest/__main__", "/mpi4py/", "<frozen ")
    return "\n".join(
        line for line in stack.splitlines() if not any(word in line for word in noise)
    )


def merge(ranks):
    """One result from every rank's; only the same outcome on all of them counts."""
    outcomes = [rank["outcome"] for rank in ranks]
    if len(set(outcomes)) == 1 and outcomes[0] not in ("failed", "unfinished"):
        return ranks[0]
    lines = [f"{outcomes.count('passed')} of {len(ranks)} ranks passed"]
    for number, rank in enumerate(ranks):
        detail = rank.get("text") or rank.get("reason") or ""
        lines.append(f"rank {number}: {rank['outcome']} {detail}".rstrip())
    return {"outcome": "failed", "text": "\n".join(lines)}
