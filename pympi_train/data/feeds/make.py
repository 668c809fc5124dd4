"""Choice of the feed for a backend."""

from pympi_train.data.feeds.feed import Feed
from pympi_train.errors import ConfigError

NOT_ON_GPU = (
    "sparse rows are computed on CPUs: backend cuda takes dense rows; set backend "
    "numba or numpy, or [data] sparse = false"
)


def make_feed(source, most, ops, y_dtype=None, dtype=None):
    """Return a `Feed`, or the backend's own kind of feed for batches in its memory.

    ``dtype`` is the dtype that the model computes in, if it differs from the source's.
    """
    if not ops.ON_DEVICE:
        return Feed(source, most, y_dtype)
    if source.is_sparse:
        raise ConfigError(NOT_ON_GPU)
    from pympi_train.data.feeds.device_feed import DeviceFeed

    return DeviceFeed(source, most, ops, y_dtype, dtype)
