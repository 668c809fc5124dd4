"""Time to a score: which trainings there are, what they took, what follows from it."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from pympi_train.errors import ConfigError, DataError
from pympi_train.scaling.results import critical, measure, table
from pympi_train.scaling.results.measure import measure_results, row_of_records
from pympi_train.scaling.results.points import points_to_measure, scaled_rate
from tests.scaling.made_results import TEXT, configure, made_rows, record


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


def test_a_batch_size_above_the_rows_is_none(monkeypatch):
    """An epoch of the made records has 100 rows."""
    result = {"ended": "epochs", "reached": None}
    monkeypatch.setattr(measure, "finished_result", lambda config: result)
    monkeypatch.setattr(measure, "read_metrics", lambda folder: [record(1, 0.5)])
    points = points_to_measure(
        configure, ranks=[1], batch_sizes=[100, 101], score=0.9
    )
    found = [row for _, row in measure_results(points, "c.toml", None)]
    assert found[0]["error"] is None and found[0]["best"] == 0.5
    assert "there are 100 training rows" in found[1]["error"]
    assert "best" not in found[1] and critical.trained(found) == found[:1]


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


def test_a_gradient_below_its_noise_makes_no_batch_too_large():
    rows = made_rows([16, 1024], critical=300.0)
    for row in rows:
        row["trace"] = 2.0
        if row["seed"] != 1:
            row["critical_batch_size"] = None
    assert critical.median_critical(rows) == math.inf
    assert critical.too_large(rows) == []
    assert " inf " in table.results_table(rows)[1]


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
