"""Types of the columns of text files: what every value of a column can be.

A column is the first of these that all its values are, on all ranks:

==================  ==========================================================
bool                ``true`` or ``False``
int64               up to 18 digits, without a leading zero
float64             numbers; no whole number of more than 18 digits among them
datetime64[us]      ISO 8601 with ``-``, all with a zone (converted to UTC) or none
text                whatever else
==================  ==========================================================

A missing value is an empty cell, or one of the words of `text_column.MISSING`, not in
quotes. Between quotes, the empty text is missing in columns of other types alone.
"""

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.data.tables.source import Field

# Codes such as 007 and -0 would lose something as integers.
INTEGER = r"^[ \t]*(0|-?[1-9][0-9]{0,17})[ \t]*$"
NUMBER = (
    r"^[ \t]*[+-]?((0|[1-9][0-9]{0,17})|([0-9]+[.][0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
    r"|[0-9]+[eE][+-]?[0-9]+|(?i:inf|infinity))[ \t]*$"
)
MANY_DIGITS = 10**18  # the least number of more than 18 digits
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
BOOLEAN = f"^({'|'.join(TRUE + FALSE)})$"
KINDS = ("bool", "int64", "float64", "datetime64[us]", "zoned")  # in order of choice


class TypeFinder:
    """What the values of columns can be, of the batches that it has seen.

    Parameters
    ----------
    n_columns : int
    """

    def __init__(self, n_columns):
        self._can = np.ones((n_columns, len(KINDS)))
        self._has = np.zeros((n_columns, 3))  # a value, a missing one, "" in quotes

    def add(self, columns):
        """Look at a batch: a pyarrow ChunkedArray of strings for each column."""
        import pyarrow.compute as pc

        for i, column in enumerate(columns):
            n_missing = column.null_count
            values = column.drop_null() if n_missing else column
            if len(values) and pc.any(pc.equal(values, "")).as_py():
                self._has[i, 2] = 1
                values = values.filter(pc.not_equal(values, ""))
            self._has[i, 1] = max(self._has[i, 1], float(n_missing > 0))
            if len(values):
                self._has[i, 0] = 1
                self._narrow(self._can[i], values, pc)

    def _narrow(self, can, values, pc):
        import pyarrow

        if can[0]:
            can[0] = _all_match(values, BOOLEAN)
        if can[1]:
            can[1] = _are_integers(values)
        if can[2] and not can[1]:
            can[2] = _are_numbers(values)
        if can[3]:
            can[3] = _cast(values, pyarrow.timestamp("us")) is not None
        if can[4]:
            can[4] = _cast(values, pyarrow.timestamp("us", "UTC")) is not None

    def agree(self, names, comm):
        """Return the Fields, and for each how to parse it. Collective.

        Returns
        -------
        fields : list of Field
        kinds : list of str
            Of KINDS, or "text".
        quoted : list of bool
            Whether missing values of the column may be empty texts in quotes.
        """
        can = reduced(comm, self._can, op="MIN")
        has = reduced(comm, self._has, op="MAX")
        fields, kinds, quoted = [], [], []
        for name, of_column, (value, gap, empty) in zip(names, can, has.tolist()):
            kind = KINDS[int(np.argmax(of_column))] if of_column.any() else "text"
            if not value:
                kind = "text" if empty else "float64"
            type_ = "datetime64[us]" if kind == "zoned" else kind
            lacks = bool(gap or empty) and kind in ("bool", "int64")
            fields.append(Field(name, type_, nullable=lacks))
            kinds.append(kind)
            quoted.append(bool(empty) and kind != "text")
        return fields, kinds, quoted


def _all_match(values, pattern):
    import pyarrow.compute as pc

    return pc.all(pc.match_substring_regex(values, pattern)).as_py()


def _cast(values, kind):
    """Return texts as another type of pyarrow, or None if one is of no such form."""
    import pyarrow

    try:
        return values.cast(kind)
    except pyarrow.ArrowInvalid:
        return None


# Casts are several times faster than regular expressions, but take more: 007, 0x10
# and numbers of any length.
def _are_integers(values):
    """Return whether all texts match INTEGER."""
    import pyarrow
    import pyarrow.compute as pc

    integers = _cast(values, pyarrow.int64())
    if integers is None:
        return _all_match(values, INTEGER)  # blanks around them, or too long
    zeros = pc.sum(pc.starts_with(values, "0")).as_py()
    if zeros and zeros != pc.sum(pc.equal(values, "0")).as_py():
        return False
    ends = pc.min_max(integers)
    is_short = -MANY_DIGITS < ends["min"].as_py() <= ends["max"].as_py() < MANY_DIGITS
    return is_short and not pc.any(pc.starts_with(values, "-0")).as_py()


def _are_numbers(values):
    """Return whether all texts match NUMBER."""
    import pyarrow
    import pyarrow.compute as pc

    numbers = _cast(values, pyarrow.float64())
    if numbers is None:
        return _all_match(values, NUMBER)
    unsigned = pc.starts_with(values, "0")
    signed = pc.or_(pc.starts_with(values, "-0"), pc.starts_with(values, "+"))
    is_long = pc.greater_equal(pc.abs(numbers), float(MANY_DIGITS))
    odd = values.filter(pc.or_(pc.or_(unsigned, signed), is_long))
    return not len(odd) or _all_match(odd, NUMBER)
