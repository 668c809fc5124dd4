"""When ranks are started again, and when they are given up."""

import os
import signal
import sys
import threading

import pytest

from pympi_train.checkpoint.store import Entry
from pympi_train.config.config import parse
from pympi_train.launch import supervise
from pympi_train.launch.launchers import Launcher
from pympi_train.launch.supervise import Supervisor, describe_status
from pympi_train.launch.training import BEGUN, ENDED, Training

AGAIN = 0.5  # rounded down


class Scripted:
    """A training whose starts end with given statuses, each after some steps.

    AGAIN: a checkpoint of the step that the last one had, which was damaged.
    """

    def __init__(self, *starts, finished=True, out_of_time=False):
        self._starts, self.n_starts, self._newest = list(starts), 0, None
        self._finished, self._out_of_time = finished, out_of_time
        self.written = [BEGUN]
        self.runs = lambda: True

    def command(self, n_ranks=None):
        status, n_steps = self._starts[self.n_starts]
        self.n_starts += 1
        if n_steps:
            step = (self._newest.step if self._newest else 0) + n_steps
            self._newest = Entry(self.n_starts, int(step), f"step-{int(step)}")
        if status == "waits":
            return ["import time; time.sleep(600)"]
        return [f"import sys; sys.exit({status})"]

    def newest(self):
        return self._newest

    def is_finished(self):
        return self._finished

    def has_written(self, name):
        return name in self.written

    def is_out_of_time(self):
        return self._out_of_time

    def is_running(self):
        return self.runs()


class Python(Launcher):
    def command(self, n_ranks, program):
        return [sys.executable, "-c", *program]


@pytest.fixture
def delays(monkeypatch):
    found = []
    monkeypatch.setattr(Supervisor, "_sleep", lambda _, delay_s: found.append(delay_s))
    return found


def run(training, restarts=10):
    said = []
    launcher = Python((), "made")
    status = Supervisor(launcher, training, 3, 3, restarts, 1, said.append).run()
    return status, said


@pytest.mark.parametrize(
    "starts, status, n_starts, word",
    [
        ([(0, 5)], 0, 1, None),
        ([(2, 0)], 2, 1, None),
        ([(9, 5), (1, 5), (137, 5), (0, 5)], 0, 4, "SIGKILL"),
        ([(9, 0), (0, 5)], 0, 2, "no checkpoint yet"),
        ([(1, 0), (9, 0), (0, 5)], 9, 2, "twice without a checkpoint"),
        ([(1, 5), (9, 5), (1, 0)], 1, 3, "twice without a checkpoint"),
        ([(9, 5), (1, AGAIN), (9, 5), (0, 5)], 0, 4, "SIGKILL"),
        ([(75, 5), (0, 5)], 0, 2, "status 75"),
        ([(9, 5), (2, 0)], 2, 2, "SIGKILL"),
    ],
)
def test_statuses(starts, status, n_starts, word, delays):
    training = Scripted(*starts)
    found, said = run(training)
    assert (found, training.n_starts) == (status, n_starts)
    assert word in " ".join(said) if word else not said


def test_delays_grow_to_a_minute(delays):
    training = Scripted(*[(9, 5)] * 8, (0, 5))
    assert run(training)[0] == 0
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_number_of_restarts(delays):
    training = Scripted(*[(9, 5)] * 8)
    status, said = run(training, restarts=2)
    assert (status, training.n_starts) == (9, 3)
    assert "given up" in said[-1] and "again 2 times" in said[-1]
    assert run(Scripted((9, 5)), restarts=0)[0] == 9


def test_success_without_a_result_is_none(delays):
    training = Scripted((0, 5), (0, 0), finished=False)
    status, said = run(training)
    assert (status, training.n_starts) == (1, 2)
    assert "before the training was finished" in said[0]


def test_end_of_the_job_is_no_fault(delays):
    assert run(Scripted((75, 5), out_of_time=True)) == (75, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_ranks_receive_the_signal(number):
    training = Scripted(("waits", 5))
    # The process ends by SIGUSR1 at once; a rank would save first.
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    status, said = run(training)
    assert status == 75
    assert "before they saved" in said[-1]
    assert training.n_starts == 1


def test_signal_while_waiting_to_start_again(monkeypatch):
    monkeypatch.setattr(supervise, "MOST_DELAY_S", 600)
    monkeypatch.setattr(Supervisor, "_verdict", lambda *_: None)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert run(Scripted((9, 5), (9, 5)))[0] == 75


def test_second_ctrl_c_ends_the_ranks(monkeypatch):
    monkeypatch.setattr(supervise.Launched, "send", lambda *_: None)  # they are deaf
    for delay_s in (0.5, 1.0):
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(("waits", 0)))


def test_ranks_that_do_not_come_up(monkeypatch, delays):
    monkeypatch.setattr(supervise, "AGAIN_S", 0.1)
    training = Scripted(("waits", 0), (0, 5))
    training.written = []
    status, said = run(training)
    assert (status, training.n_starts) == (0, 2)
    assert "--start-timeout 1 s" in said[0] and "status 124" in said[1]


@pytest.fixture
def impatient(monkeypatch):
    """Looks often, and gives ranks that should end half a second."""
    monkeypatch.setattr(supervise, "AGAIN_S", 0.1)
    monkeypatch.setattr(supervise, "EXIT_S", 0.5)


def test_ranks_that_do_not_end(impatient):
    training = Scripted(("waits", 5))
    training.written = [BEGUN, ENDED]
    status, said = run(training)
    assert (status, training.n_starts) == (0, 1)
    assert "do not end" in said[0]


def test_a_launcher_that_waits_after_the_training_has_ended(impatient, delays):
    """Such as Open MPI's, for the daemon of a node that does not answer any more."""
    training = Scripted(("waits", 5), (0, 5))
    training.runs = iter([True] * 3 + [False] * 99).__next__
    status, said = run(training)
    assert (status, training.n_starts) == (0, 2)
    assert "its launcher waits" in said[0] and "status 124" in said[1]


def test_a_lock_that_cannot_be_seen_ends_nothing(impatient):
    """The locks of some file systems are known to their own node only."""
    training = Scripted(("waits", 5))
    training.runs = lambda: False
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    status, said = run(training)
    assert (status, training.n_starts) == (75, 1)
    assert "its launcher waits" not in " ".join(said)


def test_words_for_statuses():
    assert describe_status(139).endswith("status 139 (SIGSEGV)")
    assert describe_status(9).endswith("status 9 (SIGKILL)")
    assert describe_status(124).endswith("status 124")


def test_a_start_on_fewer_ranks_trains_on_no_more(tmp_path):
    text = '[data]\ntrain = "rows.npz"\n[model]\nkind = "linear"\n'
    config = parse(text, folder=tmp_path, overrides=["elastic.ranks=3"])
    training = Training(["train", "run.toml"], config, None)
    assert training.command(2)[-2:] == ["--set", "elastic.ranks=2"]
    assert "--set" not in training.command() + training.command(3)
