"""The free memory of a node, from /proc/meminfo."""

import builtins
import io

import pytest

from pympi_train.backends.node_memory import available_bytes


@pytest.mark.parametrize(
    "text, n_bytes",
    [
        ("MemTotal: 9 kB\nMemAvailable:  7 kB\n", 7 * 1024),
        ("MemTotal: 9 kB\n", 2**62),  # before Linux 3.14
        ("MemAvailable:\n", 2**62),
        (None, 2**62),  # not on macOS
    ],
)
def test_available_bytes(monkeypatch, text, n_bytes):
    def opened(path, **how):
        if text is None:
            raise FileNotFoundError(path)
        return io.StringIO(text)

    monkeypatch.setattr(builtins, "open", opened)
    found = available_bytes()
    monkeypatch.undo()
    assert found == n_bytes
