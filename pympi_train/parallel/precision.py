"""The precision of a training, and whether it can run on a GPU."""

import inspect

import numpy as np

from pympi_train.backends import gpu
from pympi_train.backends.select import AS_CONFIGURED
from pympi_train.comm.checks import together
from pympi_train.comm.devices import choose_backend
from pympi_train.errors import ConfigError
from pympi_train.optim.loss_scale import LossScale
from pympi_train.parallel.settings import require_sense, why_unfit_for_gpu

PRECISIONS = ("full", "float16", "bfloat16")


def choose_computing(comm, parallel, model, optimizer, backend, precision, batch_size):
    """Return the Backend and Precision of all ranks, and set them in the model.

    Parameters
    ----------
    comm : MPI.Comm
    parallel : Parallel
    model : Model
    optimizer : Optimizer
    backend, precision : str
        As requested.
    batch_size : int
        Rows of a global batch.

    Raises
    ------
    ConfigError
        On every rank, if the settings contradict each other, or a rank does not
        support them.

    Notes
    -----
    Collective.
    """
    with together(comm):
        name = type(optimizer).__name__.lower()
        require_sense(parallel, name)
        unfit = why_not_on_gpu(parallel, model, name, precision)
    chosen = choose_backend(comm, backend, unfit)
    with together(comm):
        if parallel.transport != "auto":
            require_gpu(f"transport {parallel.transport}", chosen)
        found = Precision(precision, chosen, batch_size)
        found.tell(model, chosen.ops)
    return chosen, found


class Precision:
    """The dtype of features, activations and gradients, and the scale of the loss.

    Parameters
    ----------
    name : {"full", "float16", "bfloat16"}
        full: the model's dtype.
    backend : Backend
    batch_size : int
        Rows of a global batch.

    Attributes
    ----------
    dtype : dtype or None
        None for the dtype of the model.
    scale : LossScale or None
        Only for float16, whose smallest positive number is 6e-8.

    Raises
    ------
    ConfigError
        If the name is unknown or the backend does not support it.
    """

    def __init__(self, name, backend, batch_size):
        self.name, self.dtype, self.scale = name, None, None
        if name not in PRECISIONS:
            choices = ", ".join(PRECISIONS)
            raise ConfigError(f"precision must be one of {choices}; got {name!r}")
        if name == "full":
            return
        require_gpu(f"precision {name}", backend)
        if name == "float16":
            self.dtype, self.scale = np.dtype(np.float16), LossScale(batch_size)
        else:
            from pympi_train.backends.cuda.device import BFLOAT16

            self.dtype = BFLOAT16

    def tell(self, model, ops):
        """Let the model compute with ``ops`` in this precision."""
        if self.dtype is None:
            model.use(ops)
        else:
            model.use(ops, self.dtype)

    def expect(self, batch_size):
        """Set the number of rows of the following global batches."""
        if self.scale is not None:
            self.scale.expect(batch_size)

    def told(self):
        """Return the loss-scale fields of an epoch's record; empty without a scale."""
        if self.scale is None:
            return {}
        return {"loss_scale": self.scale.value, "skipped_steps": self.scale.skipped}


def require_gpu(what, backend):
    """Raise ConfigError unless ``backend`` is a GPU's, as ``what`` requires."""
    if backend.ops.ON_DEVICE:
        return
    why = backend.reason
    if why != AS_CONFIGURED and not gpu.is_installed():
        why += f"; {gpu.NOT_INSTALLED}"
    raise ConfigError(
        f"{what} is for backend cuda, and this one is {backend.name} ({why})"
    )


def why_not_on_gpu(parallel, model, optimizer, precision):
    """Return why this training cannot run on a GPU, or None.

    Parameters
    ----------
    parallel : Parallel
    model : Model
    optimizer : str
        Its name in a configuration.
    precision : str
    """
    if not getattr(model, "on_device", False):
        return (
            f"{type(model).__name__} computes with NumPy: a model that takes CuPy's "
            "arrays says so by on_device = True"
        )
    if precision != "full":
        if model.layout.dtype != np.float32:
            return f"precision {precision} is for a model of float32"
        if "dtype" not in inspect.signature(model.use).parameters:
            return (
                f"precision {precision} is for a model whose use(ops, dtype=None) "
                f"takes a dtype, and that of {type(model).__name__} does not"
            )
    return why_unfit_for_gpu(parallel, optimizer, precision)
