"""Who waits for whom, and for how long; without MPI: tables are made by hand."""

import math
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch import watchdog
from pympi_train.comm.watch.waiting import Ages, laggards
from pympi_train.comm.watch.watchdog import Watchdog

OPERATIONS = j.Operations(
    ("", "Allreduce", "Bcast", "Waitall", "Recv"), n_collectives=3, n_timed=4
)
WAITALL, RECV = 3, 4
OURS = os.getpid(), j.process(os.getpid())[1]  # a process that runs


class Node:
    """Some ranks of a node, all in communicator 0 of channel 0."""

    def __init__(self, n):
        self.table = np.zeros((n, j.WIDTH), dtype=np.int64)
        self.table[:, j.RANK] = range(n)
        self.table[:, j.CHANNELS + 1] = 1
        self.table[:, j.PID], self.table[:, j.BORN] = OURS
        self.ended, self.dogs = [], []

    def enter(self, i, number, operation=1, channel=0):
        self.table[i, j.WAITING] = j.waiting(number, operation, channel)
        self.table[i, j.CHANNELS + 2 * channel] = number

    def leave(self, i):
        self.table[i, j.WAITING] = 0

    def mark(self, i, place, step):
        self.table[i, j.PLACE] = step << 8 | place

    def watch(self, timeout_s=10.0, elsewhere=0):
        n = len(self.table)
        for i in range(n):
            journal = SimpleNamespace(
                table=self.table,
                row=memoryview(self.table[i]),
                index=i,
                rank=i,
                size=n + elsewhere,
            )
            self.dogs.append(
                Watchdog(
                    journal,
                    OPERATIONS,
                    timeout_s,
                    end=lambda late, i=i: self.ended.append((i, late)),
                )
            )

    def look(self, times, but=()):
        for _ in range(times):
            for i, dog in enumerate(self.dogs):
                if i not in but and not self.ended:
                    dog.look(1.0)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("pympi_train.comm.watch.watchdog.SPEECH_S", 0)


@pytest.fixture
def node():
    """Rank 0 and 2 wait in their fifth collective, rank 1 reads rows of step 7."""
    node = Node(3)
    for i, number in enumerate((5, 4, 5)):
        node.enter(i, number)
    node.leave(1)
    node.mark(1, j.INPUT, 7)
    return node


def test_words_of_the_table():
    word = j.waiting(2**40, 200, 27)
    assert j.waited_in(word) == (2**40, 200, 27)
    assert j.place_and_step(12345 << 8 | j.BACKWARD) == ("backward", 12345)
    assert j.PLACES[j.END_OF_EPOCH] == "end of epoch"


def test_ages_begin_anew_with_each_call(node):
    ages = Ages(node.table)
    ages.look(node.table, 2.0)
    ages.look(node.table, 2.0)
    assert ages.waited_s.tolist() == [4, 0, 4]
    assert ages.there_s.tolist() == [4, 4, 4]
    node.enter(0, 6)  # left the fifth and is in the sixth already
    node.mark(1, j.FORWARD, 7)
    ages.look(node.table, 2.0)
    assert ages.waited_s.tolist() == [0, 0, 6]
    assert ages.there_s.tolist() == [0, 0, 6]


def test_those_that_have_begun_fewer_are_late(node):
    assert laggards(node.table, 0) == [1]
    node.enter(1, 5)
    assert laggards(node.table, 0) == []  # all there: another node


def test_those_that_have_left_are_late_where_nobody_else_is(node):
    """A root of Bcast, or who started a collective and computes."""
    node.enter(1, 5)
    node.leave(1)
    assert laggards(node.table, 0) == [1]


def test_other_communicators_do_not_count(node):
    node.table[1, j.CHANNELS + 1] = 2  # of the same channel, another name
    assert laggards(node.table, 0) == []


def test_laggards_of_a_communicator_within(node):
    node.table[[0, 1], j.CHANNELS + 3] = 1  # channel 1: ranks 0 and 1
    node.enter(0, 3, channel=1)
    node.table[1, j.CHANNELS + 2] = 2
    assert laggards(node.table, 0) == [1]


