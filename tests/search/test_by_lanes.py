"""Searches in lanes: the scores of separate trainings, on any ranks."""

import json
from functools import partial

import pytest
import searches
from one_rank import sleep_until_all_are_here
from searches import configure, write_rows

import pympi_train as pt
from pympi_train.config import config as configuration
from pympi_train.data.loading.load import load
from pympi_train.errors import ConfigError
from pympi_train.lanes.folds import rows_of_fold
from pympi_train.search.by_lanes import choose_lanes
from pympi_train.search.plan import SearchPlan

RATES = "optimizer.learning_rate=log:1e-3..1:4"
PLAIN = {"standardize": "false", "epochs": 3}
searched = partial(searches.searched, lanes="auto", **PLAIN)


@pytest.mark.mpi(min_size=2)
def test_scores_are_those_of_separate_trainings(comm, mpi_tmp_path):
    write_rows(mpi_tmp_path, comm)
    found = searched(comm, mpi_tmp_path, RATES, "model.l2=0,0.1")
    assert found["lanes"] is True and len(found["trials"]) == 8
    how = {"dtype": "float64", "features": "X", "validation": 1 / 3, "fold": "all"}
    data = load(mpi_tmp_path / "rows.npz", comm=comm, **how)
    for trial in found["trials"][1::3]:
        rate, l2 = trial["parameters"].values()
        for fold in range(3):
            rows = rows_of_fold(data.train, data.folds, fold, comm)
            how = {"batch_size": 8, "backend": "numpy", "comm": comm, "l2": l2}
            made_of = pt.Softmax(3, 3, dtype="float64"), pt.Adam(rate)
            with pt.Trainer(*made_of, **how) as trainer:
                records = trainer.fit(*rows, epochs=3)
            score = records[-1]["validation_loss"]
            assert trial["scores"][fold] == pytest.approx(score, rel=1e-10)
    log = (mpi_tmp_path / "out" / "trials.jsonl").read_text().splitlines()
    assert len(log) == 1 + 24
    # Nothing is left to do; more values are.
    assert searched(comm, mpi_tmp_path, RATES, "model.l2=0,0.1", resume=True) == found
    more = searched(comm, mpi_tmp_path, RATES, "model.l2=0,0.1,1", resume=True)
    assert [t["scores"] for t in more["trials"] if t["parameters"]["model.l2"] < 1] == [
        t["scores"] for t in found["trials"]
    ]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("method", ["grid", "halving"])
def test_the_same_file_on_any_ranks(comm, mpi_tmp_path, method):
    from mpi4py import MPI

    write_rows(mpi_tmp_path, comm)
    rates = RATES if method == "grid" else "optimizer.learning_rate=log:1e-3..1:9"
    how = {"method": method, "reduction": "exact", "refit": True}
    found = searched(comm, mpi_tmp_path, rates, directory="together", **how)
    assert found["lanes"] is True
    if comm.rank == 0:
        alone = searched(MPI.COMM_SELF, mpi_tmp_path, rates, directory="alone", **how)
        one, other = (
            (mpi_tmp_path / name / "search.json").read_text()
            for name in ("alone", "together")
        )
        assert one == other
        assert alone["refit"]["weights_sha256"] == found["refit"]["weights_sha256"]
    sleep_until_all_are_here(comm)
    assert not list(mpi_tmp_path.glob("*/trials"))  # no fold is a training
    if method == "halving":
        assert found["rungs"] == [1, 3]
        states = [(t["status"], t["epochs"]) for t in found["trials"]]
        assert states.count(("finished", 3)) == 3
        assert states.count(("dropped", 1)) == 6


