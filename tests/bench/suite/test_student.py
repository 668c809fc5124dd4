import pytest

from pympi_train.bench.suite.student import student_quantile


def test_quantiles_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for dof in (1, 1.5, 4, 17.3, 1000):
        for p in (0.01, 0.5, 0.9, 0.975, 0.99999):
            wanted = stats.t.ppf(p, dof)
            assert student_quantile(p, dof) == pytest.approx(wanted, 1e-8, 1e-8)
