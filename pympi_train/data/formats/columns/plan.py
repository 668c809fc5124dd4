"""The use of each column of a table: features, targets, weights and texts."""

from dataclasses import dataclass, replace

import numpy as np

from pympi_train.data.formats.label_column import why_no_label
from pympi_train.data.formats.rows import listed, shown
from pympi_train.data.formats.selection import TIME_AS_NUMBER
from pympi_train.data.formats.text_column import (
    is_missing,
    why_no_category,
    why_no_date,
)
from pympi_train.errors import DataError

WHY_WRONG = {  # by kind of text column
    "label": lambda text: why_no_label(text.strip()),
    "category": why_no_category,
    "date": why_no_date,
    "other": lambda text: None,
}
FILL = (
    '[data] missing = "mean", "median" or "zero" fills missing features, and "drop" '
    "leaves out rows that lack any value"
)
ENCODE = (
    "a column of text may be named in [data] categorical, ordinal, dates or drop; a "
    "stray word among numbers has to be replaced in the file, by an empty field if the "
    "value is missing"
)


@dataclass(frozen=True)
class Columns:
    """The columns to read of a file.

    Attributes
    ----------
    names : tuple of str
        The header.
    numbers : tuple of int
        Columns of numbers, in the order they are returned.
    texts : tuple of int
        Columns of text, likewise.
    kinds : tuple of str
        What each column of text holds: a key of WHY_WRONG.
    optional : frozenset of int
        Columns that may lack values.
    separator : str
        Between the fields of a text file.
    """

    names: tuple
    numbers: tuple
    texts: tuple = ()
    kinds: tuple = ()
    optional: frozenset = frozenset()
    separator: str = ","

    def among(self, names, path, first):
        """Return the Columns of another file with the same names, in any order.

        Raises
        ------
        DataError
            If a name is missing or new; ``path`` and ``first`` are the files.
        """
        if tuple(names) == self.names:
            return self
        place = {name: i for i, name in enumerate(names)}
        missing = [name for name in self.names if name not in place]
        new = [name for name in names if name not in self.names]
        if missing or new:
            why = f"lacks column {shown(missing[0])}" if missing else (
                f"has column {shown(new[0])}"
            )
            raise DataError(
                f"{path}: {why}, unlike {first}; the files of a data set have the same "
                "columns"
            )
        at = [place[name] for name in self.names]
        return Columns(
            tuple(names),
            tuple(at[i] for i in self.numbers),
            tuple(at[i] for i in self.texts),
            self.kinds,
            frozenset(at[i] for i in self.optional),
            self.separator,
        )

    def why_wrong(self, i, text):
        """Return why a field is wrong in the i-th column of text, or None."""
        if self.texts[i] in self.optional and is_missing(text):
            return None
        return WHY_WRONG[self.kinds[i]](text)

    def are_good(self, numbers, dtype):
        """Return whether the (m, n) numbers of these columns may be kept.

        All must be finite in ``dtype``; in optional columns, NaN is no value.
        """
        good = np.abs(numbers) <= np.finfo(dtype).max  # NaN fails the comparison
        if self.optional and not good.all():
            may_lack = [i in self.optional for i in self.numbers]
            good |= np.isnan(numbers) & np.array(may_lack)
        return bool(good.all())


@dataclass(frozen=True)
class Plan:
    """What the columns of a file are read for.

    Attributes
    ----------
    names : tuple of str
        The features.
    numeric : tuple of int
        Places of the features that are read as numbers; ``columns.numbers`` begins
        with them. Targets follow, then the weights, then filters.
    n_targets : int
        Targets that are numbers.
    categories, dates : tuple of int
        Places of the features that are read as text. ``columns.texts`` begins with the
        label, if any; categories, dates, others and filters follow.
    others : tuple of str
    has_weights : bool
    filters : tuple of (str, str)
        Name and kind, see `Selection`.
    columns : Columns
    """

    names: tuple
    numeric: tuple
    n_targets: int
    categories: tuple
    dates: tuple
    others: tuple
    has_weights: bool
    filters: tuple
    columns: Columns

    def features_alone(self):
        """Return the Plan of the features that are read as numbers, and no more."""
        columns = self.columns
        numbers = columns.numbers[: len(self.numeric)]
        return replace(
            self,
            n_targets=0,
            others=(),
            has_weights=False,
            filters=(),
            columns=replace(columns, numbers=numbers, texts=(), kinds=()),
        )

    def filters_of(self, kind):
        """Return the names of the filters of a kind."""
        return [name for name, its_kind in self.filters if its_kind == kind]


def plan_columns(path, names, selection, separator=","):
    """Return the Plan of a file whose columns are ``names``.

    Raises
    ------
    DataError
        If a column is absent or has two uses.
    """
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

    as_dates = [features[i] for i in dates]
    for name, kind in selection.filters:
        if kind == "number" and name in as_dates:
            raise DataError(f"{path}, column {name!r}: {TIME_AS_NUMBER}")
    as_numbers = {features[i] for i in numeric} | {*targets, *chosen.weights}
    filters = _agreed_filters(selection.filters, features, texts, as_numbers)
    of_kind = {
        kind: [name for name, its_kind in filters if its_kind == kind]
        for kind in ("number", "text")
    }
    numbers = places(
        [features[i] for i in numeric] + targets + chosen.weights + of_kind["number"]
    )
    words = places(labels + [features[i] for i in categories + dates])
    words += places(chosen.others + of_kind["text"])
    kinds = ["label"] * len(labels) + ["category"] * len(categories)
    kinds += ["date"] * len(dates)
    kinds += ["other"] * (len(chosen.others) + len(of_kind["text"]))
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
        filters=filters,
        columns=Columns(
            tuple(names),
            numbers,
            words,
            tuple(kinds),
            frozenset(optional),
            separator,
        ),
    )


def _agreed_filters(filters, features, texts, as_numbers):
    """Return the filters, of the kind number or text.

    Those of features that are read as text are text; if any kind will do, it is that
    of the column's other use.
    """
    as_text = {features[i] for i in texts}
    found = []
    for name, kind in filters:
        if kind == "any":
            kind = "number" if name in as_numbers else "text"
        found.append((name, "text" if name in as_text else kind))
    return tuple(found)
