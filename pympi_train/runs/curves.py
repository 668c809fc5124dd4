"""A picture of the learning curves. The only place that imports matplotlib."""

import matplotlib

matplotlib.use("Agg")  # no display on a compute node

from matplotlib import pyplot  # noqa: E402


def draw(records, path):
    """Write a PNG of loss, and of quality where measured, by epoch.

    Parameters
    ----------
    records : list of dict
        One an epoch, as ``Trainer.fit`` returns them.
    path : path
        The file to write.
    """
    epochs = [record["epoch"] for record in records]
    quality = [name for name in ("accuracy", "r2") if name in records[0]]
    figure, axes = pyplot.subplots(
        1, 1 + len(quality), figsize=(5 * (1 + len(quality)), 3.5), squeeze=False
    )
    losses = axes[0][0]
    for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
        if name in records[0]:
            losses.plot(epochs, [r[name] for r in records], label=label)
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend()
    for name, axis in zip(quality, axes[0][1:]):
        axis.plot(epochs, [r[name] for r in records], color="C1")
        axis.set(xlabel="epoch", ylabel={"r2": "R2"}.get(name, name) + " (validation)")
    figure.tight_layout()
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)
