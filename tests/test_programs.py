"""Other programs: what they print, and why they cannot be run."""

import sys

import pytest

from pympi_train.errors import LaunchError
from pympi_train.programs import run_program


def test_what_a_program_prints():
    code = "import sys; print(sys.stdin.read() == ''); sys.exit('caf\\xe9')"
    done = run_program([sys.executable, "-c", code], 60.0)
    assert (done.returncode, done.stdout) == (1, "True\n")
    assert done.stderr.startswith("caf")


def test_program_that_is_absent():
    with pytest.raises(LaunchError, match="^no-such-program is not on PATH: load it$"):
        run_program(["no-such-program"], 60.0, "load it")
    with pytest.raises(LaunchError, match="^no-such-program is not on PATH$"):
        run_program(["no-such-program"], 60.0)


def test_program_that_cannot_be_run(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(LaunchError, match="/x: Permission denied$"):
        run_program([str(tmp_path / "x")], 60.0)


def test_program_that_does_not_end():
    with pytest.raises(LaunchError, match="gave no answer in 0 s$"):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
