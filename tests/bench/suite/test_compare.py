"""Planted changes are found, and noise is not."""

import json

import numpy as np
import pytest

from pympi_train.bench.suite.compare import compare_results, ratio_interval
from pympi_train.bench.suite.result_file import SCHEMA
from pympi_train.cli import main


def result(seconds, machine=None, **more):
    """Return a result with a list of rounds by name."""
    return {
        "schema": SCHEMA,
        "ranks": 2,
        "machine": machine or {"cpu": {"model": "X"}, "memory_bytes": 8},
        "benchmarks": [
            {"name": name, "settings": {"n": 1}, "seconds": rounds, "joules": None}
            for name, rounds in seconds.items()
        ],
        **more,
    }


def rounds(rng, seconds, n=10):
    """Return rounds of samples with noise of 2 %, and some disturbed rounds."""
    centres = seconds * np.exp(rng.normal(0, 0.02, n))
    centres *= np.where(rng.random(n) < 0.1, 1 + rng.exponential(1.0, n), 1)
    return (centres[:, None] * np.exp(rng.normal(0, 0.05, (n, 5)))).tolist()


@pytest.fixture
def compared(tmp_path, capsys):
    """Write both results, and run the command: (status, out, err)."""

    def run(before, after, *options):
        for name, found in (("a.json", before), ("b.json", after)):
            (tmp_path / name).write_text(
                found if isinstance(found, str) else json.dumps(found)
            )
        paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
        status = main(["bench", "compare", *paths, *options])
        return (status, *capsys.readouterr())

    return run


def planted(rng, factors):
    names = {f"step/{i}": factor for i, factor in enumerate(factors)}
    before = result({name: rounds(rng, 1e-3) for name in names})
    after = result({name: rounds(rng, 1e-3 * names[name]) for name in names})
    return before, after


def test_slower_and_faster_are_found(compared):
    before, after = planted(np.random.default_rng(1), [1.5, 0.5, *[1.0] * 8])
    status, out, _ = compared(before, after)
    lines = out.splitlines()
    assert status == 1
    assert lines[1].startswith("step/0") and lines[1].endswith("slower")
    assert any(x.startswith("step/1 ") and x.endswith("faster") for x in lines)
    assert lines[-1].startswith(
        "1 of 10 benchmarks became slower by more than 5 %: step/0; faster: 1"
    )
    assert compared(before, after, "--by", "0.8")[0] == 0


def test_single_values_are_told_as_not_judged(compared):
    before, after = (result({"step/0": [[seconds]]}) for seconds in (1.0, 3.0))
    status, out, _ = compared(before, after)
    assert status == 0
    assert out.splitlines()[-1] == (
        "0 of 1 benchmark became slower by more than 5 %; not judged, as one value has "
        "no interval: 1"
    )


