"""Tools for data files, as ``pympi-train data``: look, clean, convert, split, make."""
