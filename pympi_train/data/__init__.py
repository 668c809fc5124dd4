"""Data: files as rows, in parallel. ``pt.data.open`` is imported on first use."""

import importlib


def __getattr__(name):
    if name != "open":
        raise AttributeError(f"module 'pympi_train.data' has no attribute {name!r}")
    return importlib.import_module("pympi_train.data.tables.table").open
