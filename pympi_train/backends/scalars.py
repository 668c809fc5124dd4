"""Scalars of the updates, computed in double precision for every backend."""

from typing import NamedTuple


class AdamScalars(NamedTuple):
    """The scalar arguments of Adam's inner loop, in order.

    The bias corrections of the step are folded into ``rate`` and ``floor``, which saves
    two divisions per element.
    """

    beta1: float
    complement1: float
    beta2: float
    complement2: float
    rate: float
    floor: float
    keep: float


def adam_scalars(step, lr, beta1, beta2, eps, decay):
    """Return the scalars of Adam's update number ``step`` = t, counted from 1.

    ``rate`` = lr sqrt(1 - beta2^t) / (1 - beta1^t), ``floor`` = eps sqrt(1 -
    beta2^t), ``keep`` = 1 - lr decay. The complements 1 - beta are computed in double,
    because ``1.0f - 0.999f`` has a relative error of 1.3e-5.
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
