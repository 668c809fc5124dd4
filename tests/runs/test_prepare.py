"""Which backend a job asks for."""

from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI

import pympi_train as pt
from pympi_train.backends import gpu, select
from pympi_train.config.config import parse
from pympi_train.data.loading.schema import TokenSchema
from pympi_train.runs import prepare

TEXT = """
[data]
train = "rows.npz"
[model]
kind = "mlp"
hidden = [64]
[train]
"""


def asked_for(*overrides, n=1000, hidden=64):
    config = parse(TEXT, overrides=overrides)
    data = SimpleNamespace(train=SimpleNamespace(is_sparse=False, n=n))
    return prepare._backend(config, pt.MLP(64, [hidden], 10), data, MPI.COMM_SELF)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(gpu, "is_installed", lambda: False)
    monkeypatch.setattr(select, "is_installed", lambda: True)


def test_small_jobs_do_without_numba():
    name, why = asked_for("train.epochs=20")
    assert name == "numpy" and "80 small steps" in why
    assert asked_for("train.epochs=20", n=10**6) == ("auto", None)
    assert asked_for("train.epochs=2000") == ("auto", None)
    assert asked_for("train.epochs=20", hidden=40_000) == ("auto", None)


def test_steps_are_those_of_the_optimizer():
    name, why = asked_for("optimizer.name=gd", "train.epochs=30", "train.batch_size=1")
    assert name == "numpy" and "30 small steps" in why


def test_without_numba_it_is_recommended(monkeypatch):
    monkeypatch.setattr(select, "is_installed", lambda: False)
    assert asked_for("train.epochs=1") == ("auto", None)


def test_what_is_configured_is_taken():
    for name in ("numba", "numpy", "cuda"):
        assert asked_for(f'train.backend="{name}"') == (name, None)
    assert asked_for('parallel.strategy="server"') == ("auto", None)


def test_where_there_may_be_a_gpu_it_is_looked_for(monkeypatch):
    monkeypatch.setattr(gpu, "is_installed", lambda: True)
    assert asked_for("train.epochs=1") == ("auto", None)
    language = ["model.kind=neural-ngram", "data.train=a.bin", "data.window=8"]
    assert asked_for("train.epochs=1", *language)[0] == "numpy"
    assert asked_for("train.epochs=1", *language, n=10**7)[0] == "numba"


@pytest.mark.parametrize("n_rows", [0, 64])
def test_more_work_saves_more(n_rows):
    small, large = (pt.MLP(8, [w], 3).layout for w in (4, 400))
    times = [select.seconds_saved(n, small, n_rows) for n in (0, 1, 1000)]
    assert times[0] == 0 and np.all(np.diff(times) > 0)
    assert select.seconds_saved(1, large, n_rows) > times[1]


@pytest.mark.parametrize(
    "window, n_tokens, most", [(64, 50, 4096), (1000, 50_000, 1), (256, 1000, 262)]
)
def test_outputs_of_a_language_model_fit_into_memory(window, n_tokens, most):
    schema = TokenSchema(window, "uint16", n_tokens, "float32")
    config = prepare.with_vocabulary(parse(TEXT), schema)
    assert config.train.micro_batch_size == most
    assert config.model.vocabulary == n_tokens
