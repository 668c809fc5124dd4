"""Fits the model of a step to a study's measurements."""

from dataclasses import replace

from pympi_train.scaling.model import compute
from pympi_train.scaling.model.exchange_costs import costs_on, fit_costs, place_of
from pympi_train.scaling.model.predict import update_shares
from pympi_train.scaling.model.step_model import ScalingModel
from pympi_train.scaling.model.usable import usable_exchanges, usable_measurements
from pympi_train.scaling.model.validate import error_between, missing_s, way_of
from pympi_train.scaling.model.ways import Gradient


def fit_model(study, *, network=None, n_layers=1):
    """Return the ScalingModel of a study.

    Parameters
    ----------
    study : dict
        As ``pympi-train scaling`` writes it. Launches with more ranks than cores are
        left out, if others remain.
    network : tuple of float, optional
        Latency and seconds per byte between nodes, if not as measured.
    n_layers : int
        Of the model, if the study does not tell: strategy sharded exchanges each layer
        on its own.

    Raises
    ------
    ConfigError
        If the study has no measurement of a step.
    """
    found = fit_steps(study, n_layers)
    if network is None:
        return replace(found, error=model_error(study))
    return replace(found, costs=costs_on(network, found.costs))


def fit_steps(study, n_layers=1):
    """Return the ScalingModel of a study without its error."""
    usable = usable_measurements(study)
    base = usable[0]
    n_layers = base.get("layers", n_layers)
    factors = compute.straggler_factors(usable)
    strong = [one for one in usable if one["mode"] == "strong"]
    # In a weak study, the configuration's batch is that of each rank.
    batch_size = (strong or usable)[0]["batch_size"] // (1 if strong else base["ranks"])
    costs = fit_costs(usable_exchanges(study))
    found = ScalingModel(
        costs=costs,
        input=compute.fit_work(usable, "input"),
        compute=compute.fit_work(usable, "compute"),
        update=_fit_update(usable),
        factors=factors,
        gradient=Gradient(base["gradient_bytes"], n_layers, _factor_bytes(usable)),
        batch_size=batch_size,
        ranks=max(one["ranks"] for one in usable),
        per_node=max(compute.shared_ranks(one) for one in usable),
        rows=base.get("rows"),
    )
    return replace(found, entry_s=max(0.0, missing_s(found, usable)))


def _fit_update(measurements):
    """Return the PartTime of the update of all parameters by one rank.

    Some strategies divide it among ranks. The workers of a server update nothing: what
    they have of this part lies between the others. Nor are all ways known.
    """
    known = [(one, way_of(one)) for one in measurements]
    known = [
        (one, update_shares(way, place_of(one)))
        for one, way in known
        if way is not None and way.strategy != "server"
    ]
    if not known:
        return compute.fit_work(measurements, "update", by_rows=False)
    own, times = zip(*known)
    return compute.fit_work(own, "update", by_rows=False, times=times)


def _factor_bytes(measurements):
    """Return the bytes of PowerSGD's factors if some launch has sent them, or None.

    A rank sends ``2 (P - 1) / P`` as many, as `collectives.ring_bytes` counts them.
    """
    for one in measurements:
        chosen, n = one.get("exchange") or {}, one["ranks"]
        if chosen.get("exchange") == "powersgd" and n > 1:
            return one["sent_bytes"] * n / (2 * (n - 1))
    return None


def model_error(study):
    """Return the ModelError of a study, or None.

    Notes
    -----
    The largest number of ranks is left out of the fit, then predicted: steps, and sums
    of the gradient's size and larger. If only one number of ranks above 1 was measured,
    the error is that of the fit itself.
    """
    usable = usable_measurements(study)
    counts = sorted({one["ranks"] for one in usable} - {1})
    if not counts:
        return None
    is_unseen, last = len(counts) > 1, counts[-1]
    seen = study
    if is_unseen:
        seen = {key: before(study[key], last) for key in ("measurements", "exchanges")}
    return error_between(fit_steps(seen), study, last, is_unseen)


def before(cases, ranks):
    """Return the cases with fewer ranks."""
    return [one for one in cases if one["ranks"] < ranks]
