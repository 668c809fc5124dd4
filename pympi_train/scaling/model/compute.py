"""Seconds of computing of a rank, by its rows and by the ranks that share its node."""

from dataclasses import astuple, dataclass

import numpy as np

from pympi_train.scaling.model.draws import quantiles_of
from pympi_train.scaling.model.least_squares import robust

LEAST_SHARE = 0.002  # of a step: smaller parts are left out of fits, being noise
TINY_S = 1e-9


@dataclass(frozen=True)
class PartTime:
    """Seconds of a part of the step: ``a + b rows + (c + d rows) (R - 1)``.

    R ranks share a node and its memory bandwidth.
    """

    fixed_s: float
    row_s: float
    shared_s: float
    shared_row_s: float

    def seconds(self, rows, shared):
        """Return the time with ``rows`` of the batch and ``shared`` ranks on a node."""
        others = shared - 1
        own_s = self.fixed_s + self.row_s * rows
        return own_s + others * (self.shared_s + self.shared_row_s * rows)

    def slowed(self, times):
        """Return the PartTime of cores that take ``times`` as long."""
        return PartTime(*(times * number for number in astuple(self)))


def shared_ranks(measurement):
    """Return the ranks on the fullest node of a measurement."""
    return int(np.unique(measurement["node_of"], return_counts=True)[1].max())


def workers_of(measurement):
    """Return the number of ranks that compute."""
    return len(measurement["parts_s"]["compute"])


def fit_work(measurements, part, *, by_rows=True, times=None):
    """Return the PartTime of a part of the step.

    Parameters
    ----------
    measurements : list of dict
        Of a study, without failed ones.
    part : str
        Such as ``"compute"``.
    by_rows : bool
        Whether it depends on the rows; the update does not. A single measurement is
        taken as proportional to the rows.
    times : list of float, optional
        By which each measurement is multiplied: the ranks that share this work.
    """
    rows, seconds = [], []
    for one, factor in zip(measurements, times or [1.0] * len(measurements)):
        mean_s = factor * float(np.mean(one["parts_s"][part]))
        if mean_s <= LEAST_SHARE * float(np.median(one["step_s"])):
            continue
        n, others = one["batch_size"] / workers_of(one), shared_ranks(one) - 1
        rows.append([n * by_rows, 1, n * others * by_rows, others])
        seconds.append(max(mean_s, TINY_S))
    if not rows:
        return PartTime(0.0, 0.0, 0.0, 0.0)
    row_s, fixed_s, shared_row_s, shared_s = robust(rows, seconds).tolist()
    return PartTime(fixed_s, row_s, shared_s, shared_row_s)


def straggler_factors(measurements):
    """Return the seconds of computing of ranks in steps over their mean; ascending.

    Each launch has its own mean, so that launches of all sizes can be put together.
    """
    pooled = []
    for one in measurements:
        draws = np.asarray(one.get("compute_s") or [[0.0]], dtype=float)
        if draws.mean() > 0:
            pooled.append(draws.ravel() / draws.mean())
    return quantiles_of(np.concatenate(pooled)) if pooled else (1.0,)
