"""Predictions of a study for every strategy and compression: for its file, as a table.
"""

from pympi_train.scaling.model.fit import fit_model
from pympi_train.scaling.model.predict import MAX_RANKS, predictions, rank_limit
from pympi_train.scaling.model.usable import is_predictable, usable_measurements
from pympi_train.scaling.model.ways import all_ways

SHOWN = (2, 16, 256, 4096)  # times the largest number of ranks of the study


def predict_grid(study):
    """Return the predictions of a study, as key ``predictions`` of its file.

    Parameters
    ----------
    study : dict
        The content of its file.

    Returns
    -------
    list of dict
        One for each measured mode, strategy and compression, as in docs/scaling.md.
        Empty if steps on fewer than two numbers of ranks can be used.
    """
    if not is_predictable(study):
        return []
    model, found = fit_model(study), []
    for mode in sorted({one["mode"] for one in usable_measurements(study)}):
        for way in all_ways():
            steps = predictions(model, mode, ways=[way])
            found.append({
                "mode": mode,
                "way": str(way),
                "strategy": way.strategy,
                "compression": way.compression,
                "settings": way.settings(),
                "result": way.result,
                "rank_limit": rank_limit(model, way, mode),
                "ranks": [one.ranks for one in steps],
                "step_s": [one.step_s for one in steps],
                "efficiency": [one.efficiency for one in steps],
            })
    return found


def grid_table(grid, *, best=False):
    """Return the head and the rows of the table of a grid, as lists of str.

    Parameters
    ----------
    grid : list of dict
        Of `predict_grid`; not empty. Of two modes, the first is shown.
    best : bool
        Of each strategy, only the way with the highest limit.
    """
    own = [one for one in grid if one["mode"] == grid[0]["mode"]]
    own.sort(key=_limit_and_efficiency, reverse=True)
    if best:
        first: dict = {}
        for one in own:
            first.setdefault(one["strategy"], one)
        own = list(first.values())
    places = [times.bit_length() - 2 for times in SHOWN]  # the ranks are 2 x, 4 x, ...
    head = ["way", "result", "below 80 % at"]
    head += [f"on {own[0]['ranks'][place]:,}" for place in places]
    rows = []
    for one in own:
        limit = one["rank_limit"]
        shares = [f"{100 * one['efficiency'][place]:.1f} %" for place in places]
        where = f"above {MAX_RANKS:,}" if limit is None else f"{limit:,}"
        rows.append([one["way"], one["result"], where, *shares])
    return head, rows


def _limit_and_efficiency(one):
    limit = one["rank_limit"]
    return float("inf") if limit is None else limit, sum(one["efficiency"])
