"""Searches that go on: after half of their trainings, with more values, as others."""

import json
import shutil
import signal

import numpy as np
import pytest
from searches import searched

from pympi_train.checkpoint import store
from pympi_train.config import config as configuration
from pympi_train.errors import ConfigError, DataError
from pympi_train.pool import agent
from pympi_train.runs import job
from pympi_train.runs.recovery.signals import Stop

METHODS = {
    "grid": ("log:1e-3..1:4", {}),
    "halving": ("log:1e-3..1:4", {}),
    "asha": ("log:1e-3..1", {"trials": 4}),
    "tpe": ("log:1e-3..1", {"trials": 4, "in_flight": 2}),
}


@pytest.mark.parametrize("method", METHODS)
def test_half_of_the_trainings_and_the_rest(alone, folder, runs, method):
    if method == "tpe":
        pytest.importorskip("optuna")
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


def test_trainings_without_the_log_are_not_gone_on_from(alone, folder):
    """Their scores would be taken for those of another configuration."""
    searched(alone, folder, "model.l2=0,1e-3", epochs=1)
    (folder / "out" / "trials.jsonl").unlink()
    for resume in (False, True):
        with pytest.raises(ConfigError, match="not its trials.jsonl.*remove pool and"):
            searched(alone, folder, "model.l2=0,1e-3", epochs=2, resume=resume)


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
    with pytest.raises(DataError, match="line 1: damaged, or not the log of a search"):
        searched(alone, folder, "model.l2=0,1e-3", resume=True)


@pytest.mark.parametrize("method", ["random", "halving"])
def test_scores_of_few_epochs_are_not_those_of_more(alone, folder, method):
    """A rung that was not there before: the runs in its folders were longer."""
    rates, how = "optimizer.learning_rate=log:1e-3..1", {"epochs": 9, "folds": 2}
    halving = {"method": "halving", "trials": 9, **how}
    expected = searched(alone, folder, rates, directory="alone", **halving)
    assert expected["rungs"] == [1, 3, 9]
    searched(alone, folder, rates, method=method, trials=3, **how)
    found = searched(alone, folder, rates, resume=True, **halving)
    assert found["trials"] == expected["trials"]


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
    # The first one is the best again, but the folder has the weights of the other one.
    last = searched(alone, folder, rates, refit=True, resume=True)
    result = json.loads((folder / "out" / "best" / "result.json").read_text())
    assert result["weights_sha256"] == first["refit"]["weights_sha256"]
    assert last["refit"]["weights_sha256"] == first["refit"]["weights_sha256"]


def test_checkpoints_of_another_best_are_not_gone_on_from(alone, folder, monkeypatch):
    """The refit of A is interrupted, then that of B, then A is the best again."""
    only_a = "optimizer.learning_rate=0.001"
    with_b = only_a + ",0.1"
    how = {"epochs": 3, "reduction": "exact", "refit": True, "folds": 2}
    expected = searched(alone, folder, only_a, **how, directory="whole")
    complete = agent.training.complete

    def interrupted(course):
        if course.config.output.directory.endswith("best"):
            course.stop.signal = signal.SIGTERM  # obeyed at the first step
        return complete(course)

    with monkeypatch.context() as patch:
        patch.setattr(agent.training, "complete", interrupted)
        for param, is_again in ((only_a, False), (with_b, True)):
            found = searched(alone, folder, param, **how, resume=is_again)
            assert "interrupted" in found
            assert store.entries(folder / "out" / "best" / "checkpoints")
    found = searched(alone, folder, only_a, **how, resume=True)
    weights = [of["refit"]["weights_sha256"] for of in (expected, found)]
    assert weights[0] == weights[1]


