"""What a person sees: a bar on a terminal, lines elsewhere, and a table."""

import io
import os
import pty
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pympi_train.config.config import parse
from pympi_train.runs import output
from pympi_train.runs.terminal import console as console_module
from pympi_train.runs.terminal.console import Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    return clock


def LOSS():
    return 0.43125


ALLREDUCE = {"strategy": "allreduce", "exchange": "mpi", "overlap": "off"}


def described(
    stream,
    *overrides,
    classes=("a", "b", "c"),
    held=200,
    size=3,
    n_cpus=8,
    exchange=ALLREDUCE,
    names=("X",),
    sparse=False,
    remarks=(),
    launch_s=None,
):
    """A console that has said what is about to be trained."""
    text = '[data]\ntrain = "/x/digits.npz"\n[model]\nkind = "softmax"\n'
    config = parse(text, overrides=overrides)
    data = SimpleNamespace(
        train=SimpleNamespace(n=12345, is_sparse=sparse),
        validation=None if held is None else SimpleNamespace(n=held),
        schema=SimpleNamespace(
            n_features=64,
            classes=None if classes is None else np.array(classes),
            format="npz",
            feature_names=names,
        ),
        class_counts=None if classes is None else np.full(len(classes), 4115),
        files=SimpleNamespace(name="/x/digits.npz", paths=["/x/digits.npz"]),
        remarks=list(remarks),
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(layout=SimpleNamespace(n_parameters=1_850)),
        backend=SimpleNamespace(name="numba", reason="Numba is installed"),
        comm=SimpleNamespace(size=size),
        n_threads=2,
        exchange=exchange,
        ranks=SimpleNamespace(n_on_node=size, n_cpus=n_cpus),
    )
    console = Console(stream, launch_s)
    console.describe(config, data, trainer, {"data": 0.25, "backend": 1.5})
    return console


def test_more_ranks_than_cpus_are_warned_of_first():
    stream = io.StringIO()
    described(stream, size=4, n_cpus=1)
    assert stream.getvalue().startswith("warning  4 ranks of this node share 1 CPU: ")
    stream = io.StringIO()
    described(stream, size=4, n_cpus=4)
    assert stream.getvalue().startswith("data ")


def test_startup_is_broken_down():
    for launch_s, begin in ((None, "start-up "), (1.24, "start-up launch 1.2 s, ")):
        stream = io.StringIO()
        described(stream, launch_s=launch_s)
        assert f"\n{begin}data 0.2 s, backend 1.5 s\n" in stream.getvalue()


def test_first_classes_arrays_and_remarks():
    stream = io.StringIO()
    described(stream, classes=range(9), names=("X", "ids"), remarks=["it counts"])
    text = stream.getvalue()
    assert "9 classes (0: 4,115, 1: 4,115, 2: 4,115, 3: 4,115, 4: 4,115 and 4 m" in text
    assert "64 features (of the arrays 'X', 'ids'), 9" in text
    assert "\nwarning  it counts\n" in text
    stream = io.StringIO()
    described(stream, classes=["x" * 99])
    assert f"1 class ('{'x' * 20}...': 4,115)" in stream.getvalue()


def test_a_lone_process_in_an_allocation(monkeypatch):
    monkeypatch.setattr(console_module.launcher, "remark", lambda *_: "one process")
    stream = io.StringIO()
    described(stream, size=1)
    assert stream.getvalue().startswith("remark   one process\n")


def record(epoch, **more):
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "train_loss": 0.5 / epoch,
        "samples_per_s": 54321.9,
        "update_s": 0.25,
        "wall_s": 0.75,
        **more,
    }


def test_what_is_trained_on_what():
    stream = io.StringIO()
    described(stream)
    text = stream.getvalue()
    for word in (
        "/x/digits.npz: 12,345 rows x 64 features, 3 classes ('a': 4,115, 'b': 4,115, "
        "'c': 4,115); 200 validation rows",
        "softmax, 1,850 parameters, float32",
        "adam, learning rate 0.001, global batch 256, 20 epochs, seed 0",
        "ranks    3, 2 threads each",
        "backend numba (Numba is installed)",
        "exchange allreduce by MPI, overlap off",
    ):
        assert word in text


