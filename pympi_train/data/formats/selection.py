"""The columns of a file to read, and what each is for."""

import difflib
from dataclasses import dataclass
from typing import Any, NamedTuple

from pympi_train.data.formats.rows import as_names, listed
from pympi_train.errors import DataError

TIME_AS_NUMBER = (
    "rows compares dates with a number; compare them with text, such as "
    "joined > '2026-01-31'"
)
LACKING = ("none", "features", "all")
KEYS = {  # of a configuration, where they differ
    "categories": "categorical",
    "others": "group or split_column",
    "filters": "rows",
}


class Chosen(NamedTuple):
    """Names found in a file, by use.

    Attributes
    ----------
    features : list of str or None
        None: ``rest``, as far as these can be features.
    targets, weights, others : list of str
    rest : list of str
        Names without a use, in the order of the file.
    """

    features: Any
    targets: list
    weights: list
    others: list
    rest: list


@dataclass(frozen=True)
class Selection:
    """What the user asks of a file: its features, its target and other columns.

    A column is a column of a .csv, or an array of an .npz, HDF5 or Zarr file.

    Parameters
    ----------
    features : str or sequence of str, optional
        By default all columns that have no other use.
    target : str or sequence of str, optional
        For .npy, other files (as many as there are), by default in the folder of the
        features. Ignored for .svm, which contains it.
    target_kind : {"number", "label"}, default "number"
        Regression targets (k, t) float64, or class labels (k,) int64 or str.
    need_target : bool, default True
        If False, targets are not read. If present, they are still not features.
    weights : str, optional
        The weights of the samples. For .npy, other files.
    need_weights : bool, default True
        As need_target.
    drop : sequence of str
        Columns that are no features.
    categories, dates : sequence of str, or of int
        Features with text that names a category or a time; or their places among the
        features.
    others : sequence of str
        Columns of text that are no features, for the caller.
    filters : sequence of (str, {"number", "text", "any"})
        Columns that decide which rows are used, whatever other use they have.
    lacking : {"none", "features", "all"}, default "none"
        Which columns may lack values; "all" includes targets and weights.
    any_names : bool, default False
        Whether ``features`` is ignored if the file has none of them: they may come
        from a file of another format.
    """

    features: Any = None
    target: Any = None
    target_kind: str = "number"
    need_target: bool = True
    weights: Any = None
    need_weights: bool = True
    drop: Any = ()
    categories: Any = ()
    dates: Any = ()
    others: Any = ()
    filters: Any = ()
    lacking: str = "none"
    any_names: bool = False

    def __post_init__(self):
        for name, value, known in (
            ("target_kind", self.target_kind, ("number", "label")),
            ("lacking", self.lacking, LACKING),
        ):
            if value not in known:
                known = " or ".join(map(repr, known))
                raise ValueError(f"{name} must be {known}, got {value!r}")

    def named(self):
        """Return the names of all columns or arrays that are asked for: list of str."""
        found = as_names(self.features) + as_names(self.drop) + [*self.others]
        found += as_names(self.target) + as_names(self.weights)
        found += [name for name, _ in self.filters]
        return list(dict.fromkeys(found))

    def require_nameless(self, name, kind):
        """Raise DataError if columns are named, for files whose columns have none."""
        for key in ("features", "drop", "categories", "dates", "others", "filters"):
            value = getattr(self, key)
            if value is not None and len(value):
                if key == "filters":
                    value = value[0][0]
                key = KEYS.get(key, key)
                raise DataError(
                    f"{name}: the columns of {kind} file have no names, so {key} = "
                    f"{value!r} cannot be found; leave {key} out"
                )

    def choose(self, path, kind, present):
        """Return the Chosen among the names ``present`` in a file.

        Parameters
        ----------
        path : str
            For messages.
        kind : str
            "column" or "array", for messages.
        present : sequence of str

        Raises
        ------
        DataError
            If a name is absent, appears twice, or has two uses.
        """
        targets, weights = as_names(self.target), as_names(self.weights)
        if self.need_target and not targets:
            raise DataError(
                f"{path}: no target is named; set target to one of {listed(present)}"
            )
        others = [*self.others]
        used = {}
        for use, names, is_needed in (
            ("target", targets, self.need_target),
            ("weights", weights, self.need_weights),
            ("dropped", as_names(self.drop), not self.any_names),
            ("other", others, True),
        ):
            for i, name in enumerate(names if is_needed else ()):
                of_use = f"{use} {kind}" if use != "other" else kind
                if name in names[:i]:
                    raise DataError(f"{path}: {of_use} {name!r} is named twice")
                if name not in present:
                    raise _absent(path, of_use, name, present)
                if name in used and (used[name], use) != ("dropped", "other"):
                    raise _both(path, kind, name, used[name], use)
            used |= dict.fromkeys(names, use)
        for name, _ in self.filters:
            if name not in present:
                raise _absent(path, kind, name, present)
        chosen = Chosen(
            None,
            targets if self.need_target else [],
            weights if self.need_weights else [],
            others,
            [name for name in present if name not in used],
        )
        names = as_names(self.features)
        if self.features is None or (
            self.any_names and not set(names) & set(present)
        ):
            return chosen
        for i, name in enumerate(names):
            if name not in present:
                raise _absent(path, f"feature {kind}", name, present)
            if name in names[:i]:
                raise DataError(f"{path}: feature {kind} {name!r} is named twice")
            if name in used:
                raise _both(path, kind, name, "feature", used[name])
        return Chosen(names, *chosen[1:])

    def places(self, path, kind, features):
        """Return the places of categories and of dates among the ``features``.

        Raises
        ------
        DataError
            If one is no feature, or named twice.
        """
        found = []
        for use in ("categories", "dates"):
            for name in as_names(getattr(self, use)):
                place = name if isinstance(name, int) else None
                if place is None and name in features:
                    place = features.index(name)
                if place is None or place >= len(features):
                    use = "categorical" if use == "categories" else use
                    raise DataError(
                        f"{path}: {use} {kind} {name!r} is not among the features: "
                        f"{listed(features)}"
                    )
                if place in found:
                    raise DataError(
                        f"{path}: {kind} {features[place]!r} is named twice among "
                        "categorical, ordinal and dates"
                    )
                found.append(place)
        n_categories = len(as_names(self.categories))
        return found[:n_categories], found[n_categories:]


def _absent(path, kind, name, present):
    # Ignore case, so that "Y" is closest to "y" and not to another single letter.
    plain = {other.casefold(): other for other in present}
    near = difflib.get_close_matches(str(name).casefold(), plain, n=1, cutoff=0.5)
    hint = f"; the closest is {plain[near[0]]!r}" if near else ""
    return DataError(f"{path}: no {kind} {name!r}{hint}; present: {listed(present)}")


def _both(path, kind, name, one, other):
    return DataError(f"{path}: {kind} {name!r} is both {one} and {other}")
