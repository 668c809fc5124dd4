"""Which kind of batches a backend computes on."""

from pympi_train.data.feeds.feed import Feed


def make_feed(source, most, ops, y_dtype=None, dtype=None):
    """Return a `Feed`, or one that hands out rows where the backend's arrays lie.

    ``dtype`` is what the model computes in, if it is not that of the source.
    """
    if not ops.ON_DEVICE:
        return Feed(source, most, y_dtype)
    from pympi_train.data.feeds.device_feed import DeviceFeed

    return DeviceFeed(source, most, ops, y_dtype, dtype)
