"""Files behind a URL (http://, s3://), read by byte ranges through fsspec."""

import contextlib
import posixpath

from pympi_train.data.formats.libraries import EXTRA
from pympi_train.errors import DataError

TIMEOUT_S = 30.0  # without a byte from the server
BLOCK_BYTES = 1 << 18  # read at once by readers of headers and of HDF5
# What fsspec imports for a protocol, if pip calls the package by this name too.
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
}


def storage_options(url):
    """Return options of fsspec by which no rank waits for ever."""
    protocol = url.partition("://")[0]
    if protocol in ("http", "https"):
        try:
            from aiohttp import ClientTimeout
        except ImportError:
            raise DataError(f"{url}: {protocol}:// needs aiohttp: {EXTRA}") from None
        # No limit on a whole answer, which may be long.
        limits = ClientTimeout(None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
        return {"client_kwargs": {"timeout": limits}}
    if protocol in ("s3", "s3a"):
        return {
            "config_kwargs": {"connect_timeout": TIMEOUT_S, "read_timeout": TIMEOUT_S}
        }
    return {}


@contextlib.contextmanager
def reaching(url):
    """Convert what fsspec's file systems raise, which is of any class, to DataError."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        # fsspec raises it for whatever happens to a request.
        cause = error.__cause__
        if cause is None or getattr(cause, "status", None) in (404, 410):
            raise DataError(f"{url}: no such file") from None
        raise _unreadable(url, cause) from None
    except ImportError as error:
        raise DataError(f"{url}: {_what_is_missing(url, error)}") from None
    except Exception as error:
        raise _unreadable(url, error) from None


def _what_is_missing(url, error):
    """Return which package a URL needs: fsspec itself, or that of its protocol."""
    if error.name == "fsspec":
        return f"remote files need fsspec: {EXTRA}"
    protocol = url.partition("://")[0]
    package = PACKAGES.get(protocol)
    if package is None:
        return error  # fsspec says what to install
    why = error.__cause__ or error
    return (
        f"{protocol}:// needs {package}, which cannot be imported ({why}): pip install "
        f"{package}"
    )


def _unreadable(url, error):
    said = f": {error}" if str(error) else ""
    return DataError(f"{url}: cannot be read: {type(error).__name__}{said}")


@contextlib.contextmanager
def open_remote(url, *, exact=False):
    """Open a remote file for reading, seekable; see `remote_file`."""
    with reaching(url), remote_file(url, exact=exact) as file:
        yield file


def remote_file(url, *, exact=True):
    """Return a remote file, open for reading, seekable.

    Parameters
    ----------
    url : str
    exact : bool
        Whether each read asks for its bytes alone, instead of blocks that are kept.

    Raises
    ------
    DataError
        If the file cannot be opened, or the server does not say its size.
    """
    with reaching(url):
        system, path = file_system(url)
        how = {"block_size": 1, "cache_type": "none"} if exact else {
            "block_size": BLOCK_BYTES,
            "cache_type": "blockcache",
        }
        file = system.open(path, "rb", **how)
        if getattr(file, "size", None) is not None:
            return file
        file.close()
        raise DataError(
            f"{url}: the server does not give the size of the file, so parts "
            "of it cannot be read; copy the file"
        )


def file_system(url):
    """Return fsspec's file system of a URL, and the path in it."""
    import fsspec

    return fsspec.core.url_to_fs(url, **storage_options(url))


def remote_size(url):
    """Return the size of a remote file in bytes."""
    with open_remote(url) as file:
        return file.size


def expand_remote(url, is_data):
    """Return the URLs that a URL stands for: a pattern with ``*``, or a folder.

    Parameters
    ----------
    url : str
        A folder ends with "/".
    is_data : callable
        Whether a name is that of a data file.

    Raises
    ------
    DataError
        If there is none, or the protocol cannot list.
    """
    if "*" not in url and not url.endswith("/"):
        return [url]
    with reaching(url):
        system, path = file_system(url)
        if "*" in url:
            found, why = system.glob(path), "no file has a name of this pattern"
        else:
            found, why = system.ls(path, detail=False), "a folder without data files"
            found = [name for name in found if is_data(posixpath.basename(name))]
        found = [system.unstrip_protocol(name) for name in found]
    if not found:
        raise DataError(
            f"{url}: {why}, or the server does not list its files; give their names"
        )
    return found
