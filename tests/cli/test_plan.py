"""The command ``pympi-train plan``."""

import json
import os
import sys

import numpy as np
import pytest

from pympi_train.cli import main
from pympi_train.scaling.study.record import settings_digest
from tests.scaling.model import made_study

CONFIG = """
[data]
train = "rows.npz"
[model]
kind = "mlp"
hidden = [64, 32]
[optimizer]
name = "adam"
[train]
batch_size = 960
"""


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A folder with a configuration and a study; without MPI."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(CONFIG)
    study = {"schema": "pympi-train/scaling/1", "results": [], **made_study.study()}
    (tmp_path / "s.json").write_text(json.dumps(study))
    return tmp_path


def plan(*words):
    return main(["plan", "c.toml", *words])


def test_a_plan_by_a_study_needs_no_mpi(planned, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # any import of it fails
    words = "--ranks", "64", "--study", "s.json", "--memory-gb", "4"
    assert plan(*words) == 0
    shown = capsys.readouterr().out
    assert "64 ranks, 4 on a node" in shown and "not used by the fit" in shown
    assert plan(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    steps_s = [one["step_s"] for one in found["options"]]
    assert steps_s == sorted(steps_s)
    same = [one for one in found["options"] if one["result"] == "of one process"]
    assert found["best"]["step_s"] <= 1.05 * same[0]["step_s"]
    assert found["fastest"] == found["options"][0]
    assert found["error"]["worst"] < 0.05


@pytest.mark.parametrize(
    "places, told",
    [
        (made_study.PLACES, "no step on the network of --network was measured"),
        ([], "no step on several ranks was measured"),
    ],
)
def test_why_the_error_is_unknown(planned, capsys, places, told):
    study = {"schema": "pympi-train/scaling/1", "results": []}
    study |= made_study.study(places)
    (planned / "s.json").write_text(json.dumps(study))
    network = "--network", "gbit=1,us=20"
    assert plan("--ranks", "64", "--study", "s.json", *network) == 0
    assert f"error     unknown: {told}" in capsys.readouterr().out


def test_a_study_of_another_configuration_is_told(planned, capsys):
    study = json.loads((planned / "s.json").read_text())
    study["config_hash"] = settings_digest(CONFIG, ["train.seed=1"])
    (planned / "s.json").write_text(json.dumps(study))
    words = "--ranks", "64", "--study", "s.json"
    assert plan(*words, "--set", "train.seed=1") == 0
    assert "note" not in capsys.readouterr().err
    assert plan(*words) == 0
    assert "note: s.json is a study of" in capsys.readouterr().err


def test_batches_with_fewer_rows_than_ranks(planned, capsys):
    words = "--study", "s.json", "--ranks"
    assert plan(*words, "960") == 0
    assert "too small" not in capsys.readouterr().err
    assert plan(*words, "961") == 0
    assert "batch of 960 rows is too small for 961 ranks" in capsys.readouterr().err
    assert plan(*words, "961", "--mode", "weak") == 0
    assert "too small" not in capsys.readouterr().err


def test_a_faster_network_is_faster(planned, capsys):
    found = {}
    for gbit in (1, 100):
        words = "--ranks", "64", "--study", "s.json", "--network", f"gbit={gbit},us=2"
        assert plan(*words, "--json") == 0
        found[gbit] = json.loads(capsys.readouterr().out)
        assert found[gbit]["error"] is None  # that of another network
    rows = [
        {str(option["settings"]): option for option in one["options"]}
        for one in found.values()
    ]
    assert rows[0].keys() == rows[1].keys()
    assert all(rows[1][key]["step_s"] <= rows[0][key]["step_s"] for key in rows[0])


def test_what_the_configuration_forbids_is_not_proposed(planned, capsys):
    words = "--ranks", "8", "--study", "s.json", "--json"
    assert plan(*words, "--set", 'parallel.strategy="sharded"', "parallel.stage=3") == 0
    found = json.loads(capsys.readouterr().out)
    assert "server" in {one["strategy"] for one in found["options"]}
    assert plan(*words, "--set", "elastic.balance=true") == 0
    found = json.loads(capsys.readouterr().out)
    assert "local" not in {one["strategy"] for one in found["options"]}


def test_steps_of_this_process(planned, capsys):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((960, 8), np.float32), rng.integers(0, 3, 960)
    np.savez(planned / "rows.npz", X=x, y=y)
    words = "--ranks", "32", "--ranks-per-node", "8", "--network", "gbit=25,us=2"
    assert plan(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["step_s"] > 0 and found["error"] is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.parametrize("n_ranks, n_threads", [(1, None), (2, None), (2, "3")])
def test_steps_have_the_cores_of_a_rank(
    planned, monkeypatch, capsys, n_ranks, n_threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if n_threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", n_threads)
    own, seen = os.sched_getaffinity(0), []

    def measure_step(config, comm, n_steps, cores_per_rank, *, max_s):
        seen.append(len(os.sched_getaffinity(0)))
        assert max_s == 20
        one = made_study.study()["measurements"][0]
        return {**one, "batch_size": config.train.batch_size}

    name = "pympi_train.scaling.study.measure.measure_step"
    monkeypatch.setattr(name, measure_step)
    assert plan("--ranks", str(n_ranks)) == 0
    cores = len(own) if n_threads else max(1, len(own) // n_ranks)
    assert set(seen) == {cores} and os.sched_getaffinity(0) == own
    assert "measuring up to 50 steps of 960 rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, why",
    [
        ("--ranks 64 --study s.json --network gbit=25", "us is missing"),
        ("--ranks 64 --study s.json --memory-gb -1", "expected a number above 0"),
        ("--ranks 64 --study s.json --memory-gb 0.01", "no strategy fits"),
        ("--ranks 64 --study none.json", "none.json"),
        ("--ranks 64 --study one_node.json --ranks-per-node 8", "between nodes"),
        ("--ranks 2000000 --study s.json", "at most 1,000,000"),
    ],
)
def test_what_is_refused(planned, capsys, words, why):
    one_node = made_study.study([made_study.PLACES[3]])
    study = {"schema": "pympi-train/scaling/1", "results": [], **one_node}
    (planned / "one_node.json").write_text(json.dumps(study))
    assert plan(*words.split()) == 2
    assert why in capsys.readouterr().err
