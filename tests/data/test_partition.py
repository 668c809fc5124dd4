import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.data.partition import bounds, own_range, owner

rows = st.integers(0, 300) | st.integers(0, 2**70)
sizes = st.integers(1, 60)


@given(n=rows, size=sizes)
def test_ranges_cover_all_rows_once_and_are_balanced(n, size):
    cuts = bounds(n, size)
    lengths = [stop - start for start, stop in zip(cuts, cuts[1:])]
    assert (cuts[0], cuts[-1], len(lengths)) == (0, n, size)
    assert set(lengths) <= {n // size, -(-n // size)}


@given(n=rows, size=sizes)
def test_own_range_lies_between_the_cuts(n, size):
    cuts = bounds(n, size)
    for rank in range(size):
        assert own_range(n, rank, size) == (cuts[rank], cuts[rank + 1])


@given(n=st.integers(1, 200), size=st.integers(1, 260))
def test_owner_is_the_rank_whose_range_holds_the_row(n, size):
    want = []
    for rank in range(size):
        start, stop = own_range(n, rank, size)
        want += [rank] * (stop - start)
    assert [owner(row, n, size) for row in range(n)] == want


@given(n=st.integers(1, 2**70), size=st.integers(1, 10**6), data=st.data())
def test_owner_is_exact_in_big_numbers(n, size, data):
    row = data.draw(st.integers(0, n - 1))
    start, stop = own_range(n, owner(row, n, size), size)
    assert start <= row < stop


def test_no_rows():
    assert bounds(0, 3) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: bounds(-1, 2),
        lambda: bounds(5, 0),
        lambda: own_range(5, 2, 2),
        lambda: own_range(5, -1, 2),
        lambda: owner(5, 5, 2),
        lambda: owner(-1, 5, 2),
    ],
)
def test_rejects(call):
    with pytest.raises(ValueError, match="got"):
        call()
