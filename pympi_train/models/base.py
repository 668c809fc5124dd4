"""The interface between a model and the training loop."""

import abc

import numpy as np


class Model(abc.ABC):
    """Base class of models; subclass it for a model of your own.

    A model holds workspaces, but neither parameters nor gradients: each call receives
    views of flat blocks. It makes no MPI call and does not depend on ranks. Its loss
    and gradient are *sums* over the rows of a batch, which may have none.

    Attributes
    ----------
    layout : Layout
        The tensors in model order, first layer first.
    task : {"classification", "regression", "language", None}
        Selects the metrics besides the loss: accuracy; RMSE and R2; perplexity and
        accuracy of tokens, for which the model has ``predict_each``; or none.
    n_outputs : int
        Columns of the array that ``predict`` returns.
    y_dtype : dtype or None
        The targets of a data set are converted to it before training; with None they
        are not converted.
    on_device : bool
        Whether the model also works on a GPU: ``loss``, ``gradient`` and ``predict``
        then take CuPy arrays. ``loss`` may return anything that ``float()`` accepts,
        and should not wait for the GPU.
    takes_sparse : bool
        Whether the features of a batch may also be sparse rows, a `backends.csr.CSR`.
    layer_spans : tuple of slice
        The tensors of each layer, as slices of the layout, first layer first. Empty if
        the model may use all tensors at any time. A model that sets it keeps three
        rules:

        * It takes ``params[span]`` and ``grads[span]`` layer by layer, forward in
          ``loss`` and ``predict``, backward in ``gradient``.
        * It uses no views of a layer after it has taken those of the next one.
        * It takes all layers in each call, also for a batch without rows, as the ranks
          exchange there.

        Then the exchange of a layer's gradients overlaps with the backward of the
        layers before it, and sharded parameters are gathered layer by layer.

    Notes
    -----
    ``models.check.check_model`` checks a model of your own against this description,
    and its gradient against central differences.
    """

    layout = None
    task = None
    n_outputs = 1
    y_dtype = None
    layer_spans: tuple = ()
    on_device = False
    takes_sparse = False

    def use(self, ops, dtype=None):
        """Set the backend whose functions the model calls; ``Trainer`` calls it.

        A model that calls no functions of a backend need not override it.

        Parameters
        ----------
        ops : module
            The backend. Its arrays are CuPy arrays if ``ops.ON_DEVICE``.
        dtype : dtype, optional
            The dtype of features, parameters and gradients from now on, if it differs
            from that of the layout. Only models with ``on_device`` receive it.
        """

    def init(self, params, seed):
        """Write the initial parameters into ``params``: zeros unless overridden.

        Parameters
        ----------
        params : sequence of ndarray
            Views of the flat block in the order of ``layout.tensors``. A model with
            ``layer_spans`` works layer by layer, or tensor by tensor, here too: a rank
            may hold only one layer at a time.
        seed : int
            Equal on all ranks; every rank must compute the same numbers.
        """
        for view in params:
            view[...] = 0

    @abc.abstractmethod
    def loss(self, params, batch):
        """Return the weighted loss sum over ``batch`` as a float, without L2.

        It stores the values that ``gradient`` needs. A batch without rows gives 0.0.
        """

    @abc.abstractmethod
    def gradient(self, params, grads):
        """Overwrite ``grads``, views as ``params``, with the gradient of the last loss.

        It is the gradient of the *sum* that ``loss`` returned; zeros without rows.
        """

    @abc.abstractmethod
    def predict(self, params, x):
        """Return the outputs for ``x``, shape (k, d), as an array (k, n_outputs).

        Linear outputs or logits, before any loss. The array may be a workspace, valid
        until the next call of the model.
        """

    def decide(self, outputs):
        """Return class indices, shape (k,), intp, given the result of ``predict``.

        The class is that of the largest output; for a single output, class 1 if it is
        positive.
        """
        if outputs.shape[1] == 1:
            return (outputs[:, 0] > 0).astype(np.intp)
        return outputs.argmax(axis=1)

    def check(self, batch):
        """Raise ValueError if the model cannot take some element of ``batch``.

        It reads every element, so call it once for a data set, not in each step.
        """
