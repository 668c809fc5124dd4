"""The model of a step, and how far its predictions are off."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from pympi_train.scaling.model.compute import PartTime
from pympi_train.scaling.model.exchange_costs import CODECS, Costs
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
    rows : int or None
        Training rows of the study, where it has them.
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
    rows: int | None = None
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
