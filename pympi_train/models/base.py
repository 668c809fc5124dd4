"""What a model is to the training loop."""

import abc

import numpy as np


class Model(abc.ABC):
    """What the training loop asks of a model; subclass it for a model of your own.

    A model holds workspaces, but neither parameters nor gradients: it is handed views
    of flat blocks for each call. It makes no MPI call and knows no rank: its loss and
    gradient are *sums* over the rows it is given, which may be none.

    Attributes
    ----------
    layout : Layout
        The tensors in model order, first layer first.
    task : {"classification", "regression", None}
        What is reported besides the loss: accuracy, RMSE and R2, or nothing.
    n_outputs : int
        Columns of what ``predict`` returns.
    y_dtype : dtype or None
        What the targets of a data set are converted to before training; None: they
        stay as they are.
    on_device : bool
        Whether the model also works on a GPU: ``loss``, ``gradient`` and ``predict``
        take CuPy arrays then. ``loss`` may return anything that ``float()`` takes, and
        should not wait for it.
    layer_spans : tuple of slice
        Which tensors of the layout belong to which layer, first layer first. A model
        that sets it takes ``params[span]`` and ``grads[span]`` one layer after the
        other, forward in ``loss`` and ``predict``, backward in ``gradient``, and uses
        no layer's views once it has taken the next one's: so the exchange of a layer's
        gradients overlaps with the layers before it, and parameters that are spread
        over ranks are gathered layer by layer. It takes all layers in each call, also
        for a batch without rows: the ranks meet there. Empty: all are used at any time.

    Notes
    -----
    ``models.check.check_model`` holds a model of your own against this description,
    its gradient against central differences.
    """

    layout = None
    task = None
    n_outputs = 1
    y_dtype = None
    layer_spans: tuple = ()
    on_device = False

    def use(self, ops, dtype=None):
        """Compute with the functions of this backend from now on; ``Trainer`` calls it.

        A model that calls none, as most of your own, has nothing to do here.

        Parameters
        ----------
        ops : module
            Its arrays are CuPy's where ``ops.ON_DEVICE``.
        dtype : dtype, optional
            Of features, parameters and gradients from now on, where it is not that of
            the layout: given to models that are ``on_device`` alone.
        """

    def init(self, params, seed):
        """Write the starting point, zero unless overridden, into ``params``.

        Parameters
        ----------
        params : sequence of ndarray
            Views of the flat block in the order of ``layout.tensors``. A model with
            ``layer_spans`` goes layer by layer, or tensor by tensor, here too: a rank
            may hold one layer at a time.
        seed : int
            Every rank calls with the same one and has to arrive at the same numbers.
        """
        for view in params:
            view[...] = 0

    @abc.abstractmethod
    def loss(self, params, batch):
        """Return the weighted loss sum over ``batch`` as a float, without L2.

        Keeps what ``gradient`` needs. 0.0 for a batch without rows.
        """

    @abc.abstractmethod
    def gradient(self, params, grads):
        """Overwrite ``grads``, views as ``params``, by the gradient of the last loss.

        The gradient of the *sum* that ``loss`` returned; zeros for no rows.
        """

    @abc.abstractmethod
    def predict(self, params, x):
        """Return the outputs for ``x``, shape (k, d), as an array (k, n_outputs).

        Linear outputs or logits, before any loss. The array may be a workspace, valid
        until the next call of the model.
        """

    def decide(self, outputs):
        """Return class indices, shape (k,), intp, for what ``predict`` returned.

        The largest of several outputs; a single one says class 1 where it is positive.
        """
        if outputs.shape[1] == 1:
            return (outputs[:, 0] > 0).astype(np.intp)
        return outputs.argmax(axis=1)

    def check(self, batch):
        """Raise ValueError if an element of ``batch`` is one the model cannot take.

        Reads every element: meant for a whole data set, once, not for each step.
        """
