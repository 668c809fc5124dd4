"""Choice of the feed for a backend."""

from pympi_train.data.feeds.feed import Feed
from pympi_train.errors import ConfigError

NOT_IN_HALVES = (
    "sparse rows are computed in full precision: leave out precision float16 or "
    "bfloat16, or set [data] sparse = false"
)


def make_feed(source, most, ops, y_dtype=None, dtype=None, forward_only=False):
    """Return a `Feed`, or the backend's own kind of feed for batches in its memory.

    ``dtype`` is the dtype that the model computes in, if it differs from the source's.
    ``forward_only`` says that nobody will compute gradients with the batches.
    """
    if not ops.ON_DEVICE:
        return Feed(source, most, y_dtype)
    if source.is_sparse and dtype is not None and dtype.itemsize == 2:
        raise ConfigError(NOT_IN_HALVES)
    from pympi_train.data.feeds.device_feed import DeviceFeed

    return DeviceFeed(
        source, most, ops, y_dtype, dtype, forward_only=forward_only
    )
