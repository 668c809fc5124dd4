import json

import numpy as np
import pytest

from pympi_train.bench import reading
from pympi_train.cli import main
from pympi_train.errors import DataError


def test_every_way_reads_every_byte(tmp_path, monkeypatch):
    seen = []
    batches = reading.read_batches

    def remembered(path, n, in_file_order, order, out):
        assert path.stat().st_size == n * reading.ROW_BYTES + 128
        assert len(np.load(path, mmap_mode="r")) == n
        seen.append((in_file_order, order is not None))
        return batches(path, n, in_file_order, order, out)

    monkeypatch.setattr(reading, "read_batches", remembered)
    found = reading.measure(tmp_path, n_bytes=3 * 2**20, rounds=2)
    assert list(found["ways"]) == ["read", *reading.WAYS]
    assert seen == [(True, False), (False, True), (False, False)] * 2
    assert all(way["bytes_per_s"] > 0 for way in found["ways"].values())
    assert found["ways"]["read"]["times_read"] == 1
    assert found["cached"] is None or 0 <= found["cached"] <= 1
    assert found["bytes"] == found["rows"] * 3072 == 3 * 2**20
    assert list(tmp_path.iterdir()) == []


def test_batches_hold_the_rows_of_the_file(tmp_path, monkeypatch):
    """Each row once in file order and in order "window"."""
    sums = []
    windows = reading.choose_windows(700, 3072)
    for in_file_order, order in ((True, None), (False, windows)):
        with reading.random_file(tmp_path, 700) as path:
            x = np.load(path).view(np.uint32)
            out = np.zeros((reading.BATCH_ROWS, 768), np.float32)
            real, total = reading.MappedDataset.batch, np.zeros(768, np.uint64)

            def added(self, rows, memory):
                batch = real(self, rows, memory)
                np.add(total, batch.x.view(np.uint32).sum(0, np.uint64), out=total)
                return batch

            monkeypatch.setattr(reading.MappedDataset, "batch", added)
            reading.read_batches(path, 700, in_file_order, order, out)
            monkeypatch.undo()
            sums.append(total.tolist() == x.sum(0, np.uint64).tolist())
    assert sums == [True, True]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="/absent: No such file"):
        reading.measure(tmp_path / "absent", n_bytes=2**20)
    with pytest.raises(DataError, match="bytes are free, and the file would take"):
        reading.measure(tmp_path, n_bytes=10**17)

    def broken(path, n):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading, "_write", broken)
    with pytest.raises(DataError, match=f"{tmp_path}: No space left"):
        reading.measure(tmp_path, n_bytes=2**20)
    assert list(tmp_path.iterdir()) == []


def test_command(tmp_path, capsys, monkeypatch):
    argv = ["bench", "io", str(tmp_path), "--size", "1100000", "--rounds", "1"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "1,099,776 bytes in rows of 3,072" in text and "% of read" in text
    monkeypatch.setattr(reading, "_cached", lambda fd: None)
    assert main(argv) == 0
    assert "is unknown" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 358
