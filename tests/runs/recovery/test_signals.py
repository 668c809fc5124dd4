"""Signals before, in and after a training, on one rank."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pympi_train.runs.recovery.signals import Deadline, orderly

SCRIPT = """
import os, signal
from pympi_train.runs.recovery import signals
with signals.orderly():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # the same one, passed on
    print("noted", flush=True)
    signals.ECHO_S = 0.0
    os.kill(os.getpid(), signal.SIGTERM)
    print("not here")
"""


def test_signal_before_the_training_is_obeyed_in_it():
    before, requests = signal.getsignal(signal.SIGUSR1), []
    with orderly() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.signal == signal.SIGUSR1
        with stop.during(lambda: requests.append(1)):
            assert requests == [1]
            os.kill(os.getpid(), signal.SIGTERM)
            assert requests == [1, 1]
        os.kill(os.getpid(), signal.SIGTERM)  # what is left is quick
        assert stop.signal == signal.SIGUSR1 and requests == [1, 1]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_interrupt_outside_of_the_training_is_as_ever():
    # A shell starts what runs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupt_outside_and_within()
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_outside_and_within():
    with orderly() as stop:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with stop.during(lambda: None):
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)


def test_second_signal_ends_a_start_that_hangs():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True)
    assert done.stdout == b"noted\n"
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    "max_time_s, text, jump_s, left_s",
    [
        (None, "", 0, float("inf")),
        (None, "12", 0, float("inf")),  # of another job: it is over
        (None, "1050", 0, 50),
        (60, "", 0, 57),
        (60, "1050", 0, 50),
        (60, "", 3600, 57),  # the clock is set
        (60, "", -3600, 57),
        (None, "1050", 20, 30),  # SLURM goes by it
    ],
)
def test_end_of_the_job(monkeypatch, max_time_s, text, jump_s, left_s):
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    deadline = Deadline(max_time_s, 3.0, {"SLURM_JOB_END_TIME": text})
    monkeypatch.setattr(time, "time", lambda: 1000.0 + jump_s)
    assert deadline.left_s() == left_s
