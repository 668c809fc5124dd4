"""What a search is about to do: its trials and their configurations, all checked."""

import dataclasses
import hashlib
import os
from typing import NamedTuple

from pympi_train.config.config import Config
from pympi_train.config.rules import refusal
from pympi_train.config.sections import SearchConfig
from pympi_train.data.formats.rows import as_names
from pympi_train.errors import ConfigError
from pympi_train.search.draws import corners_of, grid_of, random_trials
from pympi_train.search.results.summary import require_simplicity
from pympi_train.search.rungs import asha_rungs, halving_rungs
from pympi_train.search.space import OPTION, parse_space
from pympi_train.search.tpe import require_optuna
from pympi_train.train.stopping import choose_monitor

TRIALS = "trials"  # folder of the runs, in [output] directory
BEST, BEST_RUN = "best", "best-run"  # folders: of the run on all rows, of best.toml
METRIC_KEYS = {"loss": "validation_loss", "accuracy": "accuracy"}  # of the records
METRIC_KEYS |= {"rmse": "rmse", "r2": "r2"}
COUNTED = ("random", "asha", "tpe")  # methods that need a number of trials


class SearchTrial(NamedTuple):
    """A trial: its number from 0, its overrides, and its configuration."""

    number: int
    texts: tuple
    config: Config

    @property
    def name(self):
        """Name of its folder: no other trial of any search has it."""
        digest = hashlib.sha256("\n".join(self.texts).encode()).hexdigest()
        return f"{self.number:04d}-{digest[:8]}"


