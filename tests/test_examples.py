"""The shipped examples are what their notes say."""

import runpy
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def test_digits_are_those_of_scikit_learn():
    script = runpy.run_path(str(ROOT / "scripts" / "make_digits.py"))
    images, labels = script["digits"]()
    with np.load(ROOT / "examples" / "digits.npz", allow_pickle=False) as file:
        assert sorted(file) == ["X", "y"]
        for name, expected in {"X": images, "y": labels}.items():
            assert file[name].dtype == expected.dtype == np.uint8
            np.testing.assert_array_equal(file[name], expected)
