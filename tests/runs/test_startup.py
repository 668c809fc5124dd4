"""Seconds of a start."""

import subprocess
import sys
import time

from pympi_train.runs.startup import StartUp, process_age_s

AGE = "from pympi_train.runs.startup import process_age_s as f; print(f())"


def test_parts_add_up_in_their_order():
    began_s = time.perf_counter()
    startup = StartUp()
    for part in ("data", "backend"):
        time.sleep(0.01)
        startup.lap(part)
    assert list(startup.seconds) == ["data", "backend"]
    assert all(seconds >= 0.01 for seconds in startup.seconds.values())
    assert sum(startup.seconds.values()) <= time.perf_counter() - began_s


def test_age_of_a_process_is_its_own():
    assert process_age_s() > 0
    began_s = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", AGE], capture_output=True, check=True)
    # A clock tick is 10 ms.
    assert 0 <= float(found.stdout) <= time.perf_counter() - began_s + 0.02
