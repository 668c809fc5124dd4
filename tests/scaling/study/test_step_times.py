"""Times of steps of strategy local, by a clock that only the planted work moves."""

import numpy as np
import pytest
from small_runs import TEXT, write_rows

from pympi_train.config.config import parse
from pympi_train.models.mlp import MLP
from pympi_train.parallel.local import Local
from pympi_train.scaling.analysis.points import PARTS
from pympi_train.scaling.study.measure import measure_step

STEP_S, EXCHANGE_S, RECORD_S = 1.0, 10.0, 1000.0
# Whatever a step and its trace read the time by.
CLOCKS = (
    "trace.laps",
    "trace.ring",
    "comm.watch.recording",
    "comm.watch.recorder",
    "scaling.study.measure",
)


@pytest.fixture
def clock(monkeypatch):
    now_s = [1000.0]

    def plant(owner, name, seconds):
        plain = getattr(owner, name)

        def slowly(*args, **how):
            now_s[0] += seconds
            return plain(*args, **how)

        monkeypatch.setattr(owner, name, slowly)

    for module in CLOCKS:
        monkeypatch.setattr(f"pympi_train.{module}.perf_counter", lambda: now_s[0])
    return plant


@pytest.mark.mpi
def test_slow_steps_are_fewer(comm, mpi_tmp_path, clock):
    clock(MLP, "loss", STEP_S)
    if comm.rank == 0:
        write_rows(mpi_tmp_path)
    comm.Barrier()
    config = parse(TEXT, folder=mpi_tmp_path)
    for max_s, n_steps in ((0.5, 3), (6.5, 7), (100.0, 20)):
        found = measure_step(config, comm, 20, 1, max_s=max_s * STEP_S)
        assert comm.rank != 0 or found["steps"] == n_steps


@pytest.mark.mpi
@pytest.mark.parametrize("local_steps, an_epoch", [(1, 5), (3, 2), (5, 1), (8, 1)])
def test_each_exchange_of_an_epoch_counts_once(
    comm, mpi_tmp_path, clock, local_steps, an_epoch
):
    """An epoch has 5 steps: it ends with an exchange, whatever H is."""
    clock(MLP, "loss", STEP_S)
    clock(Local, "_combine", EXCHANGE_S)
    clock(Local, "totals", RECORD_S)
    if comm.rank == 0:
        write_rows(mpi_tmp_path)
    comm.Barrier()
    told = ["parallel.strategy=local", f"parallel.local_steps={local_steps}"]
    found = measure_step(parse(TEXT, folder=mpi_tmp_path, overrides=told), comm, 20, 1)
    if comm.rank == 0:
        parts = {name: np.mean(found["parts_s"][name]) for name in PARTS}
        sent_s = EXCHANGE_S * an_epoch / 5
        assert parts.pop("compute") == pytest.approx(STEP_S)
        assert parts.pop("pack") == pytest.approx(sent_s)
        assert list(parts.values()) == pytest.approx([0.0] * 4, abs=1e-9)
        assert np.mean(found["step_s"]) == pytest.approx(STEP_S + sent_s)
        assert found["steps"] == 20
