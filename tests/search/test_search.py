"""A search gives what a plain loop over folds gives, on any ranks, and goes on."""

import csv
import json
import math
import shutil
from functools import partial

import numpy as np
import pytest
from one_rank import sleep_until_all_are_here

import pympi_train as pt
from pympi_train.cli import main
from pympi_train.config import config as configuration
from pympi_train.errors import ConfigError, DataError, UserError
from pympi_train.layers.dense import Dense
from pympi_train.pool import agent
from pympi_train.search import methods
from pympi_train.search.results.summary import TrialResult, best_of
from pympi_train.search.run import search

N = 61
RATES = "optimizer.learning_rate=0.01,0.1"
TEXT = """
[data]
train = "rows.npz"
standardize = true
[model]
kind = "softmax"
dtype = "float64"
[train]
epochs = {epochs}
batch_size = 8
backend = "numpy"
[output]
directory = "out"
[parallel]
reduction = "{reduction}"
"""
EXACT = {"reduction": "exact"}


def write_rows(folder, comm=None):
    if comm is None or comm.rank == 0:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((N, 3)), np.arange(N) % 3
        np.savez(folder / "rows.npz", X=x + 2 * np.eye(3)[y], y=y)
    if comm is not None:
        comm.Barrier()


def configure(folder, *param, epochs=2, reduction="fast", set=(), **settings):
    """A function as `search` takes it, and the settings of the search."""
    text = TEXT.format(epochs=epochs, reduction=reduction)
    of = partial(configuration.parse, text, folder=folder, overrides=set)
    kind = configuration.SearchConfig
    return of, kind(**{"folds": 3, "lanes": "off", "param": list(param), **settings})


def searched(comm, folder, *param, resume=False, **how):
    made, settings = configure(folder, *param, **how)
    return search(made, comm, settings=settings, resume=resume)


def plain_loop(comm, folder, rates, epochs=2):
    """Scores of each rate and fold, by the library alone."""
    scores = []
    for rate in rates:
        scores.append([])
        for fold in range(3):
            how = {"standardize": True, "dtype": "float64", "comm": comm}
            path = folder / "rows.npz"
            data = pt.load(path, features="X", validation=1 / 3, fold=fold, **how)
            model = pt.Softmax(3, 3, dtype="float64")
            made_of = model, pt.Adam(rate)
            how = {"batch_size": 8, "backend": "numpy", "comm": comm}
            with pt.Trainer(*made_of, **how) as trainer:
                records = trainer.fit(data.train, data.validation, epochs=epochs)
            scores[-1].append(records[-1]["validation_loss"])
    return scores


@pytest.mark.mpi(min_size=2)
def test_scores_are_those_of_a_plain_loop(comm, mpi_tmp_path):
    write_rows(mpi_tmp_path, comm)
    found = searched(comm, mpi_tmp_path, RATES, refit=True)
    scores = plain_loop(comm, mpi_tmp_path, (0.01, 0.1))
    assert [trial["scores"] for trial in found["trials"]] == [
        pytest.approx(of, rel=1e-12) for of in scores
    ]
    for trial, of in zip(found["trials"], scores):
        assert trial["mean"] == pytest.approx(np.mean(of), rel=1e-12)
        assert trial["std"] == pytest.approx(np.std(of, ddof=1), rel=1e-9)
        assert trial["status"] == "finished" and trial["epochs"] == 2
    best = int(np.argmin(np.mean(scores, axis=1)))
    assert found["best"]["number"] == best
    assert found["best"]["parameters"] == {
        "optimizer.learning_rate": (0.01, 0.1)[best]
    }
    assert comm.allgather(found["best"]) == [found["best"]] * comm.size
    assert found["refit"]["samples_seen"] == 2 * N
    assert found["refit"]["validation"] is None
    out = mpi_tmp_path / "out"
    files = {"search.json", "search.csv", "best.toml", "trials.jsonl", "best"}
    assert files <= {path.name for path in out.iterdir()}
    again = configuration.parse((out / "best.toml").read_text(), literal_paths=True)
    assert again.optimizer.learning_rate == (0.01, 0.1)[best]
    assert again.data.fold is None and again.search.param == []


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("method", ["asha", "tpe"])
def test_same_results_on_any_ranks(comm, mpi_tmp_path, method):
    if method == "tpe":
        pytest.importorskip("optuna")
    from mpi4py import MPI

    write_rows(mpi_tmp_path, comm)
    how = {"method": method, "trials": 4, "epochs": 3, "in_flight": 2, "folds": 2}
    param = "optimizer.learning_rate=log:1e-3..1", "model.l2=0,1e-3"
    together = ["output.directory=together"]
    found = searched(comm, mpi_tmp_path, *param, **how, **EXACT, set=together)
    if comm.rank == 0:
        alone = ["output.directory=alone"]
        searched(MPI.COMM_SELF, mpi_tmp_path, *param, **how, **EXACT, set=alone)
        one, other = (
            (mpi_tmp_path / name / "search.json").read_text()
            for name in ("alone", "together")
        )
        assert one == other
        assert len(json.loads(one)["trials"]) == 4
    sleep_until_all_are_here(comm)
    if method == "asha":
        states = {(t["status"], t["epochs"]) for t in found["trials"]}
        assert states == {("finished", 3), ("dropped", 1)}


