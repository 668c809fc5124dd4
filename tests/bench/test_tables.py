"""Timings of tables: every way is run, and the file removed."""

import pytest

from pympi_train.bench import tables
from pympi_train.cli import main
from pympi_train.errors import DataError


@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_every_way_is_timed(tmp_path, monkeypatch, capsys, format_):
    monkeypatch.setattr(tables, "FEATURES", 3)
    monkeypatch.setattr(tables, "GROUP_ROWS", 300)
    found = tables.measure(tmp_path, format_, n_bytes=16 * 1000, rounds=2)
    assert (found["rows"], found["bytes"]) == (1000, 16000)
    assert list(found["ways"]) == ["pyarrow", "matrix", "rows", "in memory", "stream"]
    assert all(way["median_s"] > 0 for way in found["ways"].values())
    assert found["ways"]["pyarrow"]["times"] == found["ways"]["in memory"]["times"] == 1
    assert list(tmp_path.iterdir()) == []
    argv = ["bench", "io", str(tmp_path), "--format", format_]
    assert main([*argv, "--size", "16000", "--rounds", "1"]) == 0
    assert "times in memory" in capsys.readouterr().out


def test_a_folder_that_is_absent_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="/absent: No such file"):
        tables.measure(tmp_path / "absent", "csv", 10**5, rounds=1)
