"""How many ranks can be started."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.errors import LaunchError
from pympi_train.launch.launchers import Launcher
from pympi_train.launch.slots import largest_number, startable_ranks


@given(st.integers(1, 2000), st.integers(0, 2000), st.integers(0, 2500))
def test_largest_is_the_obvious_one(least, more, there):
    asked, most = [], least + more

    def can_start(n):
        asked.append(n)
        return n <= there

    found = largest_number(can_start, least, most)
    fit = [n for n in range(least, most + 1) if n <= there]
    assert found == max(fit, default=None)
    assert len(asked) <= 2 + most.bit_length()
    assert len(set(asked)) == len(asked)


@pytest.fixture
def three_slots(tmp_path):
    path = tmp_path / "mpirun"
    path.write_text('#!/bin/sh\n[ "$2" -le 3 ] || { echo "no slots" >&2; exit 1; }\n')
    path.chmod(0o755)
    return Launcher((str(path),), "made")


def test_by_trying(three_slots):
    assert startable_ranks(three_slots, 1, 8) == 3
    assert startable_ranks(three_slots, 2, 3) == 3


def test_too_few(three_slots, capfd):
    with pytest.raises(LaunchError, match="cannot start 4 ranks"):
        startable_ranks(three_slots, 4, 8)
    assert "no slots" in capfd.readouterr().err
