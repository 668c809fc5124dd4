"""The best trial: by mean, by one standard error, with ties and failures."""

import math
from types import SimpleNamespace

from pympi_train.search.results.files import best_line, describe_result
from pympi_train.search.results.summary import TrialResult, best_of


def results_of(scores, parameters):
    return [
        TrialResult(i, (), of, 0, 1, list(score), "finished")
        for i, (score, of) in enumerate(zip(scores, parameters))
    ]


def test_one_standard_error():
    penalties = [{"model.l2": value} for value in (0.0, 1e-3, 1e-2, 1.0)]
    scores = [(1.0, 1.2), (0.9, 1.1), (1.05, 1.13), (1.5, 1.6)]
    results = results_of(scores, penalties)
    assert best_of(results, "loss").number == 1
    assert best_of(results, "loss", one_se=True).number == 2  # 1.09 <= 1.0 + 0.1
    for result in results:
        result.scores = [-score for score in result.scores]
    assert best_of(results, "r2", one_se=True).number == 2
    results[2].scores = [math.nan, None]
    assert best_of(results, "r2", one_se=True).number == 1


def test_ties_go_to_the_first_and_no_score_is_no_best():
    results = results_of([(1.0, 1.0)] * 2, [{}] * 2)
    assert best_of(results, "accuracy").number == 0
    results[0].scores = [None, 1.0]
    assert best_of(results, "accuracy").number == 1
    results[1].scores = [None, None]
    assert best_of(results, "accuracy") is None


def test_scores_whose_sum_is_too_large():
    """A rate that is much too large must not end the search."""
    results = results_of([(1.7e308, 1.7e308), (1.0, 2.0)], [{}] * 2)
    assert results[0].mean == 1.7e308 and results[0].cost("loss") < math.inf
    assert best_of(results, "loss").number == 1


def test_printed_lines_name_the_epochs_of_rungs():
    settings = SimpleNamespace(metric="loss", one_se=False)
    plan = SimpleNamespace(rungs=[1, 3], settings=settings)
    (result,) = results_of([(1.0, 1.0)], [{"model.l2": 0.0}])
    assert describe_result(result, plan) == "trial    0  l2 0, 1 epoch: loss 1 +- 0"
    assert best_line(plan, result).startswith("best     trial 0: l2 0, 1 epoch; loss 1")
    plan.rungs = [3]
    assert describe_result(result, plan) == "trial    0  l2 0: loss 1 +- 0"
