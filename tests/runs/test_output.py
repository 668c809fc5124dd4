"""The run directory: whole files or none, and what comes back is what went in."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pympi_train.config.config import CHECKPOINTS, parse
from pympi_train.data.loading.schema import Schema
from pympi_train.data.preparation import Encoding, Preparation
from pympi_train.data.standardise import Scaling
from pympi_train.errors import ConfigError, DataError
from pympi_train.runs import lock, output
from pympi_train.runs.earlier.weights import open_earlier

FILES = {output.CONFIG, output.SCHEMA, output.METRICS}


def read_run(path):
    """The text of the configuration, the schema, and the arrays of a run."""
    found = open_earlier(str(path))
    tensors = {name: tensor[...] for name, tensor in found.tensors.items()}
    return *found.config_and_schema(), tensors


@pytest.fixture
def config(tmp_path):
    text = '[data]\ntrain = "ä.csv"\n[model]\nkind = "softmax"\n'
    return parse(text, folder=tmp_path)


SCALING = Scaling(np.array([0.1, 1e-300]), np.array([1 / 3, 1.0]))
EVERYTHING = Preparation(
    4,
    missing="median",
    fill=np.array([0.1, 0, -1e9, 0]),
    indicators=(0,),
    encodings=(
        Encoding(1, 1, ("2", "", "röd"), has_other=True),
        Encoding(3, 3, ("S", "M"), "ordinal"),
    ),
    dates=((2, 2),),
    scaling=Scaling(np.array([0.1, 0, 3, 0]), np.array([1 / 3, 1, 2, 1])),
    clip=5.0,
)


def schema(**changes):
    fields = {
        "task": "classification",
        "format": "csv",
        "header": None,
        "features": None,
        "target": "y",
        "feature_names": ["a", "ö"],
        "n_features": 2,
        "zero_based": None,
        "classes": np.array(["no", "ßure"]),
        "n_targets": 1,
        "target_names": None,
        "target_scaling": None,
        "preparation": Preparation(2, scaling=SCALING),
        "weights": None,
        "dtype": "float32",
    }
    return Schema(**{**fields, **changes})


def assert_same(found, want):
    """Compare dataclasses of arrays and other values, and their types."""
    assert type(found) is type(want)
    for name, value in vars(want).items() if hasattr(want, "__dict__") else ():
        other = getattr(found, name)
        if isinstance(value, np.ndarray):
            assert_array_equal(other, value)
        elif isinstance(value, Scaling):
            assert_same(other, value)
        else:
            assert other == value


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    # Not in alphabetical order, as in a network of more than ten layers.
    return {
        "weight.2": rng.standard_normal((3, 2)).astype("float32"),
        "bias.2": np.zeros(2, dtype="float32"),
        "weight.10": rng.standard_normal((2, 2)).astype("float32"),
    }


@pytest.fixture
def run(tmp_path, config, tensors):
    run = output.RunDirectory(tmp_path / "runs" / "one", config, schema())
    run.save_weights(tensors)
    run.release()
    return run


def names(folder):
    """What is in a folder, without folders in which there is no file."""
    return {
        path.name
        for path in folder.iterdir()
        if path.is_file() or any(inner.is_file() for inner in path.rglob("*"))
    }


def test_replacing_puts_the_whole_file_in_place(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with output.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename within one file system
        assert not temporary.name.endswith("file")
    assert path.read_text() == "new"
    assert names(tmp_path) == {"file"}


def test_reader_keeps_the_old_file_that_it_opened(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with open(path) as reader:
        with output.replacing(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"


def test_replacing_leaves_all_as_it_was_if_the_body_raises(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), output.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_replacing_tells_what_the_system_refuses(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(DataError, match="file: cannot be written: No space left"):
        with output.replacing(path):
            raise OSError(28, "No space left on device")
    assert names(tmp_path) == set()
    with pytest.raises(DataError, match="no/file: cannot be written: No such file"):
        with output.replacing(tmp_path / "no" / "file"):
            pass


def test_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(DataError, match="cannot be written: it is no regular file"):
            with output.replacing(path):
                pass
    assert (tmp_path / "pipe").is_fifo()


def test_killed_writer_leaves_nothing_that_looks_final(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pympi_train.runs.output import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "weights.safetensors"
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(".") and left.endswith(".tmp")


def test_new_run_has_no_weights_yet(tmp_path, config):
    run = output.RunDirectory(tmp_path / "a" / "b", config, schema())
    run.release()
    assert names(run.path) == FILES
    with pytest.raises(DataError, match="no weights.safetensors; is it the .output."):
        read_run(run.path)


def test_files_of_an_earlier_run_go_when_a_new_one_has_finished(run, config):
    run.add_record({"epoch": 1})
    run.save_weights({"w": np.array([1.0])})
    run.finish({"epochs": 1})
    (run.path / output.CURVES).write_text("picture")
    (run.path / "notes.txt").write_text("mine")
    first, previous = names(run.path), run.path / output.PREVIOUS
    run.release()
    output.RunDirectory(run.path, config, schema()).release()
    assert names(run.path) == FILES | {"notes.txt", output.PREVIOUS}
    assert (run.path / output.METRICS).read_text() == ""
    assert names(previous) == first - {"notes.txt"}
    # A run that ends early leaves the old ones where they are; one that diverges, too.
    for number in (2, 3, 4):
        again = output.RunDirectory(run.path, config, schema())
        assert output.WEIGHTS not in names(run.path)
        if number > 2:
            again.save_weights({"w": np.array([float(number)])})
        assert names(previous) == first - {"notes.txt"}
        if number < 4:
            again.release()
    again.finish({"epochs": 1})
    again.release()
    assert names(run.path) == FILES | {"notes.txt", output.WEIGHTS, output.RESULT}


def test_weights_without_a_result_are_set_aside_if_there_are_no_others(run, config):
    run.save_weights({"w": np.array([1.0])})
    run.release()
    output.RunDirectory(run.path, config, schema()).release()
    assert output.WEIGHTS in names(run.path / output.PREVIOUS)
    assert names(run.path) == FILES | {output.PREVIOUS}


def test_checkpoints_of_an_earlier_run(tmp_path, config):
    path = Path(config.output.directory)
    inside = path / CHECKPOINTS / "000001-step-5"
    outside = tmp_path / "elsewhere" / "000001-step-5"
    inside.mkdir(parents=True), outside.mkdir(parents=True)
    output.RunDirectory(path, config, schema(), records=[]).release()
    assert inside.exists()
    output.RunDirectory(path, config, schema()).release()
    assert not inside.exists()
    assert (path / output.PREVIOUS / CHECKPOINTS / "000001-step-5").exists()
    settings = replace(config.checkpoint, directory=str(outside.parent))
    config = replace(config, checkpoint=settings)
    with pytest.raises(ConfigError, match="elsewhere: it holds the checkpoints of"):
        output.RunDirectory(path, config, schema())


def test_files_of_somebody_else_in_folders_of_a_run_stay(tmp_path, config):
    path = Path(config.output.directory)
    previous, saved = path / output.PREVIOUS, path / CHECKPOINTS
    mine = [previous / "thesis.txt", saved / "best.pt", previous / "a" / "b"]
    for i in range(3):
        run = output.RunDirectory(path, config, schema())
        for file in mine:
            file.parent.mkdir(exist_ok=True)
            file.write_text("mine")
        (saved / f"00000{i}-step-5").mkdir()
        (saved / f"00000{i}-step-5" / "manifest.json").touch()
        if i == 2:
            assert names(previous / CHECKPOINTS) == {"000001-step-5"}
        run.save_weights({"w": np.array([1.0])})
        run.finish({"epochs": 1})
        run.release()
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert names(previous) == {"thesis.txt", "a"}
    assert names(saved) == {"best.pt", "000002-step-5"}


@pytest.mark.parametrize("where", ["first", "."])
def test_two_runs_with_one_folder_of_checkpoints(tmp_path, config, where):
    """The second would remove what the first writes."""
    first, second = tmp_path / "first", tmp_path / "second"
    saved = str(first / CHECKPOINTS if where == "first" else tmp_path / "saved")
    config = replace(config, checkpoint=replace(config.checkpoint, directory=saved))
    run = output.RunDirectory(first, config, schema())
    with pytest.raises(ConfigError, match=f"checkpoint. directory {saved}: another"):
        output.RunDirectory(second, config, schema(), records=[])
    run.release()
    output.RunDirectory(second, config, schema(), records=[]).release()


def test_checkpoints_in_the_run_directory_itself(tmp_path, config):
    settings = replace(config.checkpoint, directory=str(tmp_path))
    config = replace(config, checkpoint=settings)
    output.RunDirectory(tmp_path, config, schema()).release()
    assert names(tmp_path) == FILES


def test_metrics_of_a_training_that_goes_on(tmp_path, config):
    records = [{"epoch": 1}, {"epoch": 2}]
    run = output.RunDirectory(tmp_path, config, schema(), records)
    run.add_record({"epoch": 3})
    run.release()
    lines = (tmp_path / output.METRICS).read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    "name", [output.CONFIG, output.SCHEMA, output.RESULT, output.CURVES]
)
def test_files_that_no_run_wrote_stay(tmp_path, config, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=f"{tmp_path}: holds {name}, which no run"):
        output.RunDirectory(tmp_path, config, schema())
    assert names(tmp_path) == {name}
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_second_run_at_once_is_refused(tmp_path, config):
    first = output.RunDirectory(tmp_path, config, schema())
    first.add_record({"epoch": 1})
    with pytest.raises(ConfigError, match="another run is writing to it"):
        output.RunDirectory(tmp_path, config, schema())
    assert (tmp_path / output.METRICS).read_text() != ""
    first.release()
    output.RunDirectory(tmp_path, config, schema()).release()
    first.release()  # twice does no harm
    assert names(tmp_path) == FILES


def test_lock_that_resize_holds_for_an_instant(tmp_path, config, monkeypatch):
    looking, waits = open(tmp_path / lock.LOCK, "a"), []
    fcntl.flock(looking, fcntl.LOCK_SH)

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            looking.close()

    monkeypatch.setattr(lock.time, "sleep", sleep)
    output.RunDirectory(tmp_path, config, schema()).release()
    assert len(waits) == 2 and names(tmp_path) == FILES


def test_lock_goes_with_its_process(tmp_path, config):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pympi_train.runs import lock\n"
        "held = lock.lock_directory(Path(sys.argv[1]), 'x')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert names(tmp_path) == {lock.LOCK}
    output.RunDirectory(tmp_path, config, schema()).release()


def test_lock_file_of_somebody_else_stays(tmp_path, config):
    (tmp_path / lock.LOCK).write_text("mine")
    output.RunDirectory(tmp_path, config, schema()).release()
    assert (tmp_path / lock.LOCK).read_text() == "mine"


def test_file_system_without_locks(tmp_path, config, monkeypatch):
    def refuse(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    output.RunDirectory(tmp_path, config, schema()).release()
    assert names(tmp_path) == FILES


@pytest.mark.parametrize("below", ["", "run"])
def test_file_in_the_place_of_the_directory(tmp_path, config, below):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ConfigError, match="directory .*taken.* cannot be made"):
        output.RunDirectory(tmp_path / "taken" / below, config, schema())
    assert (tmp_path / "taken").read_text() == "mine"


def test_configuration_comes_back(run, config):
    text, _, _ = read_run(run.path)
    assert parse(text) == config
    assert "ä.csv" in (run.path / output.CONFIG).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": np.array([-7, 3, 2**62])},
        {
            "classes": None,
            "task": "regression",
            "n_targets": 3,
            "target_names": ["a", "ü", "2"],
            "target_scaling": Scaling(np.array([4e5, 0, 1]), np.array([1e5, 1, 0.1])),
            "preparation": Preparation(2),
        },
        {"feature_names": None, "features": ["a", "b"], "zero_based": False},
        {
            "preparation": EVERYTHING,
            "n_features": 8,
            "feature_names": ["a", "colour", "born", "size"],
            "weights": "w",
        },
    ],
)
def test_schema_comes_back(run, config, tensors, changes):
    want = schema(**changes)
    run = output.RunDirectory(run.path, config, want)
    run.save_weights(tensors)
    run.release()
    _, found, _ = read_run(run.path)
    for name, value in vars(want).items():
        other = getattr(found, name)
        if isinstance(value, (Scaling, Preparation)):
            assert_same(other, value)
        elif name == "classes" and value is not None:
            assert_array_equal(other, value)
            assert other.dtype == value.dtype
        else:
            assert other == value


def test_weights_come_back(run, tensors):
    _, _, found = read_run(run.path)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert_array_equal(found[name], tensor)


def test_file_of_weights_tells_the_model_s_order(run, tensors):
    from safetensors import safe_open

    with safe_open(run.path / output.WEIGHTS, framework="np") as file:
        assert json.loads(file.metadata()["order"]) == list(tensors)


def test_others_may_read_the_files(run):
    umask = os.umask(0o022)
    os.umask(umask)
    for path in run.path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask, path.name


def test_views_of_a_padded_block_are_saved_as_they_are(run):
    block = np.arange(12, dtype="float32")
    run.save_weights({"w": block[:6].reshape(2, 3), "b": block[8:10], "t": block[::4]})
    _, _, found = read_run(run.path)
    assert_array_equal(found["w"], [[0, 1, 2], [3, 4, 5]])
    assert_array_equal(found["b"], [8, 9])
    assert_array_equal(found["t"], [0, 4, 8])


def test_hash_is_that_of_the_elements_in_model_order(tensors):
    raw = b"".join(tensor.tobytes() for tensor in tensors.values())
    assert output.weights_sha256(tensors.values()) == hashlib.sha256(raw).hexdigest()


def test_hash_knows_no_padding_no_memory_order_and_no_byte_order():
    want = output.weights_sha256([np.arange(6.0).reshape(2, 3)])
    block = np.arange(8.0)
    big_endian = np.arange(6, dtype=">f8").reshape(2, 3)
    columns_first = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for array in (block[:6].reshape(2, 3), big_endian, columns_first):
        assert output.weights_sha256([array]) == want


def test_hash_knows_order_and_type():
    one, two = np.ones(2, "float32"), np.zeros(2, "float32")
    hashes = {
        output.weights_sha256(tensors.values())
        for tensors in (
            {"a": one, "b": two},
            {"a": two, "b": one},
            {"a": one.astype("float64"), "b": two},
        )
    }
    assert len(hashes) == 3


def test_metrics_are_a_line_an_epoch_at_once(run):
    for epoch in (1, 2):
        run.add_record({"epoch": epoch, "loss": 0.1, "bad": float("nan")})
        lines = (run.path / output.METRICS).read_text().splitlines()
        assert len(lines) == epoch
    assert json.loads(lines[0])["epoch"] == 1
    assert json.loads(lines[1]) == {"epoch": 2, "loss": 0.1, "bad": None}


def test_result_is_json_whatever_the_numbers(run):
    run.finish({"loss": float("inf"), "validation": {"r2": np.float64("nan")}, "n": 3})
    found = json.loads((run.path / output.RESULT).read_text())
    assert found == {"loss": None, "validation": {"r2": None}, "n": 3}


def test_finite():
    record = {"a": [1.0, float("nan")], "b": {"c": float("-inf")}, "d": "x", "e": 0}
    assert output.finite(record) == {"a": [1, None], "b": {"c": None}, "d": "x", "e": 0}


def test_full_disk_is_told(run, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    before = (run.path / output.WEIGHTS).read_bytes()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DataError, match="tensors: cannot be written: No space left"):
        run.save_weights({"w": np.ones(3)})
    assert (run.path / output.WEIGHTS).read_bytes() == before
    assert names(run.path) == FILES | {output.WEIGHTS}


@pytest.mark.parametrize("name", [None, *sorted(FILES)])
def test_files_that_went_away_are_written_again(run, tensors, name):
    run.add_record({"epoch": 1})
    before = {file: (run.path / file).read_text() for file in FILES}
    if name is None:
        shutil.rmtree(run.path)
    else:
        (run.path / name).unlink()
    run.add_record({"epoch": 2})
    after = {file: (run.path / file).read_text() for file in FILES}
    lines = before[output.METRICS] + json.dumps({"epoch": 2}) + "\n"
    assert after == {**before, output.METRICS: lines}
    shutil.rmtree(run.path)
    run.save_weights(tensors)
    assert {file: (run.path / file).read_text() for file in FILES} == after


def test_directory_that_cannot_be_made_again_is_told(run):
    shutil.rmtree(run.path)
    run.path.write_text("a file in its place")
    with pytest.raises(DataError, match="runs/one: cannot be written: File exists"):
        run.add_record({"epoch": 1})
    with pytest.raises(DataError, match="runs/one: cannot be written: File exists"):
        run.save_weights({"w": np.ones(3)})


class TestUnreadableRun:
    def refusal(self, run):
        with pytest.raises(DataError) as info:
            read_run(run.path)
        return str(info.value)

    @pytest.mark.parametrize("name", [output.CONFIG, output.SCHEMA, output.WEIGHTS])
    def test_file_is_missing(self, run, name):
        (run.path / name).unlink()
        assert f"no {name}" in self.refusal(run)

    def test_directory_is_missing(self, tmp_path):
        with pytest.raises(DataError, match="nothing: no such run directory"):
            read_run(tmp_path / "nothing")

    @pytest.mark.parametrize(
        "text",
        ["", "{}", "[]", '{"version": 2}', '{"version": 9}', '{"version": 2, "x": 2}'],
    )
    def test_schema_is_malformed(self, run, text):
        (run.path / output.SCHEMA).write_text(text)
        assert "schema.json: malformed: " in self.refusal(run)

    @pytest.mark.parametrize(
        "key, value",
        [
            ("task", "regression"),  # but there are classes
            ("task", ["classification"]),
            ("dtype", "float16"),
            ("n_features", 0),
            ("n_features", 3),  # but the scaling has two
            ("n_targets", True),
            ("zero_based", "no"),
            ("feature_names", ["a", 1]),
            ("classes", None),
            ("classes", ["b", "a"]),
            ("classes", ["a", "a"]),
            ("classes", [1, "a"]),
            ("classes", [[1, 2]]),
            ("classes", [0.5, 1.5]),
            ("classes", [0, 2**63]),
            ("scaling", [1, 2]),
            ("scaling", {"mean": [0, 0]}),
            ("scaling", {"mean": [0, 0], "scale": [1, 0]}),
            ("scaling", {"mean": [0, float("nan")], "scale": [1, 1]}),
            ("scaling", {"mean": ["0", "0"], "scale": [1, 1]}),
            ("scaling", {"mean": [[0, 0]], "scale": [1, 1]}),
            ("scaling", {"mean": [[0], [0, 1]], "scale": [1, 1]}),
        ],
    )
    def test_schema_has_a_value_that_no_run_writes(self, run, key, value):
        plain = json.loads((run.path / output.SCHEMA).read_text())
        (run.path / output.SCHEMA).write_text(json.dumps({**plain, key: value}))
        assert "schema.json: malformed: " in self.refusal(run)

    def test_schema_is_nested_without_end(self, run):
        (run.path / output.SCHEMA).write_text("[" * 100_000)
        assert "schema.json: malformed: " in self.refusal(run)

    def test_weights_have_a_type_that_numpy_lacks(self, run):
        header = b'{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
        whole = len(header).to_bytes(8, "little") + header + b"\0\0"
        (run.path / output.WEIGHTS).write_bytes(whole)
        assert str(run.path) in self.refusal(run)

    @pytest.mark.parametrize("name", [output.CONFIG, output.SCHEMA, output.WEIGHTS])
    def test_file_is_rubbish(self, run, name):
        (run.path / name).write_bytes(b"\xff\xfe rubbish")
        assert str(run.path) in self.refusal(run)

    def test_weights_are_cut_short(self, run):
        whole = (run.path / output.WEIGHTS).read_bytes()
        (run.path / output.WEIGHTS).write_bytes(whole[:-1])
        assert str(run.path) in self.refusal(run)


def test_configuration_is_toml_that_others_can_read(run):
    with open(run.path / output.CONFIG, "rb") as file:
        tables = tomllib.load(file)
    assert tables["model"]["kind"] == "softmax"
    assert tables["optimizer"]["learning_rate"] == 1e-3
