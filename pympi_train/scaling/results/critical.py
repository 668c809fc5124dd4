"""The critical batch size: by the gradient's noise, and by the samples it took."""

import math
from statistics import median

import numpy as np

LEAST_SIZES = 3  # batch sizes for a fit of two parameters
DIVERGED = "diverged"  # how a training has ended


def samples_fit(rows):
    r"""Return the fit of samples to the score by batch size, or None.

    .. math::
        E = E_{\min} + S_{\min} B, \qquad B_{crit} = E_{\min} / S_{\min},

    with :math:`E` the samples to a score at batch size :math:`B`: the hyperbola
    :math:`(E/E_{\min} - 1)(S/S_{\min} - 1) = 1` of [1]_, equation 2.11, with
    :math:`S = E/B` steps. The fit is by least squares of relative errors.

    Parameters
    ----------
    rows : list of dict
        Results. For each batch size, the median counts.

    Returns
    -------
    dict or None
        least_samples, least_steps, critical_batch_size; None with fewer than three
        batch sizes, or if samples do not grow with the batch size by more than the
        rows of an epoch, to which they are rounded up.

    References
    ----------
    .. [1] S. McCandlish, J. Kaplan, D. Amodei et al., "An Empirical Model of
       Large-Batch Training", 2018, arXiv:1812.06162.
    """
    by_size = median_samples(rows)
    if len(by_size) < LEAST_SIZES:
        return None
    sizes = np.array(list(by_size), float)
    samples = np.array(list(by_size.values()), float)
    if np.ptp(samples) <= _epoch_samples(rows):
        return None
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / samples[:, None]
    (least, slope), *_ = np.linalg.lstsq(design, np.ones_like(sizes), rcond=None)
    if not (least > 0 and slope > 0):
        return None
    return {
        "least_samples": float(least),
        "least_steps": float(slope),
        "critical_batch_size": float(least / slope),
    }


def median_samples(rows):
    """Return the median samples to the score by batch size, over ranks and seeds.

    A training that did not reach it counts as infinitely many, so that a batch size
    does not look good because only its lucky seeds are seen. A batch size whose median
    is infinite is left out.
    """
    found = {}
    for size, own in by_batch_size(trained(rows)).items():
        value = median_reached(own, "samples")
        if math.isfinite(value):
            found[size] = value
    return found


def _epoch_samples(rows):
    """Return the samples of an epoch."""
    own = [row for row in rows if row.get("reached_s") is not None]
    return max(row["samples"] / row["epochs"] for row in own)


def trained(rows):
    """Return the rows of trainings that came to an end, if only by diverging.

    A launch that failed says nothing of its batch size.
    """
    return [
        row for row in rows if row["error"] is None or row.get("ended") == DIVERGED
    ]


def median_reached(rows, key):
    """Return the median of a field, infinite where the score was not reached."""
    is_reached = [row.get("reached_s") is not None for row in rows]
    return median(row[key] if ok else math.inf for ok, row in zip(is_reached, rows))


def median_critical(rows):
    """Return the median critical batch size by the gradient's noise, or None.

    It is infinite where the gradient could not be told from 0 for noise.
    """
    pairs = [(row.get("critical_batch_size"), row.get("trace")) for row in rows]
    found = [
        math.inf if value is None else value
        for value, trace in pairs
        if value is not None or trace is not None
    ]
    return median(found or [None])


def by_batch_size(rows):
    """Return the rows by batch size, in ascending order."""
    sizes = sorted({row["batch_size"] for row in rows})
    return {size: [r for r in rows if r["batch_size"] == size] for size in sizes}


def too_large(rows):
    """Return the batch sizes beyond the critical one, as far as it is known.

    A batch size is compared with the estimate of its own trainings by the gradient's
    noise. If there is none, the fit counts.
    """
    fit, found = samples_fit(rows), []
    for size, own in by_batch_size(rows).items():
        critical = median_critical(own)
        if critical is None and fit is not None:
            critical = fit["critical_batch_size"]
        if critical is not None and size > critical:
            found.append(size)
    return found