def test_the_run_of_best_toml_is_not_that_of_all_rows(alone, folder):
    """Both are trainings of the best trial: one holds rows out."""
    how = {"epochs": 1, "set": ["data.validation=0.3"]}
    searched(alone, folder, "model.l2=0,1e-3", **how)
    text = (folder / "out" / "best.toml").read_text()
    held_out = job.train(configuration.parse(text), alone)
    found = searched(alone, folder, "model.l2=0,1e-3", **how, refit=True, resume=True)
    assert found["refit"]["validation"] is None
    assert found["refit"]["weights_sha256"] != held_out["weights_sha256"]
    path = folder / "out" / "best" / "result.json"
    for _ in range(2):
        assert json.loads(path.read_text()) == found["refit"]
        job.train(configuration.parse(text), alone)


def test_a_refit_of_other_values_of_what_was_searched_is_not_kept(alone, folder):
    """The learning rate and l2 were searched before, and are those of the file now."""
    rate, how = "optimizer.learning_rate=0.3", {"epochs": 1, "refit": True}
    kept = searched(alone, folder, rate, "model.l2=0.1", **how)
    for params in (["model.l2=0.1"], ["model.l2=0.2"], [rate]):
        again = searched(alone, folder, *params, **how, resume=True)
        fresh = searched(alone, folder, *params, **how, directory="fresh" + params[0])
        of = [found["refit"]["weights_sha256"] for found in (kept, again, fresh)]
        assert of[0] != of[1] == of[2]


def test_an_interrupted_refit_goes_on(alone, folder, monkeypatch):
    """From its checkpoint, also if the configuration names a folder for checkpoints."""
    rates = "optimizer.learning_rate=0.001"
    how = {"refit": True, "set": ["checkpoint.directory=elsewhere"]}
    stop, complete = Stop(), agent.training.complete

    def interrupted(course):
        if course.config.output.directory.endswith("best"):
            stop.signal = signal.SIGTERM
        return complete(course)

    with monkeypatch.context() as patch:
        patch.setattr(agent.training, "complete", interrupted)
        assert "interrupted" in searched(alone, folder, rates, **how, stop=stop)
    resumed: list = []
    monkeypatch.setattr(job, "require_same_data", lambda *found: resumed.append(found))
    searched(alone, folder, rates, **how, resume=True)
    assert len(resumed) == 1 and not (folder / "elsewhere").exists()


@pytest.mark.parametrize(
    "line, old, new, said",
    [
        (1, b'"accuracy": 0.', b'"accuracy": 1.', "line 2: .* remove line 2 alone"),
        (2, b'"fold": 1', b'"fold": 3', "line 3: damaged"),
        (1, b"finished", b"finishe\xe4", "line 2: damaged"),
        (1, b'{"set"', b'["set"', "line 2: damaged"),
        (0, b'"folds": 3', b'"folds": 2', "line 1: damaged, .* remove the folder"),
    ],
)
def test_damaged_lines_are_no_results(alone, folder, line, old, new, said):
    found = searched(alone, folder, "model.l2=0")
    path = folder / "out" / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert old in lines[line]
    damaged = [*lines[:line], lines[line].replace(old, new, 1), *lines[line + 1 :]]
    path.write_bytes(b"".join(damaged))
    with pytest.raises(DataError, match=said):
        searched(alone, folder, "model.l2=0", resume=True)
    assert path.read_bytes() == b"".join(damaged)
    if line:
        path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
        assert searched(alone, folder, "model.l2=0", resume=True) == found


def _change_rows(folder, change):
    with np.load(folder / "rows.npz") as file:
        x, y = file["X"], file["y"]
    if change == "a row less":
        x, y = x[1:], y[1:]
    elif change == "a label":
        y = np.where(np.arange(len(y)) == 7, (y + 1) % 3, y)
    else:
        x = np.where(np.arange(len(x))[:, None] == 7, 2 * x, x)
    np.savez(folder / "rows.npz", X=x, y=y)


