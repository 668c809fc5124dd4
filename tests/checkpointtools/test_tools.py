"""What ``pympi-train checkpoint`` reports, on three ranks."""

import contextlib
import io
import json
import os
import shutil

import numpy as np
import pytest

from pympi_train.checkpoint.read import check_size, manifest_content
from pympi_train.checkpointtools import listing, verify
from pympi_train.checkpointtools.found import find_checkpoints
from pympi_train.cli import main
from pympi_train.errors import UnreadableError

FIRST = "run/checkpoints/000001-step-3"


def call(*argv):
    """Return the exit status, and what this rank printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["checkpoint", *map(str, argv)])
    return status, out.getvalue(), err.getvalue()


def found(comm, *argv):
    """Return the exit status and the JSON of a command, on every rank."""
    status, out, err = call(*argv, "--json")
    assert not err
    return status, comm.bcast(json.loads(out) if comm.rank == 0 else None, root=0)


def names(run):
    return sorted(os.listdir(run / "checkpoints"))


def on_rank_0(comm, do):
    comm.Barrier()
    if comm.rank == 0:
        do()
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
def test_list(comm, run):
    status, told = found(comm, "list", run)
    entries = told["checkpoints"]
    assert status == 0 and [entry["name"] for entry in entries] == names(run)
    assert [entry["step"] for entry in entries] == [3, 6]
    assert [entry["epoch"] for entry in entries] == [1, 2]
    metric = entries[-1]["metric"]
    assert metric["name"] == "validation_loss" and metric["value"] > 0
    assert [entry["is_newest"] for entry in entries] == [False, True]
    assert sum(entry["is_best"] for entry in entries) == 1
    for entry in entries:
        files = os.scandir(run / "checkpoints" / entry["name"])
        assert entry["bytes"] == sum(file.stat().st_size for file in files)
    first, last = (run / "checkpoints" / name for name in names(run))
    on_rank_0(comm, lambda: os.truncate(last / "rank-000001.safetensors", 50))
    on_rank_0(comm, lambda: (first / "manifest.json").unlink())
    status, told = found(comm, "list", run / "checkpoints")
    first, last = told["checkpoints"]
    assert "no manifest.json" in first["problem"] and first["step"] is None
    assert "rank-000001.safetensors: expected" in last["problem"] and last["step"] == 6
    assert not (last["is_newest"] or last["is_best"])
    _, out, _ = call("list", run)
    if comm.rank == 0:
        heading, one, two = out.splitlines()
        assert "not whole: " in one and "not whole: " in two
        assert heading.split() == "name step epoch written size metric".split()


@pytest.mark.mpi(min_size=2)
def test_show(comm, run):
    path = run / "checkpoints" / names(run)[-1]
    status, told = found(comm, "show", path)
    weight = told["tensors"]["params/layers.0.weight"]
    assert weight["shape"] == [3, 6] and weight["dtype"] == "float32"
    files = {region["file"] for region in weight["regions"]}
    assert len(files) == min(comm.size, 3)  # a small tensor: not all ranks have a part
    assert told["values"]["progress"]["steps"] == 6
    assert told["configuration"]["train"]["batch_size"] == 16
    assert told["ranks"] == comm.size and "pympi_train" in told["software"]
    assert told["numerics"]["blas"] and told["mpi"]
    assert told["bytes"] == sum(file.stat().st_size for file in os.scandir(path))
    status, out, _ = call("show", path)
    if comm.rank == 0:
        assert "progress  step 6, 2 epochs done\n" in out
        assert "params/layers.0.weight" in out and "batch_size 16" in out


@pytest.mark.mpi(min_size=2)
def test_verify(comm, run):
    first, last = (run / "checkpoints" / name for name in names(run))
    status, told = found(comm, "verify", run, last)
    n = sum(len(os.listdir(path)) - 1 for path in (first, last))  # not the manifests
    assert status == 0 and told["findings"] == []
    assert (told["checkpoints"], told["files"]) == (2, n)

    def damage():
        with open(last / "rank-000001.safetensors", "rb+") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x81")
        (first / "rank-000000.safetensors").unlink()
        shutil.copytree(first, run / "checkpoints" / "copy")
        (run / "checkpoints" / "copy" / "manifest.json").write_text("{}")

    on_rank_0(comm, damage)
    status, told = found(comm, "verify", run / "checkpoints")
    assert status == 2 and len(told["findings"]) == 3
    missing, flipped, malformed = told["findings"]
    assert missing.startswith(f"{first}/rank-000000.safetensors: missing")
    assert flipped.startswith(f"{last}/rank-000001.safetensors: its BLAKE2 hash")
    assert "copy/manifest.json: malformed" in malformed
    status, out, _ = call("verify", first)
    assert status == 2
    if comm.rank == 0:
        finding, count = out.splitlines()
        assert finding == missing and count.endswith(": 1 finding")


@pytest.mark.mpi(min_size=2)
def test_a_checkpoint_that_a_training_removes_meanwhile(comm, run, monkeypatch):
    for module in (listing, verify):
        more = lambda path: [*find_checkpoints(path), f"{path}/gone"]  # noqa: E731
        monkeypatch.setattr(module, "find_checkpoints", more)
    status, told = found(comm, "list", run)
    assert status == 0 and [e["name"] for e in told["checkpoints"]] == names(run)
    status, told = found(comm, "verify", run)
    assert status == 0 and told["findings"] == []


@pytest.mark.mpi(min_size=2)
def test_diff(comm, run, monkeypatch):
    from safetensors.numpy import load_file

    from pympi_train.checkpointtools import compare

    monkeypatch.setattr(compare, "PIECE", 5)
    first, last = (run / "checkpoints" / name for name in names(run))
    status, told = found(comm, "diff", first, first)
    assert status == 0 and told["same"] and told["n_tensors"] == 12
    status, told = found(comm, "diff", first, last)
    assert status == 0 and not told["same"] and told["configuration"] == {}
    assert told["values"]["progress.steps"] == [3, 6]
    assert not any("spent" in key for key in told["values"])
    assert told["mismatches"] == {} and len(told["tensors"]) == 12
    # Region by region: the ranks that wrote both were the same.
    gaps = {}
    for name in (name for name in os.listdir(first) if name.startswith("rank-")):
        one, two = load_file(first / name), load_file(last / name)
        for key in one:
            a, b = one[key].astype("f8"), two[key].astype("f8")
            pair = np.abs(a - b), np.abs(a - b) / np.maximum(abs(a), abs(b))
            gaps.setdefault(key.partition("[")[0], []).append(pair)
    for name, tensor in told["tensors"].items():
        want = [max(gap.max() for gap in kind) for kind in zip(*gaps[name])]
        assert [tensor[f"largest_{k}"] for k in ("absolute", "relative")] == want


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "argv, text",
    [
        (["list", "none"], "none: no such checkpoint, run directory or folder"),
        (["list", "."], ": no checkpoints in this folder"),
        (["show", "run"], "run: no manifest.json; is it a checkpoint?"),
        (["verify", "run", "none"], "none: no such checkpoint"),
        (["diff", FIRST, "none"], "none: no such checkpoint"),
        (["export", "run", "x.pt"], "x.pt: cannot be written: expected a name that"),
        (["export", "none", "x.npz"], "none: no such run directory"),
        (["export", "run", "run/weights.safetensors"], "it would be a file of /"),
        (["export", "run", f"{FIRST}/x.npz"], "step-3; choose another"),
        (["export", FIRST, "run/weights.safetensors"], "run; choose another"),
        (["export", "run", "no\nfolder/x.npz"], r"no\nfolder/x.npz: cannot be written"),
        (["list", ""], "'': an empty file name"),
        (["export", "run", "no/folder/x.npz"], "x.npz: cannot be written: No such"),
    ],
)
def test_refusals(comm, run, argv, text):
    with contextlib.chdir(run.parent):
        status, out, err = call(*argv)
    assert status == 2 and not out
    if comm.rank == 0:
        assert text in err and len(err.splitlines()) == 1


@pytest.mark.mpi(min_size=2)
def test_export(comm, run, mpi_tmp_path):
    """Parameters spread over ranks are whole tensors, as in the run's own weights."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    want = load_file(run / "weights.safetensors")
    with safe_open(run / "weights.safetensors", "numpy") as file:
        order = json.loads(file.metadata()["order"])
    last = run / "checkpoints" / names(run)[-1]
    for source in (run, last):
        status, told = found(comm, "export", source, mpi_tmp_path / "x.npz")
        assert status == 0 and (told["tensors"], told["parameters"]) == (4, 45)
        found(comm, "export", source, mpi_tmp_path / "x.safetensors")
        with np.load(mpi_tmp_path / "x.npz") as arrays:
            assert arrays.files == order
            for name, array in want.items():
                np.testing.assert_array_equal(arrays[name], array, strict=True)
        for name, array in load_file(mpi_tmp_path / "x.safetensors").items():
            np.testing.assert_array_equal(array, want[name], strict=True)
        with safe_open(mpi_tmp_path / "x.safetensors", "numpy") as file:
            assert json.loads(file.metadata()["order"]) == order
        comm.Barrier()
    assert {"x.npz", "x.safetensors"} <= set(os.listdir(mpi_tmp_path))
    assert not [name for name in os.listdir(mpi_tmp_path) if name.endswith(".tmp")]


