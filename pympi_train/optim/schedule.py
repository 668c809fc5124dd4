r"""Learning-rate schedules: pure functions of the update's number.

A schedule returns the factor on the base learning rate. Updates are counted from 0
over the whole training. An update belongs to a *global* batch, so schedules do not
depend on the number of ranks.

Every schedule may start with a linear warm-up: update :math:`t < w` gets the factor

.. math:: (t + 1) / (w + 1),

where :math:`w` is the number of warm-up updates: ``warmup_epochs`` times the updates
per epoch, rounded. Update :math:`w` is the first at full rate [1]_.

References
----------
.. [1] P. Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1
   Hour", 2017, section 2.2 (gradual warm-up). arXiv:1706.02677.
"""

import math

from pympi_train.optim.base import require


class Constant:
    """Factor 1, after the warm-up.

    Parameters
    ----------
    warmup_epochs : float, default 0.0
        Epochs of warm-up, or a fraction of one.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Examples
    --------
    >>> constant = Constant(warmup_epochs=1)
    >>> [constant.factor(t, steps_per_epoch=3) for t in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(self, warmup_epochs=0.0):
        require(
            warmup_epochs >= 0 and math.isfinite(warmup_epochs),
            "warmup_epochs",
            "finite and not negative",
            warmup_epochs,
        )
        self.warmup_epochs = float(warmup_epochs)

    def factor(self, update, *, steps_per_epoch=1, total_updates=1):
        """Return the factor on the learning rate of one update.

        Parameters
        ----------
        update : int
            Number of the update, from 0.
        steps_per_epoch : int
            Updates per epoch, at least 1.
        total_updates : int
            Updates of the whole training, without early stopping.

        Returns
        -------
        float
            In [0, 1].
        """
        n_warmup = round(self.warmup_epochs * steps_per_epoch)
        ramp = min(1.0, (update + 1) / (n_warmup + 1))
        return ramp * self._base(update, n_warmup, steps_per_epoch, total_updates)

    def _base(self, update, n_warmup, steps_per_epoch, total_updates):
        return 1.0


class StepDecay(Constant):
    r"""Multiply by ``gamma`` every ``step_epochs`` epochs.

    .. math:: \gamma^{\lfloor e / k \rfloor}, \qquad e = \lfloor t / n \rfloor,

    for update :math:`t`, :math:`n` updates per epoch and :math:`k` = ``step_epochs``.
    Epochs count from the start of training, warm-up included.

    Parameters
    ----------
    step_epochs : int
        Epochs between reductions, at least 1.
    gamma : float, default 0.1
        In (0, 1].
    warmup_epochs : float, default 0.0
        Epochs of warm-up, or a fraction of one.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Examples
    --------
    >>> step = StepDecay(step_epochs=2, gamma=0.5)
    >>> [step.factor(t, steps_per_epoch=1) for t in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, step_epochs, gamma=0.1, warmup_epochs=0.0):
        super().__init__(warmup_epochs)
        require(
            step_epochs >= 1 and step_epochs == int(step_epochs),
            "step_epochs",
            "a whole number, at least 1",
            step_epochs,
        )
        require(0 < gamma <= 1, "gamma", "in (0, 1]", gamma)
        self.step_epochs, self.gamma = int(step_epochs), float(gamma)

    def _base(self, update, n_warmup, steps_per_epoch, total_updates):
        epoch = update // steps_per_epoch
        return self.gamma ** (epoch // self.step_epochs)


class Cosine(Constant):
    r"""Half a cosine from 1, at the end of the warm-up, to a floor at the last update.

    .. math::
        r + \frac{1 - r}{2} \left(1 + \cos \pi u\right), \qquad
        u = \frac{t - w}{T - 1 - w},

    for update :math:`t`, :math:`T` updates in all, :math:`w` of warm-up, and
    :math:`r` = ``floor``.

    Parameters
    ----------
    floor : float, default 0.0
        Factor at the last update, in [0, 1]. At 0 the last update changes nothing.
    warmup_epochs : float, default 0.0
        Epochs of warm-up, or a fraction; the cosine starts after them.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    There are no restarts: the schedule has one period for the whole training, even if
    the training ends early.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with
       Warm Restarts", ICLR 2017, equation 5. arXiv:1608.03983.

    Examples
    --------
    >>> cosine = Cosine(floor=0.5)
    >>> [round(cosine.factor(t, total_updates=3), 6) for t in range(3)]
    [1.0, 0.75, 0.5]
    """

    def __init__(self, floor=0.0, warmup_epochs=0.0):
        super().__init__(warmup_epochs)
        require(0 <= floor <= 1, "floor", "in [0, 1]", floor)
        self.floor = float(floor)

    def _base(self, update, n_warmup, steps_per_epoch, total_updates):
        # At least 1, as the warm-up may take the whole training.
        n_falling = max(1, total_updates - 1 - n_warmup)
        done = min(1.0, max(0, update - n_warmup) / n_falling)
        return self.floor + (1 - self.floor) / 2 * (1 + math.cos(math.pi * done))
