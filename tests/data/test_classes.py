"""Labels as they come in, indices inside, on any number of ranks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from spread import SPREADS, own

from pympi_train.comm.checks import together
from pympi_train.data.classes import class_weights, encode, find_classes
from pympi_train.data.formats.label_column import LabelColumn
from pympi_train.data.formats.text_column import is_missing
from pympi_train.errors import ConfigError, DataError

INTEGERS = np.array([7, -3, 7, 10, 2, 10, 10, 7, 7, -(2**62)])
TEXT = np.array(["b", "ä", "b", "", "10", "9", "b", "b", "b c", "a longer label"])


def column(labels):
    """As readers return them."""
    y = np.asarray(labels)
    if y.dtype.kind != "U":
        return y
    return column_of_texts(y.tolist())


def column_of_texts(texts):
    read = LabelColumn(len(texts))
    read.put(0, texts)
    return read.as_text()


class Alone:
    """A communicator of one rank."""

    size, rank = 1, 0

    def allgather(self, value):
        return [value]

    def allreduce(self, value, op):
        return value


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("labels", [INTEGERS, TEXT], ids=["integers", "text"])
def test_classes_of_all_ranks(comm, labels, spread):
    """Some labels are on one rank alone, and some rank has none at all."""
    mine = labels[own(comm, len(labels), spread)]
    seen = comm.allgather(set(mine.tolist()))
    assert any(part != set(labels.tolist()) for part in seen)
    if spread != "even":
        assert set() in seen
    classes = find_classes(column(mine), comm)
    assert_array_equal(classes, np.unique(labels))
    assert classes.dtype.kind == labels.dtype.kind
    index = encode(column(mine), classes, "file")
    assert index.dtype == np.intp
    assert_array_equal(classes[index], mine)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30))
def test_encode_inverts_integers(labels):
    y = np.array(labels, dtype=np.int64)
    classes = find_classes(y, Alone())
    assert classes.tolist() == sorted(set(labels))
    assert_array_equal(classes[encode(y, classes, "file")], y)


# NumPy drops trailing NULs of text; blanks around a label do not count; NA is no label.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
words = words.map(str.strip).filter(lambda text: not text or not is_missing(text))


@given(st.lists(words, min_size=1, max_size=30))
def test_encode_inverts_text(labels):
    y = column(np.array(labels, dtype=str))
    classes = find_classes(y, Alone())
    assert classes.tolist() == sorted(set(labels))
    assert classes[encode(y, classes, "file")].tolist() == labels


def test_one_long_label_costs_its_own_length_alone():
    """As an array of NumPy's these rows take 4 GB."""
    n, long = 100_000, "x" * 10_000
    tracemalloc.start()
    try:
        y = column_of_texts(["a"] * (n - 1) + [long])
        classes = find_classes(y, Alone())
        index = encode(y, classes, "file")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (index[0], index[-1], len(classes)) == (0, 1, 2)
    assert peak < 10_000_000


def test_labels_that_no_kept_row_has_are_no_classes():
    y = column(["a", "b", "c"])[np.array([True, False, True])]
    assert (len(y), y[1], y.tolist()) == (2, "c", ["a", "c"])
    assert find_classes(y, Alone()).tolist() == ["a", "c"]


@pytest.mark.parametrize(
    "classes, y, row",
    [
        ([2, 10, 30], [2, 30, 31], 2),
        ([2, 10, 30], [1, 2], 0),
        ([2, 10, 30], [10, 11, 12], 1),
        (["a", "b"], ["a", "ab"], 1),
        (["a", "b"], ["c"], 0),
        (["long", "short"], ["long", "longer"], 1),
        ([2, 10], ["2", "10"], 0),  # text against integers: not by spelling
        (["10", "2"], [10, 2], 0),
    ],
)
def test_unseen_label_is_named_with_its_row(classes, y, row):
    label = repr(y[row])
    with pytest.raises(DataError, match=rf"^f\.csv: row {row + 5} .* {label}, which"):
        encode(column(y), np.array(classes), "f.csv", first_row=5)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_any_integers_encode(dtype):
    y = np.array([30, 2, 10], dtype=dtype)
    assert encode(y, np.array([2, 10, 30]), "f").tolist() == [2, 0, 1]


def test_no_rows_encode_to_none():
    index = encode(column(np.zeros(0, dtype="<U1")), np.array(["a"]), "f")
    assert (index.shape, index.dtype) == ((0,), np.intp)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("odd_rank", [0, -1])
def test_unseen_label_on_one_rank_raises_on_every_rank(comm, odd_rank):
    odd = comm.rank == odd_rank % comm.size
    y = np.array([1, 2, 99 if odd else 1])
    with pytest.raises(DataError, match="row 2 .from 0. has the label 99"):
        with together(comm):
            encode(y, np.array([1, 2]), "f")


def test_many_classes_are_not_all_listed():
    with pytest.raises(DataError, match=r"11 and 88 more$"):
        encode(np.array([-1]), np.arange(100), "f")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("spread", SPREADS)
def test_balanced_weights_equal_those_of_scikit_learn(comm, spread):
    from sklearn.utils.class_weight import compute_class_weight

    y = np.random.default_rng(1).choice(4, 90, p=[0.6, 0.3, 0.07, 0.03])
    want = compute_class_weight("balanced", classes=np.arange(4), y=y)
    mine = y[own(comm, len(y), spread)]
    found = class_weights("balanced", mine, np.arange(4), comm)
    assert_allclose(found, want, rtol=1e-14)


def test_weights_by_label():
    classes = np.array([-1, 0, 5])
    found = class_weights({"5": 2, "-1": 0.5}, np.zeros(0, np.intp), classes, Alone())
    assert (found.tolist(), found.dtype) == ([0.5, 1.0, 2.0], np.float64)


@pytest.mark.mpi(min_size=2)
def test_weight_of_an_unknown_label(comm):
    with pytest.raises(ConfigError, match=r"no row has the label 'x'; known: 'a', 'b'"):
        class_weights({"x": 2, "a": 1}, np.zeros(3, int), np.array(["a", "b"]), comm)


@pytest.mark.mpi(min_size=2)
def test_weights_that_are_0_for_every_label(comm):
    classes, y = np.array(["a", "b"]), np.zeros(3, int)
    assert class_weights({"a": 0}, y, classes, comm).tolist() == [0, 1]
    with pytest.raises(ConfigError, match="must not be 0 for every label"):
        class_weights({"a": 0, "b": 0}, y, classes, comm)
