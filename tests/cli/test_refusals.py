"""What the user can mend: one message from one rank, exit status 2, nothing left.

Each case runs on one rank, and on several where every rank runs the command.
"""

import sys

import pytest

# Overrides of the configuration, and words of the message.
TRAIN = {
    "section": (["dat.train=x.csv"], ["unknown section 'dat'", "mean 'data'?"]),
    "key": (["train.epoch=3"], ["--set train.epoch=3: [train]", "mean 'epochs'?"]),
    "type": (["train.epochs=many"], ["[train] epochs must be an integer, got 'many'"]),
    "value": (["optimizer.learning_rate=-1"], ["learning_rate must be above 0"]),
    "combination": (["optimizer.nesterov=true"], ["nesterov are for sgd"]),
    "override": (["train"], ["--set train: expected section.key=value"]),
    "data missing": (["data.train=absent.csv"], ["absent.csv: no such file"]),
    "data of no format": (["data.train=x.xls"], ["x.xls: unknown format '.xls'"]),
    "data a folder": (["data.train=folder.csv"], ["folder.csv: a folder without data"]),
    "data empty": (["data.train=empty.csv"], ["empty.csv: expected a header"]),
    "NaN in .csv": (
        ["data.train=nan.csv"],
        ["nan.csv, line 7, column 'b'", "expected a finite number, found 'nan'"],
    ),
    "NaN in .npz": (
        ["data.train=nan.npz", "data.features=X"],
        ["nan.npz, array 'X', row 5, column 1"],
    ),
    "word among numbers": (
        ["data.train=malformed.csv"],
        ["malformed.csv, line 7, column 'b'", "expected a number, found 'oops'"],
    ),
    "short line": (
        ["data.train=short.csv"],
        ["short.csv, line 42: expected 3 fields as in the header, found 2"],
    ),
    "not UTF-8": (["data.train=latin.csv"], ["latin.csv, line 3: expected UTF-8"]),
    "target absent": (
        ["data.target=z"],
        ["no target column 'z'", "present: 'a', 'b', 'y'"],
    ),
    "array absent": (
        ["data.train=good.npz", "data.features=X", "data.target=labels"],
        ["good.npz: no", "'labels'", "present: 'X', 'y'"],
    ),
    "feature absent": (['data.features=["a", "q"]'], ["no feature column 'q'"]),
    "text as number": (
        ["model.kind=linear"],
        ["good.csv, line 2, column 'y'", "expected a number, found 'low'"],
    ),
    "three classes": (["model.kind=logistic"], ["two classes, the data have 3"]),
    "one class": (["data.train=one_class.csv"], ["needs two classes or more, got 1"]),
    "weight of no class": (
        ["model.class_weights={huge=2}"],
        ["no row has the label 'huge'", "known: 'high', 'low', 'mid'"],
    ),
    "validation missing": (["data.validation=v.csv"], ["v.csv: no such file"]),
    "validation malformed": (
        ["data.validation=malformed.csv"],
        ["malformed.csv, line 7"],
    ),
    "validation of other labels": (
        ["data.validation=unseen.csv"],
        ["unseen.csv: row 2 (from 0) has the label 'huge', which no training row has"],
    ),
    "validation of other columns": (
        ["data.validation=other_columns.csv"],
        ["other_columns.csv: no feature column 'b'"],
    ),
    "output a file": (["output.directory=taken"], ["taken cannot be made"]),
    "output below a file": (["output.directory=taken/a"], ["taken/a cannot be made"]),
}

FILES = {
    "missing": ("absent.toml", ["absent.toml: No such file or directory"]),
    "a folder": ("folder.csv", ["folder.csv: Is a directory"]),
    "no TOML": ("good.csv", ["good.csv: ", "(at line 1, column 2)"]),
    "binary": ("x.npy", ["x.npy: not UTF-8"]),
}

# Of a run on good.csv: arguments, and words of the message.
LATER = {
    "evaluate nothing": (
        ["evaluate", "nothing", "--data", "good.csv"],
        ["nothing: no such run directory"],
    ),
    "evaluate no run": (
        ["evaluate", "folder.csv", "--data", "good.csv"],
        ["folder.csv: no config.toml; is it the [output] directory"],
    ),
    "unseen labels": (
        ["evaluate", "run", "--data", "unseen.csv"],
        ["unseen.csv: row 2 (from 0) has the label 'huge'", "'high', 'low', 'mid'"],
    ),
    "integer labels": (
        ["evaluate", "run", "--data", "integers.csv"],
        ["integers.csv: row 0 (from 0) has the label '3'"],
    ),
    "evaluate missing data": (["evaluate", "run", "--data", "v.csv"], ["no such file"]),
    "other columns": (
        ["predict", "run", "--data", "other_columns.csv", "--output", "p.npy"],
        ["other_columns.csv: no feature column 'b'"],
    ),
    "predict from NaN": (
        ["predict", "run", "--data", "nan.csv", "--output", "p.npy"],
        ["nan.csv, line 7, column 'b'"],
    ),
    "predict into no folder": (
        ["predict", "run", "--data", "good.csv", "--output", "no/p.npy"],
        ["no/p.npy: cannot be written: No such file or directory"],
    ),
    "predict into a folder": (
        ["predict", "run", "--data", "good.csv", "--output", "folder.csv"],
        ["folder.csv: cannot be written: Is a directory"],
    ),
}