CASES = {
    "rates": ([RATES], {}, None),
    "penalties of lbfgs": (["model.l2=0,1"], {"optimizer": "lbfgs"}, None),
    "random": (["model.l2=linear:0..1"], {"method": "random", "trials": 2}, None),
    "another key": (["train.batch_size=4,8"], {}, "train.batch_size is searched"),
    "tpe": (["model.l2=0,1"], {"method": "asha", "trials": 2}, "by results"),
    "a network": ([RATES], {"set": ["model.kind=mlp"]}, "not linear"),
    "rungs of lbfgs": (
        ["model.l2=0,1,2"],
        {"optimizer": "lbfgs", "method": "halving"},
        "at its end only",
    ),
    "rungs of a cosine": (
        ["model.l2=0,1,2"],
        {"set": ["optimizer.schedule=cosine"], "method": "halving"},
        "schedule of its own",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_lanes_apply(folder, case):
    param, how, why_not = CASES[case]
    made = {name: how[name] for name in ("optimizer", "set") if name in how}
    of = {name: how[name] for name in ("method", "trials") if name in how}
    of |= {"param": param, "folds": 3}
    for lanes in ("auto", "on", "off"):
        settings = configuration.SearchConfig(lanes=lanes, **of)
        plan = SearchPlan(configure(folder, **PLAIN, **made), settings)
        if lanes == "on" and why_not:
            with pytest.raises(ConfigError, match=f"--lanes on: .*{why_not}"):
                choose_lanes(plan)
            continue
        choice = choose_lanes(plan)
        assert choice.is_used is (why_not is None and lanes != "off")
        assert lanes == "off" or (why_not or "in one pass") in choice.why


def test_lbfgs_in_lanes(alone, folder):
    how = {"optimizer": "lbfgs", "epochs": 50, "standardize": "true"}
    found = searched(alone, folder, "model.l2=1e-3,1", **how)
    assert found["lanes"] is True
    how |= {"lanes": "off", "directory": "b"}
    apart = searched(alone, folder, "model.l2=1e-3,1", **how)
    for one, other in zip(found["trials"], apart["trials"]):
        # All rows are in a batch, so weights of 0 make no difference.
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-4)


@pytest.mark.parametrize("rate, l2", [("1e300", "0.0"), ("5", "1.0")])
def test_a_diverging_rate_and_validation_of_the_configuration(alone, folder, rate, l2):
    set_ = ["data.validation=0.3", "optimizer.name=sgd", f"model.l2={l2}"]
    rates = f"optimizer.learning_rate=0.1,{rate}"
    found = searched(alone, folder, rates, folds=0, set=set_)
    assert found["lanes"] is True
    assert [t["status"] for t in found["trials"]] == ["finished", "diverged"]
    apart = searched(
        alone, folder, rates, folds=0, set=set_, lanes="off", directory="apart"
    )
    assert [t["status"] for t in apart["trials"]] == ["finished", "diverged"]
    one, other = (of["trials"][0]["scores"] for of in (found, apart))
    assert one == pytest.approx(other, rel=1e-10)


def test_the_error_of_a_trial_names_the_fold(alone, folder):
    rates = "optimizer.learning_rate=0.1,1e300"
    found = searched(alone, folder, rates, set=["optimizer.name=sgd"])
    assert found["trials"][1]["error"].startswith("fold 0: the ")


def test_a_search_goes_on_as_it_began(alone, folder):
    param, how = "model.l2=0", {"folds": 2}
    searched(alone, folder, param, lanes="off", **how)
    found = searched(alone, folder, param, resume=True, **how)
    assert found["lanes"] is False
    with pytest.raises(ConfigError, match="--lanes off goes on"):
        searched(alone, folder, param, lanes="on", resume=True, **how)
    how["directory"] = "b"
    searched(alone, folder, param, **how)
    with pytest.raises(ConfigError, match="--lanes on goes on"):
        searched(alone, folder, param, lanes="off", resume=True, **how)


def test_halving_among_other_trials_stays_in_lanes(alone, folder):
    """Some of them had dropped out before, so that their last rung is not known."""
    key, how = "optimizer.learning_rate=", {"method": "halving", "epochs": 9}
    few, more = key + "0.001,0.003,0.01", key + "0.001,0.003,0.01,0.03,0.1,0.3"
    expected = searched(alone, folder, few, directory="few", **how)
    searched(alone, folder, more, **how)
    found = searched(alone, folder, few, resume=True, **how)
    assert found["trials"] == expected["trials"]
    assert not (folder / "out" / "trials").exists()  # no fold is a training


def test_a_signal_ends_the_pass(alone, folder):
    from pympi_train.runs.recovery.signals import Stop

    stop = Stop()
    stop.signal = 15
    found = searched(alone, folder, RATES, stop=stop)
    assert found["interrupted"] == "a signal"
    assert not (folder / "out" / "search.json").exists()
    whole = searched(alone, folder, RATES, resume=True)
    assert json.loads((folder / "out" / "search.json").read_text())["lanes"] is True
    assert len(whole["trials"]) == 4
