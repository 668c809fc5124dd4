"""Strategies from the section ``[parallel]``."""

from pympi_train.comm.checks import together
from pympi_train.errors import ConfigError


def make_strategy(parallel, comm, model, optimizer, ops, *, everyone=None):
    """Return the strategy that ``parallel`` describes. Collective.

    Parameters
    ----------
    parallel : Parallel
    comm : MPI.Comm
        The ranks that share the batch; on a server, the servers.
    model : Model
    optimizer : Optimizer or None
        None where the caller moves the parameters.
    ops : module
        The backend.
    everyone : MPI.Comm, optional
        Servers and workers together, where there are servers.

    Raises
    ------
    ConfigError
        On every rank, if the ranks are too few or too many for it.
    """
    name = "allreduce" if parallel.strategy == "auto" else parallel.strategy
    if name == "allreduce":
        return _allreduce(parallel, comm, model, optimizer, ops)
    if name == "hierarchical":
        from pympi_train.parallel.hierarchical import Hierarchical

        return Hierarchical(comm, model.layout, optimizer, ops)
    raise ConfigError(f"strategy {name} is not there yet")


def _allreduce(parallel, comm, model, optimizer, ops):
    from pympi_train.parallel.allreduce import Allreduce

    with together(comm):
        strategy = Allreduce(
            comm,
            model.layout,
            optimizer,
            ops,
            spans=getattr(model, "layer_spans", ()),
            bucket_bytes=parallel.bucket_bytes,
            overlap=parallel.overlap,
        )
    strategy.measure()
    return strategy
