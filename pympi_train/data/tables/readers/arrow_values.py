"""Columns of pyarrow as arrays, and back."""

import numpy as np

from pympi_train.data.tables.source import Field, missing_mask
from pympi_train.errors import DataError


def arrow_field(place, name, arrow_type, nullable):
    """Return the Field of a column of pyarrow; raise DataError for other types."""
    import pyarrow.types as is_

    kind = arrow_type
    if is_.is_dictionary(kind):
        kind = kind.value_type
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return Field(name, "text")
    if is_.is_boolean(kind):
        return Field(name, "bool", nullable=nullable)
    if is_.is_integer(kind):
        return Field(name, str(kind), nullable=nullable)
    if is_.is_floating(kind):
        bits = {"halffloat": "float16", "float": "float32", "double": "float64"}
        return Field(name, bits[str(kind)])
    if is_.is_date(kind):
        unit = "D" if str(kind) == "date32[day]" else "ms"
        return Field(name, f"datetime64[{unit}]")
    if is_.is_timestamp(kind):
        return Field(name, f"datetime64[{kind.unit}]")
    if is_.is_null(kind):
        return Field(name, "float64")
    raise DataError(
        f"{place}: column {name!r} is of type {arrow_type}, which is not read; "
        "expected numbers, booleans, texts or dates. Leave it out "
        "by naming the other columns (--columns), or write it in another type"
    )


def array_of_arrow(column, field):
    """Return the values of a pyarrow column, (k,), in the form of a Field."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if field.is_text:
        values = column.to_numpy(zero_copy_only=False) if len(column) else []
        return np.asarray(values, dtype=object)
    if pyarrow.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if not field.nullable:
        if field.dtype.kind in "biu" and column.null_count:
            raise DataError(f"column {field.name!r}: a value is missing")
        return column.to_numpy(zero_copy_only=False).astype(field.dtype, copy=False)
    mask = column.is_null().to_numpy(zero_copy_only=False).astype(bool)
    filled = column.fill_null(pyarrow.scalar(0).cast(column.type))
    values = filled.to_numpy(zero_copy_only=False).astype(field.dtype, copy=False)
    return np.ma.MaskedArray(values, mask)


def arrow_of_array(values, field):
    """Return a pyarrow array of values, (k,), in the form of a Field."""
    import pyarrow

    if field.is_text:
        return pyarrow.array(values, type=pyarrow.large_string())
    mask = missing_mask(values) if field.nullable else None
    values = np.ascontiguousarray(np.ma.getdata(values))
    return pyarrow.array(values, mask=mask)