@pytest.mark.parametrize(
    "chosen, text",
    [
        (
            {
                "strategy": "allreduce",
                "exchange": "slices",
                "exchange_seconds": {"mpi": 0.0029, "slices": 0.002123},
            },
            "allreduce by slices (2.12 ms; MPI 2.9 ms), overlap to be measured",
        ),
        (
            {
                "strategy": "hierarchical",
                "nodes": 1,
                "strategy_seconds": {"allreduce": 0.03, "hierarchical": 0.02},
            },
            "hierarchical (20 ms; allreduce 30 ms), nodes 1",
        ),
        (
            {"strategy": "allreduce", "exchange": "int8", "overlap": "off"},
            "allreduce by int8, overlap off",
        ),
        ({"strategy": "sharded", "stage": 2}, "sharded, stage 2"),
    ],
)
def test_what_was_chosen_and_why(chosen, text):
    stream = io.StringIO()
    described(stream, exchange=chosen)
    assert f"exchange {text}\n" in stream.getvalue()


def test_one_rank_exchanges_nothing():
    stream = io.StringIO()
    described(stream, size=1)
    assert "exchange" not in stream.getvalue()


@pytest.mark.parametrize(
    "overrides, word",
    [
        (["optimizer.name=gd"], "global batch 12,345"),
        (["train.batch_size=1000000"], "global batch 12,345"),
        (["optimizer.name=lbfgs", "train.epochs=70"], "lbfgs, at most 70 iterations"),
    ],
)
def test_full_batches_and_iterations(overrides, word):
    stream = io.StringIO()
    described(stream, *overrides)
    assert word in stream.getvalue()


def test_regression_has_no_classes_and_may_have_no_validation():
    stream = io.StringIO()
    described(stream, classes=None, held=None)
    assert "64 features; 0 validation rows" in stream.getvalue()


def test_table():
    stream = io.StringIO()
    console = described(stream)
    stream.truncate(0)
    stream.seek(0)
    console.epoch(record(1, validation_loss=0.25, accuracy=0.97512))
    console.epoch(record(2, validation_loss=0.125, accuracy=0.98))
    head, *rows = [line.split() for line in stream.getvalue().splitlines()]
    assert head == "epoch step train loss valid. loss accuracy samples/s".split()
    assert rows == [
        ["1", "10", "0.500000", "0.250000", "0.9751", "54,322"],
        ["2", "20", "0.250000", "0.125000", "0.9800", "54,322"],
    ]


def test_table_of_a_regression():
    stream = io.StringIO()
    console = described(stream, classes=None)
    console.epoch(record(1, validation_loss=0.25, rmse=2.0, r2=float("nan")))
    assert stream.getvalue().splitlines()[-2].split()[-4:] == [
        "loss",
        "RMSE",
        "R2",
        "samples/s",
    ]
    assert stream.getvalue().splitlines()[-1].split()[-3:] == ["2", "nan", "54,322"]


def test_columns_stay_below_their_heads():
    stream = io.StringIO()
    console = described(stream)
    console.epoch(record(1, accuracy=1.0))
    console.epoch(record(19, accuracy=0.5))
    lines = stream.getvalue().splitlines()[-3:]
    assert len({len(line) for line in lines}) == 1


def test_columns_stay_below_their_heads_whatever_the_numbers():
    stream = io.StringIO()
    console = described(stream)
    for epoch, loss in enumerate((0.5, 123456.0, 1.5e6, 1e300, float("inf")), 1):
        console.epoch({**record(epoch), "train_loss": loss, "samples_per_s": loss})
    lines = stream.getvalue().splitlines()[-6:]
    assert len({len(line) for line in lines}) == 1
    assert lines[3].split()[2] == "1.5e+06"


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("x")])
@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_stream_that_fails_is_left_alone(tmp_path, kind, error):
    class Failing(kind):
        n_writes = 0

        def write(self, text):
            self.n_writes += self.fails
            if self.fails:
                raise error
            return len(text)

    stream = Failing()
    stream.fails = False
    console = described(stream)
    console.step(1, 1, 3, LOSS)
    stream.fails = True
    for done in (2, 3):
        console.step(1, done, 3, LOSS)
    console.epoch(record(1))
    assert stream.n_writes == 1
    console.finish(RESULT, [record(1)], SimpleNamespace(path=tmp_path))
    assert stream.n_writes == 1


def test_no_stream_and_a_closed_one():
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        console = described(stream)
        console.step(1, 1, 3, LOSS)
        console.epoch(record(1))


def test_stream_that_knows_fewer_characters():
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding="ascii"))
    console.say("f\xfc\u2713")
    console.say("next")
    assert raw.getvalue() == b"f\\xfc\\u2713\nnext\n"


