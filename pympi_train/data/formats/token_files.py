"""Token files: which they are, and where their tokens lie."""

import os

import numpy as np

from pympi_train.data.formats.arrays.npy import stored_npy
from pympi_train.data.formats.arrays.stored import FileArray
from pympi_train.data.formats.files import Files, expand_name, file_size, suffix_of
from pympi_train.data.formats.rows import as_names
from pympi_train.errors import ConfigError, DataError
from pympi_train.paths import is_remote

TOKEN_SUFFIXES = (".bin", ".npy")
TOKEN_DTYPES = ("uint8", "uint16", "uint32", "uint64")


def require_token_settings(window, token_dtype):
    """Raise ConfigError for an invalid number of tokens of a row, or their dtype."""
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise ConfigError(f"window must be an integer of 1 or more, got {window!r}")
    require_token_dtype(token_dtype)


def require_token_dtype(token_dtype):
    """Raise ConfigError unless ``token_dtype`` is the name of a type of tokens."""
    if token_dtype not in TOKEN_DTYPES:
        raise ConfigError(
            f"token_dtype must be one of {', '.join(TOKEN_DTYPES)}, got {token_dtype!r}"
        )


def token_paths(files):
    """Return the paths of token files, given Files or names."""
    if isinstance(files, Files):
        paths = list(files.paths)
    else:
        names = map(os.fspath, as_names(files))
        paths = [path for name in names for path in expand_name(name)]
    odd = next((path for path in paths if suffix_of(path) not in TOKEN_SUFFIXES), None)
    if odd is not None or not paths:
        known = " or ".join(TOKEN_SUFFIXES)
        raise DataError(f"expected token files, {known}, got {odd}")
    if is_remote(paths[0]):
        raise DataError(f"{paths[0]}: token files are not read from a URL; copy them")
    return paths


def stored_tokens(path, dtype):
    """Return the FileArray of a token file."""
    if suffix_of(path) == ".bin":
        size_bytes = file_size(path)
        if size_bytes % dtype.itemsize:
            raise DataError(
                f"{path}: {size_bytes} bytes are no whole number of {dtype} tokens; is "
                "token_dtype right?"
            )
        return FileArray(path, path, (size_bytes // dtype.itemsize,), dtype, False, 0)
    array = stored_npy(path)
    if len(array.shape) != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected tokens, an array of integers of shape (n,), found shape "
            f"{array.shape} of {array.dtype}"
        )
    return array


def require_right_tokens(is_wrong, place, first, tokens, wanted):
    """Raise DataError at the first wrong token of some.

    Parameters
    ----------
    is_wrong : ndarray of bool, shape (k,)
    place : str
        The file.
    first : int
        Place of the first of them in the file.
    tokens : ndarray, shape (k,)
    wanted : str
        What was expected, for the message.
    """
    if is_wrong.any():
        at = int(np.argmax(is_wrong))
        raise DataError(
            f"{place}: token {first + at} (from 0) is {tokens[at]}; expected {wanted}"
        )