class SearchPlan:
    """The trials of a search.

    Parameters
    ----------
    configure : callable
        ``configure(trial=texts)`` returns the Config with these overrides;
        ``configure()`` that of the file.
    settings : SearchConfig, optional
        In place of the section ``[search]``.

    Attributes
    ----------
    base : Config
        Of the file.
    settings : SearchConfig
    space : list of Parameter
    trials : list of SearchTrial or None
        None if they depend on results (tpe).
    rungs : list of int
        Epochs of each rung; one without halving.
    first : SearchTrial
    uses_gpus : bool
        Whether the ranks of some trial need a GPU each.
    of_other_data, of_other_ranks : list of SearchTrial
        One for each way of reading and splitting rows that is searched, or using ranks.

    Raises
    ------
    ConfigError
        If a key or value is wrong, or the settings do not fit together.
    """

    def __init__(self, configure, settings=None):
        self._configure, self.base = configure, configure()
        self.settings = s = settings or self.base.search
        self.space = parse_space(s.param)
        self._require_settings()
        self.trials, texts = None, self._texts()
        self.rungs = self._rungs(texts)
        trials = [self.trial(number, of) for number, of in enumerate(texts)]
        _require_distinct_trials(trials)
        self._require_rates(trials)
        for trial in trials:
            self.job_config(trial, 0)
        self.first = trials[0]
        self.uses_gpus = any(t.config.train.backend == "cuda" for t in trials)
        self.of_other_data = _one_each(
            trials,
            lambda c: (c.data, c.task, c.train.seed, c.keeps_sparse, c.model.dtype),
        )
        self.of_other_ranks = _one_each(trials, lambda c: c.parallel)
        if s.method != "tpe":
            self.trials = trials
        require_simplicity(s, [trial.config for trial in trials])

    @property
    def n_folds(self):
        """Number of trainings of a trial: 1 without folds."""
        return self.settings.folds if self.settings.folds > 1 else 1

    @property
    def directory(self):
        """Folder of the search."""
        return self.base.output.directory

    def _require_settings(self):
        s, c = self.settings, self.base
        if s.method in COUNTED and s.trials is None:
            raise ConfigError(f"--method {s.method} needs --trials N")
        if s.method == "grid" and s.trials is not None:
            raise ConfigError("--trials is for random, halving, asha and tpe")
        if s.method == "tpe":
            require_optuna()
        halves = s.method in ("halving", "asha")
        if halves and any(p.key == "train.epochs" for p in self.space):
            raise ConfigError(f"--method {s.method} sets train.epochs itself")
        if c.elastic.survive or c.elastic.ranks is not None:
            raise ConfigError(
                "[elastic] ranks and survive are for one training: a search moves the "
                "ranks itself, remove them"
            )
        if self.n_folds == 1 and not self.has_validation:
            raise ConfigError(
                "a search needs rows that are held out: --folds 5, or [data] validation"
            )
        if self.n_folds > 1 and c.task == "language":
            raise ConfigError(
                "--folds does not apply to token files, whose last windows are held "
                "out: --folds 0 compares by [data] validation"
            )
        if self.n_folds > 1 and c.data.split == "column":
            raise ConfigError(
                '--folds and [data] split = "column" both say which rows are held out: '
                "--folds 0 uses the column"
            )
        known = [metric for metric in METRIC_KEYS if _is_measured(metric, c.task)]
        if s.metric not in known:
            raise ConfigError(
                f"--metric {s.metric}: expected {' or '.join(known)}, which are "
                f"measured for [model] kind {c.model.kind}"
            )

    def _require_rates(self, trials):
        """Raise ConfigError if rates are searched of an optimizer that has none."""
        key, named = "optimizer.learning_rate", {p.key for p in self.space}
        if key in named and any(t.config.optimizer.name == "lbfgs" for t in trials):
            raise ConfigError(
                f"{OPTION} {key}: lbfgs has no learning rate, so trials would be "
                "equal: search model.l2, or another optimizer"
            )

    @property
    def metric_key(self):
        """The metric as the records of a training name it."""
        return METRIC_KEYS[self.settings.metric]

    @property
    def has_validation(self):
        """Whether the configuration itself has validation rows."""
        return bool(self.base.data.validation) or self.base.data.split == "column"

    def _texts(self):
        """Return the overrides of all trials; of tpe those of its corners."""
        s = self.settings
        if s.method == "tpe":
            return corners_of(self.space)
        if s.trials is None:
            return grid_of(self.space)
        return random_trials(self.space, s.trials, s.seed)

    def _rungs(self, texts):
        epochs, method = self.base.train.epochs, self.settings.method
        if method == "halving":
            return halving_rungs(epochs, len(texts))
        return asha_rungs(epochs) if method == "asha" else [epochs]

    def trial(self, number, texts):
        """Return the trial with these overrides."""
        return SearchTrial(number, tuple(texts), self._configure(trial=texts))

    def folder_of(self, trial):
        """Return the folder with the runs of a trial."""
        return os.path.join(self.directory, TRIALS, trial.name)

    def parameters(self, config):
        """Return the values that a configuration has of what is searched, by key."""
        found = {}
        for parameter in self.space:
            section, _, key = parameter.key.partition(".")
            found[parameter.key] = getattr(getattr(config, section), key)
        return found

    def job_config(self, trial, fold, epochs=None):
        """Return the configuration of the training of a trial on a fold.

        Parameters
        ----------
        trial : SearchTrial
        fold : int
        epochs : int, optional
            Of a rung; by default all.
        """
        c, rung = trial.config, ""
        if epochs is not None and epochs != c.train.epochs:
            c = _replaced(c, "train", epochs=epochs)
            rung = f"epochs-{epochs}" if self.begins_anew(c) else ""
        where = self.folder_of(trial)
        if self.n_folds > 1:
            c = self._with_fold(c, fold)
            where = os.path.join(where, f"fold-{fold}")
        c = _replaced(c, "output", directory=os.path.join(where, rung).rstrip("/"))
        c = _replaced(c, "checkpoint", directory=None, keep=1)
        return _required(dataclasses.replace(c, search=SearchConfig()))

    def _with_fold(self, c, fold):
        held = {"validation": 1 / self.n_folds, "fold": fold}
        none = {"validation_features": None, "validation_target": None}
        return _replaced(c, "data", **held, **none)

    @staticmethod
    def begins_anew(config):
        """Return whether a training of more epochs differs from the first step on.

        A cosine ends with the last epoch. With early stopping, a training ends with the
        weights of its best epoch, not of its last.
        """
        return (
            config.optimizer.schedule == "cosine" or config.train.patience is not None
        )

    def best_config(self, trial, folder=BEST_RUN):
        """Return the configuration of a trial, to train it by itself in a folder."""
        where = os.path.join(self.directory, folder)
        c = _replaced(trial.config, "output", directory=where)
        c = _replaced(c, "checkpoint", directory=None)
        return dataclasses.replace(c, search=SearchConfig())

    def refit_config(self, trial, epochs):
        """Return the configuration that trains a trial on all rows for ``epochs``."""
        c = self.best_config(trial, BEST)
        if c.data.split != "column":  # which says what is not used at all
            keys = ("validation", "validation_features", "validation_target")
            none = dict.fromkeys([*keys, "fold", "group", "split"])
            # A column of groups is no feature, also where nothing is held out by it.
            drop = as_names(c.data.drop) + as_names(c.data.group)
            none["drop"] = list(dict.fromkeys(drop)) or None
            c = _replaced(c, "data", **none)
        free = {"patience": None, "target": None, "monitor": "auto"}
        c = _replaced(c, "train", **free, epochs=epochs)
        return _required(c)


def _one_each(trials, part):
    """Return one trial for each value of a part of their configurations."""
    return list({repr(part(trial.config)): trial for trial in trials}.values())


def _is_measured(metric, task):
    try:
        choose_monitor(METRIC_KEYS[metric], task, True)
    except ValueError:
        return False
    return True


def _replaced(config, section, **values):
    """Return a Config with other values in a section."""
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})


def _required(config):
    reason = refusal(config)
    if reason:
        raise ConfigError(f"search: {reason}")
    return config


def _require_distinct_trials(trials):
    """Raise ConfigError if two trials have the same configuration: 1e-3,0.001."""
    seen: dict = {}
    for trial in trials:
        first = seen.setdefault(repr(trial.config), trial)
        if first is not trial:
            one, other = (" ".join(t.texts) for t in (first, trial))
            raise ConfigError(f"two trials are the same: {one} and {other}")
