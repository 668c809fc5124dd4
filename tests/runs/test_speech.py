"""Results on streams that end, are full, or lack characters."""

import io
import os
import subprocess
import sys

import pytest

from pympi_train.errors import DataError
from pympi_train.runs.speech import counted, encodable, in_columns, say, say_progress


def test_numbers_of_things():
    assert counted(1, "row") == "1 row"
    assert counted(0, "row") == "0 rows"
    assert counted(2000, "row") == "2,000 rows"
    assert counted(2, "class", "classes") == "2 classes"


def test_what_a_stream_cannot_encode():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert encodable("d\u00e4ta", stream) == "d\\xe4ta"
    assert encodable("d\u00e4ta", io.StringIO()) == "d\u00e4ta"


def test_line_breaks_in_names_break_no_table():
    assert in_columns([("name", "step"), ("a\nb", "1")]) == ["name  step", "a\\nb  1"]


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self._error = error

    def write(self, text):
        raise self._error


def test_a_result_that_cannot_be_written_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="standard output cannot be written: No space"):
        say("loss 0.5")


def test_a_reader_that_left_is_none(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(BrokenPipeError()))
    say("loss 0.5")
    say("accuracy 0.5")


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left")])
def test_progress_that_cannot_be_written_ends_nothing(monkeypatch, error):
    monkeypatch.setattr(sys, "stderr", Broken(error))
    say_progress("1/8  strong, 2 ranks")


def test_progress_has_escapes_for_what_a_terminal_lacks(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    say_progress("d\u00e4ta")
    assert raw.getvalue() == b"d\\xe4ta\n"


def test_python_ends_quietly_after_a_reader_that_left():
    code = "from pympi_train.runs.speech import say\nfor i in range(9): say(i * 'x')"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
