"""The options of `load`: which combinations make sense, and their checks."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pympi_train.data import classes as labels
from pympi_train.data.formats.files import FORMATS
from pympi_train.data.formats.read import target_is_file
from pympi_train.data.formats.rows import as_names
from pympi_train.data.loading import arguments
from pympi_train.data.loading.row_filter import RowFilter
from pympi_train.data.order_shards import MAX_SHARDS
from pympi_train.data.windows.choice import MAX_WINDOW_ROWS, ORDERS, refuse_shards
from pympi_train.errors import ConfigError
from pympi_train.paths import all_expanded

MISSING = ("fail", "mean", "median", "zero", "drop")
FILLING = ("mean", "median", "zero")
OVERSAMPLE = ("balanced",)
SPLITS = ("random", "stratified", "column")
FORMAT_NAMES = tuple(dict.fromkeys(FORMATS.values()))
MEMORY = ("auto", "in-memory", "mapped", "stream")
ALL_FOLDS = "all"  # of ``fold``: keep all rows, and number them by fold


@dataclass(frozen=True)
class Options:
    """The arguments of `load`, by the same names; see there.

    Once they are checked, ``rows`` is a RowFilter or None.
    """

    path: Any
    format: Any
    rows: Any
    target: Any
    features: Any
    weights: Any
    drop: Any
    categorical: Any
    ordinal: Any
    dates: Any
    missing: str
    missing_indicator: bool
    rare_categories: Any
    task: str
    validation: Any
    validation_features: Any
    validation_target: Any
    split: str
    split_column: Any
    group: Any
    fold: Any
    standardize: bool
    standardize_target: Any
    clip: Any
    class_weights: Any
    oversample: Any
    dtype: Any
    seed: int
    header: Any
    n_features: Any
    zero_based: Any
    memory: str
    order: str
    order_window: Any
    order_shards: Any
    sparse: bool
    virtual_shards: Any

    @property
    def is_classification(self):
        """Whether targets are labels."""
        return self.task == "classification"

    @property
    def holds_out(self):
        """Whether validation rows are chosen among the rows of the files."""
        if self.numbers_folds:
            return False
        return isinstance(self.validation, float) or self.split == "column"

    @property
    def numbers_folds(self):
        """Whether all rows are for training, with the number of their fold."""
        return self.fold == ALL_FOLDS

    @property
    def reading(self):
        """Options of some formats."""
        names = ("header", "n_features", "zero_based")
        return {name: getattr(self, name) for name in names}

    @property
    def lacking(self):
        """Which columns may lack values in rows that are used, see `Selection`."""
        return {"fail": "none", "drop": "all"}.get(self.missing, "features")

    def checked(self, literal_paths):
        """Return the options, normalised, with file names expanded.

        Raises
        ------
        ConfigError
            If a value or a combination is not allowed.
        """
        o = replace(
            self,
            validation=arguments.checked_validation(self.validation),
            dtype=arguments.checked_dtype(self.dtype),
            drop=_none_if_empty(self.drop),
            categorical=_none_if_empty(self.categorical),
            ordinal=_none_if_empty(self.ordinal),
            dates=_none_if_empty(self.dates),
        )
        o._require_values()
        o = replace(
            o,
            rows=None if o.rows is None else RowFilter(o.rows),
            standardize_target=arguments.checked_standardize_target(
                o.standardize_target, o.standardize, o.task
            ),
        )
        labels.require_setting(o.class_weights, o.task)
        if o.numbers_folds and o.oversample is not None:
            raise ConfigError(
                'fold = "all" numbers rows, and oversample repeats some: leave one out'
            )
        for reason, is_broken in DATA_RULES:
            if is_broken(o, o.is_classification):
                raise ConfigError(reason)
        return o if literal_paths else o._expanded()

    def _require_values(self):
        """Raise ConfigError unless each value is of its kind."""
        for name, choices in (
            ("task", arguments.TASKS),
            ("missing", MISSING),
            ("split", SPLITS),
            ("memory", MEMORY),
            ("order", ORDERS),
        ):
            arguments.require_choice(name, getattr(self, name), choices)
        several = ("features", "target", "validation_features", "validation_target")
        several += ("drop", "categorical", "ordinal", "dates", "weights", "path")
        arguments.require_names(**{name: getattr(self, name) for name in several})
        for name in ("split_column", "group"):
            arguments.require_text(name, getattr(self, name))
        if self.format is not None:
            arguments.require_choice("format", self.format, FORMAT_NAMES)
        if self.oversample is not None:
            arguments.require_choice("oversample", self.oversample, OVERSAMPLE)
        arguments.require_text("rows", self.rows)
        if self.path is None:
            raise ConfigError("path must be the name of a data file, got None")
        if self.validation is None or isinstance(self.validation, float):
            arguments.require_unset(
                "for a file of validation rows",
                validation_features=self.validation_features,
                validation_target=self.validation_target,
            )
        arguments.require_integer("seed", self.seed, 0, 2**63 - 1)
        for name, least, most in (
            ("virtual_shards", 1, 2**31 - 1),
            ("rare_categories", 1, 2**53),
            ("fold", 0, 2**31 - 1),
            ("order_window", 1, MAX_WINDOW_ROWS),
            ("order_shards", 1, MAX_SHARDS),
        ):
            value = getattr(self, name)
            if value is not None and (name, value) != ("fold", ALL_FOLDS):
                arguments.require_integer(name, getattr(self, name), least, most)
        arguments.require_bools(
            standardize=self.standardize,
            missing_indicator=self.missing_indicator,
            sparse=self.sparse,
        )
        arguments.require_positive("clip", self.clip)

    def _expanded(self):
        """Return the options with ``~`` and ``$VAR`` in file names expanded."""

        def of_files(file, names):
            is_file = target_is_file(file, names, self.format)
            return all_expanded(names) if is_file else names

        is_file = self.validation is not None and not isinstance(self.validation, float)
        return replace(
            self,
            path=all_expanded(self.path),
            target=of_files(self.path, self.target),
            weights=of_files(self.path, self.weights),
            validation=all_expanded(self.validation) if is_file else self.validation,
            validation_target=of_files(self.validation, self.validation_target),
        )


def _none_if_empty(names):
    return None if isinstance(names, (list, tuple)) and not names else names


def is_fraction(validation):
    """Return whether a value of ``validation`` is a fraction above 0."""
    return isinstance(validation, float) and validation > 0


def n_folds(fraction):
    """Return into how many parts of this ``fraction`` the rows fall, or None."""
    count = round(1 / fraction)
    return count if math.isclose(count * fraction, 1, rel_tol=1e-6) else None


def _fold_is_wrong(o):
    if o.fold is None or not is_fraction(o.validation):
        return False
    count = n_folds(o.validation)
    return count is None or (o.fold != ALL_FOLDS and o.fold >= count)


# Invalid combinations: the reason, and whether options ``o`` of a task are of them.
# ``o`` may also be the section [data] of a configuration.
DATA_RULES = (
    (
        'missing_indicator needs missing = "mean", "median" or "zero"',
        lambda o, is_classification: o.missing_indicator and o.missing not in FILLING,
    ),
    (
        "clip limits standardised features: set standardize = true",
        lambda o, is_classification: o.clip is not None and not o.standardize,
    ),
    (
        'missing = "mean", "median" and "zero" fill dense rows: an absent entry of '
        "sparse rows is 0; leave missing or sparse out",
        lambda o, is_classification: o.sparse and o.missing in FILLING,
    ),
    (
        "rare_categories is for columns named in categorical or ordinal",
        lambda o, is_classification: o.rare_categories is not None
        and not (as_names(o.categorical) or as_names(o.ordinal)),
    ),
    (
        "oversample is for classification",
        lambda o, is_classification: o.oversample is not None and not is_classification,
    ),
    (
        "oversample and class_weights both make up for rare classes: leave one out",
        lambda o, is_classification: o.oversample is not None
        and getattr(o, "class_weights", None) is not None,
    ),
    (
        'split_column and split = "column" need each other',
        lambda o, is_classification: (o.split == "column")
        != (o.split_column is not None),
    ),
    (
        'with split = "column" the file says which rows are for validation: leave '
        "validation, group and fold out",
        lambda o, is_classification: o.split == "column"
        and not (not o.validation and o.group is None and o.fold is None),
    ),
    (
        'split = "stratified", group and fold need validation = a fraction of the rows',
        lambda o, is_classification: not is_fraction(o.validation)
        and (
            o.split == "stratified" or o.group is not None or o.fold is not None
        ),
    ),
    (
        'split = "stratified" is for classification',
        lambda o, is_classification: o.split == "stratified" and not is_classification,
    ),
    (
        'split = "stratified" and group exclude each other',
        lambda o, is_classification: o.split == "stratified" and o.group is not None,
    ),
    (
        "fold counts from 0 up to the number of folds, which is 1 / validation: with "
        "validation = 0.2, fold is 0, 1, 2, 3 or 4",
        lambda o, is_classification: _fold_is_wrong(o),
    ),
    (
        'memory = "stream" needs order = "window": rows are decoded block by block, '
        "and a block has rows of few batches then",
        lambda o, is_classification: o.memory == "stream" and o.order != "window",
    ),
    (
        'order_window and order_shards are for order = "window"',
        lambda o, is_classification: o.order != "window"
        and not (o.order_window is None and o.order_shards is None),
    ),
    (
        f"order_shards must be a power of two, from 1 to {MAX_SHARDS}",
        lambda o, is_classification: o.order_shards is not None
        and refuse_shards(o.order_shards) is not None,
    ),
)
