"""The picture of a search: what its axes show."""

from types import SimpleNamespace

import numpy as np
import pytest

from pympi_train.search.results import picture
from pympi_train.search.results.summary import TrialResult
from pympi_train.search.space import parse_parameter

SPACE = [
    "optimizer.learning_rate=log:1e-3..1e-2:2",  # a log axis, as the range has one
    "model.l2=0.001,0.1",  # a log axis, as the values span much
    "train.batch_size=8,16",
    "model.kind=softmax,mlp",
    "train.seed=linear:1..100:2",
]
TRIALS = [  # values in the order of SPACE, scores of two folds
    ((0.001, 0.001, 8, "softmax", 1), [0.5, 0.7]),
    ((0.01, 0.1, 16, "mlp", 100), [0.2, 0.4]),
    ((0.01, 0.001, 8, "mlp", 1), [0.9, 0.9]),
    ((0.001, 0.1, 8, "mlp", 1), [None, 0.1]),
]
MEANS = [0.6, 0.3, 0.9]  # of those with a score of each fold


@pytest.fixture
def axes(tmp_path, figures):
    space = [parse_parameter(text) for text in SPACE]
    settings = SimpleNamespace(metric="loss")
    plan = SimpleNamespace(space=space, settings=settings, directory=tmp_path)
    results = []
    for number, (values, scores) in enumerate(TRIALS):
        parameters = dict(zip((parameter.key for parameter in space), values))
        told = number, (), parameters, 0, 1, scores, "finished"
        results.append(TrialResult(*told))
    path = picture.draw_search(plan, results, results[1])
    with open(path, "rb") as file:
        assert file.read(4) == b"\x89PNG"
    (figure,) = figures
    return figure.axes


def test_axes(axes):
    assert [axis.get_xscale() for axis in axes[:5]] == [
        "log", "log", "linear", "linear", "linear"
    ]
    names = ["learning_rate", "l2", "batch_size", "kind", "seed"]
    assert [axis.get_xlabel() for axis in axes[:5]] == names
    assert {axis.get_ylabel() for axis in axes[:5]} == {"loss"}
    assert [axis.axison for axis in axes] == [True] * 5 + [False] * 3
    kinds = [text.get_text() for text in axes[3].get_xticklabels()]
    assert kinds == ["softmax", "mlp"]
    for i in range(5):
        require_marks(axes[i], i)


def require_marks(axis, i):
    """Means with the spread of the folds, a star for the best, and the folds."""
    values = [of[i] for of, _ in TRIALS[:3]]
    places = [0, 1, 1] if SPACE[i].startswith("model.kind") else values
    (bars,) = axis.containers
    line, _, (spreads,) = bars
    assert line.get_xydata() == pytest.approx(np.array([places, MEANS]).T)
    halves = [0.5 * (end[1] - start[1]) for start, end in spreads.get_segments()]
    assert halves == pytest.approx([0.02**0.5, 0.02**0.5, 0])
    lines = {line.get_marker(): line for line in reversed(axis.lines)}
    assert lines["*"].get_xydata()[0] == pytest.approx([places[1], 0.3])
    of_folds = [line for line in axis.lines if line.get_marker() == "."]
    for place, (_, scores), line in zip(places, TRIALS, of_folds, strict=False):
        assert line.get_xydata().tolist() == [[place, score] for score in scores]
    assert len(of_folds) == 3
    if places is values:
        lowest = {v: min(m for w, m in zip(values, MEANS) if w == v) for v in values}
        assert lines["None"].get_xydata() == pytest.approx(
            np.array(sorted(lowest.items()))
        )
