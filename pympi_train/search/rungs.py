r"""Successive halving: pure functions of scores.

A *rung* is a number of epochs. Of :math:`n` trials on a rung, the best
:math:`\lfloor n / \eta \rfloor`, at least one, go on to the next one, which has
:math:`\eta` times the epochs [1]_. Asynchronous halving (ASHA) promotes a trial as
soon as it is among the best :math:`\lfloor n / \eta \rfloor` of the :math:`n` that the
rung has had so far [2]_.

References
----------
.. [1] K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and
   Hyperparameter Optimization", AISTATS 2016. arXiv:1502.07943.
.. [2] L. Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys
   2020. arXiv:1810.05934.
"""

import math

ETA = 3


def rung_epochs(epochs, n_rungs):
    """Return the epochs of each rung, ascending: the last one has ``epochs``.

    Parameters
    ----------
    epochs : int
        Of a whole training.
    n_rungs : int
        At most; there are fewer if the first would have less than one epoch.

    Examples
    --------
    >>> rung_epochs(27, 3)
    [3, 9, 27]
    >>> rung_epochs(20, 9)
    [2, 6, 20]
    """
    found = []
    for power in range(n_rungs - 1, -1, -1):
        if epochs // ETA**power >= 1:
            found.append(epochs // ETA**power)
    return found


def halving_rungs(epochs, n_trials):
    """Return the epochs of the rungs of halving: the last one is left to one trial.

    That is if the epochs allow so many rungs; else to more trials.

    Examples
    --------
    >>> halving_rungs(27, 9)
    [3, 9, 27]
    """
    n_rungs = 1
    while ETA**n_rungs <= n_trials:
        n_rungs += 1
    return rung_epochs(epochs, n_rungs)


def asha_rungs(epochs):
    """Return the epochs of the rungs of asynchronous halving.

    Examples
    --------
    >>> asha_rungs(30)
    [1, 3, 10, 30]
    """
    return rung_epochs(epochs, epochs.bit_length())


def survivors(costs):
    """Return which trials of a rung go on, best first: a list of keys.

    Parameters
    ----------
    costs : dict
        The cost of each trial, which is minimised; trials of infinite cost never go on.

    Examples
    --------
    >>> survivors({0: 0.7, 1: 0.2, 2: 0.9, 3: 0.3, 4: 0.8, 5: 0.6})
    [1, 3]
    """
    ranked = sorted((cost, trial) for trial, cost in costs.items())
    most = max(1, len(costs) // ETA)
    return [trial for cost, trial in ranked[:most] if cost < math.inf]


class Asha:
    """Chooses what to train next, by the results so far.

    Parameters
    ----------
    rungs : list of int
        Epochs of each rung.
    n_trials : int
        Number of trials that begin.
    """

    def __init__(self, rungs, n_trials):
        self.rungs, self._n_trials, self._n_begun = rungs, n_trials, 0
        self._costs: list[dict] = [{} for _ in rungs]
        self._promoted: list[set] = [set() for _ in rungs]

    def ask(self):
        """Return the next (trial, rung); None if nothing can begin now.

        A promotion to the highest rung possible comes first, else a new trial.
        """
        for rung in range(len(self.rungs) - 2, -1, -1):
            costs = self._costs[rung]
            for trial in survivors(costs) if len(costs) >= ETA else ():
                if trial not in self._promoted[rung]:
                    self._promoted[rung].add(trial)
                    return trial, rung + 1
        if self._n_begun < self._n_trials:
            self._n_begun += 1
            return self._n_begun - 1, 0
        return None

    def tell(self, trial, rung, cost):
        """Take the cost of a trial on a rung; infinite if its training failed."""
        self._costs[rung][trial] = cost
