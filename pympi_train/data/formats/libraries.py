"""Optional libraries, imported where they are needed."""

import importlib

from pympi_train.errors import DataError

EXTRA = "pip install 'pympi-train[data]'"


def load_library(name, what):
    """Return an optional library.

    Parameters
    ----------
    name : str
        Of the module: "pyarrow.parquet".
    what : str
        What needs it, for the message: "a.parquet: reading Parquet".

    Raises
    ------
    DataError
        If it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # also of one that is built for another NumPy
        raise DataError(
            f"{what} needs {name.partition('.')[0]}, which cannot be imported "
            f"({error}): {EXTRA}"
        ) from None
