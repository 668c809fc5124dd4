"""A neural n-gram language model."""

import math

import numpy as np

from pympi_train.layers import checks
from pympi_train.layers.activations import ACTIVATIONS
from pympi_train.layers.embedding import Embedding
from pympi_train.layers.losses import SoftmaxCrossEntropy
from pympi_train.models.mlp import INITS, dense_layers, fill_uniform, init_dense
from pympi_train.models.network import Network


class NeuralNGram(Network):
    r"""Neural n-gram language model: the next token from the c tokens before it.

    As in [1]_, the vectors :math:`E_t` of these tokens are concatenated; hidden layers
    and a softmax over the vocabulary follow:

    .. math::
        h = [E_{t_{i-c}}, \dots, E_{t_{i-1}}], \qquad
        h \leftarrow a(h W + b), \qquad
        P(t_i \mid t_{i-c} \dots t_{i-1}) = \operatorname{softmax}(h W + b)_{t_i}.

    Every token of a window is predicted. Where the window has fewer than c tokens
    before it, a vector of padding, which is learned too, takes the place of the others.
    The direct connections of [1]_ from vectors to outputs are left out.

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary, V, at least 2: tokens are 0 to V - 1.
    context : int
        Tokens that a prediction depends on, c: the model is of (c + 1)-grams.
    width : int
        Length of a token's vector, d.
    hidden : sequence of int
        Widths of the hidden layers, first to last; empty for none.
    activation : {"relu", "tanh", "gelu"}
        Activation of the hidden layers.
    init : {"glorot", "he"}
        Scale of the hidden layers' initial weights, as for `MLP`.
    dtype : {"float32", "float64"}
        Dtype of parameters and gradients.

    Attributes
    ----------
    layout : Layout
        "embedding", shape (V + 1, d), with the padding in its last row;
        "layers.0.weight", shape (c d, hidden[0]), "layers.0.bias", and so on.
    n_tokens : int
        The vocabulary, V.

    Raises
    ------
    ValueError
        If a count is too small or a name is unknown.

    Notes
    -----
    A batch has ``x`` and ``y`` of shape (k, w), the inputs and targets of k windows, as
    `TokenDataset` serves them. A window counts as one sample: its loss is the *mean*
    over its w targets. As all windows have w targets, the mean loss over windows is the
    mean over all tokens.

    On a GPU, the host puts contexts together and sorts their tokens, so that each step
    waits for its tokens to be copied back.

    Vectors start uniform with mean 0 and variance 1, the layers as those of `MLP`.

    References
    ----------
    .. [1] Y. Bengio, R. Ducharme, P. Vincent and C. Jauvin, "A Neural Probabilistic
       Language Model", Journal of Machine Learning Research 3, 2003, pp. 1137-1155.
    """

    takes_sparse = False

    def __init__(
        self,
        n_tokens,
        context=4,
        *,
        width=32,
        hidden=(128,),
        activation="relu",
        init="glorot",
        dtype="float32",
    ):
        head = SoftmaxCrossEntropy(checks.count("n_tokens", n_tokens, least=2), dtype)
        checks.one_of("activation", activation, ACTIVATIONS)
        self._init = checks.one_of("init", init, INITS)
        self.context = checks.count("context", context)
        self.n_tokens = self.padding = head.n_outputs
        embedding = Embedding(head.n_outputs + 1, width, context, dtype=dtype)
        widths = [
            embedding.n_out,
            *(checks.count(f"hidden[{i}]", n) for i, n in enumerate(hidden)),
            head.n_outputs,
        ]
        layers = dense_layers(widths, activation, input_gradient=True, dtype=dtype)
        super().__init__([embedding, *layers], head, dtype)
        self.task = "language"
        self._contexts = np.empty((0, 0, self.context), np.intp)

    def use(self, ops):
        """Set the backend. There is no half precision."""
        super().use(ops)
        self._ops = ops
        self._shares = ops.empty((0, 0), self._dtype)  # of a target in its window

    def init(self, params, seed):
        """Write the initial parameters for ``seed``; see `MLP.init`."""
        (table,) = params[self.layer_spans[0]]
        fill_uniform(table.reshape(-1), math.sqrt(3), seed, 0)
        layers, spans = self.layers[1:], self.layer_spans[1:]
        init_dense(layers, spans, params, self._init, seed, table.size)

    def loss(self, params, batch):
        """Return the weighted sum, over windows, of the mean loss of a token.

        Raises
        ------
        ValueError
            If a shape or dtype of the batch does not fit.
        """
        x, y, weights, _ = batch
        self._check_windows(x, y, weights)
        self._delta = outputs = self._forward(params, self._before_each(x))
        return self._loss(outputs, y.reshape(-1), self._share_of_each(x, weights))

    def predict(self, params, x):
        """Return the logits of the token that follows each window.

        Parameters
        ----------
        params : sequence of ndarray
        x : array of int, shape (k, w)
            In the memory of the backend. For w < c, the rest is padding.

        Returns
        -------
        ndarray, shape (k, V)
            Valid until the next call.
        """
        x = self._on_host(x)
        last = np.full((len(x), self.context), self.padding, np.intp)
        n = min(self.context, x.shape[1])
        last[:, self.context - n :] = x[:, x.shape[1] - n :]
        return self._outputs(params, last)

    def predict_each(self, params, x):
        """Return the logits of every target of windows, shape (k w, V).

        Those of window i are the rows from i w on. Valid until the next call.
        """
        return self._outputs(params, self._before_each(x))

    def _outputs(self, params, contexts):
        self._delta = None
        outputs = self._forward(params, contexts)
        self._drop()
        return outputs

    def check(self, batch):
        """Raise ValueError if shapes or tokens of ``batch`` do not fit."""
        self._check_windows(*batch[:3])
        for tokens in batch[:2]:
            self.head.check_values(tokens)

    def _check_windows(self, x, y, weights):
        rows = x.shape[:1]
        if x.ndim != 2 or x.dtype.kind not in "iu":
            raise ValueError(
                f"x: expected tokens, integers of shape (k, w), got {x.dtype} of "
                f"{x.shape}"
            )
        wanted = [("y", y, x.shape, self.y_dtype)]
        if weights is not None:
            wanted.append(("weights", weights, rows, self._dtype))
        for name, array, shape, dtype in wanted:
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name}: expected shape {shape}, {dtype}, for {len(x)} windows, "
                    f"got {array.shape}, {array.dtype}"
                )

    def _before_each(self, x):
        """Return the c tokens before each target, shape (k w, c), in host memory."""
        x = self._on_host(x)
        (k, w), c = x.shape, self.context
        if k > len(self._contexts) or w != self._contexts.shape[1]:
            self._contexts = np.empty((k + k // 8, w, c), np.intp)
        found = self._contexts[:k]
        for j in range(c):
            back = min(c - 1 - j, w)  # the token at place i of x is next to target i
            found[:, :back, j] = self.padding
            found[:, back:, j] = x[:, : w - back]
        return found.reshape(k * w, c)

    def _share_of_each(self, x, weights):
        """Return the weight of each target: that of its window, divided by w."""
        (k, w), ops = x.shape, self._ops
        if weights is not None:
            found = ops.empty((k * w,), self._dtype)
            ops.from_host(np.repeat(ops.to_host(weights) / w, w), found)
            return found
        if k > len(self._shares) or w != self._shares.shape[1]:
            self._shares = ops.empty((k + k // 8, w), self._dtype)
            ops.fill(self._shares, 1 / w)
        return self._shares[:k].reshape(k * w)

    def _on_host(self, x):
        """Return tokens in host memory, where contexts are put together and sorted."""
        return self._ops.to_host(x) if self._ops.ON_DEVICE else x