def test_noise_raises_no_alarm():
    """At most 2.5 % of comparisons, even if no slow-down is allowed."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(60):
        found = compare_results(*([x] for x in planted(rng, [1.0] * 15)), by=0.0)
        alarms += any(one["verdict"] == "slower" for one in found["benchmarks"])
    # Without the correction for 15 intervals, 25 of 60.
    assert alarms <= 5


def test_interval_covers_the_ratio():
    rng, missed, tail = np.random.default_rng(3), 0, 0.05
    for _ in range(400):
        x, y = rng.normal(0, 0.1, 6), rng.normal(0.3, 0.2, 9)
        _, (low, high) = ratio_interval(list(x), list(y), tail)
        missed += not low < np.exp(0.3) < high
    assert 15 < missed < 70  # 40 expected


def test_launches_count_instead_of_their_rounds(tmp_path, capsys):
    """What differs from launch to launch alone is no change."""
    rng = np.random.default_rng(4)
    for side in ("before", "after"):
        (tmp_path / side).mkdir()
        for i, factor in enumerate((1.0, 1.3, 0.8, 1.1)):
            found = result({"step/a": rounds(rng, 1e-3 * factor)})
            (tmp_path / side / f"{i}.json").write_text(json.dumps(found))
    sides = [str(tmp_path / side) for side in ("before", "after")]
    assert main(["bench", "compare", *sides]) == 0
    assert "undecided" in capsys.readouterr().out
    # By rounds of one launch each, it looks like one.
    files = f"{sides[0]}/2.json", f"{sides[1]}/1.json"
    assert main(["bench", "compare", *files]) == 1


def test_machines_are_compared_first(compared):
    rng = np.random.default_rng(5)
    before = result({"step/a": rounds(rng, 1)}, {"cpu": {"model": "X"}, "mpi": None})
    after = result(
        {"step/a": rounds(rng, 1)}, {"cpu": {"model": "Y|1"}, "mpi": "M"}, ranks=4
    )
    _, out, _ = compared(before, after)
    assert out.splitlines()[:3] == [
        "differs: ranks: 2 -> 4",
        "differs: mpi: unknown -> M",
        "differs: cpu.model: X -> Y|1",
    ]
    _, out, _ = compared(before, after, "--markdown")
    lines = out.splitlines()
    assert lines[0].startswith("**0 of 1 benchmark")
    assert r"| cpu.model | X | Y\|1 |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {4, 7}


def test_json_says_all(compared):
    rng = np.random.default_rng(6)
    before = result({"step/a": rounds(rng, 1), "step/gone": [[1.0]]})
    after = result({"step/a": rounds(rng, 1), "step/new": [[1.0]]})
    _, out, _ = compared(before, after, "--json")
    found = json.loads(out)
    assert found["left_out"] == [
        ["step/gone", "only in the first"],
        ["step/new", "only in the second"],
    ]
    assert found["benchmarks"][0]["interval"][0] < found["benchmarks"][0]["ratio"]


def test_a_single_value_is_not_judged(compared):
    one, other = result({"start-up/mpi": [[1.0]]}), result({"start-up/mpi": [[9.0]]})
    status, out, _ = compared(one, other)
    assert status == 0 and "one value" in out and "9.000" in out


ROUNDS = [[1.0, 2.0], [1.0]]


@pytest.mark.parametrize(
    "after, message",
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", 'expected "schema": "pympi-train/bench/1", got none'),
        ('{"schema": "pympi-train/bench/2"}', "got 'pympi-train/bench/2'"),
        (json.dumps({"schema": SCHEMA}), "machine is missing"),
        (result({"step/b": ROUNDS}), "no benchmark can be compared"),
        (result({}), "no benchmark can be compared"),
        (result({"step/a": [[1.0, -1.0]]}), "positive numbers"),
        (result({"step/a": [[float("nan")]]}), "positive numbers"),
        (result({"step/a": []}), "seconds must be a list of rounds"),
        (result({"step/a": [["x"]]}), "positive numbers"),
        (result({"step/a": [[10**400]]}), "positive numbers"),
    ],
)
def test_refuses(compared, after, message):
    status, out, err = compared(result({"step/a": ROUNDS}), after)
    assert status == 2 and out == ""
    assert message in err and len(err.splitlines()) == 1
    assert len(err) < 500


def test_refuses_files(tmp_path, capsys):
    for path, message in ((tmp_path, "no .json"), (tmp_path / "x", "No such file")):
        assert main(["bench", "compare", str(path), str(path)]) == 2
        assert message in capsys.readouterr().err


def test_refuses_settings_that_differ_within_a_side(tmp_path, capsys):
    for i in range(2):
        found = result({"step/a": ROUNDS})
        found["benchmarks"][0]["settings"] = {"n": i}
        (tmp_path / f"{i}.json").write_text(json.dumps(found))
    assert main(["bench", "compare", str(tmp_path), str(tmp_path)]) == 2
    assert "differ in settings" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["-0.1", "x", "nan", "inf"])
def test_refuses_shares(by, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "compare", "a", "b", f"--by={by}"])
    assert "expected a share" in capsys.readouterr().err
