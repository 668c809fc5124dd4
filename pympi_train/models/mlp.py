"""Multi-layer perceptrons of any depth."""

import math

from pympi_train.layers import checks
from pympi_train.layers.activations import ACTIVATIONS
from pympi_train.layers.dense import Dense
from pympi_train.layers.losses import SoftmaxCrossEntropy, SquaredError
from pympi_train.models.network import Network
from pympi_train.random import INIT, uniform

HEADS = {"classification": SoftmaxCrossEntropy, "regression": SquaredError}
INITS = ("glorot", "he")
INIT_CHUNK = 2**20  # numbers drawn at a time, in at most 16 MiB of scratch memory


class MLP(Network):
    r"""Multi-layer perceptron: hidden layers :math:`h \leftarrow a(h W + b)`.

    The last layer is linear. Its outputs are logits, with the softmax cross-entropy as
    loss (``task="classification"``), or predictions, with half the squared error
    (``task="regression"``).

    Parameters
    ----------
    n_features : int
        Number of columns of ``x``, d.
    hidden : sequence of int
        Widths of the hidden layers, first to last; empty for none.
    n_outputs : int
        Number of classes (at least 2) or of targets. Batches hold ``y`` as for
        ``Softmax`` or ``Linear``.
    activation : {"relu", "tanh", "gelu"}
        Activation of the hidden layers; GELU is its tanh approximation [3]_.
    task : {"classification", "regression"}
        Determines the loss.
    init : {"glorot", "he"}
        Scale of the hidden layers' initial weights; see Notes.
    dtype : {"float32", "float64"}
        Dtype of parameters, gradients and features.

    Attributes
    ----------
    layout : Layout
        "layers.0.weight", shape (d, hidden[0]), "layers.0.bias", and so on.

    Raises
    ------
    ValueError
        If a count is too small or a name is unknown.

    Notes
    -----
    Biases start at zero. Weights start uniform in
    :math:`\pm\sqrt{6 / (n_{in} + n_{out})}` [2]_. With ``init="he"`` the weights of
    hidden layers start in :math:`\pm\sqrt{6 / n_{in}}` [1]_, which keeps the variance
    through deep ReLU networks; the last layer, which is linear, keeps Glorot's bounds.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren and J. Sun, "Delving Deep into Rectifiers", ICCV
       2015, equation 10. arXiv:1502.01852.
    .. [2] X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
       feedforward neural networks", AISTATS 2010, equation 16.
    .. [3] D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016, section 2.
       arXiv:1606.08415.
    """

    def __init__(
        self,
        n_features,
        hidden,
        n_outputs,
        *,
        activation="relu",
        task="classification",
        init="glorot",
        dtype="float32",
    ):
        checks.one_of("activation", activation, ACTIVATIONS)
        self._init = checks.one_of("init", init, INITS)
        head = HEADS[checks.one_of("task", task, HEADS)](n_outputs, dtype)
        widths = [
            checks.count("n_features", n_features),
            *(checks.count(f"hidden[{i}]", width) for i, width in enumerate(hidden)),
            head.n_outputs,
        ]
        layers = dense_layers(widths, activation, input_gradient=False, dtype=dtype)
        super().__init__(layers, head, dtype)

    def init(self, params, seed):
        """Write the initial parameters for ``seed``; dtypes differ by rounding only.

        Parameters
        ----------
        params : sequence of ndarray
            Views of the flat block, in layer order.
        seed : int
            In [0, 2**64). Weight j, counted over all layers, is drawn from word j of
            the stream ``INIT``.
        """
        init_dense(self.layers, self.layer_spans, params, self._init, seed)


def dense_layers(widths, activation, *, input_gradient, dtype):
    """Return dense layers from each width to the next; the last one is linear.

    ``input_gradient`` says whether the first one returns a gradient for its input.
    """
    last = len(widths) - 2
    return [
        Dense(
            widths[i],
            widths[i + 1],
            activation if i < last else None,
            names=(f"layers.{i}.weight", f"layers.{i}.bias"),
            input_gradient=input_gradient or i > 0,
            dtype=dtype,
        )
        for i in range(last + 1)
    ]


def init_dense(layers, spans, params, init, seed, start=0):
    """Write the initial parameters of dense layers, of which the last is linear.

    Parameters
    ----------
    layers : sequence of Dense
    spans : sequence of slice
        Their tensors in ``params``.
    params : sequence of ndarray
    init : {"glorot", "he"}
        Scale of the hidden layers' weights.
    seed : int
    start : int
        Word of the stream ``INIT`` from which the first weight is drawn.
    """
    for layer, mine in zip(layers, spans):
        weight, bias = params[mine]
        bias[...] = 0
        scale = "glorot" if layer is layers[-1] else init
        bound = initial_bound(scale, layer.n_in, layer.n_out)
        fill_uniform(weight.reshape(-1), bound, seed, start)
        start += weight.size


def initial_bound(init, n_in, n_out):
    """Return the bound of a layer's uniform initial weights."""
    fans = {"he": n_in, "glorot": n_in + n_out}
    return math.sqrt(6 / fans[init])


def fill_uniform(flat, bound, seed, start):
    """Fill ``flat`` uniformly in [-bound, bound) from word ``start`` of the stream."""
    for first in range(0, flat.size, INIT_CHUNK):
        part = flat[first : first + INIT_CHUNK]
        numbers = uniform(seed, INIT, part.size, start=start + first)
        numbers *= 2 * bound
        numbers -= bound
        part[...] = numbers
