"""What a launch measures, on 3 ranks."""

import os
import platform
import time
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import LBFGS, TEXT, write_rows

from pympi_train.config.config import parse
from pympi_train.errors import ConfigError
from pympi_train.models.mlp import MLP
from pympi_train.scaling.analysis.points import PARTS, series_of
from pympi_train.scaling.analysis.stragglers import slowest_rank
from pympi_train.scaling.study import measure
from pympi_train.scaling.study.exchanges import measure_exchanges
from pympi_train.scaling.study.measure import measure_step
from pympi_train.scaling.study.parts import parts_of_step
from pympi_train.trace.events import KINDS
from pympi_train.trace.ring import SPAN

WAYS = {
    "configured": [],
    "allreduce": ["parallel.strategy=allreduce"],
    "sharded": ["parallel.strategy=sharded", "parallel.stage=3"],
    "hierarchical": ["parallel.strategy=hierarchical"],
    "local": ["parallel.strategy=local", "parallel.local_steps=2"],
    "server": ["parallel.strategy=server"],
    "exact": ["parallel.reduction=exact"],
    "gd": ["optimizer.name=gd"],
    "lbfgs": [*LBFGS, "model.l2=0.01"],
}


@pytest.mark.mpi
def test_waits_for_buckets_are_one_call_on_all_ranks(comm):
    """Rank 0 is late at the first call, rank 1 at the second, by 4 s of 5 s."""
    steps, spans = np.array([3, 4]), []
    for step in steps.tolist():
        now_s = 100.0 * step
        n = comm.rank + 1
        first_s, each_s = (1 if comm.rank == 0 else 5), (1 if comm.rank == 1 else 5) / n
        calls = [("collective", "Allreduce", first_s)]
        calls += [("wait", "Waitsome", each_s)] * n
        for kind, name, took_s in calls:
            spans.append((KINDS.index(kind), name, step, now_s, now_s + took_s))
            now_s += took_s
    step_s, phases_s = np.full(2, 10.0), np.zeros((2, 4))
    parts = parts_of_step(comm, step_s, phases_s, np.array(spans, SPAN), steps)
    assert parts["transfer"] == pytest.approx([2, 2] if comm.size > 1 else [6, 6])
    assert sum(parts.values()) == pytest.approx(step_s)


@pytest.fixture
def configure(mpi_tmp_path, comm):
    if comm.rank == 0:
        write_rows(mpi_tmp_path)
    comm.Barrier()
    return lambda *told: parse(TEXT, folder=mpi_tmp_path, overrides=told)


@pytest.mark.mpi
@pytest.mark.parametrize("way", WAYS)
def test_each_strategy(comm, configure, way):
    if way == "server" and comm.size == 1:
        return
    found = measure_step(configure(*WAYS[way]), comm, 12, 1)
    if comm.rank != 0:
        assert found is None
        return
    n_workers = comm.size - (way == "server")
    assert found["ranks"] == comm.size and found["nodes"] == 1
    assert found["node_names"] == [os.environ.get("SLURMD_NODENAME", platform.node())]
    assert found["steps"] == len(found["step_s"]) >= (3 if way == "lbfgs" else 12)
    parts = np.array([found["parts_s"][name] for name in PARTS])
    assert parts.shape == (len(PARTS), n_workers)
    assert (parts[:-1] >= 0).all()  # and the update has what lies between the others
    # The slowest rank of each step takes at least as long as any rank on average.
    total = parts.sum(axis=0)
    assert total.max() <= np.mean(found["step_s"]) * (1 + 1e-9)
    assert min(found["step_s"]) > 0
    takes_all = way in ("gd", "lbfgs")
    assert found["full_batch"] == takes_all and found["rows"] == 80
    assert found["batch_size"] == (80 if takes_all else configure().train.batch_size)
    waits = found["parts_s"]["wait"]
    assert min(waits) <= np.mean(found["step_s"])
    draws = np.array(found["compute_s"])
    assert draws.shape == (min(64, found["steps"]), n_workers) and (draws > 0).all()
    if way != "hierarchical":  # which sends nothing on one node
        assert (found["sent_bytes"] > 0) == (comm.size > 1)
    assert found["gradient_bytes"] == 4 * found["parameters"]
    assert found["layers"] == (1 if way == "lbfgs" else 2)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "way, silent", [(WAYS["allreduce"], [-1, 1]), (WAYS["server"], [-1])]
)
def test_joules_are_those_of_all_nodes_or_absent(
    comm, configure, monkeypatch, way, silent
):
    """Each rank is a node of its own; one node may have no counter."""

    class Meter:
        joules = 0.0

        def read(self):
            self.joules += 5.0
            return {} if comm.rank == without else {"package-0": self.joules}

    nodes = SimpleNamespace(nodes=range(comm.size))
    monkeypatch.setattr(measure, "machine_of", lambda comm: nodes)
    monkeypatch.setattr(measure, "EnergyMeter", Meter)
    for without in silent:
        found = measure_step(configure(*way), comm, 12, 1)
        if comm.rank == 0:
            is_known = without < 0 and way != WAYS["server"]  # which is no worker
            assert (found["joules"] is not None) == is_known
            assert not is_known or 0 < found["joules"] <= 5 * comm.size / 12


@pytest.mark.mpi(min_size=2)
def test_planted_slow_rank_is_named(comm, configure, monkeypatch):
    loss = MLP.loss

    def slowly(self, *args):
        time.sleep(0.02 if comm.rank == 1 else 0.0)
        return loss(self, *args)

    monkeypatch.setattr(MLP, "loss", slowly)
    found = measure_step(configure(), comm, 6, 1)
    if comm.rank == 0:
        about = {"mode": "strong", "strategy": "allreduce", "repeat": 0, "error": None}
        (one,) = series_of({"measurements": [{**found, **about}]})
        straggler = slowest_rank(one.base)
        assert (straggler.rank, straggler.part) == (1, "compute")
        waits = found["parts_s"]["wait"]
        assert waits[1] == min(waits) and waits[0] > 0.01


@pytest.mark.mpi
def test_batch_larger_than_the_rows(comm, configure):
    with pytest.raises(ConfigError, match="200 rows is more than the 80 training rows"):
        measure_step(configure("train.batch_size=200"), comm, 5, 1)


@pytest.mark.mpi(min_size=2)
def test_exchanges(comm, monkeypatch):
    monkeypatch.setattr("pympi_train.scaling.study.exchanges.ROUNDS", 2)
    monkeypatch.setattr("pympi_train.scaling.study.exchanges.N_SIZES", 2)
    found = measure_exchanges(comm, 100)
    names = {one["strategy"] for one in found}
    assert {"plain", "allreduce", "compressed int8"} <= names
    assert {one["bytes"] for one in found} == {4, 2**16}
    for one in found:
        assert one["ranks"] == comm.size and len(one["node_of"]) == comm.size
        assert one["median_s"] > 0 and len(one["seconds"]) >= 2
