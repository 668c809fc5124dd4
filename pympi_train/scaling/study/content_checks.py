"""Checks of the file of a study, before anything is computed from it."""

import math

from pympi_train.scaling.analysis.points import PARTS
from pympi_train.scaling.study.plan import MODES

COUNTS = ("ranks", "nodes", "batch_size", "parameters", "gradient_bytes")


def require_study(content):
    """Raise ValueError with the place of the first thing that is wrong.

    Parameters
    ----------
    content : dict
        Of the file of a study, with the right schema.

    Notes
    -----
    Numbers have to be finite, and repeats of a case to have equally many ranks that
    compute. Keys that nothing is computed from are not looked at.
    """
    for name in ("measurements", "exchanges", "results"):
        _require(_is_list(content.get(name), dict), name)
    refused = content.get("refused", {})
    _require(isinstance(refused, dict), "refused")
    _require(all(_is_list(changes, str) for changes in refused.values()), "refused")
    n_workers: dict = {}
    for i, one in enumerate(content["measurements"]):
        where = f"measurements[{i}]"
        _require_case(one, where)
        if one["error"] is not None:
            _require(isinstance(one["error"], str), f"{where}: error")
            continue
        _require_measurement(one, where)
        key = one["mode"], one["strategy"], one["ranks"]
        n = len(one["parts_s"]["compute"])
        _require(n_workers.setdefault(key, n) == n, f"{where}: parts_s")
    for i, one in enumerate(content["exchanges"]):
        _require_exchange(one, f"exchanges[{i}]")


def _require(is_right, where):
    if not is_right:
        raise ValueError(where)


def _require_case(one, where):
    _require(one.get("mode") in MODES, f"{where}: mode")
    _require(isinstance(one.get("strategy"), str), f"{where}: strategy")
    _require(_is_count(one.get("ranks")), f"{where}: ranks")
    _require(_is_count(one.get("repeat"), 0), f"{where}: repeat")
    _require("error" in one, f"{where}: error")


def _require_measurement(one, where):
    for name in COUNTS:
        _require(_is_count(one.get(name)), f"{where}: {name}")
    rows = one.get("rows")  # older studies have neither these nor layers
    _require(rows is None or _is_count(rows), f"{where}: rows")
    _require(_is_count(one.get("layers", 1)), f"{where}: layers")
    _require(isinstance(one.get("oversubscribed"), bool), f"{where}: oversubscribed")
    _require("cores_per_rank" in one, f"{where}: cores_per_rank")
    _require(_are_nodes(one.get("node_of"), one["ranks"]), f"{where}: node_of")
    _require(_are_numbers(one.get("step_s"), positive=True), f"{where}: step_s")
    steps = one["step_s"]
    _require(one.get("steps") == len(steps), f"{where}: steps")
    parts = one.get("parts_s")
    _require(isinstance(parts, dict) and {*PARTS} == {*parts}, f"{where}: parts_s")
    columns = list(parts.values())
    _require(all(map(_are_numbers, columns)), f"{where}: parts_s")
    sizes = {len(column) for column in columns}
    _require(len(sizes) == 1 and max(sizes) <= one["ranks"], f"{where}: parts_s")
    _require(all(sum(rank) > 0 for rank in zip(*columns)), f"{where}: parts_s")
    draws = one.get("compute_s")
    _require(_is_list(draws, list) and draws, f"{where}: compute_s")
    is_even = len({len(draw) for draw in draws}) == 1
    _require(is_even and all(map(_are_numbers, draws)), f"{where}: compute_s")
    _require(_is_number(one.get("sent_bytes")), f"{where}: sent_bytes")
    _require(_is_choice(one.get("exchange")), f"{where}: exchange")
    joules = one.get("joules", "missing")
    _require(joules is None or _is_number(joules), f"{where}: joules")


def _require_exchange(one, where):
    for name in ("ranks", "nodes", "bytes"):
        _require(_is_count(one.get(name)), f"{where}: {name}")
    _require(_are_nodes(one.get("node_of"), one["ranks"]), f"{where}: node_of")
    _require(isinstance(one.get("strategy"), str), f"{where}: strategy")
    median_s = one.get("median_s")
    _require(_is_number(median_s) and median_s > 0, f"{where}: median_s")


def _is_choice(value):
    """Return whether a value is None, or names how a launch has exchanged."""
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    names = [value.get(name, "") for name in ("strategy", "exchange")]
    counts = [value.get(name, 1) for name in ("stage", "local_steps")]
    return all(isinstance(name, str) for name in names) and all(map(_is_count, counts))


def _is_list(value, kind):
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _is_count(value, least=1):
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and least <= value < 2**53


def _is_number(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e15 and math.isfinite(value)


def _are_numbers(values, positive=False):
    if not isinstance(values, list) or not values or not all(map(_is_number, values)):
        return False
    return not positive or min(values) > 0


def _are_nodes(values, n_ranks):
    is_list = isinstance(values, list) and len(values) == n_ranks
    return is_list and all(_is_count(node, 0) for node in values)
