"""Fits the model of a step to a study's measurements."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from pympi_train.errors import ConfigError
from pympi_train.scaling.model import compute
from pympi_train.scaling.model.compute import PartTime
from pympi_train.scaling.model.exchange_costs import CODECS, Costs, costs_on, fit_costs
from pympi_train.scaling.model.ways import Gradient


class ModelError(NamedTuple):
    """Relative errors of predictions.

    Attributes
    ----------
    median, worst : float
        0.07 is 7 %.
    n_cases : int
    is_unseen : bool
        Whether the cases were left out of the fit that predicts them.
    """

    median: float
    worst: float
    n_cases: int
    is_unseen: bool

    def __str__(self):
        how = "not used by the fit" if self.is_unseen else "of the fit itself"
        return (
            f"median error {self.median:.1%}, worst {self.worst:.1%}, of "
            f"{self.n_cases} measurements {how}"
        )


@dataclass(frozen=True)
class ScalingModel:
    """What predicts a step.

    Attributes
    ----------
    costs : Costs
    input, compute, update : PartTime
    factors : tuple of float
        Of `draws.expected_maximum`.
    gradient : Gradient
    batch_size, ranks, per_node : int
        Of the study; ``ranks`` is the largest number measured.
    entry_s : float
        By which an exchange within a step takes longer than one after another does,
        with its wait: caches are cold, and processes are scheduled.
    error : ModelError or None
        None if nothing can be compared.
    """

    costs: Costs
    input: PartTime
    compute: PartTime
    update: PartTime
    factors: tuple
    gradient: Gradient
    batch_size: int
    ranks: int
    per_node: int
    entry_s: float = 0.0
    error: ModelError | None = None

    def slowed(self, times):
        """Return the model of cores that take ``times`` as long, as of crowded ones."""
        parts = ("input", "compute", "update")
        found = {name: getattr(self, name).slowed(times) for name in parts}
        codecs = {
            kind: tuple(times * number for number in self.costs.codecs.get(kind, known))
            for kind, known in CODECS.items()
        }
        costs = replace(self.costs, codecs=codecs)
        return replace(self, **found, costs=costs, entry_s=times * self.entry_s)


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
        Of the model: strategy sharded exchanges each layer on its own.

    Raises
    ------
    ConfigError
        If the study has no measurement of a step.
    """
    from pympi_train.scaling.model.validate import model_error

    found = fit_steps(study, n_layers)
    if network is None:
        return replace(found, error=model_error(study))
    return replace(found, costs=costs_on(network, found.costs))


def fit_steps(study, n_layers=1):
    """Return the ScalingModel of a study without its error."""
    usable = usable_measurements(study)
    base = usable[0]
    factors = compute.straggler_factors(usable)
    strong = [one for one in usable if one["mode"] == "strong"] or usable
    costs = fit_costs(usable_exchanges(study))
    found = ScalingModel(
        costs=costs,
        input=compute.fit_work(usable, "input"),
        compute=compute.fit_work(usable, "compute"),
        update=compute.fit_work(usable, "update", by_rows=False),
        factors=factors,
        gradient=Gradient(base["gradient_bytes"], n_layers, _factor_bytes(usable)),
        batch_size=strong[0]["batch_size"],
        ranks=max(one["ranks"] for one in usable),
        per_node=max(compute.shared_ranks(one) for one in usable),
    )
    from pympi_train.scaling.model.validate import missing_s

    return replace(found, entry_s=max(0.0, missing_s(found, usable)))


def _factor_bytes(measurements):
    """Return the bytes of PowerSGD's factors if some launch has sent them, or None.

    A rank sends ``2 (P - 1) / P`` as many, as `collectives.ring_bytes` counts them.
    """
    for one in measurements:
        chosen, n = one.get("exchange") or {}, one["ranks"]
        if chosen.get("exchange") == "powersgd" and n > 1:
            return one["sent_bytes"] * n / (2 * (n - 1))
    return None


def usable_measurements(study):
    """Return the measurements that have succeeded and, if any, had enough cores."""
    good = [one for one in study.get("measurements", ()) if one.get("error") is None]
    if not good:
        raise ConfigError(
            "the study has no measurement of a step that succeeded: run pympi-train "
            "scaling with --ranks 1,2 at least"
        )
    good.sort(key=lambda one: one["ranks"])
    return [one for one in good if not one["oversubscribed"]] or good


def usable_exchanges(study):
    """Return the exchanges of numbers of ranks that had enough cores, if there are any.
    """
    found = list(study.get("exchanges", ()))
    crowded = {
        one["ranks"] for one in study["measurements"] if one.get("oversubscribed")
    }
    return [one for one in found if one["ranks"] not in crowded] or found
