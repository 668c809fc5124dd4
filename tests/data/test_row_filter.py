"""Conditions on rows: three-valued as in SQL, and the same rows on any ranks."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi_train.data.formats.text_column import TextColumn
from pympi_train.data.loading.row_filter import RowFilter
from pympi_train.errors import ConfigError

numbers = st.sampled_from([-2, -1, 0, 1, 2.5, 3])
words = st.sampled_from(["a", "b", "ab", "B", "it's"])


def conditions():
    """Pairs of the same condition for `RowFilter` and for SQL."""
    compared = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])

    def plain(name, op, value):
        sql = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else value
        return f"{name} {op} {value!r}", f"{name} {op} {sql}"

    def inside(name, values, negated):
        op = "not in" if negated else "in"
        pairs = [plain("", "", value) for value in values]
        ours, theirs = (", ".join(side) for side in zip(*pairs))
        return f"{name} {op} [{ours}]", f"{name} {op} ({theirs})"

    leaves = (
        st.builds(plain, st.sampled_from(["p", "q"]), compared, numbers)
        | st.builds(plain, st.just("t"), compared, words)
        | st.builds(
            inside, st.just("p"), st.lists(numbers, min_size=1), st.booleans()
        )
        | st.builds(inside, st.just("t"), st.lists(words, min_size=1), st.booleans())
        | st.builds(lambda op: (f"p {op} q", f"p {op} q"), compared)
        | st.builds(lambda name: (name, f"{name} != 0"), st.sampled_from(["p", "q"]))
        | st.builds(
            lambda name, op: (f"{name} {op} None", f"{name} {op} null"),
            st.sampled_from(["p", "q", "t"]),
            st.sampled_from(["is", "is not"]),
        )
    )

    def joined(children):
        def both(left, op, right):
            return tuple(f"({a}) {op} ({b})" for a, b in zip(left, right))

        return st.builds(both, children, st.sampled_from(["and", "or"]), children) | (
            st.builds(lambda c: (f"not ({c[0]})", f"not ({c[1]})"), children)
        )

    return st.recursive(leaves, joined, max_leaves=6)


rows = st.tuples(*[numbers | st.none()] * 2, words | st.none())


def text_column(texts):
    column = TextColumn(len(texts))
    column.put(0, ["" if text is None else text for text in texts])
    return column.as_text()


@given(conditions(), st.lists(rows, max_size=8))
def test_a_condition_holds_where_it_does_in_sql(pair, table):
    condition, sql = pair
    p, q, t = ([row[i] for row in table] for i in range(3))
    columns = {
        "p": np.array(p, dtype=np.float64),
        "q": np.array(q, dtype=np.float64),
        "t": text_column(t),
    }
    row_filter = RowFilter(condition)
    with sqlite3.connect(":memory:") as base:
        base.execute("create table rows (p, q, t)")
        base.executemany("insert into rows values (?, ?, ?)", table)
        sql = f"select rowid from rows where {sql}"
        want = {number - 1 for number, in base.execute(sql)}
    base.close()
    assert {*np.flatnonzero(row_filter.mask(columns)).tolist()} == want


def test_columns_and_what_they_are_compared_with():
    found = RowFilter("18 <= age < 65 and `home town` != 'x' or not (w in (1, 2))")
    assert found.columns == (("age", "number"), ("home town", "text"), ("w", "number"))
    assert RowFilter("x == 3 or x == '3'").columns == (("x", "text"),)
    assert RowFilter("x is None").columns == (("x", "any"),)
    assert RowFilter("x is None or x > 3").columns == (("x", "number"),)
    assert RowFilter("`` > 3").columns == (("", "number"),)
    ages = {"age": np.array([17, 18, 64, 65, np.nan])}
    assert RowFilter("18 <= age < 65").mask(ages).tolist() == [0, 1, 1, 0, 0]


def test_text_is_a_number_where_it_is_compared_with_one():
    size = text_column(["1", "2.0", "x", None])
    assert RowFilter("size >= 1").mask({"size": size}).tolist() == [1, 1, 0, 0]
    assert RowFilter("not size >= 2").mask({"size": size}).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "text, problem",
    [
        ("age >=", "cannot be read"),
        ("", "cannot be read"),
        ("1 < 2", "may compare columns with numbers"),
        ("age + 1 > 2", "may compare columns"),
        ("open('x')", "has \"open\\('x'\\)\""),
        ("age.real > 1", "may compare"),
        ("(lambda: 1)()", "has"),
        ("age in 5", "needs values in brackets"),
        ("age in (1, 'a')", "mixes numbers and text"),
        ("age is 5", "may use is only as in: column is None"),
        ("age == None", "may compare columns"),
        ("age > b'x'", "may compare columns"),
        ("age > 1j", "may compare columns"),
        ("__import__", None),
        ("(" * 500 + "age" + ")" * 500, "cannot be read|nested"),
        ("age > 1" + " and age > 1" * 2000, "at most 10000 characters"),
        (f"age > 1{'0' * 400}", "compare it as text"),
        ("age > 1; b", "cannot be read"),
        ("(b := age) > 1", "may compare"),
    ],
)
def test_other_forms_are_refused_and_never_evaluated(text, problem):
    if problem is None:  # a column of this name
        assert RowFilter(text).columns == ((text, "number"),)
        return
    with pytest.raises(ConfigError, match=problem):
        RowFilter(text)
