"""Updates of all lanes at once, each with its own learning rate."""

import copy
import math

import numpy as np

from pympi_train.backends.scalars import adam_scalars
from pympi_train.errors import UnstableError
from pympi_train.optim.adagrad import AdaGrad
from pympi_train.optim.adam import Adam
from pympi_train.optim.sgd import SGD

LARGEST_STEP = {t: np.sqrt(np.finfo(t).max) for t in "fd"}  # by dtype.char


class Updates:
    """Applies one optimizer to the parameters of all lanes.

    Parameters
    ----------
    optimizer : GD, SGD, Adam, AdamW or AdaGrad
        Its learning rate is not used.
    lanes : sequence of Lane
    products : Products
        Of these lanes.
    clip_norm : float, optional

    Attributes
    ----------
    state : list of ndarray
        Blocks as the parameters.
    counts : ndarray of int, shape (L,)
        Updates done: a batch in which a lane has no training row updates nothing.
    """

    def __init__(self, optimizer, lanes, products, clip_norm=None):
        self._optimizer, self._clip_norm = optimizer, clip_norm
        self._kernels, self._columns = products.kernels, products.columns
        tensor = products.layout.tensors[0]
        self._dtype = products.layout.dtype
        names = optimizer._state_names()
        self.state = [np.zeros(tensor.shape, self._dtype) for _ in names]
        self.counts = np.zeros(len(lanes), np.int64)
        self.rates = np.array([lane.learning_rate for lane in lanes])
        self.l2 = np.array([lane.l2 for lane in lanes])
        self._limit = LARGEST_STEP[self._dtype.char]
        self._norms = None  # of the lanes' gradients, with clip_norm

    def rehearse(self):
        """Call the kernels once, on zeros."""
        shape = 1, self._columns.width
        arrays = [np.zeros(shape, self._dtype) for _ in range(2 + len(self.state))]
        one = np.ones(shape[1], self._dtype)
        self._apply(arrays[0], arrays[1], arrays[2:], one, one, [one, one, one])

    def take_over(self, other, columns, kept):
        """Go on where ``other`` is, with the lanes ``kept`` of its ``columns``."""
        self.counts = other.counts[kept]
        for array, old in zip(self.state, other.state):
            self._columns.pack(columns.unpack(old)[kept], out=array)

    def penalties(self, params):
        """Return ``l2 / 2 |W|^2`` of each lane, shape (L,), float64."""
        if not self.l2.any():
            return np.zeros(len(self.l2))
        squares = np.square(params[:, :-1], dtype=np.float64).sum(axis=1)
        return 0.5 * self.l2 * self._columns.lane_sums(squares)

    def are_usable(self, params, grads, scales, factor):
        """Return which lanes have a gradient that is finite and not too large.

        The conditions are those of `parallel.whole_gradient`, so that a lane diverges
        at the step at which a Trainer does. With ``clip_norm``, `update` uses the norms
        that are computed here.

        Parameters
        ----------
        params, grads : ndarray, shape (n_blocks, d + 1, width)
        scales : ndarray, shape (L,)
            One over the total weight of the batch; 0 if it is 0.
        factor : float
            Of the schedule.
        """
        if self._clip_norm is not None:
            self._norms = self._gradient_norms(params, grads, scales)
            return np.isfinite(self._norms)
        flat, largest = grads.reshape(-1), factor * (self.rates * scales).max()
        if largest * math.sqrt(np.dot(flat, flat)) <= self._limit:
            return np.ones(len(scales), bool)  # as the sum over all lanes is small
        squares = np.square(grads, dtype=np.float64).sum(axis=1)
        squares = self._columns.lane_sums(squares)
        return factor * self.rates * scales * np.sqrt(squares) <= self._limit

    def update(self, params, grads, scales, factor, active):
        """Update the parameters of the active lanes in place.

        Parameters
        ----------
        params : ndarray, shape (n_blocks, d + 1, width)
        grads, scales, factor
            As for `are_usable`.
        active : ndarray of bool, shape (L,)
            The others keep parameters and state.
        """
        self.counts += active
        l2 = self.l2
        if self._clip_norm is not None:
            clips = self._clip_factors()
            scales, l2 = clips * scales, clips * l2
        kept = self._kept(params, active)
        values = [scales, l2 + self._optimizer._coupled, *self._by_lane(factor)]
        values = self._columns.by_column(np.array(values).astype(self._dtype))
        for block, (p, g) in enumerate(zip(params, grads)):
            scale, ridge, *others = values[:, block]
            state = [array[block] for array in self.state]
            weights = slice(0, -1), scale, ridge, others
            if len(others) == 3:  # Adam's decay leaves intercepts alone
                others = [*others[:2], np.ones_like(scale)]
            intercepts = slice(-1, None), scale, np.zeros_like(ridge), others
            for rows, *how in (weights, intercepts):
                self._apply(p[rows], g[rows], [s[rows] for s in state], *how)
        self._restore(params, kept)

    def _by_lane(self, factor):
        """Return the optimizer's values per lane: rate; for Adam rate, floor, keep."""
        o, rates = self._optimizer, factor * self.rates
        if not isinstance(o, Adam):
            return [rates]
        # By count, not by lane: nearly always, there is one.
        out = np.empty((3, len(rates)))
        for count in set(self.counts.tolist()):
            made = adam_scalars(max(count, 1), 1.0, *o.betas, o.eps, 0.0)
            own = self.counts == count
            out[0, own], out[1, own] = made.rate, made.floor
        out[0] *= rates
        out[2] = 1.0 - rates * o._decay
        return out

    def _apply(self, params, grads, state, scale, ridge, others):
        o, kernels = self._optimizer, self._kernels
        how = {"scale": scale, "ridge": ridge, "rate": others[0]}
        if isinstance(o, Adam):
            b1, b2 = o.betas
            how |= {"floor": others[1], "keep": others[2]}
            how["betas"] = b1, 1.0 - b1, b2, 1.0 - b2
            kernels.adam_lanes(params, grads, *state, **how)
        elif isinstance(o, AdaGrad):
            kernels.adagrad_lanes(params, grads, *state, eps=o.eps, **how)
        else:
            how |= {"momentum": o.momentum, "nesterov": o.nesterov}
            kernels.sgd_lanes(params, grads, state[0] if state else None, **how)

    def _gradient_norms(self, params, grads, scales):
        """Return the norm of each lane's mean gradient with its penalty, shape (L,)."""
        by_column = self._columns.by_column
        mean = grads * by_column(scales)[:, None]
        mean[:, :-1] += by_column(self.l2)[:, None] * params[:, :-1]
        return np.sqrt(self._columns.lane_sums(np.square(mean).sum(axis=1)))

    def _clip_factors(self):
        """Return the factor on each lane's gradient, shape (L,)."""
        norms = self._norms
        large = norms > self._clip_norm
        return np.where(large, self._clip_norm / np.where(large, norms, 1.0), 1.0)

    def _kept(self, params, active):
        """Return the columns of lanes that are not updated, to be restored."""
        if active.all():
            return None
        mask = self._columns.by_column(~active).astype(bool)
        arrays = params, *self.state
        return mask, [array.transpose(0, 2, 1)[mask] for array in arrays]

    def _restore(self, params, kept):
        if kept is not None:
            mask, columns = kept
            for array, own in zip((params, *self.state), columns):
                array.transpose(0, 2, 1)[mask] = own


def why_unstable(optimizer, learning_rate, l2):
    """Return why decay alone makes weights grow at this learning rate, or None."""
    twin = copy.copy(optimizer)
    twin.lr = learning_rate
    try:
        twin.require_stable(l2)
    except UnstableError as error:
        return str(error)
    return None


def is_supported(optimizer):
    """Return whether `Updates` takes this optimizer."""
    return type(optimizer).__module__.startswith("pympi_train.optim") and isinstance(
        optimizer, (SGD, Adam, AdaGrad)
    )
