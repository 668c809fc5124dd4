"""The benchmark of the exchange: its figures, which are equal on all ranks."""

import pytest

from pympi_train.bench import exchange

WAYS = {"plain", "allreduce", "pieces", "slices", "plain again"}


@pytest.mark.mpi(min_size=2)
def test_ways_of_each_size(comm, monkeypatch):
    monkeypatch.setattr(exchange, "BURST", 2)
    monkeypatch.setattr(exchange, "COMPRESSED_BYTES", 4000)
    found = exchange.measure(comm, rounds=3, max_bytes=5000, sizes=(4, 4000, 10**9))
    assert (found["ranks"], found["dtype"]) == (comm.size, "float32")
    assert [size["bytes"] for size in found["sizes"]] == [4, 4000]
    for size in found["sizes"]:
        assert size["rounds"] == 3
        assert size["exchange"] == "mpi"
        compressions = exchange.COMPRESSIONS if size["bytes"] == 4000 else ()
        assert set(size["ways"]) == WAYS | set(compressions)
        assert all(0 < size["ways"][c]["sent_bytes"] < 8000 for c in compressions)
        assert size["ways"]["plain"]["times_plain"] == 1.0
        for way in size["ways"].values():
            assert way["median_s"] > 0 < way["times_plain"]
            assert way["bytes_per_s"] * way["median_s"] == pytest.approx(size["bytes"])
            ring = 2 * (comm.size - 1) / comm.size
            assert way["bus_bytes_per_s"] == pytest.approx(ring * way["bytes_per_s"])
        assert size["updates"].keys() == {
            "allreduce",
            "sharded",
            "local",
            "hierarchical",
        }
        assert size["updates"]["allreduce"]["times_allreduce"] == 1.0
    assert comm.allgather(found) == [found] * comm.size
