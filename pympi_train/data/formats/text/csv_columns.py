"""From the columns of a .csv to features, targets, weights and texts."""

from dataclasses import dataclass

import numpy as np

from pympi_train.data.formats.categories import agree_categories
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.rows import Categories, Rows, listed, shown
from pympi_train.data.formats.text.csv_parse import Columns
from pympi_train.data.formats.text_column import TextColumn, as_days
from pympi_train.errors import DataError


@dataclass(frozen=True)
class Plan:
    """What the columns of a file are read for.

    Attributes
    ----------
    names : tuple of str
        The features.
    numeric : tuple of int
        Places of the features that are read as numbers; ``columns.numbers`` begins
        with them. Targets follow, and then the weights.
    n_targets : int
        Targets that are numbers.
    categories, dates : tuple of int
        Places of the features that are read as text. ``columns.texts`` begins with the
        label, if any; categories, dates and others follow.
    others : tuple of str
    has_weights : bool
    columns : Columns
    """

    names: tuple
    numeric: tuple
    n_targets: int
    categories: tuple
    dates: tuple
    others: tuple
    has_weights: bool
    columns: Columns


def plan_columns(path, names, selection):
    """Return the Plan of a file whose header is ``names``.

    Raises
    ------
    DataError
        If a column is absent or has two uses.
    """
    lone = names[0] if len(names) == 1 else ""
    if (";" in lone or "\t" in lone) and lone != selection.features:
        raise DataError(
            f"{path}: one column, {shown(lone)}; the separator must be a comma, not a "
            f"{'semicolon' if ';' in lone else 'tab'}"
        )
    chosen = selection.choose(path, "column", names)
    features = chosen.rest if chosen.features is None else chosen.features
    if not features:
        raise DataError(f"{path}: no feature column beside the target")
    is_label = selection.target_kind == "label"
    if is_label and len(chosen.targets) > 1:
        raise DataError(
            f"{path}: expected one column of class labels, got {listed(chosen.targets)}"
        )
    categories, dates = selection.places(path, "column", features)
    texts = {*categories, *dates}
    numeric = [i for i in range(len(features)) if i not in texts]
    labels, targets = (chosen.targets, []) if is_label else ([], chosen.targets)
    place = {name: i for i, name in enumerate(names)}

    def places(some):
        return tuple(place[name] for name in some)

    numbers = places([features[i] for i in numeric] + targets + chosen.weights)
    words = places(labels + [features[i] for i in categories + dates] + chosen.others)
    kinds = ["label"] * len(labels) + ["category"] * len(categories)
    kinds += ["date"] * len(dates) + ["other"] * len(chosen.others)
    optional = {
        "none": (),
        "features": places(features),
        "all": numbers + words,
    }[selection.lacking]
    return Plan(
        names=tuple(features),
        numeric=tuple(numeric),
        n_targets=len(targets),
        categories=tuple(categories),
        dates=tuple(dates),
        others=tuple(chosen.others),
        has_weights=bool(chosen.weights),
        columns=Columns(
            tuple(names), numbers, words, tuple(kinds), frozenset(optional)
        ),
    )


class Filling:
    """This rank's rows, filled piece by piece.

    Parameters
    ----------
    plan : Plan
    k : int
        Number of rows.
    dtype : dtype
        Of the features.
    """

    def __init__(self, plan, k, dtype):
        self._plan, self.n = plan, 0
        self.x = np.empty((k, len(plan.names)), dtype=dtype)
        self._numbers = np.empty((k, len(plan.columns.numbers) - len(plan.numeric)))
        self._texts = [
            LabelColumn(k) if kind == "label" else TextColumn(k)
            for kind in plan.columns.kinds
        ]

    def add(self, numbers, texts):
        """Add the next rows, as `parse_csv` returns them."""
        rows = slice(self.n, self.n + len(numbers))
        n_numeric = len(self._plan.numeric)
        if n_numeric == len(self._plan.names):
            self.x[rows] = numbers[:, :n_numeric]
        else:
            self.x[rows, list(self._plan.numeric)] = numbers[:, :n_numeric]
        self._numbers[rows] = numbers[:, n_numeric:]
        for column, found in zip(self._texts, texts):
            column.put(self.n, found)
        self.n = rows.stop

    def rows(self, cut, comm, name, text_labels):
        """Return the Rows; ``cut`` says which they are. Collective."""
        plan, texts = self._plan, list(self._texts)
        y = unlabelled = None
        if "label" in plan.columns.kinds:
            labels = texts.pop(0)
            y = labels.agree(comm, name, text_labels, cut.start)
            unlabelled = labels.absent
        elif plan.n_targets:
            y = self._numbers[:, : plan.n_targets]
        categories = []
        for place in plan.categories:
            self.x[:, place], values = agree_categories(texts.pop(0), comm)
            categories.append(Categories(place, place, values))
        for place in plan.dates:
            self.x[:, place] = as_days(texts.pop(0))
        return Rows(
            cut.n,
            cut.start,
            cut.stop,
            self.x,
            y,
            feature_names=plan.names,
            weights=self._numbers[:, -1].copy() if plan.has_weights else None,
            categories=tuple(sorted(categories)),
            dates=tuple((place, place) for place in plan.dates),
            others={key: texts.pop(0).as_text() for key in plan.others},
            unlabelled=unlabelled,
        )
