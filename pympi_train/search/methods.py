"""The methods: in which order trials are trained, and for how many epochs.

Each takes an `Evaluation`. What is asked next depends on results in the order of the
questions, never on which training ends first: trials are the same on any ranks.
"""

from collections import deque

from pympi_train.search.rungs import Asha, survivors
from pympi_train.search.tpe import Tpe


def run_method(evaluation):
    """Run the method of a plan to its end."""
    method = evaluation.plan.settings.method
    if method == "halving":
        _halve(evaluation)
    elif method == "asha":
        _promote(evaluation)
    elif method == "tpe":
        _ask_tpe(evaluation)
    else:
        evaluation.evaluate(evaluation.plan.trials)


def _halve(evaluation):
    plan, left = evaluation.plan, evaluation.plan.trials
    for rung in range(len(plan.rungs)):
        results = evaluation.evaluate(left, rung)
        if rung == len(plan.rungs) - 1:
            return
        stay = survivors(costs_of(results, plan))
        for trial, result in zip(left, results):
            if trial.number not in stay:
                evaluation.drop(result, trial)
        left = [trial for trial in left if trial.number in stay]


def costs_of(results, plan):
    """Return the cost of each result, by the trial's number."""
    return {r.number: r.cost(plan.settings.metric) for r in results}


def _promote(evaluation):
    """Asynchronous halving, with a fixed number of trials in flight."""
    plan = evaluation.plan
    asha = Asha(plan.rungs, len(plan.trials))

    def ask():
        found = asha.ask()
        if found is None:
            return None
        number, rung = found
        return found, evaluation.begin(plan.trials[number], rung)

    def tell(found, result):
        asha.tell(*found, result.cost(plan.settings.metric))

    _keep_in_flight(evaluation, ask, tell)
    for number, result in evaluation.results.items():
        if result.rung < len(plan.rungs) - 1:
            evaluation.drop(result, plan.trials[number])


def _ask_tpe(evaluation):
    plan = evaluation.plan
    tpe, plan.trials = Tpe(plan.space, plan.settings.seed), []

    def ask():
        if len(plan.trials) == plan.settings.trials:
            return None
        number, texts = tpe.ask()
        plan.trials.append(plan.trial(len(plan.trials), texts))
        return number, evaluation.begin(plan.trials[-1])

    def tell(number, result):
        tpe.tell(number, result.cost(plan.settings.metric))

    _keep_in_flight(evaluation, ask, tell)


def _keep_in_flight(evaluation, ask, tell):
    """Ask for work and tell its result, until there is none left.

    Question ``i`` is asked when the results of all questions up to ``i - in_flight``
    are told, in their order.

    Parameters
    ----------
    ask : callable
        Returns (token, work); None if nothing can begin now.
    tell : callable
        ``tell(token, result)``.
    """
    most, flying = evaluation.plan.settings.in_flight, deque()
    while True:
        asked = ask() if len(flying) < most else None
        if asked is not None:
            flying.append(asked)
        elif flying:
            token, work = flying.popleft()
            tell(token, evaluation.finish(work))
        else:
            return
