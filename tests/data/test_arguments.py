"""What `pt.load` is given is checked as the configuration is."""

import numpy as np
import pytest

import pympi_train as pt
from pympi_train.errors import ConfigError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "f.csv"
    rows = "".join(f"{i % 7 / 7},{i % 5 / 5},{i % 2}\n" for i in range(20))
    path.write_text("a,b,y\n" + rows)
    return path


def load(path, **options):
    from mpi4py import MPI

    return pt.load(path, **{"target": "y", **options}, comm=MPI.COMM_SELF)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"task": "Classification"}, "task must be 'classification' or 'regression'"),
        ({"class_weights": "balance"}, 'class_weights must be "balanced" or a table'),
        ({"class_weights": 5}, 'class_weights must be "balanced" or a table'),
        ({"class_weights": {1: "five"}}, "finite and not negative, got 'five' for the"),
        ({"class_weights": {1: -1}}, "not negative, got -1 for the label 1"),
        ({"class_weights": {0: float("nan")}}, "finite and not negative, got nan"),
        ({"class_weights": {1: True}}, "finite and not negative, got True"),
        ({"class_weights": {2: 1.0}}, "no row has the label 2; known: 0, 1"),
        ({"class_weights": {1: 1.0, "1": 2.0}}, "the label 1 has two weights"),
        ({"class_weights": {"a": 1.0}}, "no row has the label 'a'; known: 0, 1"),
        ({"class_weights": {0: 0, 1: 0}}, "must not be 0 for every label"),
        ({"task": "regression", "class_weights": "balanced"}, "for classification"),
        ({"validation": 1}, "at least 0 and below 1, or a file or files, got 1"),
        ({"validation": -0.1}, "at least 0 and below 1, or a file or files, got -0.1"),
        ({"validation": float("nan")}, "below 1, or a file or files, got nan"),
        ({"validation": True}, "or a file or files, got True"),
        ({"validation": [1]}, r"must be a name or a list of them, got \[1\]"),
        ({"standardize": "false"}, "standardize must be True or False, got 'false'"),
        ({"standardize": 1}, "standardize must be True or False, got 1"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": "no such"}, "dtype must be 'float32' or 'float64', got 'no such'"),
        ({"target": 3}, "target must be a name or a list of them, got 3"),
        ({"features": [1, 2]}, r"features must be a name or a list of .*got \[1, 2\]"),
        ({"features": []}, r"features must be a name or a list of them, got \[\]"),
        ({"header": "no"}, "header must be True or False, got 'no'"),
        ({"n_features": 3}, "n_features is for .svm files, not .*f.csv"),
        ({"zero_based": True}, "zero_based is for .svm files"),
        ({"validation": "v.csv", "validation_target": 1}, "validation_target must be"),
        ({"validation_features": "a"}, "_features is for a file of validation rows"),
        ({"validation": 0.2, "validation_target": "y"}, "_target is for a file of"),
        ({"seed": "abc"}, "seed must be an integer from 0 to 92.*, got 'abc'"),
        ({"seed": -1}, "seed must be an integer"),
        ({"virtual_shards": 3.5}, "virtual_shards must be an integer from 1 to"),
        ({"class_weights": np.array([1.0, 2.0])}, 'class_weights must be "balanced"'),
        ({"class_weights": {0: 10**400}}, "must be finite and not negative"),
        ({"validation": "a\0.csv"}, "a file name with a null byte"),
    ],
)
def test_refused(file, options, words):
    with pytest.raises(ConfigError, match=words):
        load(file, **options)


@pytest.mark.parametrize("path", [None, 3, []])
def test_paths_that_are_none(path):
    with pytest.raises(ConfigError, match="path must be"):
        load(path)


@pytest.mark.parametrize("n_features", [0, 2.5, True])
def test_numbers_of_features_that_are_refused(tmp_path, n_features):
    (tmp_path / "f.svm").write_text("1 1:1\n0 2:1\n")
    with pytest.raises(ConfigError, match="n_features must be"):
        load(tmp_path / "f.svm", n_features=n_features)


@pytest.mark.parametrize(
    "weights",
    [{0: 1.0, 1: 5.0}, {1: 5}, {"1": 5.0}, {True: 5.0}, {np.int64(1): 5.0}, {1.0: 5.0}],
)
def test_a_label_may_be_written_in_several_ways(file, weights):
    data = load(file, class_weights=weights).train
    assert data.weights.tolist() == [5.0 if y else 1.0 for y in data.y.tolist()]


@pytest.mark.parametrize("dtype", [np.float64, "float64", np.dtype("f8"), "d"])
def test_a_dtype_may_be_written_in_several_ways(file, dtype):
    loaded = load(file, dtype=dtype)
    assert loaded.train.x.dtype == np.float64
    assert loaded.schema.dtype == "float64"


def test_what_else_is_accepted(file):
    for nothing in (0, 0.0, None):
        assert load(file, validation=nothing).validation is None
    assert load(file, validation=np.float32(0.25)).validation.n == 5
    assert load(file, standardize=np.True_).schema.preparation.scaling is not None
