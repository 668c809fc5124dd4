"""The words that explain why a launch failed."""

import pytest

from pympi_train.launch.said import last_words

MPICH_BANNER = """
====================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 24415 RUNNING AT node3
=   EXIT CODE: 9
====================================================================
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions
"""
PRTE_BANNER = """
--------------------------------------------------------------------
prterun noticed that process rank 1 with PID 7 on node b exited on signal 9 (Killed).
--------------------------------------------------------------------
"""


@pytest.mark.parametrize("text, words", [
    ("", ""),
    ("a\npympi-train: no rows\nlater\n", "no rows"),
    (f"pympi-train: no rows{MPICH_BANNER}", "no rows"),
    (MPICH_BANNER, "Killed (signal 9)"),
    (f"Traceback\nMemoryError\n{MPICH_BANNER}", "MemoryError; Killed (signal 9)"),
    (PRTE_BANNER, "prterun noticed that process rank 1 with PID 7 on node b exited on"),
])
def test_last_words_of_a_launch(text, words):
    found = last_words(text)
    assert found.startswith(words) and "FAQ" not in found
    assert words or not found
