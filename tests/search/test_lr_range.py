"""The range test: rates that grow, steps that end, and the range that they suggest."""

import json
import math

import numpy as np
import pytest

import pympi_train as pt
from pympi_train.cli import main
from pympi_train.config import config as configuration
from pympi_train.errors import ConfigError
from pympi_train.search.growing import GrowingRate, smoothed, suggest_range
from pympi_train.search.lr_range import lr_range

TEXT = """
[data]
train = "rows.npz"
[model]
kind = "{kind}"
dtype = "float64"
[optimizer]
name = "sgd"
[train]
batch_size = 8
backend = "numpy"
[output]
directory = "out"
{more}
"""
N = 60


def measured(comm, folder, more="", kind="linear", **how):
    if comm.rank == 0:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((N, 3))
        np.savez(folder / "rows.npz", X=x, y=x @ [1.0, -2.0, 0.5] + 1)
    comm.Barrier()
    text = TEXT.format(kind=kind, more=more)
    return lr_range(configuration.parse(text, folder=folder), comm, **how)


def test_rates_grow_by_a_factor():
    growing = GrowingRate(1e-4, 1.0, 5, base=0.5)
    rates = [0.5 * growing.factor(t, steps_per_epoch=2) for t in range(7)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1, 1, 1])
    assert [growing.rate(t) for t in range(5)] == pytest.approx(rates[:5])


def plain_steps(comm, folder, rates):
    """Losses of the steps, by the library alone."""
    data = pt.load(folder / "rows.npz", features="X", task="regression",
                   dtype="float64", comm=comm)
    losses = []
    made_of = pt.Linear(3, dtype="float64"), pt.SGD(1.0)
    how = {"batch_size": 8, "backend": "numpy", "comm": comm}
    growing = GrowingRate(rates[0], rates[-1], len(rates), 1.0)
    with pt.Trainer(*made_of, schedule=growing, **how) as trainer:
        def step(*at):
            progress = trainer.progress
            losses.append(progress.losses[-1] / progress.weights[-1])
            if len(losses) == len(rates):
                trainer.request_stop()

        trainer.fit(data.train, epochs=9, on_step=step)
    return losses


@pytest.mark.mpi(min_size=2)
def test_losses_are_those_of_steps_at_these_rates(comm, mpi_tmp_path):
    found = measured(comm, mpi_tmp_path, low=1e-4, high=0.1, n_steps=20)
    rates = np.geomspace(1e-4, 0.1, 20)
    assert found["rates"] == pytest.approx(rates.tolist())
    expected = plain_steps(comm, mpi_tmp_path, rates)
    assert found["losses"] == pytest.approx(expected[:20], rel=1e-12)
    assert found["ended"] == "range"
    assert comm.allgather(found) == [found] * comm.size
    written = json.loads((mpi_tmp_path / "out" / "lr-range.json").read_text())
    assert written == found
    assert {p.name for p in (mpi_tmp_path / "out").iterdir()} <= {
        "lr-range.json", "lr-range.png"
    }


STRATEGIES = {
    "sharded": '[parallel]\nstrategy = "sharded"\nstage = 3',
    "local": '[parallel]\nstrategy = "local"\nlocal_steps = 2',
    "server": '[parallel]\nstrategy = "server"\nservers = 1',
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", STRATEGIES)
def test_it_ends_when_the_loss_rises_or_diverges(comm, mpi_tmp_path, name):
    how = {"low": 1e-3, "high": 1e6, "n_steps": 60}
    found = measured(comm, mpi_tmp_path, STRATEGIES[name], **how)
    assert comm.allgather(found) == [found] * comm.size
    assert found["ended"] in ("rise", "diverged") and 5 < len(found["rates"]) < 60
    s = found["suggested"]
    assert 0 < s["low"] <= s["learning_rate"] <= s["high"] < 10


@pytest.mark.parametrize(
    "more, how, said",
    [
        ("", {"low": 1.0, "high": 0.1}, "expected 0 < --from < --to"),
        ("", {"n_steps": 5}, "--steps of 10 or more, got 5"),
        ("[elastic]\nsurvive = true", {}, "leave .* out"),
    ],
)
def test_refusals(tmp_path, more, how, said):
    from mpi4py import MPI

    with pytest.raises(ConfigError, match=said):
        measured(MPI.COMM_SELF, tmp_path, more, **how)
    assert not (tmp_path / "out").exists()


def test_a_divergence_in_the_first_step(tmp_path, capsys):
    from mpi4py import MPI

    found = measured(MPI.COMM_SELF, tmp_path, low=1e299, high=1e300)
    assert found["rates"] == [] and found["suggested"] is None
    assert found["ended"] == "diverged"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"lr-range.json"}