@pytest.mark.parametrize("columns, is_terminal", [(0, False), (80, True)])
def test_terminal_without_width_is_none(monkeypatch, columns, is_terminal):
    size = os.terminal_size((columns, 0))
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: size)
    parent, child = pty.openpty()
    with open(parent, "rb"), open(child, "w") as stream:
        assert console_module._is_terminal(stream) is is_terminal


def test_many_epochs_get_a_row_now_and_then(clock):
    stream = io.StringIO()
    console = described(stream, "train.epochs=1000")
    for epoch in range(1, 1001):
        clock.now_s += 0.01
        console.epoch(record(epoch))
    lines = stream.getvalue().splitlines()
    rows = [int(line.split()[0]) for line in lines[lines.index("") + 2 :]]
    assert rows[0] == 1 and rows[-1] == 1000
    assert 10 < len(rows) < 30  # ten seconds, two rows a second


def test_few_epochs_all_get_a_row(clock):
    stream = io.StringIO()
    console = described(stream, "train.epochs=40")
    before = len(stream.getvalue().splitlines())
    for epoch in range(1, 41):
        console.epoch(record(epoch))
    assert len(stream.getvalue().splitlines()) == before + 1 + 40


def test_log_gets_a_line_every_few_seconds(clock):
    stream = io.StringIO()
    console = described(stream, "train.epochs=2")
    before = len(stream.getvalue().splitlines())
    for done in range(1, 1001):
        clock.now_s += 0.03  # thirty seconds in all
        console.step(1, done, 1000, LOSS)
    lines = stream.getvalue().splitlines()[before:]
    assert 4 <= len(lines) <= 6
    assert lines[0] == "epoch 1/2: step 167/1000, 17 %, loss 0.4313"
    assert "\r" not in stream.getvalue()


def test_log_gets_no_line_where_epochs_are_short(clock):
    stream = io.StringIO()
    console = described(stream)
    before = stream.getvalue()
    for done in range(1, 11):
        console.step(1, done, 10, LOSS)
    assert stream.getvalue() == before


def test_terminal_gets_a_bar_that_goes_away():
    stream = Terminal()
    console = described(stream, "train.epochs=2")
    for epoch in (1, 2):
        for done in range(1, 4):
            console.step(epoch, done, 3, LOSS)
        console.epoch(record(epoch))
    text = stream.getvalue()
    assert "epoch 1/2:   0%" in text
    assert "epoch 2/2:   0%" in text
    *_, head, first, second = [line.split("\r")[-1] for line in text.split("\n")[:-1]]
    assert head.split()[:2] == ["epoch", "step"]
    assert first.split()[:2] == ["1", "10"]
    assert second.split()[:2] == ["2", "20"]
    # What the bar left is blank before a row begins.
    for line in text.split("\n"):
        *before, _ = line.split("\r")
        assert not before or before[-1].strip() == ""


def test_terminal_that_open_mpi_makes_up_gets_lines(monkeypatch, clock):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    stream = Terminal()
    console = described(stream)
    clock.now_s += 10
    console.step(1, 1, 3, LOSS)
    assert "\r" not in stream.getvalue()
    last = stream.getvalue().splitlines()[-1]
    assert last == "epoch 1/20: step 1/3, 33 %, loss 0.4313"


