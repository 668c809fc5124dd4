"""The weights from which a training starts: ``[train] init``."""

from pympi_train.errors import DataError
from pympi_train.runs.earlier.weights import open_earlier
from pympi_train.runs.speech import counted

SHOWN = 12  # tensors that do not fit


def start_from_init(config, trainer, comm):
    """Start a Trainer from the weights that ``[train] init`` names, if it names any.

    Parameters
    ----------
    config : Config
    trainer : Trainer
    comm : MPI.Comm
        All ranks of the job, servers too.

    Returns
    -------
    list of str
        Lines that say what was taken and what was not.

    Raises
    ------
    DataError
        On every rank, if there are no weights, or none of them fits the model.

    Notes
    -----
    Collective.
    """
    path = config.train.init
    if path is None:
        return []
    earlier = open_earlier(path, comm)
    try:
        misfits = trainer.start_from(earlier.tensors)
    except DataError as error:
        error.args = (f"[train] init {path}: {error}",)  # stays that of every rank
        raise
    return describe_start(path, trainer.model.layout, misfits)


def describe_start(path, layout, misfits):
    """Return lines on a start from the weights in ``path``.

    ``misfits`` is the result of `Trainer.start_from`.
    """
    n = len(layout.tensors)
    n_taken = sum(tensor.name not in misfits for tensor in layout.tensors)
    lines = [f"init     {path}: {n_taken} of {counted(n, 'tensor')}"]
    if misfits:
        told = [f"{name} {why}" for name, why in list(misfits.items())[:SHOWN]]
        more = len(misfits) - SHOWN
        told += [f"and {more} more"] if more > 0 else []
        kept = "; the others keep their initial values" if n_taken < n else ""
        lines.append(f"warning  [train] init: {'; '.join(told)}{kept}")
    return lines
