"""Reader of files that hold arrays by name."""

from pympi_train.comm.checks import together
from pympi_train.data.formats.arrays.array_rows import rows_of_arrays
from pympi_train.data.formats.rows import listed
from pympi_train.errors import DataError


def read_chosen(paths, chosen, comm, selection, *, name, kind="array", **options):
    """Read the arrays of a selection from files that hold them by name. Collective.

    Parameters
    ----------
    paths, comm, selection, name, options
        As for the readers of all formats, see `read_rows`.
    chosen : list
        The result of `choose_arrays` for each file.
    kind : str
        What such an array is called, for messages.
    """
    names, uses, _ = chosen[0]
    with together(comm):
        for path, (found, *_) in zip(paths, chosen):
            if found != names:
                raise DataError(
                    f"{path}: the features are the {kind}s {listed(found)}, unlike in "
                    f"{paths[0]}, {listed(names)}; the files of a data set hold the "
                    f"same {kind}s"
                )
    return rows_of_arrays(
        comm,
        [arrays for *_, arrays in chosen],
        uses,
        name,
        names=names,
        others=selection.others,
        filters=selection.filters,
        lacking=selection.lacking,
        **options,
    )


def choose_arrays(path, selection, arrays, kind="array"):
    """Return the names of the features, and the use and StoredArray of each array.

    Parameters
    ----------
    path : str
        For messages.
    selection : Selection
    arrays : dict of str to StoredArray
        The arrays of the file.
    kind : str
        As for `read_chosen`.
    """
    chosen = selection.choose(path, kind, list(arrays))
    for name in chosen.targets:
        arrays[name].require_readable()
    names = chosen.features
    if names is None:
        names = _fitting(path, arrays, chosen.rest, chosen.targets, kind)
    uses = ["feature"] * len(names)
    categories, dates = selection.places(path, kind, names)
    for use, places in (("category", categories), ("date", dates)):
        for i in places:
            uses[i] = use
    of_target = "label" if selection.target_kind == "label" else "target"
    uses += [of_target] * len(chosen.targets)
    uses += ["weights"] * len(chosen.weights) + ["other"] * len(chosen.others)
    filters = [name for name, _ in selection.filters]
    uses += ["filter"] * len(filters)
    stored = [*names, *chosen.targets, *chosen.weights, *chosen.others, *filters]
    for name in stored:
        arrays[name].require_readable()
    return tuple(names), uses, [arrays[name] for name in stored]


def _fitting(path, arrays, others, targets, kind):
    """Return the names of the arrays whose first dimension is the number of rows."""
    for name in others:  # an array of unknown shape may be one of them
        if arrays[name].flaw and not arrays[name].shape:
            arrays[name].require_readable()
    shapes = [arrays[name].shape for name in others]
    lengths = {shape[0] for shape in shapes if shape}
    if targets:
        lengths = {arrays[targets[0]].n}
    elif len(lengths) > 1:
        raise DataError(
            f"{path}: {kind}s of different lengths, so it is not clear which hold the "
            f"features; set features to some of {listed(others)}"
        )
    names = [name for name, shape in zip(others, shapes) if lengths & {*shape[:1]}]
    unequal = [name for name, shape in zip(others, shapes) if shape]
    if unequal and not names:
        raise DataError(
            f"{path}: features and target must have the same number of rows: "
            f"{unequal[0]!r} has {arrays[unequal[0]].n} rows, {targets[0]!r} "
            f"{arrays[targets[0]].n}"
        )
    if not names:
        raise DataError(
            f"{path}: no {kind} for the features beside {listed(targets)}; present: "
            f"{listed(list(arrays))}"
        )
    return names
