"""Rows in a folder, one rank, the trainings that it makes, and its pictures."""

import pytest
from searches import write_rows

from pympi_train.pool import agent


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.fixture
def folder(tmp_path, alone):
    write_rows(tmp_path, alone)
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """The configurations that this rank has trained, in order; the last one runs."""
    found, complete = [], agent.training.complete

    def noted(course):
        found.append(course.config)
        return complete(course)

    monkeypatch.setattr(agent.training, "complete", noted)
    return found


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, in order."""
    figure_class, found = pytest.importorskip("matplotlib.figure").Figure, []

    def noted(**how):
        found.append(figure_class(**how))
        return found[-1]

    for module in ("results.picture", "lr_range"):
        name = f"pympi_train.search.{module}.require_figure"
        monkeypatch.setattr(name, lambda picture: noted)
    return found
