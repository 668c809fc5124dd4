"""Base class of the optimizers: state blocks, penalties on weights, clipping."""

import copy
import math

from pympi_train.errors import DivergenceError, UnstableError
from pympi_train.flat.parts import Part


def require(holds, what, expected, got):
    """Raise ValueError unless ``holds``: ``what`` should be ``expected``."""
    if not holds:
        raise ValueError(f"{what} must be {expected}, got {got!r}")


class Optimizer:
    r"""Base of the optimizers that turn one gradient into one update.

    With the gradient sum :math:`G` over a global batch, the update starts from

    .. math::
        g = c\,(s\,G + \lambda_2 p) + \lambda p, \qquad
        c = \min(1, \kappa / \lVert s\,G + \lambda_2 p \rVert),

    where :math:`s` is ``grad_scale`` (one over the weight of the batch),
    :math:`\lambda_2` is ``l2``, :math:`\lambda` a coupled weight decay and
    :math:`\kappa` is ``clip_norm`` (:math:`c = 1` without). The terms in
    :math:`p` act on weights only, never on biases.

    Parameters
    ----------
    lr : float
        Step size > 0 before any schedule.
    weight_decay : float, default 0.0
        Not negative. Coupled (added to the gradient), unless the subclass sets
        ``decoupled``.

    Attributes
    ----------
    full_batch : bool
        Whether each update needs the gradient over all rows.
    is_lazy : bool
        Whether a parameter whose gradient is 0 keeps its value and state, without a
        penalty: only parameters with a gradient need to be updated.
    state : dict of str to ndarray, shape (layout.size,)
        State blocks by name, in the dtype of the parameters; written in place
        and never replaced.
    step : int
        Updates done.

    Notes
    -----
    No MPI call is made here: sum the gradient over the ranks first. Ranks with
    identical parameters at the start then keep bit-identical parameters.

    Weight decay leaves biases alone, whereas ``torch.optim`` decays every
    parameter it is given.
    """

    full_batch = is_lazy = False
    decoupled = False

    def __init__(self, lr, weight_decay=0.0):
        require(lr > 0 and math.isfinite(lr), "lr", "positive and finite", lr)
        require(
            weight_decay >= 0 and math.isfinite(weight_decay),
            "weight_decay",
            "finite and not negative",
            weight_decay,
        )
        self.lr, self.weight_decay = float(lr), float(weight_decay)
        self._coupled = 0.0 if self.decoupled else self.weight_decay
        self._decay = self.weight_decay if self.decoupled else 0.0
        self.state, self.step = {}, 0
        self._shape = self._ops = None

    def require_stable(self, l2):
        """Raise UnstableError if decay alone makes the weights grow at each step.

        Such weights overflow although every loss and gradient was finite.

        Parameters
        ----------
        l2 : float
            Penalty in the objective.
        """
        shrink = self.lr * (self._decay + self._direct_decay(l2))
        if not shrink < 2:
            raise UnstableError(
                f"lr times the weight decay and l2 is {shrink:.3g}: each step "
                "multiplies the weights by 1 minus this number; it must be below 2, "
                "and is usually below 1e-3"
            )

    def _direct_decay(self, l2):
        """Return the part of the penalties that lr times a weight is subtracted for."""
        return 0.0

    def _state_names(self):
        """Return the names of the state blocks."""
        return ()

    def _apply(self, params, grad, lr, grad_scale, l2, decay, **on_device):
        """Update the block in place; penalties act on the weights of ``_runs``.

        ``on_device`` is passed on to the backend's function: see ``cuda_updates``.
        """
        raise NotImplementedError

    def allocate(self, layout, ops):
        """Allocate the state blocks, filled with zeros, and start at step 0.

        Parameters
        ----------
        layout : Layout
            Layout of the parameter and gradient blocks.
        ops : module
            Backend of the updates: ``backends.numpy.ops`` or ``backends.numba.ops``.
        """
        self.state = {name: ops.empty_block(layout) for name in self._state_names()}
        self.step, self._ops = 0, ops
        self._bind(layout)

    def _bind(self, layout):
        """Set the layout of the state blocks."""
        self._shape = (layout.size,)
        self._state, self._runs = tuple(self.state.values()), layout.runs()

    def split(self, part):
        """Return an optimizer for each piece of ``part``.

        Their state blocks are views of this one's. They serve parameters or gradients
        that are not contiguous in memory as ``part`` is. Each counts its own updates.

        Parameters
        ----------
        part : Part
            The layout that ``allocate`` was called with.
        """
        twins = []
        for piece, place in zip(part.pieces, part.places):
            twin = copy.copy(self)
            twin.state = {name: block[place] for name, block in self.state.items()}
            twin._bind(Part(part.layout, [(piece.start, piece.stop)]))
            twins.append(twin)
        return twins

    def update_elements(self, params, grad, state, *, lr, grad_scale):
        """Update some elements without penalties; for an optimizer with ``is_lazy``.

        Parameters
        ----------
        params, grad : ndarray, shape (n,)
        state : sequence of ndarray, shape (n,)
            The elements of the state blocks, in the order of ``state``.
        lr, grad_scale : float
            As for `update`.
        """
        twin = copy.copy(self)
        twin._state, twin._runs = state, None
        twin._apply(params, grad, lr, grad_scale, 0.0, 0.0)
        self.step += 1

    def update(self, params, grad, *, lr, grad_scale, l2, clip_norm=None, norm=None):
        """Update ``params`` in place from a gradient sum.

        Parameters
        ----------
        params, grad : ndarray, shape (layout.size,)
            Flat blocks; ``grad`` is the gradient sum and is not changed.
        lr : float
            Step size of this update: ``self.lr`` times the schedule's factor.
        grad_scale : float
            One over the total weight of the global batch.
        l2 : float
            Factor of the penalty ``l2 / 2 * |W|^2`` over weights.
        clip_norm : float, optional
            Maximum norm of the mean gradient, including the L2 penalty but not
            weight decay.
        norm : float, optional
            This norm over all parameters, if the blocks hold only a part of them; by
            default it is computed here.

        Returns
        -------
        float or None
            The norm before clipping, if ``clip_norm`` is given.

        Raises
        ------
        DivergenceError
            If the norm is NaN or infinite. Nothing is changed.
        ValueError
            If a block does not fit the layout.
        """
        self._require_blocks(params, grad)
        if clip_norm is None:
            norm = None
        else:
            if norm is None:
                norm = self.gradient_norm(params, grad, grad_scale=grad_scale, l2=l2)
            factor = self.clip_factor(norm, clip_norm)
            grad_scale, l2 = factor * grad_scale, factor * l2
        self.step += 1
        self._apply(params, grad, lr, grad_scale, l2 + self._coupled, self._decay)
        return norm

    def queue_update(self, params, grad, *, lr, grad_scale, l2, **on_device):
        """Queue an update as `update`; the device decides whether it is applied.

        Parameters
        ----------
        on_device : device arrays
            ``factor``, of the backend's ``Verdict``: multiplies ``grad_scale`` and
            ``l2``; with NaN nothing is changed. ``copy``: receives the parameters in
            the dtype of ``grad``.
        """
        self._require_blocks(params, grad)
        self.step += 1
        coupled, decay = self._coupled, self._decay
        self._apply(
            params, grad, lr, grad_scale, l2, decay, coupled=coupled, **on_device
        )

    def gradient_norm(self, params, grad, *, grad_scale, l2):
        """Return ``|grad_scale * grad + l2 * params|``; ``l2`` acts on weights only.

        It takes one pass over the blocks, and accumulates in float64.
        """
        self._require_blocks(params, grad)
        return math.sqrt(
            self._ops.squared_norm(
                grad, params, grad_scale=grad_scale, l2=l2, runs=self._runs
            )
        )

    def clip_factor(self, norm, clip_norm):
        """Return the factor on a gradient of this norm, at most 1.

        Raises
        ------
        DivergenceError
            If the norm is NaN or infinite.
        """
        require(clip_norm > 0, "clip_norm", "positive", clip_norm)
        if not math.isfinite(norm):
            raise DivergenceError(
                f"the gradient norm is {norm} at update {self.step + 1}; parameters "
                f"are unchanged. Try a smaller learning rate, or look for NaN or "
                f"huge values in the data"
            )
        return clip_norm / norm if norm > clip_norm else 1.0

    def _require_blocks(self, params, grad):
        if params.shape != self._shape or grad.shape != self._shape:
            raise ValueError(
                f"{type(self).__name__} expected params and grad of shape "
                f"{self._shape}, got {params.shape} and {grad.shape}; "
                f"call allocate(layout, ops) first, with the blocks' layout"
            )
