"""Time to a score: which trainings there are, what they took, what follows from it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pympi_train.config.config import parse
from pympi_train.errors import MALFORMED, ConfigError, DataError, UserError
from pympi_train.scaling.results import critical, measure, table
from pympi_train.scaling.results.measure import measure_results, row_of_records
from pympi_train.scaling.results.points import points_to_measure, scaled_rate

TEXT = """
[data]
train = "x.csv"
validation = 0.25
[model]
kind = "softmax"
[optimizer]
name = "sgd"
learning_rate = 0.2
[train]
batch_size = 20
epochs = 12
monitor = "accuracy"
[output]
directory = "run"
"""


def configure(settings=()):
    return parse(TEXT, folder="/data", overrides=settings)


def test_points_are_all_combinations_and_runs_of_their_own():
    how = {"ranks": [1, 2], "batch_sizes": [20, 80], "seeds": [3, 4], "score": 0.9}
    points = points_to_measure(configure, **how, scale_rate="linear")
    at = [(p.seed, p.batch_size, p.ranks, p.learning_rate) for p in points]
    rates = {20: 0.2, 80: 0.8}
    assert at == [(s, b, r, rates[b]) for s in (3, 4) for b in (20, 80) for r in (1, 2)]
    folders = {point.config.output.directory for point in points}
    assert len(folders) == 8
    assert all(f.startswith("/data/run-time-to-score/ranks") for f in folders)
    for point in points:
        assert point.config == configure(point.settings)
        assert point.config.train.target == 0.9
        assert point.config.train.gradient_noise


def test_another_setting_is_another_run_but_more_epochs_are_not():
    def folder(*overrides, **how):
        how = {"ranks": [2], "score": 0.9, **how}
        points = points_to_measure(configure, overrides=overrides, **how)
        return points[0].config.output.directory

    assert folder() == folder("train.epochs=50") != folder("optimizer.momentum=0.5")
    assert folder() != folder(metric="validation_loss") != folder(score=0.8)
    assert folder(directory="/other").startswith("/other/ranks2-batch20-seed0-")
    checkpoints = points_to_measure(
        configure,
        ranks=[2],
        score=0.9,
        overrides=["checkpoint.directory=/saved"],
    )[0].config
    assert checkpoints.checkpoints == f"{checkpoints.output.directory}/checkpoints"


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="score to reach is missing"):
        points_to_measure(configure, ranks=[1])
    with pytest.raises(ConfigError, match="takes all rows in each step"):
        points_to_measure(
            configure, ranks=[1], score=1.0, overrides=["optimizer.name=lbfgs"]
        )
    local = points_to_measure(
        configure, ranks=[1], score=1.0, overrides=["parallel.strategy=local"]
    )
    assert not local[0].config.train.gradient_noise


@pytest.mark.parametrize("rule, rate", [("none", 1), ("linear", 16), ("sqrt", 4)])
def test_rate_of_another_batch_size(rule, rate):
    assert scaled_rate(1.0, 1024, 64, rule) == rate
    assert scaled_rate(0.3, 64, 64, rule) == 0.3


def record(epoch, accuracy, wall_s=0.5):
    noise = {"critical_batch_size": 10.0 * epoch, "gradient_square": 1.0, "trace": 2.0}
    return {
        "epoch": epoch,
        "step": 4 * epoch,
        "samples": 100 * epoch,
        "accuracy": accuracy,
        "wall_s": wall_s,
        "gradient_noise": noise,
    }


def test_row_counts_up_to_the_score_or_all_epochs():
    records = [record(1, 0.5), record(2, None), record(3, 0.91), record(4, 0.8)]
    reached = {"epoch": 3, "seconds": 1.5}
    result = {"ended": "target", "reached": reached}
    row = row_of_records(records, result, "accuracy")
    assert row == {
        "reached_s": 1.5,
        "epochs": 3,
        "steps": 12,
        "samples": 300,
        "step_s": 1.5 / 12,
        "metric": "accuracy",
        "best": 0.91,
        "critical_batch_size": 30.0,
        "gradient_square": 1.0,
        "trace": 2.0,
        "ended": "target",
    }
    row = row_of_records(records, {"ended": "epochs", "reached": None}, "accuracy")
    assert row["reached_s"] is None
    assert (row["epochs"], row["steps"], row["samples"]) == (4, 16, 400)


def made_rows(sizes, *, least_samples=5000.0, least_steps=40.0, critical=None):
    return [
        {
            "ranks": ranks,
            "batch_size": size,
            "seed": seed,
            "learning_rate": 0.1,
            "score": 0.9,
            "error": None,
            "metric": "accuracy",
            "best": 0.95,
            "epochs": 3,
            "step_s": 0.01,
            "samples": (least_samples + least_steps * size) * (1 + 0.1 * (seed - 1)),
            "reached_s": 30.0 / ranks,
            "critical_batch_size": critical,
        }
        for size in sizes
        for seed in (0, 1, 2)
        for ranks in (1, 2)
    ]


def test_fit_recovers_the_critical_batch_size():
    fit = critical.samples_fit(made_rows([16, 64, 256, 1024]))
    assert fit["least_samples"] == pytest.approx(5000)
    assert fit["least_steps"] == pytest.approx(40)
    assert fit["critical_batch_size"] == pytest.approx(125)
    assert critical.too_large(made_rows([16, 64, 256, 1024])) == [256, 1024]
    assert critical.samples_fit(made_rows([16, 64])) is None
    assert critical.samples_fit(made_rows([16, 64, 256], least_steps=-1)) is None
    by_noise = made_rows([16, 64, 256, 1024], critical=300.0)
    assert critical.too_large(by_noise) == [1024]


def test_table_and_words():
    rows = made_rows([16, 64, 256])
    rows[-1] |= {"reached_s": None}
    rows[0] |= {"error": "exit status 2: no such file", "ended": None}
    lines = table.results_table(rows)
    assert lines[0].split()[:4] == ["ranks", "batch", "rate", "s/step"]
    assert len(lines) == 7
    assert lines[2].split() == "2 16 0.1 0.01 3 5,640 15 2.00 - 3 of 3".split()
    assert lines[1].endswith("2 of 2") and lines[-1].endswith("2 of 3")
    words = "\n".join(table.describe_results(rows))
    assert "1 rank, batch 16, seed 0: exit status 2: no such file" in words
    assert "accuracy 0.9 was not reached in 3 epochs: 0.95 at best" in words
    assert "batch 256 is beyond the critical batch size: 2." in words
    assert "fastest  2 ranks, batch 16: 15 s" in words


def test_seeds_that_did_not_reach_the_score_count():
    rows = made_rows([16, 64])
    for row in rows:
        if row["batch_size"] == 64 and row["seed"] != 1:
            row["reached_s"] = None
    assert list(critical.median_samples(rows)) == [16]
    assert table.results_table(rows)[-1].split()[4:8] == ["-"] * 4


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


def test_the_command_measures_each_training_once(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    rows = np.column_stack([x, x.argmax(1)])
    header = "a,b,c,y"
    np.savetxt(tmp_path / "x.csv", rows, "%.6f", ",", header=header, comments="")
    (tmp_path / "c.toml").write_text(TEXT)
    argv = [sys.executable, "-m", "pympi_train", "time-to-score", "c.toml", "--json"]
    argv += ["--metric", "validation_loss", "--score", "0.75", "--ranks", "2"]
    argv += ["--batch-sizes", "20,100"]
    argv += ["--set", "data.target=y", "optimizer.learning_rate=0.05"]

    def run(*more):
        done = subprocess.run(
            [*argv, *more], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    found, told = run()
    assert [row["batch_size"] for row in found["results"]] == [20, 100]
    first, second = found["results"]
    assert first["reached_s"] > 0 and first["ended"] == "target"
    assert first["epochs"] < 12 and first["critical_batch_size"] > 0
    assert first["samples"] == 150 * first["epochs"]
    assert second["reached_s"] is None and second["epochs"] == 12
    assert second["best"] > 0.75
    longer, told = run("train.epochs=80")
    assert told.count("measured before") == 1
    assert longer["results"][0] == first
    assert longer["results"][1]["epochs"] > 12
    kept = json.loads((tmp_path / "run-time-to-score/time-to-score.json").read_text())
    assert kept["results"] == longer["results"]
    assert kept["schema"] == "pympi-train/time-to-score/1"


def test_results_of_another_configuration_are_not_replaced(tmp_path):
    how = {"ranks": [1], "score": 0.9, "directory": str(tmp_path)}
    points = points_to_measure(configure, batch_sizes=[20, 80], **how)
    rows = [{"directory": point.config.output.directory} for point in points]
    path = tmp_path / table.RESULTS_JSON

    def replaced(config, points=points):
        return table.replaced_results(tmp_path, config, points)

    assert replaced("/a/c.toml") == 0
    path.write_text(json.dumps({"config": "/a/c.toml", "results": rows}))
    assert replaced("/a/c.toml") == replaced("/a/b/../c.toml") == 0
    assert replaced("/a/c.toml", points[:1]) == 1
    with pytest.raises(ConfigError, match="the results of /a/c.toml, and would be"):
        replaced("/a/d.toml")
    path.write_text('{"config": ')
    assert replaced("/a/d.toml") == 0


def test_the_command_replaces_no_results_of_another_configuration(tmp_path):
    for name in ("c.toml", "d.toml"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "run-time-to-score").mkdir()
    kept = tmp_path / "run-time-to-score" / table.RESULTS_JSON
    kept.write_text(json.dumps({"config": str(tmp_path / "d.toml"), "results": []}))
    argv = [sys.executable, "-m", "pympi_train", "time-to-score", "c.toml"]
    argv += ["--score", "0.9"]
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "choose another --directory" in done.stderr
    assert sorted(p.name for p in kept.parent.iterdir()) == [table.RESULTS_JSON]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    points = points_to_measure(
        configure, ranks=[1], score=0.9, directory=str(tmp_path / "file")
    )
    with pytest.raises(DataError, match="file/ranks1-.*cannot be written"):
        next(measure_results(points, "c.toml", None, say=lambda text: None))


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
