"""Predictions for each strategy and compression: whole, and shown as they are."""

from functools import cache

import pytest
from studies import make_study

from pympi_train.scaling.model.fit import fit_model
from pympi_train.scaling.model.predict import TIMES, predict_step, rank_limit
from pympi_train.scaling.model.ways import COMPRESSIONS_OF, all_ways
from pympi_train.scaling.report.grid import grid_table, predict_grid
from pympi_train.scaling.report.page import page_of
from pympi_train.scaling.report.table import report_lines

HOW = {"modes": ("strong", "weak"), "link_s": 1e-3}


@cache
def grid():
    return predict_grid(make_study(**HOW))


def test_each_strategy_and_compression_at_each_size():
    found = {(one["mode"], one["way"]): one for one in grid()}
    assert {*found} == {(m, str(w)) for m in ("strong", "weak") for w in all_ways()}
    told = {(one["strategy"], one["compression"]) for one in grid()}
    assert told == {(s, c) for s, kinds in COMPRESSIONS_OF.items() for c in kinds}
    model = fit_model(make_study(**HOW))
    for mode in ("strong", "weak"):
        for way in all_ways()[::6]:
            one = found[mode, str(way)]
            assert one["ranks"] == [8 * times for times in TIMES]
            steps = [predict_step(model, way, n, mode=mode) for n in one["ranks"]]
            assert one["step_s"] == [step.step_s for step in steps]
            assert one["efficiency"] == [step.efficiency for step in steps]
            assert one["rank_limit"] == rank_limit(model, way, mode)
            assert one["settings"] == way.settings()


def test_table_has_limits_and_efficiencies():
    own = {one["way"]: one for one in grid() if one["mode"] == "strong"}
    head, rows = grid_table(grid())
    assert head[3:] == ["on 16", "on 128", "on 2,048", "on 32,768"]
    assert {row[0] for row in rows} == {*own} and len(rows) == len(own)
    for way, _, limit, *shares in rows:
        assert int(limit.replace(",", "")) == own[way]["rank_limit"]
        places = [own[way]["ranks"].index(n) for n in (16, 128, 2048, 32_768)]
        wanted = [f"{100 * own[way]['efficiency'][place]:.1f} %" for place in places]
        assert shares == wanted
    weak = grid_table([one for one in grid() if one["mode"] == "weak"])[1]
    assert weak != rows and any(row[2] == "above 4,194,304" for row in weak)


def test_report_and_terminal_show_it():
    study = {**make_study(**HOW), "predictions": grid()}
    text, lines = page_of(study), report_lines(study)
    for way in all_ways():
        assert f"<td>{way}</td>" in text
    start = next(i for i, line in enumerate(lines) if "best compression" in line)
    best = [line.split()[0].strip(",") for line in lines[start + 2 :]]
    assert sorted(best) == sorted(COMPRESSIONS_OF)
    assert lines[start + 2].split()[:3] == ["local,", "8", "steps"]  # the highest limit


@pytest.mark.parametrize("ranks", [(1,), (2,)])
def test_nothing_from_one_number_of_ranks(ranks):
    study = make_study(ranks=ranks)
    assert predict_grid(study) == []
    assert predict_grid({**study, "measurements": []}) == []
    without = {**study, "predictions": []}
    assert "Every strategy" not in page_of(without)
    assert report_lines(without) == report_lines(study)
