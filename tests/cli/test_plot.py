"""Learning curves drawn after the training, from its run directory."""

import json

import pytest

pytest.importorskip("matplotlib")
PNG = b"\x89PNG"


@pytest.fixture
def trained(folder, pympi_train):
    assert pympi_train("train", "c.toml").status == 0
    return folder / "run"


def test_draws_into_the_run_directory(trained, pympi_train):
    done = pympi_train("plot", str(trained))
    assert (done.status, done.out) == (0, f"{trained}/curves.png\n")
    assert (trained / "curves.png").read_bytes().startswith(PNG)


def test_draws_where_it_is_told_to(trained, pympi_train, tmp_path):
    path = tmp_path / "picture.png"
    done = pympi_train("plot", str(trained), "--output", str(path), "--json")
    assert json.loads(done.out) == {"output": str(path)}
    assert path.read_bytes().startswith(PNG)
    assert not (trained / "curves.png").exists()


def test_epochs_that_were_not_finite_leave_a_gap(trained, pympi_train):
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    record = {**json.loads(lines[-1]), "train_loss": None}
    (trained / "metrics.jsonl").write_text("\n".join([*lines, json.dumps(record)]))
    assert pympi_train("plot", str(trained)).status == 0


@pytest.mark.parametrize(
    "text, told",
    [
        (None, "metrics.jsonl: cannot be read: No such file"),
        ("", "metrics.jsonl: no epoch has ended yet"),
        ("{", "metrics.jsonl: expected one JSON object a line"),
        ("[1]", "metrics.jsonl: expected one JSON object a line"),
        ("{}", "metrics.jsonl: expected one JSON object a line"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, pympi_train, text, told):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    done = pympi_train("plot", str(tmp_path))
    assert done.status == 2
    assert told in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "curves.svg"])
def test_only_a_picture_is_written(trained, pympi_train, name):
    before = (trained / "weights.safetensors").read_bytes()
    done = pympi_train("plot", str(trained), "--output", str(trained / name))
    assert done.status == 2 and "expected a name that ends in .png" in done.err
    assert (trained / "weights.safetensors").read_bytes() == before
