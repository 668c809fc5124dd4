"""Files of studies with one wrong value: refused, or everything can be made of them."""

import copy
import json
import warnings

import pytest
from studies import make_study

from pympi_train.errors import DataError
from pympi_train.scaling.analysis import efficiency
from pympi_train.scaling.report.page import page_of
from pympi_train.scaling.study.record import Study, read_study

NAN = float("nan")
VALUES = (None, -1, 0, 1e308, 10**400, NAN, "<b>", [], {}, [[1], []])
MISSING = object()
TOLD = ("created", "config", "config_hash", "machine", "mpi", "settings")  # as they are


@pytest.fixture
def study():
    found = make_study(ranks=(1, 2), repeats=1, steps=3)
    about = {"settings": {"steps": 3}, "config_hash": "0", "machine": {}}
    found |= {"schema": "pympi-train/scaling/1", **about}
    found["refused"] = {"allreduce": ['compression = "int8"']}
    for one in found["measurements"]:
        one["exchange"] = {"strategy": "local", "exchange": "mpi", "local_steps": 2}
        one["input_bytes"], one["layers"] = 1, 3
    exchange = {"ranks": 2, "nodes": 1, "node_of": [0, 0], "bytes": 4096}
    exchange |= {"strategy": "plain", "median_s": 1e-5, "seconds": [1e-5]}
    found["exchanges"] = [{**exchange, "bytes": 8}, exchange]
    return found


def places(value, place=()):
    """Yield the place of each value in a study; of lists the first one's."""
    if place:
        yield place
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*place, name))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*place, 0))


def damaged(study, place, value):
    found = copy.deepcopy(study)
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    if value is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return found


def test_the_study_itself_is_whole(study, tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(study))
    assert read_study(path) == study


def test_each_wrong_value(study, tmp_path, monkeypatch):
    monkeypatch.setattr(efficiency, "N_DRAWS", 5)
    path, n_refused, n_read = tmp_path / "s.json", 0, 0
    for place in places(study):
        for value in ("<b>",) if place[0] in TOLD else (*VALUES, MISSING):
            path.write_text(json.dumps(damaged(study, place, value)))
            try:
                content = read_study(path)
            except DataError as error:
                assert str(path) in str(error)
                n_refused += 1
                continue
            n_read += 1
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert "<b>" not in page_of(content)
                whole = Study(tmp_path / "none.json", {})
                whole.content = content
                whole.save_csv(tmp_path / "s.csv")
                whole.path = tmp_path / "again.json"
                whole.save()
    assert n_refused > 300 and n_read > 10


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", '{"schema": "pympi'])
def test_no_json(tmp_path, text):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(DataError, match="no JSON"):
        read_study(path)
