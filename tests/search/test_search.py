"""A search gives what a plain loop over folds gives, on any ranks, and goes on."""

import csv
import json

import numpy as np
import pytest
from naive_order import naive_order
from one_rank import sleep_until_all_are_here
from searches import DEFAULTS, N_ROWS, TEXT, searched, write_rows

import pympi_train as pt
from pympi_train.cli import main
from pympi_train.config import config as configuration
from pympi_train.errors import UserError
from pympi_train.layers.dense import Dense
from pympi_train.random import HOLDOUT

RATES = "optimizer.learning_rate=0.01,0.1"


def write_folds(comm, folder, n_folds=3):
    """Write training and held-out rows of each fold, as files; return their paths.

    Fold f has the rows from place ``f n // n_folds`` on of an order of all rows.
    Collective.
    """
    paths = [[folder / f"{part}-{fold}.npz" for part in ("train", "held")]
             for fold in range(n_folds)]
    if comm.rank == 0:
        order = np.array(naive_order(N_ROWS, 0, 0, HOLDOUT))
        with np.load(folder / "rows.npz") as rows:
            x, y = rows["X"], rows["y"]
        for fold, (train, held) in enumerate(paths):
            start, stop = (f * N_ROWS // n_folds for f in (fold, fold + 1))
            is_held = np.isin(np.arange(N_ROWS), order[start:stop])
            np.savez(train, X=x[~is_held], y=y[~is_held])
            np.savez(held, X=x[is_held], y=y[is_held])
    comm.Barrier()
    return paths


def plain_loop(comm, folder, rates, epochs=2):
    """Scores of each rate and fold, by the library alone."""
    paths, scores = write_folds(comm, folder), []
    for rate in rates:
        scores.append([])
        for train, held in paths:
            how = {"standardize": True, "dtype": "float64", "comm": comm}
            data = pt.load(train, features="X", validation=held, **how)
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
    assert found["refit"]["samples_seen"] == 2 * N_ROWS
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
    how["reduction"] = "exact"
    found = searched(comm, mpi_tmp_path, *param, directory="together", **how)
    if comm.rank == 0:
        searched(MPI.COMM_SELF, mpi_tmp_path, *param, directory="alone", **how)
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
    assert found["trials"][0]["error"] == "fold 1: RuntimeError: planted"
    assert found["trials"][1]["error"].startswith("fold 0: the step became too large")
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


def test_without_folds_the_validation_of_the_configuration(alone, folder):
    set_ = ["data.validation=0.25", "train.patience=1"]
    found = searched(alone, folder, "model.l2=0", folds=0, set=set_, refit=True)
    (trial,) = found["trials"]
    assert len(trial["scores"]) == 1 and trial["std"] is None
    assert found["refit"]["samples_seen"] == N_ROWS * found["refit"]["epochs"]


def test_refit_after_early_stopping_takes_the_epochs_of_the_folds(alone, folder):
    rates = "optimizer.learning_rate=0.9"
    set_ = ["train.patience=1", "optimizer.name=sgd"]
    found = searched(alone, folder, rates, epochs=30, set=set_, refit=True)
    paths = sorted((folder / "out" / "trials").glob("*/*/result.json"))
    kept = [json.loads(path.read_text())["kept_epoch"] for path in paths]
    assert len(kept) == 3 and found["refit"]["epochs"] == max(1, round(np.mean(kept)))


def test_stratified_folds_need_no_luck(alone, folder):
    set_ = ["data.split=stratified", "data.validation=0.5"]  # of which folds take place
    found = searched(alone, folder, "model.l2=0", folds=15, set=set_)
    assert len(found["trials"][0]["scores"]) == 15


def test_no_trial_with_a_score(alone, folder):
    set_ = ["optimizer.name=sgd"]
    with pytest.raises(UserError, match="none of the 2 trials has a score"):
        searched(alone, folder, "optimizer.learning_rate=1e299,1e300", set=set_)
    assert (folder / "out" / "search.json").exists()


def test_command_line(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    text = TEXT.format(**DEFAULTS)
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
    assert main([*argv, "--folds", "5000"]) == 2
    assert "[search] folds must be at most 1000" in capsys.readouterr().err
    assert main(argv) == 2
    assert "an earlier search is there" in capsys.readouterr().err


def test_a_picture_that_cannot_be_drawn_ends_no_search(alone, folder, monkeypatch):
    from pympi_train.search.results import picture

    def fail(*args):
        raise ValueError("arange: cannot compute length")

    monkeypatch.setattr(picture, "draw_search", fail)
    assert searched(alone, folder, "model.l2=0")["best"]["number"] == 0


def test_a_picture(alone, folder):
    pytest.importorskip("matplotlib")
    searched(alone, folder, RATES, "model.kind=softmax,mlp", folds=2)
    assert (folder / "out" / "search.png").read_bytes()[:4] == b"\x89PNG"


def test_refit_does_not_learn_from_the_groups(alone, folder):
    rows = "".join(f"{i % 7},{i // 4},{i % 2}\n" for i in range(40))
    (folder / "groups.csv").write_text("x,g,y\n" + rows)
    set_ = ["data.train=groups.csv", "data.group=g", "data.validation=0.5"]
    searched(alone, folder, "model.l2=0", set=set_, refit=True)
    out = folder / "out"
    fold = next((out / "trials").glob("*/fold-0"))
    of_fold, of_all = (
        json.loads((path / "result.json").read_text())["parameters"]
        for path in (fold, out / "best")
    )
    assert of_fold == of_all
