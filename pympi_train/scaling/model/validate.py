"""The error of the model: predictions beside measurements that its fit has not seen."""

import statistics

import numpy as np

from pympi_train.scaling.model import exchange_costs, ways
from pympi_train.scaling.model.compute import workers_of
from pympi_train.scaling.model.counts import fits_flags
from pympi_train.scaling.model.predict import predict_step
from pympi_train.scaling.model.step_model import ModelError
from pympi_train.scaling.model.usable import usable_exchanges, usable_measurements
from pympi_train.scaling.model.ways import Way

SUMS = ("plain", "slices")


def missing_s(model, measurements):
    """Return the median seconds by which waits and transfers exceed the model's.

    Short steps weigh more: relative errors count, as in the fits.
    """
    found, weights = [], []
    for one in measurements:
        way = way_of(one)
        if one["ranks"] == 1 or way is None or way.overlap:
            continue
        how = {"per_node": exchange_costs.place_of(one).per_node, "mode": "strong"}
        predicted = predict_step(
            model, way, one["ranks"], batch_size=one["batch_size"], **how
        )
        names = "wait", "transfer"
        measured_s = sum(statistics.fmean(one["parts_s"][name]) for name in names)
        found.append(measured_s - sum(predicted.parts_s[name] for name in names))
        weights.append(1 / statistics.median(one["step_s"]))
    return weighted_median(found, weights) if found else 0.0


def weighted_median(values, weights):
    """Return the value that minimises the weighted sum of absolute differences.

    >>> weighted_median([3.0, 1.0, 2.0], [1.0, 5.0, 1.0])
    1.0
    """
    order = np.argsort(values)
    below = np.cumsum(np.asarray(weights, float)[order])
    return float(np.asarray(values)[order[np.searchsorted(below, below[-1] / 2)]])


def error_between(model, study, ranks, is_unseen=True):
    """Return the ModelError of predictions for ``ranks`` of a study; None without."""
    errors = [error for _, error in compared(model, study, ranks)]
    if not errors:
        return None
    sizes = [abs(error) for error in errors]
    return ModelError(statistics.median(sizes), max(sizes), len(sizes), is_unseen)


def compared(model, study, ranks):
    """Yield what was predicted, and its relative error, for ``ranks`` of a study."""
    found: dict = {}
    for one in usable_measurements(study):
        if one["ranks"] == ranks and (way := way_of(one)) is not None:
            key = one["mode"], way, one["batch_size"], exchange_costs.place_of(one)
            # Most local steps exchange nothing: their median would leave it out.
            average = statistics.fmean if way.strategy == "local" else statistics.median
            found.setdefault(key, []).append(average(one["step_s"]))
    for (mode, way, batch_size, place), steps_s in found.items():
        how = {"per_node": place.per_node, "batch_size": batch_size}
        predicted = predict_step(model, way, ranks, **how)
        measured_s = statistics.median(steps_s)
        yield f"step, {mode}, {way}", _error(predicted.step_s, measured_s)
    for one in usable_exchanges(study):
        if one["ranks"] != ranks or one["bytes"] < model.gradient.n_bytes:
            continue
        predicted_s = exchange_prediction(model.costs, one)
        if predicted_s is not None:
            error = _error(predicted_s, one["median_s"])
            yield f"{one['strategy']}, {one['bytes']:,} bytes", error


def exchange_prediction(costs, one):
    """Return the predicted seconds of an exchange of a study; None for other ways."""
    place, name = exchange_costs.place_of(one), one["strategy"]
    if name == "allreduce" and fits_flags(place, one["bytes"]):
        return ways.sum_s(costs, "none", place, one["bytes"])
    if name in SUMS:
        links = costs.slices if name == "slices" else costs.mpi
        return exchange_costs.COUNTS[name](place, one["bytes"]).seconds(links)
    kind = name.removeprefix("compressed ")
    if kind == name or kind not in exchange_costs.CODECS:
        return None
    return ways.sum_s(costs, kind, place, one["bytes"])


def _error(predicted_s, measured_s):
    return predicted_s / measured_s - 1


def way_of(measurement):
    """Return the Way that a launch has taken; None if it is not modelled."""
    chosen = measurement.get("exchange") or {}
    strategy = chosen.get("strategy", measurement["strategy"])
    if strategy not in ways.COMPRESSIONS_OF:
        return None
    exchange = chosen.get("exchange", "mpi")
    kind = exchange if exchange in exchange_costs.CODECS else "none"
    return Way(
        strategy,
        kind,
        overlap=chosen.get("overlap") == "on",
        stage=chosen.get("stage", 1),
        local_steps=chosen.get("local_steps", 1),
        servers=measurement["ranks"] - workers_of(measurement) or 1,
    )
