"""L-BFGS with a cost and gradient that are sums over ranks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pympi_train.optim.lbfgs import LBFGS

N_ROWS, WIDTH, L2 = 90, 6, 1e-3


def data():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((N_ROWS, WIDTH))
    return x, np.sign(x[:, 0] + rng.standard_normal(N_ROWS))


def sums(x, signs, params):
    """Return cost and gradient of logistic regression, summed over rows."""
    margins = signs * (x @ params)
    gradient = x.T @ (-signs / (1 + np.exp(margins)))
    return np.array([np.logaddexp(0, -margins).sum(), *gradient])


def fit(total_of, agree):
    """Fit with ``total_of(params)``, the sums over all rows."""

    def evaluate(params, grad):
        total = total_of(params) / N_ROWS
        grad[:] = total[1:] + L2 * params
        return total[0] + L2 / 2 * (params @ params)

    params = np.zeros(WIDTH)
    settings = LBFGS(history=4, tolerance=1e-10, ftol=0)
    return params, settings.minimise(
        evaluate, params, max_iterations=100, agree=agree
    )


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("unlike", [0.0, 1e-12])
def test_ranks_find_what_one_process_finds(comm, unlike):
    x, signs = data()
    # Shares of very different sizes; the last rank has no row.
    cuts = [N_ROWS * r**2 // (comm.size - 1) ** 2 for r in range(comm.size)]
    cuts.append(N_ROWS)
    mine = slice(cuts[comm.rank], cuts[comm.rank + 1])

    def total_of(params):
        total = sums(x[mine], signs[mine], params)
        summed = np.empty_like(total)
        comm.Allreduce(total, summed)
        # The cost may differ in its last bits between ranks.
        summed[0] *= 1 + unlike * comm.rank
        return summed

    def agree(*values):
        buffer = np.array(values)
        comm.Bcast(buffer)
        return buffer

    params, found = fit(total_of, agree)
    want, alone = fit(lambda p: sums(x, signs, p), lambda *values: values)
    assert found.reason == alone.reason == "gradient"
    assert_allclose(params, want, rtol=0, atol=1e-8)
    assert comm.allgather(found) == [found] * comm.size
    assert comm.allgather(params.tobytes()) == [params.tobytes()] * comm.size
