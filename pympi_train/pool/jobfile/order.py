"""The order of the jobs of a file: those first that others need."""

import graphlib
import heapq

from pympi_train.errors import ConfigError
from pympi_train.keys import require_known


def order_jobs(entries, path):
    """Return entries, those first that others need, with the jobs that each needs.

    Parameters
    ----------
    entries : list of JobSection
    path : str
        The job file.

    Returns
    -------
    list of (JobSection, tuple of str)
        In the order of the file, unless an entry needs a later one.

    Raises
    ------
    ConfigError
        If two jobs have one name, ``after`` names no job, or jobs wait for each other.
    """
    homes = _homes(entries, path)
    needs = [[homes[name] for name in _known(entry, homes)] for entry in entries]

    def names(entry):
        for name in entry.after:
            other = entries[homes[name]]
            yield from other.names if name == other.table.name else [name]

    order = [entries[i] for i in _order(entries, needs)]
    return [(entry, tuple(dict.fromkeys(names(entry)))) for entry in order]


def _homes(entries, path):
    """Return the index of the entry of each name, of jobs and of sweeps."""
    homes, seen = {}, {}
    for i, entry in enumerate(entries):
        for name in dict.fromkeys([entry.table.name, *entry.names]):
            other = seen.setdefault(name.casefold(), name)
            if name in homes:
                raise ConfigError(f"{path}: two jobs have the name {name!r}")
            if other != name:
                raise ConfigError(
                    f"{path}: the names {other!r} and {name!r} would have one run "
                    "directory where case does not matter: change one of them"
                )
            homes[name] = i
    return homes


def _known(entry, homes):
    require_known(entry.after, homes, f"{entry.where} after", "job")
    return entry.after


def _order(entries, needs):
    """Return the indices of the entries; ``needs`` has those that must come before."""
    sorter = graphlib.TopologicalSorter(dict(enumerate(needs)))
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise ConfigError(_about_cycle(error.args[1], entries)) from None
    ready, order = [], []
    while sorter.is_active():
        for i in sorter.get_ready():
            heapq.heappush(ready, i)
        order.append(heapq.heappop(ready))
        sorter.done(order[-1])
    return order


def _about_cycle(cycle, entries):
    """Return the message on entries of which each must come before the next one."""
    names = [repr(entries[i].table.name) for i in reversed(cycle)]
    text = " waits for ".join(names)
    return f"{entries[cycle[-1]].where} after: {text}, so none could ever start"
