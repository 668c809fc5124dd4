"""Scalars of the updates: in double, the same for every backend."""

from typing import NamedTuple


class AdamScalars(NamedTuple):
    """What Adam's inner loop needs beside its arrays, in the order it takes them.

    With ``step`` t, bias corrections folded into ``rate`` and ``floor``: two
    scalars instead of two more divisions an element.
    """

    beta1: float
    complement1: float
    beta2: float
    complement2: float
    rate: float
    floor: float
    keep: float


def adam_scalars(step, lr, beta1, beta2, eps, decay):
    """Return the scalars of Adam's update number ``step``, from 1.

    ``rate`` = lr sqrt(1 - beta2^t) / (1 - beta1^t), ``floor`` = eps sqrt(1 -
    beta2^t), ``keep`` = 1 - lr decay. The complements 1 - beta are taken in double:
    ``1.0f - 0.999f`` is off by 5e-5 of its value.
    """
    root_fix = (1.0 - beta2**step) ** 0.5
    return AdamScalars(
        beta1,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        lr * root_fix / (1.0 - beta1**step),
        eps * root_fix,
        1.0 - lr * decay,
    )
