"""Standardisation over each lane's own training rows, as a change of its weights."""

from itertools import chain

import numpy as np

from pympi_train.data.groups import own_cuts
from pympi_train.data.loading.sparse import fit_sparse_moments
from pympi_train.data.standardise import (
    Scaling,
    combine_moments,
    join_moments,
    local_moments,
)


class Rescaling:
    r"""The change of weights that stands for standardised features of each lane.

    A lane that holds out fold f would be given :math:`\tilde x = (x - \mu_f) /
    \sigma_f`, with mean and deviation over its training rows. Its outputs are those of

    .. math::
        \tilde x w + b = x (w / \sigma_f) + (b - \mu_f \cdot w / \sigma_f),

    so all lanes share the product with :math:`x`. The gradient follows by the chain
    rule. If ``x`` is standardised over all rows, :math:`\mu_f` is about 0 and
    :math:`\sigma_f` about 1, and nothing is lost by rounding.

    Parameters
    ----------
    scalings : sequence of Scaling
        Of each lane.
    columns : LaneColumns
    dtype : dtype
    has_intercept : bool
    """

    def __init__(self, scalings, columns, dtype, has_intercept):
        factors = np.array([1.0 / s.scale for s in scalings])
        offsets = np.array([-s.mean / s.scale for s in scalings])
        repeated = (
            np.repeat(a[:, :, None], columns.n_outputs, axis=2).astype(dtype)
            for a in (factors, offsets)
        )
        self._factors, self._offsets = (columns.pack(a) for a in repeated)
        self._has_intercept, self._room = has_intercept, None

    def effective(self, params):
        """Return the parameters for the features as they are, in a workspace."""
        if self._room is None:
            self._room = np.empty_like(params)
        out, weights = self._room, params[:, :-1]
        np.multiply(weights, self._offsets, out=out[:, :-1])
        np.add.reduce(out[:, :-1], axis=1, out=out[:, -1])
        out[:, -1] += params[:, -1]
        np.multiply(weights, self._factors, out=out[:, :-1])
        return out

    def pull_back(self, grads):
        """Turn gradients for `effective` into those for the parameters, in place."""
        grads[:, :-1] *= self._factors
        grads[:, :-1] += self._offsets * grads[:, -1:]
        if not self._has_intercept:
            grads[:, -1] = 0.0


def fold_scalings(folds, which, data, numbers, feed, comm, n_groups=None, scale=None):
    """Return the Scaling over the training rows of each of ``folds``, a dict.

    Dense columns that are constant among these rows have an infinite scale; sparse ones
    are as they were before they were divided by ``scale``.

    Parameters
    ----------
    folds : sequence of int or None
        None: all rows are for training.
    which : ndarray of bool, shape (d,)
        The columns that are standardised.
    data : Source
    numbers : ndarray of int32, shape (len(data),)
        The fold of each of this rank's rows.
    feed : Feed
        Of ``data``.
    comm : MPI.Comm
    n_groups : int, optional
        Number of groups of rows in exact mode.
    scale : ndarray, shape (d,), optional
        What features were divided by before.

    Notes
    -----
    Collective. Dense rows are read once for all folds: the moments of a fold's
    training rows are merged from those of the other folds.
    """
    if data.is_sparse:
        before = np.ones(len(which)) if scale is None else scale
        found = {}
        for fold in folds:
            made_of = data.x, numbers != _held(fold), comm, n_groups
            found[fold] = _sparse_scaling(fit_sparse_moments(*made_of), before)
    else:
        parts = _moments_by_fold(data, numbers, feed, comm, n_groups)
        found = {
            fold: _scaling(combine_moments(_joined(parts, fold), n_groups, comm))
            for fold in folds
        }
    return {
        fold: Scaling(np.where(which, s.mean, 0.0), np.where(which, s.scale, 1.0))
        for fold, s in found.items()
    }


def _scaling(moments):
    """Return the Scaling of Moments; infinite scales leave constant columns out.

    Their gradient is then exactly 0, as that of columns of zeros. Adam would turn
    rounding errors into steps.
    """
    found = moments.scaling
    is_constant = moments.is_constant | (moments.deviation == 0)
    return Scaling(found.mean, np.where(is_constant, np.inf, found.scale))


def _sparse_scaling(moments, before):
    """Return the Scaling of sparse Moments of features that were divided by ``before``.

    Constant columns are not scaled, as `load` leaves them.
    """
    is_constant = moments.is_constant | (moments.deviation == 0)
    scale = np.where(is_constant, 1.0 / before, moments.deviation)
    return Scaling(np.zeros(len(scale)), scale)


def _held(fold):
    return -2 if fold is None else fold


def _moments_by_fold(data, numbers, feed, comm, n_groups):
    """Return, for each own group, the moments of its rows of each fold, a dict.

    Folds are all that rows have, in order, whichever lanes there are: the bits depend
    on the order in which moments are merged. Rows of no fold are under None.
    Collective.
    """
    groups = [slice(0, len(data))]
    if n_groups is not None:
        cuts = own_cuts(data.n, n_groups, comm.rank, comm.size).tolist()
        groups = [slice(*cut) for cut in zip(cuts, cuts[1:])]
    known = sorted({*chain(*comm.allgather(np.unique(numbers).tolist()))} - {-1})
    parts = []
    for rows in groups:
        sums = {}
        for batch in feed.batches(rows):
            at = batch.rows.start - data.start
            own = numbers[at : at + len(batch.x)]
            masks = {fold: own == fold for fold in known}
            masks[None] = own == -1
            for fold, mask in masks.items():
                part = local_moments(batch.x, mask, slice(0, len(own)))
                sums[fold] = join_moments(sums[fold], part) if fold in sums else part
        parts.append(sums)
    return parts


def _joined(parts, held):
    """Return the moments of each group's rows outside the fold ``held``."""
    joined = []
    for sums in parts:
        whole = None
        for fold, part in sums.items():
            if fold is None or fold != held:
                whole = part if whole is None else join_moments(whole, part)
        joined.append(whole)
    return joined
