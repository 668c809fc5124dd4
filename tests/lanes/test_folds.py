"""The weight of a batch for each lane, without the rows of the lane's fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpi4py import MPI

import pympi_train as pt
from pympi_train.errors import DataError
from pympi_train.lanes.folds import Folds, own_folds
from pympi_train.lanes.lane import Lane

WEIGHTS = st.sampled_from([0.0, 0.1, 0.7, 1e20])  # a sum of all loses small ones
ROWS = st.lists(st.tuples(st.integers(-1, 3), WEIGHTS), max_size=9)
HELD = np.array([-2, 0, 1, 2, 3, 7], np.int32)


@given(ROWS, st.booleans())
def test_weights(rows, weighted):
    numbers = np.array([fold for fold, _ in rows], np.int32)
    each = np.array([weight for _, weight in rows])
    folds = Folds(numbers, each if weighted else None, 0, HELD)
    found = folds.weights(slice(0, len(rows)))
    for held, weight in zip(HELD, found):
        others = each[numbers != held] if weighted else np.ones(sum(numbers != held))
        np.testing.assert_allclose(weight, others.sum(), rtol=1e-14)
        # Exactly 0, or the lane would be updated by nothing divided by rounding.
        assert others.any() or weight == 0
    parts = [folds.weights(np.flatnonzero(of)) for of in (numbers < 0, numbers >= 0)]
    np.testing.assert_allclose(sum(parts), found, atol=1e-14)


@pytest.mark.parametrize("fold, where", [(0, "in"), (1, "outside")])
def test_folds_without_weight_have_no_score(fold, where):
    """Their loss would be 0, the best of all."""
    made_of, weights = (np.ones((4, 1)), np.ones((4, 1))), np.array([0.0, 0, 1, 1])
    data = pt.Dataset(*made_of, weights=weights, comm=MPI.COMM_SELF)
    how = data, [Lane(0.1, 0.0, fold)], MPI.COMM_SELF
    with pytest.raises(DataError, match=f"all rows {where} fold {fold} have weight 0"):
        own_folds([0, 0, 1, 1], *how)