def with_overrides(overrides):
    argv = ["train", "c.toml"]
    for override in overrides:
        argv += ["--set", override]
    return argv


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def check_refused(done, words, rank=0):
    assert done.status == 2
    assert done.out == ""
    if rank > 0:
        assert done.err == ""
        return
    (line,) = done.err.splitlines()
    assert line.startswith("pympi-train: ")
    for word in words:
        assert word in line


CASES = {
    **{name: (with_overrides(sets), words) for name, (sets, words) in TRAIN.items()},
    **{
        f"configuration {name}": (["train", file], words)
        for name, (file, words) in FILES.items()
    },
}


@pytest.mark.parametrize("case", CASES)
def test_one_rank(folder, pympi_train, case):
    argv, words = CASES[case]
    before = names(folder)
    check_refused(pympi_train(*argv), words)
    assert names(folder) == before


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("case", CASES)
def test_all_ranks(shared_folder, comm, pympi_train, case):
    argv, words = CASES[case]
    before = names(shared_folder)
    check_refused(pympi_train(*argv), words, comm.rank)
    comm.Barrier()
    assert names(shared_folder) == before


@pytest.mark.parametrize("case", LATER)
def test_one_rank_with_a_trained_model(
    trained_folder, pympi_train, case, monkeypatch
):
    monkeypatch.chdir(trained_folder)
    argv, words = LATER[case]
    before = names(trained_folder)
    check_refused(pympi_train(*argv), words)
    assert names(trained_folder) == before


@pytest.mark.mpi(min_size=2)
def test_all_ranks_with_a_trained_model(shared_folder, comm, pympi_train):
    assert pympi_train("train", "c.toml").status == 0
    comm.Barrier()
    before = names(shared_folder)
    for argv, words in LATER.values():
        check_refused(pympi_train(*argv), words, comm.rank)
        comm.Barrier()
        assert names(shared_folder) == before


@pytest.mark.mpi(min_size=2)
def test_configuration_is_read_by_rank_0_alone(shared_folder, comm):
    from pympi_train.config.config import read

    path = shared_folder / "c.toml" if comm.rank == 0 else "/nonexistent"
    assert read(path, comm) == (shared_folder / "c.toml").read_text()


def test_traceback_on_request(folder, pympi_train):
    done = pympi_train("train", "c.toml", "--set", "train.epoch=3", "--traceback")
    assert done.status == 2
    assert done.err.startswith("Traceback (most recent call last)")
    assert "unknown key 'epoch'" in done.err.splitlines()[-1]


@pytest.mark.parametrize("override", ["data.train=nan.csv", "train.epoch=3"])
def test_earlier_run_survives_what_is_refused(folder, pympi_train, override):
    (folder / "run").mkdir()
    weights = folder / "run" / "weights.safetensors"
    weights.write_text("precious")
    assert pympi_train("train", "c.toml", "--set", override).status == 2
    assert weights.read_text() == "precious"


def test_error_that_is_no_user_s_has_its_traceback(folder, pympi_train, monkeypatch):
    from pympi_train.runs import prepare

    def fail(*arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(prepare, "build_model", fail)
    done = pympi_train("train", "c.toml")
    assert done.status == 1
    assert "in fail" in done.err
    assert done.err.splitlines()[-1] == (
        "pympi-train: rank 0: ZeroDivisionError: a bug"
    )


@pytest.mark.mpi(min_size=2)
def test_error_of_one_rank(shared_folder, comm, pympi_train, monkeypatch):
    from pympi_train.runs import prepare

    build_model = prepare.build_model

    def fail(*arguments):
        if comm.rank == 1:
            raise ZeroDivisionError("a bug")
        return build_model(*arguments)

    monkeypatch.setattr(prepare, "build_model", fail)
    done = pympi_train("train", "c.toml")
    assert done.status == 1
    if comm.rank == 0:
        assert "in fail" in done.err
        last = done.err.splitlines()[-1]
        assert last == "pympi-train: rank 1: ZeroDivisionError: a bug"
    else:
        assert done.err == ""


@pytest.mark.parametrize("case", ["key", "word among numbers", "output a file"])
def test_as_a_job(mpirun, folder, case):
    argv, words = CASES[case]
    before = names(folder)
    done = mpirun(3, [sys.executable, "-m", "pympi_train", *argv], cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    # Open MPI's mpirun has something to say about the exit status, too.
    (line,) = [line for line in done.stderr.splitlines() if "pympi-train" in line]
    for word in words:
        assert word in line
    assert "Traceback" not in done.stderr
    assert names(folder) == before