def test_tqdm_is_only_for_terminals(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    console = described(io.StringIO())
    console.step(1, 1, 3, LOSS)
    stream = Terminal()
    console = described(stream)
    console.step(1, 1, 3, LOSS)  # a bar is for the eye: without one training goes on
    console.say("still here")
    assert stream.getvalue().endswith("still here\n")


RESULT = {
    "train_loss": 0.125,
    "validation": {"loss": 0.25, "accuracy": 0.975},
    "epochs": 2,
    "kept_epoch": 2,
    "exchange": ALLREDUCE,
    "ended": "epochs",
    "steps": 1234,
    "wall_s": 2.04,
    "samples_per_s": 98765.4,
    "directory": "/x/runs/digits",
}


def finished(tmp_path, result=RESULT):
    stream = io.StringIO()
    console = described(stream)
    records = [record(e, validation_loss=1 / e, accuracy=0.9) for e in (1, 2)]
    console.finish(result, records, SimpleNamespace(path=tmp_path))
    return stream.getvalue()


def test_result_and_where_it_lies(tmp_path):
    text = finished(tmp_path)
    assert (
        "train loss 0.125, validation loss 0.25, validation accuracy 0.975" in text
    )
    assert "1,234 steps in 1.5 s (2.0 s in all), 98,765 samples/s" in text
    assert "/x/runs/digits: weights.safetensors, config.toml" in text


def test_early_end_is_explained(tmp_path):
    assert "ended" not in finished(tmp_path) and "kept" not in finished(tmp_path)
    text = finished(tmp_path, {**RESULT, "ended": "patience", "kept_epoch": 1})
    assert "ended    in epoch 2 of 20: no better epoch for [train] patience" in text
    assert "kept     the weights of epoch 1, the best\n" in text


def test_iterations_that_did_not_suffice_are_told(tmp_path):
    result = {**RESULT, "largest_gradient": 0.1234567, "epochs": 20}
    text = finished(tmp_path, result)
    assert "ended    after 20 iterations, all that [train] epochs allows" in text
    assert "gradient is 0.123, [optimizer] tolerance is 1e-05; raise" in text


def test_overlap_that_training_measured(tmp_path):
    seconds = {"off": 0.012, "on": 0.01}
    exchange = {**ALLREDUCE, "overlap": "on", "overlap_seconds": seconds}
    text = finished(tmp_path, {**RESULT, "exchange": exchange})
    assert "overlap  on (10 ms; off 12 ms), backward with exchange\n" in text
    assert "overlap  " not in finished(tmp_path)


def test_last_epoch_has_its_row_whatever_its_speed(clock, tmp_path):
    stream = io.StringIO()
    console = described(stream, "train.epochs=100")
    for epoch in (1, 2, 3):
        console.epoch(record(epoch))

    def rows():
        return [line.split()[0] for line in stream.getvalue().splitlines() if line]

    assert rows()[-1] == "1"
    result = {**RESULT, "ended": "gradient", "epochs": 3, "kept_epoch": 2}
    console.finish(result, list(map(record, (1, 2, 3))), SimpleNamespace(path=tmp_path))
    first = rows().index("1")
    assert rows()[first : first + 4] == ["1", "2", "3", "ended"]  # the kept one, too


def test_kept_row_comes_in_its_place_or_not_at_all(clock, tmp_path):
    stream = io.StringIO()
    console = described(stream, "train.epochs=100")
    console.epoch(record(1))
    console.epoch(record(57))
    clock.now_s += 10
    console.epoch(record(58))
    result = {**RESULT, "ended": "patience", "epochs": 58, "kept_epoch": 57}
    records = [record(epoch) for epoch in (1, 57, 58)]
    console.finish(result, records, SimpleNamespace(path=tmp_path))
    first = [line.split()[0] for line in stream.getvalue().splitlines() if line]
    assert [word for word in first if word.isdigit()][:2] == ["1", "58"]
    assert "57" not in first


def test_several_targets_have_a_line_each(tmp_path):
    targets = {"price": {"rmse": 41234.5, "r2": 0.98}, "size": {"rmse": 0.5, "r2": 0.1}}
    measured = {"loss": 0.25, "rmse": 20617.5, "r2": 0.54, "targets": targets}
    text = finished(tmp_path, {**RESULT, "validation": measured})
    assert "validation rmse 20617.5, validation r2 0.54\n" in text
    assert "         'price': validation RMSE 41234.5, R2 0.98\n" in text


def test_result_without_validation(tmp_path):
    text = finished(tmp_path, {**RESULT, "validation": None})
    assert "train loss 0.125\n" in text


LONG = {**RESULT, "wall_s": 60.0}


def test_curves_of_a_short_run_are_left_to_a_command(tmp_path):
    text = finished(tmp_path)
    assert text.endswith("metrics.jsonl\nplot     pympi-train plot /x/runs/digits\n")
    assert list(tmp_path.iterdir()) == []
    odd = finished(tmp_path, {**RESULT, "directory": "/x/my runs"})
    assert odd.endswith("pympi-train plot '/x/my runs'\n")


def test_curves_of_a_long_run_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    text = finished(tmp_path, LONG)
    assert output.CURVES in text and "pympi-train plot" not in text
    assert (tmp_path / output.CURVES).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == [output.CURVES]


def test_curves_are_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = finished(tmp_path, LONG)
    assert "curves.png needs matplotlib: pip install 'pympi-train[plot]'" in text
    assert list(tmp_path.iterdir()) == []


def test_curves_that_cannot_be_drawn_fail_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / output.CURVES).mkdir()
    text = finished(tmp_path, LONG)
    assert "metrics.jsonl (curves.png: not drawn: " in text
    assert [path.name for path in tmp_path.iterdir()] == [output.CURVES]