@pytest.mark.parametrize("lanes", ["off", "on"])
@pytest.mark.parametrize("folds", [0, 3])
def test_scores_of_other_rows_are_not_mixed(alone, folder, runs, folds, lanes):
    param = "model.l2=0,1e-3"
    how = {"folds": folds, "lanes": lanes, "epochs": 1, "set": ["data.validation=0.3"]}
    found = searched(alone, folder, param, **how)
    rows = (folder / "rows.npz").read_bytes()
    log = (folder / "out" / "trials.jsonl").read_bytes()
    del runs[:]
    for change, said in (
        ("a row less", r"rows.npz: the training rows .*: \d+, now \d+; resume with"),
        ("a label", "rows.npz: the .* are not those of the search of .*trials.jsonl"),
        ("a feature", "rows.npz: the .*features.* are not those of"),
    ):
        _change_rows(folder, change)
        with pytest.raises(ConfigError, match=said):
            searched(alone, folder, param + ",0.1", **how, resume=True)
        (folder / "rows.npz").write_bytes(rows)
    assert not runs and (folder / "out" / "trials.jsonl").read_bytes() == log
    assert searched(alone, folder, param, **how, resume=True) == found


def test_the_rows_of_each_value_are_compared(alone, folder):
    """Values that are new later have their fingerprints in a line of their own."""
    how = {"folds": 2, "epochs": 1}
    searched(alone, folder, "data.clip=1", **how)
    searched(alone, folder, "data.clip=2,1", **how, resume=True)
    _change_rows(folder, "a row less")
    for value in (1, 2):
        with pytest.raises(ConfigError, match="the training rows are not those of"):
            searched(alone, folder, f"data.clip={value}", **how, resume=True)


NEURAL = ("kind=neural-ngram", "context=2", "embedding=3", "hidden=[4]")
KINDS = {
    "dense": ["train=rows.npz"],
    "mapped": ["train=x.npy", "target=y.npy", "memory=mapped"],
    "sparse": ["train=rows.svm"],
    "tokens": ["train=tokens.bin", "window=8"],
}


def _write_all(folder, x, y):
    np.savez(folder / "rows.npz", X=x, y=y)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    pairs = [" ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(row)) for row in x]
    lines = [f"{kind} {pair}\n" for kind, pair in zip(y, pairs)]
    (folder / "rows.svm").write_text("".join(lines))
    (abs(x) * 100).astype("<u2").tofile(folder / "tokens.bin")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_another_order_are_others(alone, folder, kind):
    """Of one class, and not scaled: numbers, classes and scaling are the same."""
    with np.load(folder / "rows.npz") as file:
        x, y = file["X"], file["y"]
    _write_all(folder, x, y)
    keys = [f"data.{key}" for key in (*KINDS[kind], "standardize=false")]
    keys += [f"model.{key}" for key in NEURAL if kind == "tokens"]
    how = {"folds": 0, "epochs": 1, "set": [*keys, "data.validation=0.3"]}
    found = searched(alone, folder, "optimizer.learning_rate=0.1", **how)
    assert found["best"] is not None
    again = searched(alone, folder, "optimizer.learning_rate=0.1", **how, resume=True)
    assert again == found
    one, two = np.flatnonzero(y == y[0])[:2]
    x[[one, two]] = x[[two, one]]
    _write_all(folder, x, y)
    with pytest.raises(ConfigError, match="the sums of features.* are not those of"):
        searched(alone, folder, "optimizer.learning_rate=0.1", **how, resume=True)


def test_token_files_are_compared_by_their_number(alone, folder):
    tokens = (np.arange(400) % 7).astype("<u2")
    keys = [f"data.{key}" for key in (*KINDS["tokens"], "standardize=false")]
    keys += ["data.validation=0.3", *(f"model.{key}" for key in NEURAL)]
    how = {"folds": 0, "epochs": 1, "set": keys}
    tokens.tofile(folder / "tokens.bin")
    found = searched(alone, folder, "optimizer.learning_rate=0.1", **how)
    assert found["best"] is not None
    tokens[:-80].tofile(folder / "tokens.bin")
    with pytest.raises(ConfigError, match="tokens.bin: the training rows are not"):
        searched(alone, folder, "optimizer.learning_rate=0.1", **how, resume=True)
