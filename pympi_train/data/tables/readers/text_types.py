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
    r"^[ \t]*[+-]?((0|[1-9][0-9]*|[0-9]+[.][0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
    r"|(?i:inf|infinity))[ \t]*$"
)
TOO_LONG = r"^[ \t]*[+-]?[0-9]{19,}[ \t]*$"
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

        def all_match(pattern):
            found = pc.match_substring_regex(values, pattern)
            return float(pc.all(found).as_py())

        def casts(kind):
            try:
                values.cast(kind)
            except pyarrow.ArrowInvalid:
                return 0.0
            return 1.0

        if can[0]:
            can[0] = all_match(BOOLEAN)
        if can[2]:
            is_integer = all_match(INTEGER)
            can[1] = min(can[1], is_integer)
            if not is_integer:
                is_long = pc.any(pc.match_substring_regex(values, TOO_LONG)).as_py()
                can[2] = 0.0 if is_long else all_match(NUMBER)
        can[1] = min(can[1], can[2])
        if can[3]:
            can[3] = casts(pyarrow.timestamp("us"))
        if can[4]:
            can[4] = casts(pyarrow.timestamp("us", "UTC"))

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