def test_who_is_late_is_named(node, capsys):
    node.watch()
    node.look(9)
    assert not node.ended
    node.look(8)
    assert [i for i, _ in node.ended] == [0]  # the lowest of those that wait
    assert node.ended[0][1] == [OURS]  # process and start of rank 1
    said = capsys.readouterr().err
    assert "rank 0 of 3 has waited 13 s in Allreduce (call 5 of" in said
    assert "timeout_s = 10): ending the job" in said
    assert "  rank 1: input, step 7, for 13 s" in said
    assert "rank 2:" not in said
    # Stacks of the rank that reports and of the late one, once each.
    for rank, times in enumerate((1, 1, 0)):
        assert said.count(f"rank {rank} of 3 is here") == times
    assert "test_who_is_late_is_named" in said


def test_another_rank_reports_if_the_lowest_is_stopped(node, capsys):
    node.watch()
    node.look(11)
    node.look(8, but=(0,))
    assert [i for i, _ in node.ended] == [2]
    assert "rank 2 of 3 has waited" in capsys.readouterr().err


def test_one_that_comes_at_last_stops_the_alarm(node):
    node.watch()
    node.look(12)
    assert node.table[:, j.ALARM].tolist() == [1, 0, 1]
    for i in range(3):
        node.enter(i, 6)
    node.look(9)
    assert not node.ended
    assert not node.table[:, j.ALARM].any()


def test_who_is_on_another_node(node, capsys):
    node.enter(1, 5)
    node.watch(elsewhere=1)
    node.look(18)
    assert node.ended[0] == (0, [])
    assert "runs on another node" in capsys.readouterr().err


@pytest.mark.parametrize("elsewhere, operation", [(0, 1), (0, 2), (1, 2)])
def test_who_waits_in_another_call(node, capsys, elsewhere, operation):
    node.enter(1, 5, operation)
    node.watch(elsewhere=elsewhere)
    node.look(18)
    assert node.ended[0] == (0, [])
    said = capsys.readouterr().err
    assert "No rank is late. Others wait too, in other calls:\n  rank 1:" in said
    assert f"in {OPERATIONS.names[operation]}, for" in said
    assert said.count("rank 1 of") == 1  # its stack
    assert "inside `if rank == 0`" in said and "another node" not in said


def test_nobody_ends_a_job_that_computes(node):
    for i in range(3):
        node.leave(i)
    node.watch()
    node.look(100)
    assert not node.ended


def test_some_calls_may_take_any_time(node):
    """As long as another rank does something."""
    node.enter(0, 5, RECV)
    node.leave(2)
    node.watch()
    for step in range(12):
        node.mark(2, j.FORWARD, step)
        node.look(9)
    assert not node.ended


def wait_for_workers(node, elsewhere=0):
    """Rank 0, a server, waits for the others."""
    node.enter(0, 5, RECV)
    node.table[:, j.PID], node.table[:, j.BORN] = (1, -1, -2), 1
    node.watch(elsewhere=elsewhere)
    node.look(15, but=(1, 2))


@pytest.mark.parametrize("elsewhere, ended", [(0, True), (1, False)])
def test_a_server_whose_workers_are_all_stopped(
    node, monkeypatch, capsys, elsewhere, ended
):
    monkeypatch.setattr(j, "process", lambda pid: ("S" if pid > 0 else "T", 1))
    wait_for_workers(node, elsewhere)
    assert bool(node.ended) == ended
    assert ("rank 1: " in capsys.readouterr().err) == ended


def compute(node):
    node.mark(2, j.FORWARD, 7)


def evaluate(node):
    node.mark(2, j.EVALUATION, 7)


def work_elsewhere(node):
    node.table[2, j.STATE] = j.ELSEWHERE


def wait_in_a_collective(node):
    """Its own watchdog ends the job."""
    node.enter(2, 5)


def serve_too(node):
    node.enter(2, 5, RECV)


