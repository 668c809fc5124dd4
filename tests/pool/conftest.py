"""A job file with its configuration, and histories of pools."""

import pytest

CONFIG = """
[data]
train = "x.npz"
[model]
kind = "softmax"
[train]
epochs = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a configuration, which is the working directory."""
    (tmp_path / "c.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan_of(folder):
    """Returns a function: the `JobPlan` of the text of a job file, on so many ranks."""
    from pympi_train.pool.jobfile.plan import read_plan

    def read(text, n_ranks=4):
        (folder / "jobs.toml").write_text(text)
        return read_plan("jobs.toml", n_ranks)

    return read
