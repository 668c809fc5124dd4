"""Results of trials: mean and standard deviation over folds, the best, the simplest."""

import math
import statistics
from dataclasses import dataclass, field

from pympi_train.errors import ConfigError
from pympi_train.train.stopping import HIGHER_IS_BETTER

FINISHED, DROPPED, DIVERGED = "finished", "dropped", "diverged"
# Keys that say which of two models is the simpler one: sign of their simpler values.
SIMPLER = {
    "model.l2": 1,
    "optimizer.weight_decay": 1,
    "train.epochs": -1,
    "model.hidden": -1,
    "model.embedding": -1,
    "model.context": -1,
}


@dataclass
class TrialResult:
    """What is known of a trial.

    Attributes
    ----------
    number : int
    texts : tuple of str
        Its overrides.
    parameters : dict
    rung, epochs : int
        The rung that it reached, from 0, and its number of epochs.
    scores : list of (float or None)
        Metric of each fold; None where its training failed.
    status : str
        finished, dropped, diverged or failed.
    error : str or None
        Why it diverged or failed.
    kept_epochs : list of int
        Of each fold: the epoch that was kept.
    """

    number: int
    texts: tuple
    parameters: dict
    rung: int
    epochs: int
    scores: list
    status: str
    error: str | None = None
    kept_epochs: list = field(default_factory=list)

    @property
    def mean(self):
        """Mean score over the folds; None unless each fold has one."""
        if None in self.scores:
            return None
        try:
            return statistics.fmean(self.scores)
        except OverflowError:  # their sum is too large, as with rates that are
            return sum(score / len(self.scores) for score in self.scores)

    @property
    def std(self):
        """Standard deviation of the scores of the folds (n - 1); None for one fold."""
        if None in self.scores or len(self.scores) < 2:
            return None
        return statistics.stdev(self.scores)

    def cost(self, metric):
        """Return the mean score as a value to minimise; infinite without one."""
        if self.mean is None:
            return math.inf
        return -self.mean if metric in HIGHER_IS_BETTER else self.mean

    def to_dict(self):
        """Return plain values, for search.json."""
        return {
            "number": self.number,
            "parameters": self.parameters,
            "scores": self.scores,
            "mean": self.mean,
            "std": self.std,
            "status": self.status,
            "epochs": self.epochs,
            **({} if self.error is None else {"error": self.error}),
        }


def ranked(results, metric):
    """Return the results, best first: by rung reached, mean, and number.

    Scores after different rungs, which have other numbers of epochs, do not compare.
    """
    def place(result):
        cost = result.cost(metric)
        return cost == math.inf, -result.rung, cost, result.number

    return sorted(results, key=place)


def best_of(results, metric, one_se=False):
    """Return the best result, or None if no trial has a score.

    Parameters
    ----------
    results : list of TrialResult
    metric : str
    one_se : bool
        The simplest of the trials whose mean is within one standard error of the best,
        the standard deviation over the square root of the number of folds [1]_.

    References
    ----------
    .. [1] L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and
       Regression Trees", 1984, section 3.4.3.
    """
    order = ranked(results, metric)
    if not order or order[0].mean is None:
        return None
    best = order[0]
    if not one_se:
        return best
    limit = best.cost(metric) + best.std / math.sqrt(len(best.scores))
    near = [r for r in order if r.rung == best.rung and r.cost(metric) <= limit]
    return min(near, key=lambda result: (_complexity(result), result.cost(metric)))


def _complexity(result):
    """Return a tuple that is smaller for a simpler model."""
    found = []
    for key, sign in SIMPLER.items():
        if key in result.parameters:
            value = result.parameters[key]
            value = sum(value) if isinstance(value, list) else value
            found.append(-sign * value)
    return tuple(found)


def require_simplicity(settings, configs):
    """Raise ConfigError unless the one-standard-error rule can be applied."""
    if not settings.one_se:
        return
    if settings.folds < 2:
        raise ConfigError("--one-se needs the deviation over folds: --folds 2 or more")
    for key in SIMPLER:
        section, _, name = key.partition(".")
        if len({str(getattr(getattr(c, section), name)) for c in configs}) > 1:
            return
    known = ", ".join(SIMPLER)
    raise ConfigError(
        f"--one-se needs a parameter that says which model is simpler: one of {known}"
    )
