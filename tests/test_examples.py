"""The shipped examples are what their notes say."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pympi_train.datatools.made_tables import make_tokens

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def train(mpirun, tmp_path):
    """Train an example on some ranks; its result and its weights by name."""

    def run(name, n_ranks, *settings):
        argv = [sys.executable, "-m", "pympi_train", "train", EXAMPLES / name, "--json"]
        argv += ["--set", f"output.directory={tmp_path / 'run'}", *settings]
        returncode, stdout, stderr = mpirun(n_ranks, argv)
        assert returncode == 0, stdout + stderr
        (weights,) = (tmp_path / "run").glob("*.safetensors")
        return json.loads(stdout.splitlines()[-1]), load_file(weights)

    return run


def test_digits_are_those_of_scikit_learn():
    script = runpy.run_path(str(ROOT / "scripts" / "make_digits.py"))
    images, labels = script["digits"]()
    with np.load(EXAMPLES / "digits.npz", allow_pickle=False) as file:
        assert sorted(file) == ["X", "y"]
        for name, expected in {"X": images, "y": labels}.items():
            assert file[name].dtype == expected.dtype == np.uint8
            np.testing.assert_array_equal(file[name], expected)


def test_digits_are_told_apart(train):
    result, _ = train("digits.toml", 2)
    assert result["ranks"] == 2
    assert result["validation"]["accuracy"] >= 0.96


def test_language_is_learned(train, tmp_path):
    n = 100_000
    made = make_tokens(n, vocabulary=50, seed=0).pieces(0, n)
    np.save(tmp_path / "t.npy", np.concatenate([piece["token"] for piece in made]))
    settings = (f"data.train={tmp_path / 't.npy'}", "train.epochs=2")
    result, weights = train("language.toml", 2, *settings)
    assert result["validation"]["perplexity"] < 10  # of token frequencies: 50
    assert weights["embedding"].shape == (51, 16)


@pytest.mark.parametrize("n_ranks", [pytest.param(1, marks=pytest.mark.grid), 4])
def test_smallest_case_is_gradient_descent_written_out(train, n_ranks):
    x = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 5.0]])
    y = np.array([1.0, 2.0, 3.0, 4.0])
    theta = np.zeros(2)
    for _ in range(1000):
        theta -= 0.01 * x.T @ (x @ theta - y) / 4

    result, weights = train("smallest.toml", n_ranks)

    assert (result["ranks"], result["steps"]) == (n_ranks, 1000)
    (found,) = weights.values()
    np.testing.assert_allclose(found.ravel(), theta, rtol=0, atol=1e-12)
