"""Compile what a step runs, before the ranks need it at the same time."""

import copy

from pympi_train.backends.memory import Layout, Tensor, empty_block
from pympi_train.comm.checks import together
from pympi_train.optim.lbfgs import LBFGS


def rehearse(comm, model, optimizer, strategy, feed, l2):
    """Run a step's functions on no rows and a few parameters; nothing changes.

    A compiled backend compiles them then, or finds them on disk: rank 0 goes first,
    so that a thousand ranks load what one has compiled.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that train together.
    model : Model
    optimizer : Optimizer
    strategy : Replicated
        Its gradients are overwritten.
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
                _run_once(model, optimizer, strategy, feed, l2)


def _run_once(model, optimizer, strategy, feed, l2):
    batch, _ = next(feed.batches(slice(0, 0)))
    model.loss(strategy.param_views, batch)
    model.gradient(strategy.param_views, strategy.grad_views)
    if isinstance(optimizer, LBFGS):
        return
    tensors = [Tensor("weight", (4,)), Tensor("bias", (4,), is_weight=False)]
    tiny = Layout(tensors, model.layout.dtype)
    twin = copy.copy(optimizer)
    twin.allocate(tiny, strategy.ops)
    params, grad = empty_block(tiny), empty_block(tiny)
    twin.update(params, grad, lr=1.0, grad_scale=1.0, l2=l2)
    twin.gradient_norm(params, grad, grad_scale=1.0, l2=l2)
