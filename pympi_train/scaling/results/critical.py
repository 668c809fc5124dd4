"""The critical batch size: by the gradient's noise, and by the samples it took."""

from statistics import median

import numpy as np

LEAST_SIZES = 3  # batch sizes for a fit of two parameters


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
        Results; those that reached the score count. For each batch size, the median.

    Returns
    -------
    dict or None
        least_samples, least_steps, critical_batch_size; None with fewer than three
        batch sizes, or if samples do not grow with the batch size.

    References
    ----------
    .. [1] S. McCandlish, J. Kaplan, D. Amodei et al., "An Empirical Model of
       Large-Batch Training", 2018, arXiv:1812.06162.
    """
    by_size = median_by_size(rows, "samples")
    if len(by_size) < LEAST_SIZES:
        return None
    sizes = np.array(list(by_size), float)
    samples = np.array(list(by_size.values()), float)
    design = np.stack([np.ones_like(sizes), sizes], axis=1) / samples[:, None]
    (least, slope), *_ = np.linalg.lstsq(design, np.ones_like(sizes), rcond=None)
    if not (least > 0 and slope > 0):
        return None
    return {
        "least_samples": float(least),
        "least_steps": float(slope),
        "critical_batch_size": float(least / slope),
    }


def median_by_size(rows, key):
    """Return the median of a field by batch size, over ranks and seeds that have it.

    Rows that did not reach the score are left out.
    """
    found = {}
    for row in sorted(rows, key=lambda row: row["batch_size"]):
        if row.get("reached_s") is not None and row.get(key) is not None:
            found.setdefault(row["batch_size"], []).append(row[key])
    return {size: median(values) for size, values in found.items()}


def too_large(rows):
    """Return the batch sizes beyond the critical one, as far as it is known.

    A batch size is compared with the estimate of its own trainings by the gradient's
    noise. If there is none, the fit counts.
    """
    fit, noise = samples_fit(rows), median_by_size(rows, "critical_batch_size")
    found = []
    for size in sorted({row["batch_size"] for row in rows}):
        critical = noise.get(size, fit and fit["critical_batch_size"])
        if critical is not None and size > critical:
            found.append(size)
    return found