@pytest.mark.parametrize(
    "do, ended",
    [
        (compute, True),
        (serve_too, True),
        (evaluate, False),
        (work_elsewhere, False),
        (wait_in_a_collective, False),
    ],
)
def test_a_server_whose_workers_do_nothing(node, monkeypatch, capsys, do, ended):
    monkeypatch.setattr(j, "process", lambda pid: ("S", 1))
    node.leave(2)
    do(node)
    wait_for_workers(node)
    assert bool(node.ended) == ended
    assert ("rank 1: " in capsys.readouterr().err) == ended


def leave_by_exit(node, i):
    node.table[i, j.STATE] = j.LEFT


def vanish(node, i):
    node.table[i, j.BORN] += 1  # another process has its number by now


@pytest.mark.parametrize("go", [leave_by_exit, vanish])
@pytest.mark.parametrize("timeout_s", [1000.0, math.inf])
def test_who_waits_for_one_that_has_left_ends_at_once(node, capsys, go, timeout_s):
    go(node, 1)
    node.watch(timeout_s)
    node.look(1)
    assert not node.ended
    node.look(1)
    assert [i for i, _ in node.ended] == [0]
    said = capsys.readouterr().err
    assert "in Allreduce (call 5 of its communicator; for a rank whose program" in said
    assert "  rank 1: " in said and "rank 2:" not in said
    assert ("its program has ended" if go is leave_by_exit else "is gone") in said


def test_one_that_has_taken_part_may_leave(node):
    node.enter(1, 5)
    node.leave(1)
    leave_by_exit(node, 1)
    node.watch(1000.0)
    node.look(100)
    assert not node.ended


@pytest.mark.parametrize("operation", [WAITALL, RECV])
def test_messages_need_everyone(node, operation):
    node.enter(1, 5)
    node.leave(1)
    leave_by_exit(node, 1)
    node.enter(0, 5, operation)
    node.watch(1000.0)
    node.look(4)
    assert [i for i, _ in node.ended] == [0]


def test_one_of_another_communicator_may_leave(node):
    node.table[1, j.CHANNELS + 1] = 2
    leave_by_exit(node, 1)
    node.watch(1000.0)
    node.look(100)
    assert not node.ended


def test_waiting_for_another_job_is_no_hang(node):
    """The late rank works in a job that has a watchdog of its own."""
    node.table[1, j.STATE] = j.ELSEWHERE
    node.watch()
    node.look(100)
    assert not node.ended
    node.table[1, j.STATE] = j.HERE
    node.look(9)
    assert not node.ended  # from now on it counts
    node.look(8)
    assert [i for i, _ in node.ended] == [0]


def test_time_in_which_nobody_looks_does_not_count(node, monkeypatch):
    """A suspended job: the clock goes on, the threads do not."""
    node.watch()
    dog, times = node.dogs[0], iter([0.0, 1.0, 100_000.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    elapsed = []
    dog.look = elapsed.append
    dog._stopped = SimpleNamespace(wait=lambda s: len(elapsed) == 2)
    dog._run()
    assert elapsed == [1.0, 2.0]  # looks are a second apart


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def aborted(monkeypatch):
    """How often `end_job` calls MPI_Abort, and the signals that it sends to itself."""
    aborts, signals, kill = [], [], os.kill

    def send(pid, number):
        if pid == os.getpid():
            signals.append(number)
        else:
            kill(pid, number)

    monkeypatch.setattr("os.kill", send)
    monkeypatch.setattr(watchdog, "_abort", lambda: aborts.append(1))
    monkeypatch.setattr(watchdog, "ABORT_S", 0.2)
    return aborts, signals


def test_end_kills_also_what_is_stopped(sleeper, aborted):
    os.kill(sleeper.pid, signal.SIGSTOP)
    state, born = j.process(sleeper.pid)
    watchdog.end_job([(sleeper.pid, born)])
    assert sleeper.wait(10) == -signal.SIGKILL
    assert aborted == ([1], [signal.SIGKILL])


def test_end_spares_a_process_that_is_another_by_now(sleeper, aborted):
    born = j.process(sleeper.pid)[1]
    watchdog.end_job([(sleeper.pid, born + 1), (sleeper.pid, 0)])
    assert sleeper.poll() is None


def test_state_of_no_process():
    assert j.process(2**30) == ("", 0)
