"""Conditions on rows, such as ``age >= 18 and country in ("NO", "SE")``.

The text is parsed by Python's own parser and never evaluated: only the forms listed in
`RowFilter` are accepted. A comparison with a missing value is neither true nor false,
as in SQL (ISO/IEC 9075-2, 8.2 and 6.39): a row is used if its condition is true.
"""

import ast
import operator
import re
from typing import NamedTuple

import numpy as np

from pympi_train.data.formats.rows import shown
from pympi_train.data.formats.spelling import category_of
from pympi_train.data.formats.text.csv_parse import as_number
from pympi_train.data.formats.text_column import TextLabels
from pympi_train.errors import ConfigError

MAX_LENGTH = 10_000
COMPARISONS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|`([^`]*)`""")
FORMS = (
    "comparisons (<, <=, >, >=, ==, !=) of columns with numbers, text or columns; "
    "in, not in, is None, is not None; and, or, not; a column whose name is no "
    "identifier in backquotes"
)


class Truth(NamedTuple):
    """For each row whether a condition is true, and whether it is false; or neither."""

    true: np.ndarray
    false: np.ndarray


class RowFilter:
    """A condition on the columns of a row.

    Parameters
    ----------
    text : str
        Comparisons of columns with numbers, text or other columns, also chained; ``in``
        and ``not in`` a tuple or list; ``is None``; ``and``, ``or``, ``not``; and the
        name of a column alone, which is true if it is a number other than 0. A name
        that is no identifier stands in backquotes.

    Attributes
    ----------
    columns : tuple of (str, {"number", "text", "any"})
        The columns of the condition, and what they are compared with.

    Raises
    ------
    ConfigError
        If the text has another form.

    Examples
    --------
    >>> RowFilter("age >= 18 and `home country` in ('NO', 'SE')").columns
    (('age', 'number'), ('home country', 'text'))
    """

    def __init__(self, text):
        self._text, self._names, self._kinds = text, {}, {}
        if len(text) > MAX_LENGTH:
            raise ConfigError(f"rows: expected at most {MAX_LENGTH} characters")
        try:
            self._tree = ast.parse(self._plain(text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or str(error)
            raise self._error(f"cannot be read: {reason}") from None
        try:
            self._check(self._tree)
        except RecursionError:
            raise self._error("is nested too deeply") from None
        self.columns = tuple(self._kinds.items())
        if not self.columns:
            raise self._error("names no column")

    def __str__(self):
        return repr(self._text)

    def _plain(self, text):
        """Return the text with identifiers in the place of names in backquotes."""

        def identifier(match):
            if match.group(1):
                return match.group(1)
            name = f"_column_{len(self._names)}_"
            while name in text:
                name += "_"
            self._names[name] = match.group(2)
            return f" {name} "

        return _QUOTED.sub(identifier, text)

    def _error(self, problem):
        return ConfigError(f"rows = {shown(self._text, 200)} {problem}; {FORMS}")

    def _column(self, node):
        """Return the name of the column that a node names, or None."""
        if not isinstance(node, ast.Name):
            return None
        return self._names.get(node.id, node.id)

    def _constant(self, node):
        """Return the number or text of a node, or None."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            value = self._constant(node.operand)
            if isinstance(value, float):
                return -value if isinstance(node.op, ast.USub) else value
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, (bool, int, float)):
                if isinstance(node.value, int) and abs(node.value) >= 2**53:
                    raise self._error(
                        "has a whole number of 2^53 or more; compare it as text: "
                        f"== '{str(node.value)[:40]}'"
                    )
                return float(node.value)
            if isinstance(node.value, str):
                return node.value
        return None

    def _use(self, name, kind):
        order = ("any", "number", "text")  # text can be compared with both
        self._kinds[name] = max(self._kinds.get(name, "any"), kind, key=order.index)

    def _check(self, node):
        """Raise ConfigError unless ``node`` is a condition; collect its columns."""
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                self._check(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._check(node.operand)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, op, right in zip(sides, node.ops, sides[1:]):
                self._check_pair(left, op, right)
        elif self._column(node) is not None:
            self._use(self._column(node), "number")
        else:
            raise self._error(f"has {ast.unparse(node)!r}")

    def _check_pair(self, left, op, right):
        names = [self._column(side) for side in (left, right)]
        if isinstance(op, (ast.Is, ast.IsNot)):
            is_none = isinstance(right, ast.Constant) and right.value is None
            if names[0] is None or not is_none:
                raise self._error("may use is only as in: column is None")
            self._use(names[0], "any")
            return
        values = [self._constant(side) for side in (left, right)]
        if isinstance(op, (ast.In, ast.NotIn)):
            values[1] = self._items(right)
        if names == [None, None] or any(
            name is None and value is None for name, value in zip(names, values)
        ):
            raise self._error("may compare columns with numbers, text and columns only")
        items = values[1] if isinstance(values[1], list) else values
        is_text = any(isinstance(value, str) for value in items)
        for name in (name for name in names if name is not None):
            self._use(name, "text" if is_text else "number")

    def _items(self, node):
        if not isinstance(node, (ast.Tuple, ast.List)) or not node.elts:
            raise self._error("needs values in brackets after in: column in (1, 2)")
        items = [self._constant(item) for item in node.elts]
        if any(item is None for item in items):
            raise self._error("may have only numbers and text after in")
        if len({isinstance(item, str) for item in items}) > 1:
            raise self._error("mixes numbers and text after in")
        return items

    def mask(self, columns):
        """Return for which rows the condition is true.

        Parameters
        ----------
        columns : dict of str to (ndarray or TextLabels)
            As in ``Rows.filters``: each of ``self.columns``.

        Returns
        -------
        ndarray of bool, shape (k,)
        """
        return self._truth(self._tree, columns).true

    def _truth(self, node, columns):
        if isinstance(node, ast.BoolOp):
            parts = [self._truth(value, columns) for value in node.values]
            is_and = isinstance(node.op, ast.And)
            return _all(parts) if is_and else _not(_all([_not(p) for p in parts]))
        if isinstance(node, ast.UnaryOp):
            return _not(self._truth(node.operand, columns))
        if isinstance(node, ast.Name):
            values = _numbers(columns[self._column(node)])
            return _compared(operator.ne, values, 0.0)
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:])
        return _all([self._pair(*pair, columns) for pair in pairs])

    def _pair(self, left, op, right, columns):
        name = self._column(left)
        if isinstance(op, (ast.Is, ast.IsNot)):
            absent = _absent(columns[name])
            found = Truth(absent, ~absent)
            return found if isinstance(op, ast.Is) else _not(found)
        if isinstance(op, (ast.In, ast.NotIn)):
            values = columns[name] if name is not None else self._constant(left)
            items = self._items(right)
            parts = [_not(_compared(operator.eq, values, item)) for item in items]
            return _all(parts) if isinstance(op, ast.NotIn) else _not(_all(parts))
        sides = []
        for side in (left, right):
            column = self._column(side)
            found = columns[column] if column is not None else self._constant(side)
            sides.append(found)
        return _compared(COMPARISONS[type(op)], *sides)


def _not(truth):
    return Truth(truth.false, truth.true)


def _all(parts):
    """Return the truth of a conjunction."""
    true, false = (list(side) for side in zip(*parts))
    return Truth(np.logical_and.reduce(true), np.logical_or.reduce(false))


def _absent(values):
    if isinstance(values, TextLabels):
        return (values.values == "")[values.codes]
    return np.isnan(values)


def _numbers(values):
    """Return a column as numbers; text that is no number is a missing value."""
    if not isinstance(values, TextLabels):
        return values

    def number(text):
        try:
            return as_number(text)
        except ValueError:
            return np.nan

    return np.array([number(text) for text in values.values.tolist()])[values.codes]


def _compared(compare, left, right):
    """Return the Truth of a comparison of columns, or of a column and a constant."""
    if any(isinstance(side, str) for side in (left, right)):
        return _texts_compared(compare, left, right)
    if all(isinstance(side, TextLabels) for side in (left, right)):
        left_texts, right_texts = left.values[left.codes], right.values[right.codes]
        known = (left_texts != "") & (right_texts != "")
        found = compare(left_texts, right_texts)
        return Truth(found & known, ~found & known)
    left, right = (
        side if isinstance(side, float) else _numbers(side) for side in (left, right)
    )
    known = ~(np.isnan(left) | np.isnan(right))
    found = compare(left, right)
    return Truth(found & known, ~found & known)


def _texts_compared(compare, left, right):
    """Return the Truth of a comparison of a column of text and a constant."""
    column = left if isinstance(right, str) else right
    texts = column.values
    if isinstance(right, str):
        found = compare(texts, np.str_(category_of(right)))
    else:
        found = compare(np.str_(category_of(left)), texts)
    known = texts != ""
    return Truth((found & known)[column.codes], (~found & known)[column.codes])
