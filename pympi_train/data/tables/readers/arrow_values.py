"""Columns of pyarrow as arrays, and back."""

import numpy as np

from pympi_train.data.formats.columns.arrow import column_kind
from pympi_train.data.tables.source import LEAVE_OUT, Field, missing_mask
from pympi_train.errors import DataError


def arrow_field(place, name, arrow_type, nullable):
    """Return the Field of a column of pyarrow; raise DataError for other types."""
    import pyarrow.types as is_

    kind = column_kind(arrow_type)
    if kind is None:
        raise DataError(
            f"{place}: column {name!r} is of type {arrow_type}, which is not read; "
            f"expected numbers, booleans, texts or dates: {LEAVE_OUT}, or write it in "
            "another type"
        )
    if is_.is_null(arrow_type):
        return Field(name, "float64")
    if kind == "text":
        return Field(name, "text")
    if is_.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    dtype = str(np.dtype(arrow_type.to_pandas_dtype()))
    if kind == "time":
        unit = "D" if is_.is_date32(arrow_type) else "ms"
        unit = arrow_type.unit if is_.is_timestamp(arrow_type) else unit
        dtype = f"datetime64[{unit}]"
    is_float = dtype.startswith("float")
    return Field(name, dtype, nullable=nullable and kind == "number" and not is_float)


def array_of_arrow(column, field):
    """Return the values of a pyarrow column, (k,), in the form of a Field."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if field.is_text:
        return _texts(column, field)
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


def _texts(column, field):
    import pyarrow

    is_ = pyarrow.types
    try:
        if is_.is_binary(column.type) or is_.is_large_binary(column.type):
            column = column.cast("large_string")  # raises unless it is UTF-8
        values = column.to_numpy(zero_copy_only=False) if len(column) else []
    except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(
            f"column {field.name!r}: text that is not UTF-8: {error}"
        ) from None
    return np.asarray(values, dtype=object)


def arrow_of_array(values, field):
    """Return a pyarrow array of values, (k,), in the form of a Field."""
    import pyarrow

    if field.is_text:
        return pyarrow.array(values, type=pyarrow.large_string())
    mask = missing_mask(values) if field.nullable else None
    values = np.ascontiguousarray(np.ma.getdata(values))
    return pyarrow.array(values, mask=mask)
