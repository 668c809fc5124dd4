"""A picture of the learning curves. The only module that imports matplotlib."""

import json
from pathlib import Path

from pympi_train.errors import MALFORMED, ConfigError, DataError
from pympi_train.runs.output import CURVES, METRICS, replacing


def read_metrics(directory):
    """Return the records of a training by epoch, from its run directory.

    Raises
    ------
    DataError
        If there are no records, or the file has other content.
    """
    path = Path(directory) / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        known = all({"epoch", "train_loss"} <= record.keys() for record in records)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except MALFORMED:
        known = False
    if not known:
        raise DataError(f"{path}: expected one JSON object a line, one line an epoch")
    if not records:
        raise DataError(f"{path}: no epoch has ended yet")
    return records


def draw_curves(records, directory, path=None):
    """Write a PNG of loss and, if measured, quality by epoch; return its path.

    Parameters
    ----------
    records : list of dict
        One per epoch, as ``Trainer.fit`` returns them. None stands for a value that is
        not finite.
    directory : path
        The run directory.
    path : path, optional
        The file to write; in the run directory by default.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    DataError
        If the picture cannot be written, or its name does not end in .png.
    """
    Figure = require_figure(CURVES)
    path = Path(directory) / CURVES if path is None else Path(path)
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: expected a name that ends in .png for the picture")
    with replacing(path) as temporary:
        _draw(Figure, records, temporary)
    return path


def require_figure(picture):
    """Return matplotlib's class Figure; ``picture`` is the file, for messages.

    Raises
    ------
    ConfigError
        If matplotlib is not installed, or cannot be imported.
    """
    try:
        from matplotlib.figure import Figure  # pyplot takes longer to import
    except ImportError:
        raise ConfigError(
            f"{picture} needs matplotlib: pip install 'pympi-train[plot]'"
        ) from None
    except Exception as error:  # for example MPLBACKEND, or another NumPy
        raise ConfigError(
            f"{picture}: matplotlib cannot be imported here: "
            f"{type(error).__name__}: {error}"
        ) from error
    return Figure


def _draw(Figure, records, path):
    epochs = [record["epoch"] for record in records]
    quality = [name for name in ("accuracy", "r2") if name in records[0]]
    figure = Figure(figsize=(5 * (1 + len(quality)), 3.5), layout="tight")
    axes = figure.subplots(1, 1 + len(quality), squeeze=False)
    losses = axes[0][0]
    for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
        if name in records[0]:
            losses.plot(epochs, _numbers(records, name), label=label)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    for name, axis in zip(quality, axes[0][1:]):
        axis.plot(epochs, _numbers(records, name), color="C1")
        axis.set(xlabel="epoch", ylabel={"r2": "R2"}.get(name, name) + " (validation)")
    figure.savefig(path, dpi=120, format="png")


def _numbers(records, name):
    values = [record[name] for record in records]
    return [float("nan") if value is None else value for value in values]
