"""The groups of ranks that train the jobs of a pool."""

import time
from types import SimpleNamespace

from pympi_train.pool import group


def test_a_rank_that_waits_long_for_the_others_says_so(monkeypatch, capfd):
    told, heard = [], []

    def create(ranks, tag):
        end_s = time.monotonic() + 20.0
        while not (heard and "together with rank 4, 7" in "".join(told)):
            assert time.monotonic() < end_s
            told.append(capfd.readouterr().err)
        return "made"

    made = SimpleNamespace(Free=lambda: None)
    whole = SimpleNamespace(Incl=lambda ranks: made, Free=lambda: None)
    comm = SimpleNamespace(rank=2, Get_group=lambda: whole, Create_group=create)
    monkeypatch.setattr(group, "LATE_S", 0.01)
    assert group.group_of(comm, [2, 4, 7], 1, heard.append) == "made"
    assert "rank 2 of the pool has waited 0.01 s" in "".join(told)
    assert heard[0] in "".join(told)
