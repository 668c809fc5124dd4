"""Which cases a study has, and its file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import TEXT
from studies import make_study

from pympi_train.config.config import parse
from pympi_train.errors import ConfigError, DataError, LaunchError
from pympi_train.scaling.analysis import advice
from pympi_train.scaling.study import plan
from pympi_train.scaling.study.exchanges import sizes_around
from pympi_train.scaling.study.record import FIXED, Study, read_study
from pympi_train.scaling.study.run import measure_cases

ABOUT = {**make_study(ranks=()), "schema": "pympi-train/scaling/1"}


def configure(overrides=(), *more):
    return parse(TEXT, overrides=[*more, *overrides])


def test_strategies():
    assert plan.parse_strategies(None) == [plan.CONFIGURED]
    assert plan.parse_strategies("all") == list(plan.STRATEGIES)
    assert plan.parse_strategies("local, sharded") == ["local", "sharded"]
    for wrong in ("", "ring", "local,local"):
        with pytest.raises(ConfigError, match="--strategies"):
            plan.parse_strategies(wrong)


def test_strategies_that_the_configuration_refuses_are_left_out_of_all():
    told = ["optimizer.name=lbfgs", "model.kind=softmax"]
    only_allreduce = lambda more=(): configure(more, *told)  # noqa: E731
    found, left_out = plan.allowed_strategies(only_allreduce, "all")
    assert found == ["allreduce"] and len(left_out) == 4
    assert left_out[0].startswith("hierarchical: configuration: lbfgs works")
    with pytest.raises(ConfigError, match="lbfgs works with strategy allreduce"):
        plan.allowed_strategies(only_allreduce, "allreduce,sharded")
    assert plan.allowed_strategies(configure, None) == ([plan.CONFIGURED], [])
    with pytest.raises(ConfigError, match="nothing can be measured: allreduce: no"):
        plan.allowed_strategies(refuse_all, "all")


def refuse_all(overrides):
    raise ConfigError("no")


def test_rounds_have_each_case_once_in_another_order():
    asked = [1, 2, 4], list(plan.MODES), ["allreduce", "server"]
    cases, left_out = plan.plan_cases(configure, *asked, 4)
    assert left_out == ["server on 1: [parallel] servers = 1 takes 2 ranks or more"]
    rounds = [cases[i * 10 : (i + 1) * 10] for i in range(4)]
    assert len(cases) == 40 and [r[0].repeat for r in rounds] == [0, 1, 2, 3]
    orders = [[(c.mode, c.strategy, c.ranks) for c in r] for r in rounds]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert cases == plan.plan_cases(configure, *asked, 4)[0]
    for case in cases:
        grown = case.ranks if case.mode == "weak" else 1
        assert case.batch_size(16) == 16 * grown


def test_what_cannot_be_studied():
    with pytest.raises(ConfigError, match="lbfgs computes with all rows"):
        of_all = lambda told: configure(  # noqa: E731
            told, "optimizer.name=lbfgs", "model.kind=softmax"
        )
        plan.plan_cases(of_all, [1], ["weak"], [plan.CONFIGURED], 1)
    with pytest.raises(ConfigError, match="nothing can be measured: server on 1"):
        plan.plan_cases(configure, [1], ["strong"], ["server"], 1)


def test_changes_that_a_configuration_refuses_or_has_already():
    int8, sharded = advice.PROPOSED
    changes = lambda strategy, *more: plan.refused_changes(  # noqa: E731
        lambda told=(): configure(told, *more), strategy, advice.PROPOSED
    )
    assert changes(plan.CONFIGURED) == []
    assert changes("sharded") == [int8, sharded]
    assert changes(plan.CONFIGURED, "parallel.compression=int8") == [int8, sharded]
    assert changes(plan.CONFIGURED, "parallel.reduction=exact") == [int8, sharded]


def test_rows_that_make_another_model_are_refused(tmp_path):
    """The configuration is the same, and its file of rows has more columns."""
    cases = [plan.StudyCase("strong", "allreduce", n, 0) for n in (1, 2)]
    found = [m for m in make_study(ranks=(1, 2), repeats=1)["measurements"]]
    study = Study(tmp_path / "s.json", {**ABOUT, "refused": {"allreduce": ["a"]}})
    study.add(cases[0], found[0])
    study.add(cases[1], {"error": "killed"})
    again = Study(tmp_path / "s.json", {**ABOUT, "refused": {"local": ["b"]}})
    assert again.content["refused"] == {"allreduce": ["a"], "local": ["b"]}
    with pytest.raises(ConfigError, match="1,000 parameters, now 1,001: the files of"):
        again.add(cases[1], {**found[1], "parameters": 1001})
    again.add(cases[1], found[1])
    with again.alone():
        assert again.content["refused"] == {"allreduce": ["a"], "local": ["b"]}


@given(st.integers(4, 10**12))
def test_sizes_of_exchanges(n_bytes):
    sizes = sizes_around(n_bytes)
    assert sizes == sorted(set(sizes)) and sizes[0] == 4
    assert all(size % 4 == 0 for size in sizes[:-1])


def measured(case):
    one = make_study(ranks=(case.ranks,), repeats=1)["measurements"][0]
    return {key: one[key] for key in one if key not in ("mode", "strategy", "repeat")}


def test_study_goes_on(tmp_path):
    path = tmp_path / "out.json"
    study, case = Study(path, ABOUT), plan.StudyCase("strong", "allreduce", 2, 0)
    study.add(case, {"error": "node lost"})
    assert Study(path, ABOUT).find(case) is None
    study.add(case, measured(case))
    again = Study(path, {**ABOUT, "created": "later"})
    assert again.find(case) == study.find(case) is not None
    assert again.find(case._replace(repeat=1)) is None
    assert len(again.content["measurements"]) == 1
    again.save_csv(tmp_path / "out.csv")
    head, line = (tmp_path / "out.csv").read_text().splitlines()
    assert head.startswith("mode,strategy,ranks")
    assert line.startswith("strong,allreduce,2")
    assert len(head.split(",")) == len(line.split(","))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_predictions_are_those_of_the_measurements(tmp_path):
    path, case = tmp_path / "out.json", plan.StudyCase("strong", "allreduce", 2, 0)
    study = Study(path, ABOUT)
    study.add_predictions([{"way": "allreduce"}])
    assert read_study(path)["predictions"] == [{"way": "allreduce"}]
    study.add(case, measured(case))
    assert "predictions" not in read_study(path)


@pytest.mark.parametrize("name", FIXED[1:])
def test_study_of_something_else_is_not_touched(tmp_path, name):
    path = tmp_path / "out.json"
    Study(path, ABOUT).save()
    before = path.read_bytes()
    differ = "differ from those" if name == "settings" else "differs from that"
    with pytest.raises(ConfigError, match=f"its {name} {differ} of this study"):
        Study(path, {**ABOUT, name: {"other": 1}})
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", [
    "",
    "[]",
    "{}",
    '{"schema": "other"}',
    json.dumps({**ABOUT, "measurements": [{"mode": "strong"}]}),
    json.dumps({**ABOUT, "exchanges": 3}),
    json.dumps({**make_study(), "measurements": "x"}),
    json.dumps(make_study(ranks=(1,))).replace('"step_s": [', '"step_s": [NaN, '),
])
def test_files_that_are_no_study(tmp_path, text):
    (tmp_path / "out.json").write_text(text)
    with pytest.raises(DataError, match="out.json"):
        read_study(tmp_path / "out.json")


def test_folder_as_study(tmp_path):
    with pytest.raises(DataError, match="Is a directory"):
        read_study(tmp_path)


def test_files_that_cannot_be_written_are_found_before_a_launch(tmp_path):
    with pytest.raises(DataError, match="cannot be written: No such file"):
        Study(tmp_path / "none" / "out.json", ABOUT)
    for name in ("out", "out.csv", "out.html", ""):
        with pytest.raises(ConfigError, match="ends in .json"):
            Study(tmp_path / name, ABOUT)
    (tmp_path / "out.html").mkdir()
    with pytest.raises(DataError, match="out.html is no regular file"):
        Study(tmp_path / "out.json", ABOUT)


def test_one_study_at_a_time_measures_for_a_file(tmp_path):
    first, second = (Study(tmp_path / "out.json", ABOUT) for _ in range(2))
    case = plan.StudyCase("strong", "allreduce", 2, 0)
    with first.alone():
        first.add(case, measured(case))
        with pytest.raises(ConfigError, match="another run is writing to it"):
            with second.alone():
                pass
        with Study(tmp_path / "other.json", ABOUT).alone():
            pass  # another file of the folder
    with second.alone():
        assert second.find(case) == first.find(case) is not None
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


class PlannedLaunches:
    """Launches of which those on 3 ranks fail; ``crowded`` are more than the cores."""

    def __init__(self, crowded=()):
        self.ranks, self._crowded = [], crowded

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, n_ranks, words, log):
        case, path = words
        self.ranks.append(n_ranks)
        if n_ranks == 3:
            return "no end within 9 s: no output"
        found = [] if case is None else measured(case)
        if found:
            found["oversubscribed"] = n_ranks in self._crowded
        Path(path).write_text(json.dumps(found))
        return None


def test_a_case_that_always_fails_is_given_up(tmp_path):
    study, launches, told = Study(tmp_path / "out.json", ABOUT), PlannedLaunches(), []
    cases, _ = plan.plan_cases(configure, [1, 2, 3], ["strong"], ["allreduce"], 5)
    n_failed = measure_cases(study, cases, launches, lambda case: [case], told.append)
    assert n_failed == 5
    assert [launches.ranks.count(n) for n in (1, 2, 3)] == [5, 6, 2]  # and exchanges
    assert sum("left out, as others of it failed" in line for line in told) == 3
    assert len([m for m in study.content["measurements"] if m["error"] is None]) == 10


def test_exchanges_that_fail_count(tmp_path):
    class Failing(PlannedLaunches):
        def run(self, n_ranks, words, log):
            return "killed" if words[0] is None else super().run(n_ranks, words, log)

    study, told = Study(tmp_path / "out.json", ABOUT), []
    cases, _ = plan.plan_cases(configure, [1, 2], ["strong"], ["allreduce"], 1)
    words = lambda case: [case]  # noqa: E731
    assert measure_cases(study, cases, Failing(), words, told.append) == 1
    assert told[-1] == "exchanges, 2 ranks: killed"
    launches = PlannedLaunches()
    assert measure_cases(study, cases, launches, words, told.append) == 0
    assert launches.ranks == [2]


@pytest.mark.parametrize("ranks", [[2, 3], [1, 3], [1, 2, 3]])
def test_ranks_that_do_not_start_end_no_study(tmp_path, ranks):
    """The fewest ranks start first: if these fail, others would."""
    study, launches = Study(tmp_path / "out.json", ABOUT), PlannedLaunches()
    cases, _ = plan.plan_cases(configure, ranks, list(plan.MODES), ["allreduce"], 1)
    cases.sort(key=lambda case: -case.ranks)
    words = lambda case: [case]  # noqa: E731
    assert measure_cases(study, cases, launches, words, lambda line: None) == 2
    assert launches.ranks[0] == ranks[0]
    alone = [case for case in cases if case.ranks == 3]
    study = Study(tmp_path / "other.json", ABOUT)
    with pytest.raises(LaunchError, match="no end within 9 s"):
        measure_cases(study, alone, launches, words, lambda line: None)


@pytest.mark.parametrize(
    "crowded, exchanged", [((4,), [2]), ((2, 4), []), ((1, 2, 4), [2, 4])]
)
def test_exchanges_of_ranks_that_share_cores_are_left_out(tmp_path, crowded, exchanged):
    study, launches = Study(tmp_path / "out.json", ABOUT), PlannedLaunches(crowded)
    cases, _ = plan.plan_cases(configure, [1, 2, 4], ["strong"], ["allreduce"], 1)
    measure_cases(study, cases, launches, lambda case: [case], lambda line: None)
    assert launches.ranks[3:] == exchanged