@pytest.fixture
def runs(monkeypatch):
    """The configurations that this rank has trained, in order; the last one runs."""
    found, complete = [], agent.training.complete

    def noted(course):
        found.append(course.config)
        return complete(course)

    monkeypatch.setattr(agent.training, "complete", noted)
    return found


@pytest.mark.mpi(min_size=2)
def test_a_trial_fails_and_the_others_do_not(comm, mpi_tmp_path, monkeypatch, runs):
    write_rows(mpi_tmp_path, comm)
    rates = "optimizer.learning_rate=0.01,1e300,0.1"
    backward, is_broken = Dense.backward, [True]

    def failing(layer, *args, **kwargs):
        place = runs[-1].output.directory if is_broken and runs else ""
        if "/0000-" in place and place.endswith("fold-1"):
            raise RuntimeError("planted")
        return backward(layer, *args, **kwargs)

    monkeypatch.setattr(Dense, "backward", failing)
    sgd = ["optimizer.name=sgd"]
    found = searched(comm, mpi_tmp_path, rates, set=sgd)
    states = [trial["status"] for trial in found["trials"]]
    assert states == ["failed", "diverged", "finished"]
    assert "planted" in found["trials"][0]["error"]
    assert found["trials"][0]["scores"][1] is None
    assert None not in found["trials"][0]["scores"][::2]
    assert found["best"]["number"] == 2
    # What failed is tried again; what diverged, or has a score, is not.
    is_broken.clear()
    del runs[:]
    found = searched(comm, mpi_tmp_path, rates, set=sgd, resume=True)
    assert found["trials"][0]["status"] == "finished"
    trained = {config.output.directory for of in comm.allgather(runs) for config in of}
    assert len(trained) == 1


@pytest.fixture
def folder(tmp_path):
    write_rows(tmp_path)
    return tmp_path


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


METHODS = {
    "grid": ("log:1e-3..1:4", {}),
    "halving": ("log:1e-3..1:4", {}),
    "asha": ("log:1e-3..1", {"trials": 4}),
}


