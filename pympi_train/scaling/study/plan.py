"""What a study measures, and in which order; without MPI."""

import random
from typing import NamedTuple

from pympi_train.config.build import build_optimizer
from pympi_train.errors import ConfigError
from pympi_train.runs.elastic.requests import Bounds

STRONG, WEAK = MODES = ("strong", "weak")
STRATEGIES = ("allreduce", "hierarchical", "sharded", "local", "server")
CONFIGURED = "as configured"


class StudyCase(NamedTuple):
    """One launch of a study.

    Attributes
    ----------
    mode : {"strong", "weak"}
        Whether the global batch stays the same, or grows with the ranks.
    strategy : str
        Of ``STRATEGIES``, or ``CONFIGURED``.
    ranks, repeat : int
    """

    mode: str
    strategy: str
    ranks: int
    repeat: int

    @property
    def overrides(self):
        """The overrides of the configuration that select the strategy."""
        if self.strategy == CONFIGURED:
            return []
        return [f"parallel.strategy={self.strategy}"]

    def batch_size(self, configured):
        """Return the rows of the global batch, for that of the configuration."""
        return configured * self.ranks if self.mode == WEAK else configured

    def __str__(self):
        ranks = "rank" if self.ranks == 1 else "ranks"
        how = "" if self.strategy == CONFIGURED else f", {self.strategy}"
        return f"{self.mode}{how}, {self.ranks} {ranks}, repeat {self.repeat + 1}"


def parse_strategies(text):
    """Return the strategies in ``text``: names separated by commas, or "all".

    Raises
    ------
    ConfigError
        If a name is unknown, or is there twice.
    """
    if text is None:
        return [CONFIGURED]
    names = list(STRATEGIES) if text == "all" else [n.strip() for n in text.split(",")]
    for name in names:
        if name not in STRATEGIES:
            raise ConfigError(
                f"--strategies {text}: expected all, or some of "
                f"{', '.join(STRATEGIES)}; got {name!r}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"--strategies {text}: {name} is there twice")
    return names


def allowed_strategies(configure, text):
    """Return the strategies in ``text``, as `parse_strategies`, without those refused.

    Parameters
    ----------
    configure : callable
        ``configure(overrides)`` returns the Config with them.
    text : str or None

    Returns
    -------
    list of str
    list of str
        Why strategies were left out of "all", a line for each.

    Raises
    ------
    ConfigError
        If the configuration refuses a strategy that is named, or all of them.
    """
    found, left_out = [], []
    for name in parse_strategies(text):
        try:
            configure(StudyCase(STRONG, name, 1, 0).overrides)
        except ConfigError as error:
            if text != "all":
                raise
            left_out.append(f"{name}: {error}")
        else:
            found.append(name)
    if not found:
        raise ConfigError(f"nothing can be measured: {'; '.join(left_out)}")
    return found, left_out


def refused_changes(configure, strategy, changes):
    """Return those of ``changes`` that make no difference, or no valid Config.

    Parameters
    ----------
    configure : callable
        ``configure(overrides)`` returns the Config with them.
    strategy : str
        As for `StudyCase`.
    changes : sequence of str
        Keys of ``[parallel]`` and their values, as in a file.
    """
    own = StudyCase(STRONG, strategy, 1, 0).overrides
    config, found = configure(own), []
    for change in changes:
        try:
            is_new = configure([*own, f"parallel.{change}"]) != config
        except ConfigError:
            is_new = False
        found += [] if is_new else [change]
    return found


def plan_cases(configure, ranks, modes, strategies, repeats):
    """Return the cases of a study, in the order in which they are measured.

    Parameters
    ----------
    configure : callable
        ``configure(overrides)`` returns the Config with them.
    ranks : list of int
    modes, strategies : list of str
    repeats : int

    Returns
    -------
    list of StudyCase
        Each round has all cases once, in an order of its own that depends on nothing
        but the round. A change of the machine's speed then meets all numbers of ranks.
    list of str
        Why cases were left out, a line for each strategy and number of ranks.

    Raises
    ------
    ConfigError
        If the configuration does not allow what is asked, or nothing is left.
    """
    rounds, left_out = [], []
    for strategy in strategies:
        overrides = StudyCase(STRONG, strategy, 1, 0).overrides
        config = configure(overrides)
        if WEAK in modes and build_optimizer(config.optimizer).full_batch:
            raise ConfigError(
                f"--mode weak: {config.optimizer.name} computes with all rows in each "
                "step, so the batch cannot grow with the ranks: use --mode strong"
            )
        for n in ranks:
            bounds = Bounds.of(config, n)
            if refused := bounds.refusal(n):
                left_out.append(f"{strategy} on {n}: {refused}")
                continue
            rounds += [(mode, strategy, n) for mode in modes]
    if not rounds:
        raise ConfigError(f"nothing can be measured: {'; '.join(left_out)}")
    cases = []
    for repeat in range(repeats):
        order = list(rounds)
        random.Random(repeat).shuffle(order)
        cases += [StudyCase(*one, repeat) for one in order]
    return cases, left_out
