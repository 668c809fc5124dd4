"""Rows in a folder, one rank, and the trainings that it makes."""

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
