"""Activation functions of the layers, fused with the bias."""

from typing import NamedTuple


class Activation(NamedTuple):
    """An activation, given by the names of its functions in a backend.

    Attributes
    ----------
    forward : str
        ``ops.<forward>(z, bias)``, in place; with a third argument ``pre``, which
        receives ``z + bias``, if ``keeps_input``.
    backward : str
        ``ops.<backward>(delta, kept)``: multiplies ``delta`` by the derivative.
    keeps_input : bool
        Whether the derivative is computed from the activation's input (GELU) instead of
        its output (ReLU, tanh). Only then is the input stored too.
    """

    forward: str
    backward: str
    keeps_input: bool


ACTIVATIONS = {
    "relu": Activation("bias_relu", "relu_gradient", False),
    "tanh": Activation("bias_tanh", "tanh_gradient", False),
    "gelu": Activation("bias_gelu", "gelu_gradient", True),
}