def test_export_to_a_link_writes_the_file_that_it_names(trained, tmp_path):
    run, _ = trained("train.epochs=1")
    (tmp_path / "link.npz").symlink_to("real.npz")
    assert call("export", run, tmp_path / "link.npz")[0] == 0
    assert (tmp_path / "link.npz").is_symlink() and np.load(tmp_path / "real.npz").files


def test_a_manifest_that_cannot_be_looked_at_is_not_taken_for_a_lost_one(tmp_path):
    """Here by a cycle of links, as tests may run as root, whom no permission stops."""
    (tmp_path / "a").symlink_to("a")
    (tmp_path / "manifest.json").symlink_to("a")
    with pytest.raises(UnreadableError, match=f"^{tmp_path}: cannot be read: Too many"):
        manifest_content(str(tmp_path))
    with pytest.raises(UnreadableError, match="a: cannot be read: Too many"):
        check_size(str(tmp_path / "a"), {"n_bytes": 1, "blake2b": ""})


def test_runs_that_were_moved_or_save_elsewhere(trained, tmp_path):
    run, _ = trained("train.epochs=1")
    moved = run.rename(tmp_path / "moved")
    assert str(moved / "checkpoints" / names(moved)[0]) in find_checkpoints(str(moved))
    run, _ = trained("train.epochs=1", "checkpoint.directory=elsewhere")
    found = find_checkpoints(f"{run}/")
    assert {os.path.dirname(path) for path in found} == {str(tmp_path / "elsewhere")}
    assert find_checkpoints(f"{found[0]}/") == found[:1]