@pytest.mark.parametrize("method", METHODS)
def test_half_of_the_trainings_and_the_rest(alone, folder, runs, method):
    values, how = METHODS[method]
    param = "optimizer.learning_rate=" + values
    how = {**how, "method": method, "epochs": 3, "folds": 2}
    expected = searched(alone, folder, param, **how)
    out, n_trainings = folder / "out", len(runs)
    text = (out / "search.json").read_text()
    (out / "search.json").unlink()
    # As a process leaves it that is killed in the middle of a line.
    lines = (out / "trials.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 1 + n_trainings
    (out / "trials.jsonl").write_text("".join(lines[:6]) + lines[6][:20])
    for path in (out / "pool", out / "trials"):
        shutil.rmtree(path)
    del runs[:]
    assert searched(alone, folder, param, **how, resume=True) == expected
    assert (out / "search.json").read_text() == text
    assert len(runs) == n_trainings - 5
    del runs[:]  # nothing is left to do
    assert searched(alone, folder, param, **how, resume=True) == expected
    assert not runs


def test_more_values_later(alone, folder):
    first = searched(alone, folder, "model.l2=0,1e-3")
    more = searched(alone, folder, "model.l2=1e-2,0,1e-3", resume=True)
    assert more["trials"][1]["scores"] == first["trials"][0]["scores"]
    assert len(more["trials"]) == 3
    with pytest.raises(ConfigError, match="an earlier search is there"):
        searched(alone, folder, "model.l2=0,1e-3")
    with pytest.raises(ConfigError, match="batch_size is 4, but was 8"):
        searched(alone, folder, "model.l2=0", resume=True, set=["train.batch_size=4"])
    with pytest.raises(ConfigError, match="--folds is 2, but .* of 3"):
        searched(alone, folder, "model.l2=0,1e-3", resume=True, folds=2)
    (folder / "out" / "trials.jsonl").write_text("what?\n")
    with pytest.raises(DataError, match="not the log of a search"):
        searched(alone, folder, "model.l2=0,1e-3", resume=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_last_rung_is_a_whole_training(alone, folder, schedule):
    how = {"folds": 2, "epochs": 7}
    of = [f"optimizer.schedule={schedule}"]
    rates = "optimizer.learning_rate=1e-3,0.1,0.01"
    found = searched(alone, folder, rates, method="halving", **how, set=of)
    assert found["rungs"] == [2, 7]
    (last,) = [t for t in found["trials"] if t["status"] == "finished"]
    rate = last["parameters"]["optimizer.learning_rate"]
    rates, of = f"optimizer.learning_rate={rate}", [*of, "output.directory=whole"]
    whole = searched(alone, folder, rates, **how, set=of)
    assert last["scores"] == whole["trials"][0]["scores"]
    assert not list(folder.glob("*/trials/**/checkpoints"))


def test_halving_trains_those_that_were_best_on_few_epochs(alone, folder):
    rates = "optimizer.learning_rate=log:1e-4..1:9"
    found = searched(alone, folder, rates, epochs=9, folds=2, method="halving")
    assert found["rungs"] == [1, 3, 9]
    lines = (folder / "out" / "trials.jsonl").read_text().splitlines()[1:]
    scores = {}
    for record in map(json.loads, lines):
        if record["epochs"] == 1:
            scores.setdefault(record["set"][0], []).append(record["validation"]["loss"])
    assert len(scores) == 9
    means = [sum(of) / 2 for of in scores.values()]
    stay = sorted(range(9), key=means.__getitem__)[:3]
    assert {t["number"] for t in found["trials"] if t["epochs"] > 1} == {*stay}
    for t in found["trials"]:
        if t["number"] not in stay:
            assert (t["status"], t["mean"]) == ("dropped", means[t["number"]])


def test_another_best_is_trained_anew(alone, folder):
    """Runs of other trials in the folder of the best one are not taken for it."""
    rates = "optimizer.learning_rate=0.001"
    first = searched(alone, folder, rates, refit=True)
    again = searched(alone, folder, rates, refit=True, resume=True)
    assert again == first
    other = searched(alone, folder, rates + ",0.1", refit=True, resume=True)
    assert other["best"]["number"] == 1
    hashes = {of["refit"]["weights_sha256"] for of in (first, other)}
    assert len(hashes) == 2


def test_without_folds_the_validation_of_the_configuration(alone, folder):
    set_ = ["data.validation=0.25", "train.patience=1"]
    found = searched(alone, folder, "model.l2=0", folds=0, set=set_, refit=True)
    (trial,) = found["trials"]
    assert len(trial["scores"]) == 1 and trial["std"] is None
    assert found["refit"]["samples_seen"] == N * found["refit"]["epochs"]


def test_refit_after_early_stopping_takes_the_epochs_of_the_folds(alone, folder):
    rates = "optimizer.learning_rate=0.9"
    set_ = ["train.patience=1", "optimizer.name=sgd"]
    found = searched(alone, folder, rates, epochs=30, set=set_, refit=True)
    paths = sorted((folder / "out" / "trials").glob("*/*/result.json"))
    kept = [json.loads(path.read_text())["kept_epoch"] for path in paths]
    assert len(kept) == 3 and found["refit"]["epochs"] == max(1, round(np.mean(kept)))


def results_of(scores, parameters):
    return [
        TrialResult(i, (), of, 0, 1, list(score), "finished")
        for i, (score, of) in enumerate(zip(scores, parameters))
    ]


def test_one_standard_error():
    penalties = [{"model.l2": value} for value in (0.0, 1e-3, 1e-2, 1.0)]
    scores = [(1.0, 1.2), (0.9, 1.1), (1.05, 1.13), (1.5, 1.6)]
    results = results_of(scores, penalties)
    assert best_of(results, "loss").number == 1
    assert best_of(results, "loss", one_se=True).number == 2  # 1.09 <= 1.0 + 0.1
    for result in results:
        result.scores = [-score for score in result.scores]
    assert best_of(results, "r2", one_se=True).number == 2
    results[2].scores = [math.nan, None]
    assert best_of(results, "r2", one_se=True).number == 1


def test_ties_go_to_the_first_and_no_score_is_no_best():
    results = results_of([(1.0, 1.0)] * 2, [{}] * 2)
    assert best_of(results, "accuracy").number == 0
    results[0].scores = [None, 1.0]
    assert best_of(results, "accuracy").number == 1
    results[1].scores = [None, None]
    assert best_of(results, "accuracy") is None


BAD = {
    "no parameter": ([], {}, "nothing to search"),
    "unknown key": (["model.l3=1"], {}, "unknown key 'l3'; did you mean 'l2'"),
    "a value": (["model.l2=0,-1"], {}, "model.l2=-1: .* must be at least 0"),
    "a type": (["train.epochs=2.5"], {}, "must be an integer"),
    "same": (["model.l2=1e-3,0.001"], {}, "two trials are the same"),
    "combination": (
        ["optimizer.momentum=0.9"],
        {},
        "momentum and nesterov are for sgd",
    ),
    "trials": (["model.l2=0,1"], {"method": "random"}, "needs --trials"),
    "too many": (["model.l2=0,1"], {"method": "random", "trials": 5}, "only 2"),
    "grid of N": (["model.l2=0,1"], {"trials": 5}, "--trials is for"),
    "folds": (["model.l2=0,1"], {"folds": 62}, "62 are more than the 61 rows"),
    "class": (["model.l2=0,1"], {"folds": 15}, "misses fold .* of 15; it has 2"),
    "no rows": (["model.l2=0,1"], {"folds": 1}, "needs rows that are held out"),
    "metric": (["model.l2=0,1"], {"metric": "r2"}, "--metric r2"),
    "one se": (["train.seed=1,2"], {"one_se": True}, "which model is simpler"),
    "ranks": (["model.l2=0"], {"min_ranks": 2}, "at least 2 ranks"),
    "rungs": (["train.epochs=1,2"], {"method": "halving"}, "sets train.epochs"),
    "group": (
        ["model.l2=0"],
        {"set": ["data.train=groups.csv", "data.group=g", "data.validation=0.5"]},
        "there must be more groups than folds",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_starts(alone, folder, case):
    rows = "".join(f"{i},{'ab'[i % 2]},{i // 2 % 2}\n" for i in range(40))
    (folder / "groups.csv").write_text("x,g,y\n" + rows)
    param, how, said = BAD[case]
    with pytest.raises((ConfigError, DataError), match=said) as info:
        searched(alone, folder, *param, **how)
    assert "\n" not in str(info.value)
    assert not (folder / "out").exists()


def test_stratified_folds_need_no_luck(alone, folder):
    set_ = ["data.split=stratified", "data.validation=0.5"]  # of which folds take place
    found = searched(alone, folder, "model.l2=0", folds=15, set=set_)
    assert len(found["trials"][0]["scores"]) == 15


def test_tpe_without_optuna(alone, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'pympi-train\[search\]'"):
        searched(alone, folder, "model.l2=0,1", method="tpe", trials=2)


def test_no_trial_with_a_score(alone, folder):
    set_ = ["optimizer.name=sgd"]
    with pytest.raises(UserError, match="none of the 2 trials has a score"):
        searched(alone, folder, "optimizer.learning_rate=1e299,1e300", set=set_)
    assert (folder / "out" / "search.json").exists()


def test_command_line(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    text = TEXT.format(epochs=2, reduction="fast")
    text += '[search]\nparam = "model.l2=0"\nfolds = 3\nlanes = "off"\n'
    (folder / "c.toml").write_text(text)
    argv = ["search", "c.toml", "--param", "model.l2=0,1e-2", "--metric", "accuracy"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["folds"], found["metric"], len(found["trials"])) == (3, "accuracy", 2)
    assert all(0 <= score <= 1 for score in found["trials"][0]["scores"])
    with open(folder / "out" / "search.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = found["best"]
    assert float(rows[0]["mean"]) == best["mean"]
    assert int(rows[0]["trial"]) == best["number"]
    assert main([*argv, "--resume"]) == 0
    assert "best     trial" in capsys.readouterr().out
    assert main(argv) == 2
    assert "an earlier search is there" in capsys.readouterr().err


def test_a_picture(alone, folder):
    pytest.importorskip("matplotlib")
    searched(alone, folder, RATES, "model.kind=softmax,mlp", folds=2)
    assert (folder / "out" / "search.png").read_bytes()[:4] == b"\x89PNG"


def test_questions_wait_for_answers_in_order():
    class Settings:
        in_flight = 3

    class Fake:
        plan = type("P", (), {"settings": Settings})

        def finish(self, work):
            return -work

    asked, told = [], []

    def ask():
        if len(asked) == 10:
            return None
        asked.append(len(told))
        return len(asked), len(asked)

    methods._keep_in_flight(Fake(), ask, lambda *pair: told.append(pair))
    assert told == [(i, -i) for i in range(1, 11)]
    assert asked == [max(0, i - 2) for i in range(10)]
