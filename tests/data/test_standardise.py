"""Mean and deviation over ranks: those of the whole, at any number of ranks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from spread import SPREADS, cuts, own

from pympi_train.data import standardise
from pympi_train.data.standardise import fit_scaling, merge, row_chunks

N = 211


class Alone:
    """A communicator of one rank, as far as ``reduced`` asks."""

    size = 1


def moments(x):
    """Count, mean and centred sum of squares of a column, exactly, then rounded."""
    exact = [Fraction(value) for value in x.tolist()]
    mean = sum(exact) / len(exact)
    return len(x), float(mean), float(sum((value - mean) ** 2 for value in exact))


def columns():
    """Columns that are easy, offset, tiny, huge and constant: the same everywhere."""
    rng = np.random.default_rng(5)
    noise = rng.standard_normal(N)
    return np.stack(
        [
            noise,
            1e8 + 1e-3 * noise,  # the sum of squares has no digit of this left
            -1e12 + noise,
            1e-12 * noise,
            1e100 * noise,
            np.full(N, 3.0),
            np.full(N, 0.1),  # summed and divided, this is 0.1 on some rank counts only
            np.full(N, -1e9 / 7),
            np.zeros(N),
            rng.integers(0, 2, N).astype(float),
        ],
        axis=1,
    )


CONSTANT = [5, 6, 7, 8]


def check_scaling(scaling, x):
    """Compare with exact arithmetic on all rows ``x`` that count."""
    assert_array_equal(scaling.mean[CONSTANT], x[0, CONSTANT])
    assert_array_equal(scaling.scale[CONSTANT], 1)
    assert not scaling.apply(x)[:, CONSTANT].any()
    for column in set(range(x.shape[1])) - set(CONSTANT):
        n, mean, centred = moments(x[:, column])
        largest, deviation = abs(x[:, column]).max(), (centred / n) ** 0.5
        ulp = 2.3e-16 * largest + 1e-14 * deviation
        assert scaling.mean[column] == pytest.approx(mean, rel=0, abs=ulp)
        assert scaling.scale[column] == pytest.approx(deviation, rel=1e-13)


def test_equals_exact_arithmetic():
    x = columns()
    check_scaling(fit_scaling(x, np.ones(N, dtype=bool), Alone()), x)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_ranks_equal_exact_arithmetic(comm, spread):
    x = columns()
    mine = own(comm, N, spread)
    if spread != "even":
        assert 0 in comm.allgather(mine.stop - mine.start)
    scaling = fit_scaling(x[mine], np.ones(len(x[mine]), dtype=bool), comm)
    check_scaling(scaling, x)
    for part in (scaling.mean, scaling.scale):
        assert comm.allgather(part.tobytes()) == [part.tobytes()] * comm.size


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", ["even", "last"])
def test_only_kept_rows_count(comm, spread):
    """Also where no row of a rank is kept, and the others would change everything."""
    x = columns()
    keep = np.arange(N) % 3 > 0
    cut = cuts(N, comm.size, spread)
    keep[cut[0] : cut[1]] = False  # rank 0 keeps none
    x[~keep] = 1e200
    mine = own(comm, N, spread)
    assert 0 in comm.allgather(int(keep[mine].sum()))
    check_scaling(fit_scaling(x[mine], keep[mine], comm), x[keep])


@pytest.mark.parametrize("chunk_bytes", [1, 800, 10**6])
def test_chunks_do_not_matter(monkeypatch, chunk_bytes):
    x = columns()
    monkeypatch.setattr(standardise, "CHUNK_BYTES", chunk_bytes)
    check_scaling(fit_scaling(x, np.ones(N, dtype=bool), Alone()), x)


def test_beats_the_sum_of_squares():
    """The obvious formula loses the second column; a test of the test."""
    x = columns()[:, 1]
    obvious = (x**2).mean() - x.mean() ** 2
    deviation = (moments(x)[2] / N) ** 0.5
    assert abs(max(obvious, 0.0) ** 0.5 - deviation) > 0.1 * deviation


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float32"])
def test_other_dtypes(dtype):
    x = (np.arange(40).reshape(20, 2) % 7 % 2).astype(dtype)
    scaling = fit_scaling(x, np.ones(20, dtype=bool), Alone())
    scaled = scaling.apply(x)
    assert scaled.dtype == np.float64
    assert_allclose(scaled.mean(axis=0), 0, atol=1e-15)
    assert_allclose(scaled.std(axis=0), 1, rtol=1e-15)


def test_apply_leaves_its_input_alone():
    x = columns()
    before = x.copy()
    scaling = fit_scaling(x, np.ones(N, dtype=bool), Alone())
    other = scaling.apply(x[:9])
    assert_array_equal(x, before)
    assert_array_equal(other, (x[:9] - scaling.mean) / scaling.scale)


def test_deviation_that_underflows_keeps_the_column():
    x = np.array([[0.0], [1e-200]])
    scaling = fit_scaling(x, np.ones(2, dtype=bool), Alone())
    assert scaling.scale[0] == 1
    assert np.isfinite(scaling.apply(x)).all()


numbers = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), max_size=8)


def summary(values):
    """The triple that ``merge`` takes, computed by NumPy from the values."""
    x = np.array(values, dtype=np.float64)
    if len(x) == 0:
        return 0, np.zeros(1), np.zeros(1)
    return len(x), np.array([x.mean()]), np.array([((x - x.mean()) ** 2).sum()])


@settings(max_examples=200)
@given(a=numbers, b=numbers, c=numbers)
def test_merge_is_associative_and_equals_numpy(a, b, c):
    left = merge(merge(summary(a), summary(b)), summary(c))
    right = merge(summary(a), merge(summary(b), summary(c)))
    swapped = merge(summary(c), merge(summary(b), summary(a)))
    want = summary(a + b + c)
    scale = max(map(abs, a + b + c), default=0.0)
    for found in (left, right, swapped):
        assert found[0] == want[0]
        assert_allclose(found[1], want[1], rtol=0, atol=1e-14 * scale)
        assert_allclose(found[2], want[2], rtol=1e-12, atol=1e-13 * scale**2)


@given(n=st.integers(0, 300), d=st.integers(0, 9), size=st.integers(1, 5000))
def test_chunks_cover_each_row_once(n, d, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standardise, "CHUNK_BYTES", size)
        parts = list(row_chunks(np.zeros((n, d))))
    rows = [row for part in parts for row in range(part.start, part.stop)]
    assert rows == list(range(n))
    assert all(0 < p.stop - p.start <= max(1, size // (8 * max(1, d))) for p in parts)


def test_parts_without_rows_are_joined_in_silence():
    """Exact mode has groups in which no row belongs to a fold."""
    x, no_row = np.ones((3, 2)), np.zeros(3, bool)
    part = standardise.local_moments(x, no_row, slice(0, 3))
    with np.errstate(invalid="raise"):
        joined = standardise.join_moments(part, part)
    assert_array_equal(joined[0], 0)
