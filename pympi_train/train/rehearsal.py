"""Compile what a step runs, before the ranks need it at the same time."""

import copy
from collections.abc import Sequence

import numpy as np

from pympi_train.backends.memory import Layout, Tensor, empty_block
from pympi_train.comm.checks import together
from pympi_train.optim.lbfgs import LBFGS


def rehearse(comm, model, optimizer, ops, feed, l2):
    """Run a step's functions on no rows and parameters that are zero.

    A compiled backend compiles them then, or finds them on disk: rank 0 goes first,
    so that a thousand ranks load what one has compiled.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that train together.
    model : Model
    optimizer : Optimizer
    ops : module
        The backend.
    feed : Feed
    l2 : float
        As in training: it chooses among compiled variants.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    for turn in (True, False):
        with together(comm):
            if (comm.rank == 0) is turn:
                _run_once(model, optimizer, ops, feed, l2)


def _run_once(model, optimizer, ops, feed, l2):
    batch = next(feed.batches(slice(0, 0)))
    model.loss(_Zeros(model.layout), batch)
    model.gradient(_Zeros(model.layout), _Zeros(model.layout))
    if isinstance(optimizer, LBFGS):
        return
    tensors = [Tensor("weight", (4,)), Tensor("bias", (4,), is_weight=False)]
    tiny = Layout(tensors, model.layout.dtype)
    twin = copy.copy(optimizer)
    twin.allocate(tiny, ops)
    params, grad = empty_block(tiny), empty_block(tiny)
    twin.update(params, grad, lr=1.0, grad_scale=1.0, l2=l2)
    twin.gradient_norm(params, grad, grad_scale=1.0, l2=l2)


class _Zeros(Sequence):
    """Tensors of a layout, made when they are taken and kept by nobody.

    A model that goes layer by layer never holds more than one layer of them.
    """

    def __init__(self, layout):
        self._layout = layout

    def __len__(self):
        return len(self._layout.tensors)

    def __getitem__(self, index):
        dtype, tensors = self._layout.dtype, self._layout.tensors[index]
        if isinstance(index, slice):
            return [np.zeros(tensor.shape, dtype) for tensor in tensors]
        return np.zeros(tensors.shape, dtype)
