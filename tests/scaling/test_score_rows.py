"""Trainings that diverged, launches that failed, and damaged results."""

import pytest

from pympi_train.errors import MALFORMED, UserError
from pympi_train.scaling.results import critical, measure, table
from pympi_train.scaling.results.measure import measure_results, row_of_records
from pympi_train.scaling.results.points import points_to_measure
from tests.scaling.made_results import configure, made_rows, record


def test_seeds_that_diverged_count_and_launches_that_failed_do_not():
    rows = made_rows([16, 64, 256])
    for row in rows:
        if row["batch_size"] == 256 and row["seed"] != 1:
            for name in ("reached_s", "samples", "epochs", "step_s", "metric", "best"):
                del row[name]
            row |= {"error": "too large (the weights of step 4)", "ended": "diverged"}
        elif row["batch_size"] == 64 and row["seed"] != 1:
            row |= {"error": "exit status 1", "ended": None}
    assert list(critical.median_samples(rows)) == [16, 64]
    lines = table.results_table(rows)
    assert lines[-1].split()[3:] == ["0.01", *["-"] * 5, "1", "of", "3"]
    assert lines[-3].endswith("1 of 1")
    words = "\n".join(table.describe_results(rows))
    assert "failed   1 rank, batch 256, seed 0: too large" in words
    assert "fastest  2 ranks, batch 16" in words
    for row in rows:
        row |= {"error": "too large", "ended": "diverged", "reached_s": None}
        row.pop("step_s", None)
    assert table.results_table(rows)[-1].split()[3:] == [*["-"] * 6, "0", "of", "3"]


def test_samples_that_differ_by_an_epoch_fit_nothing():
    """An epoch has 300 rows: 1 and 2 epochs may stand for 299 and 301 rows."""
    rows = made_rows([16, 64, 256])
    for row in rows:
        row["epochs"] = 2 if row["batch_size"] == 256 else 1
        row["samples"] = 300 * row["epochs"]
    assert critical.samples_fit(rows) is None and critical.too_large(rows) == []
    for row in rows:
        row["epochs"] += row["batch_size"] == 256
        row["samples"] = 300 * row["epochs"]
    assert critical.samples_fit(rows) is not None


@pytest.mark.parametrize(
    "place, value",
    [
        (("reached", "seconds"), 15.0),
        (("reached", "epoch"), 0),
        (("reached", "epoch"), True),
        ((0, "epoch"), 2),
        ((0, "wall_s"), "0.5"),
        ((1, "wall_s"), -0.5),
        ((2, "step"), 0),
        ((2, "step"), 12.0),
        ((2, "samples"), [300]),
        ((2, "samples"), 10**400),
        ((1, "accuracy"), "0.9"),
        ((1, "accuracy"), 1e300),
        ((2, "gradient_noise", "critical_batch_size"), "10"),
        ((2, "gradient_noise"), [1]),
    ],
)
def test_each_damaged_number_of_a_result(place, value):
    records = [record(1, 0.5), record(2, 0.8), record(3, 0.91)]
    result = {"ended": "target", "reached": {"epoch": 3, "seconds": 1.5}}
    assert row_of_records(records, result, "accuracy")["steps"] == 12
    inner = records if isinstance(place[0], int) else result
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(MALFORMED):
        row_of_records(records, result, "accuracy")


class Diverging:
    """Launches that end as `pympi-train train` does where the training diverges."""

    def run(self, n_ranks, words, log):
        return "the loss became nan at step 4 (the weights of step 3 are in run/w)"


def test_a_training_that_diverges_is_a_result(tmp_path):
    (point,) = points_to_measure(
        configure, ranks=[1], score=0.9, directory=str(tmp_path)
    )
    ((_, row),) = measure_results([point], "c.toml", Diverging(), lambda text: None)
    assert row["ended"] == "diverged" and critical.trained([row]) == [row]


@pytest.mark.parametrize(
    "reached", [{"epoch": 9, "seconds": 1.0}, {"epoch": "x"}, [], "x", {"epoch": 1}, 7]
)
def test_a_damaged_result_is_told(tmp_path, monkeypatch, reached):
    (point,) = points_to_measure(
        configure, ranks=[1], score=0.9, directory=str(tmp_path)
    )
    monkeypatch.setattr(measure, "read_metrics", lambda _: [record(1, 0.5)])
    result = {"ended": "target", "reached": reached}
    monkeypatch.setattr(measure, "finished_result", lambda _: result)
    with pytest.raises(UserError, match="damaged .*; remove this folder"):
        next(measure_results([point], "c.toml", None, say=lambda text: None))
