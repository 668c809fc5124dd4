"""Compiles a step's functions before training starts, on rank 0 first."""

import copy
from collections.abc import Sequence
from functools import partial

from pympi_train.backends.csr import CSR
from pympi_train.comm.checks import together
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.optim.lbfgs import LBFGS


def rehearse(comm, model, optimizer, ops, feed, l2, dtype=None):
    """Run a step's functions once without rows; return which tensors the model takes.

    All parameters are zero. A compiled backend compiles the functions in this run, or
    loads them from disk. Rank 0 runs first, so that only one rank compiles and all
    others load the result.

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
        As in training: compiled variants depend on it.
    dtype : dtype, optional
        The dtype the model computes in; by default that of its parameters.

    Returns
    -------
    dict of str to list of (str, int or slice)
        For each pass, "forward" and "backward": the kind ("params" or "grads") and
        index of each tensor that the model took, in order.

    Notes
    -----
    Collective.
    """
    takes = {"forward": [], "backward": []}
    for turn in (True, False):
        with together(comm):
            if (comm.rank == 0) is turn:
                _run_once(model, optimizer, ops, feed, l2, dtype, takes)
    return takes


def _run_once(model, optimizer, ops, feed, l2, dtype, takes):
    zeros = partial(_Zeros, model.layout, dtype or model.layout.dtype, ops)
    batch = next(feed.batches(slice(0, 0)))
    forward, backward = takes["forward"], takes["backward"]
    model.loss(zeros("params", forward), batch)
    model.gradient(zeros("params", backward), zeros("grads", backward))
    if type(batch.x) is CSR and getattr(model, "is_one_product", False):
        ops.sparse.csr_touched(*model.last_product())
    if isinstance(optimizer, LBFGS):
        return
    tensors = [Tensor("weight", (4,)), Tensor("bias", (4,), is_weight=False)]
    tiny = Layout(tensors, model.layout.dtype)
    twin = copy.copy(optimizer)
    twin.allocate(tiny, ops)
    params = ops.empty_block(tiny)
    grad = ops.zeros(tiny.size, dtype or tiny.dtype)
    twin.update(params, grad, lr=1.0, grad_scale=1.0, l2=l2)
    twin.gradient_norm(params, grad, grad_scale=1.0, l2=l2)


class _Zeros(Sequence):
    """Zero tensors of a layout, allocated at each access and not stored.

    A model that works layer by layer never holds more than one layer of them. Each
    access is appended to ``takes``.
    """

    def __init__(self, layout, dtype, ops, kind, takes):
        self._layout, self._dtype, self._zeros = layout, dtype, ops.zeros
        self._kind, self._takes = kind, takes

    def __len__(self):
        return len(self._layout.tensors)

    def __getitem__(self, index):
        tensors = self._layout.tensors[index]
        self._takes.append((self._kind, index))
        if isinstance(index, slice):
            return [self._zeros(tensor.shape, self._dtype) for tensor in tensors]
        return self._zeros(tensors.shape, self._dtype)