def test_picture(tmp_path, figures):
    from mpi4py import MPI

    found = measured(MPI.COMM_SELF, tmp_path, low=1e-4, high=1.0, n_steps=20)
    assert (tmp_path / "out" / "lr-range.png").read_bytes().startswith(b"\x89PNG")
    (axis,) = figures[0].axes
    assert axis.get_xscale() == "log"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("learning rate", "training loss")
    each, smooth, rate = (line.get_xydata().T for line in axis.lines)
    assert each.tolist() == [found["rates"], found["losses"]]
    assert smooth.tolist() == [found["rates"], found["smoothed"]]
    s, (span,) = found["suggested"], axis.patches
    assert rate[0].tolist() == [s["learning_rate"]] * 2
    corners = span.get_patch_transform().transform(span.get_path().vertices)
    ends = corners[:, 0].min(), corners[:, 0].max()
    assert ends == pytest.approx((s["low"], s["high"]))


def test_rates_whose_quotient_is_too_large():
    schedule = GrowingRate(1e-300, 1e300, 3, 1.0)
    rates = [schedule.rate(step) for step in range(3)]
    assert rates == pytest.approx([1e-300, 1.0, 1e300])


def test_suggestion_on_planted_losses():
    rates = np.geomspace(1e-6, 10, 141)
    logs = np.log10(rates)
    losses = 1 - 1 / (1 + np.exp(-4 * (logs + 3)))  # falls fastest at 1e-3
    losses += np.where(logs > -1, 3 * (logs + 1), 0)  # and rises from 0.1 on
    found = suggest_range(rates.tolist(), losses.tolist())
    assert found["high"] == pytest.approx(0.05, rel=0.1)
    assert found["learning_rate"] == pytest.approx(1e-3, rel=0.15)
    # A tenth of the fall: 4 (log + 3) = -log 9.
    assert found["low"] == pytest.approx(10 ** (-3 - math.log(9) / 4), rel=0.2)
    assert suggest_range([1, 2, 3], [1.0, 1.0, 2.0]) is None
    assert suggest_range([1], [1.0]) is None


def test_losses_of_batches_that_vary_suggest_no_tiny_rate():
    """They fall and rise while the rate is too small to learn anything."""
    rates = np.geomspace(1e-7, 10, 200)
    logs = np.log10(rates)
    losses = 1 - 1 / (1 + np.exp(-4 * (logs + 3)))
    losses += np.where(logs > -1, 3 * (logs + 1), 0)
    for seed in range(20):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(200)
        found = suggest_range(rates.tolist(), smoothed(losses + noise, 200))
        assert 1e-4 < found["low"] < found["learning_rate"] < found["high"] < 0.3


def test_batches_without_weight_have_no_loss(tmp_path, alone):
    """Half of the rows have weight 1: some batches of three have none."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((64, 3)), rng.integers(2, size=64)
    np.savez(tmp_path / "rows.npz", X=x, y=np.sign(x[:, 0]), w=weights)
    text = TEXT.format(kind="linear", more="").replace("size = 8", "size = 3")
    text = text.replace("[model]", 'features = "X"\nweights = "w"\n[model]')
    config = configuration.parse(text, folder=tmp_path)
    found = lr_range(config, alone, low=1e-4, high=0.1, n_steps=40)
    lengths = {len(found[name]) for name in ("rates", "losses", "smoothed")}
    assert len(lengths) == 1 and 20 < lengths.pop() < 40
    assert np.isfinite(found["smoothed"]).all()
    steps = np.log(np.array(found["rates"]) / 1e-4) / np.log(1000) * 39
    assert steps == pytest.approx(steps.round())
    assert 1e-3 < found["suggested"]["learning_rate"] < 0.1


def test_epochs_of_one_batch_have_all_steps(tmp_path, alone):
    found = measured(alone, tmp_path, low=1e-4, high=0.1, n_steps=17)
    assert len(found["rates"]) == 17  # the 16th is the last one of an epoch
    whole = TEXT.format(kind="linear", more="").replace("size = 8", "size = 99")
    config = configuration.parse(whole, folder=tmp_path)
    found = lr_range(config, alone, low=1e-4, high=0.1, n_steps=10)
    assert found["rates"] == pytest.approx(np.geomspace(1e-4, 0.1, 10).tolist())


def test_losses_that_do_not_fall_suggest_nothing():
    rates = np.geomspace(1e-7, 10, 200).tolist()
    assert suggest_range(rates, smoothed([16.408140183426568] * 200, 200)) is None
    noise = 0.01 * np.random.default_rng(0).random(200)
    rising = 1 + noise + np.linspace(0, 1, 200)
    rising[0] = 0.9  # the lowest one, at --from: a range below was not tried
    assert suggest_range(rates, rising.tolist()) is None


def test_smoothing_has_no_bias():
    assert smoothed([3.0] * 9, 200) == pytest.approx([3.0] * 9)
    values = smoothed([0.0] * 50 + [1.0] * 50, 200)
    assert values[49] == 0 and values[59] == pytest.approx(1 - 0.9**10, rel=0.01)


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", X=np.eye(30, 3), y=np.arange(30) % 3)
    (tmp_path / "c.toml").write_text(TEXT.format(kind="softmax", more=""))
    argv = ["lr-range", "c.toml", "--steps", "20", "--from", "1e-3", "--to", "1"]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["rates"]) == len(found["losses"]) == 20
    assert main([*argv, "--set", "optimizer.name=lbfgs"]) == 2
    assert "lbfgs finds its own steps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["lr-range", "c.toml", "--from", "0"])
