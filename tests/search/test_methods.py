"""What is trained next: rungs of trainings, and questions in flight."""

import json

import pytest
from searches import searched

from pympi_train.search import methods


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


def test_tpe_takes_the_values_of_a_range_with_a_count(alone, folder):
    pytest.importorskip("optuna")
    how = {"method": "tpe", "trials": 6, "epochs": 1, "folds": 2}
    found = searched(alone, folder, "train.batch_size=log:4..16:3", **how)
    sizes = {trial["parameters"]["train.batch_size"] for trial in found["trials"]}
    assert len(found["trials"]) == 6 and sizes <= {4, 8, 16}
