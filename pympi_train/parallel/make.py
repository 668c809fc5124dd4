"""Creates the strategy that ``[parallel]`` describes."""

from dataclasses import replace

from pympi_train.comm.checks import together
from pympi_train.comm.mesh import share_nodes
from pympi_train.comm.transports.choose import choose_transport
from pympi_train.errors import ConfigError


def make_strategy(parallel, comm, model, optimizer, ops, *, roles=None, precision=None):
    """Return the strategy that ``parallel`` describes. Collective.

    Parameters
    ----------
    parallel : Parallel
    comm : MPI.Comm
        The ranks that share the batch; on a server rank, the servers.
    model : Model
    optimizer : Optimizer or None
        None if the caller updates the parameters.
    ops : module
        The backend.
    roles : Roles, optional
        The workers and servers, for strategy server.
    precision : Precision, optional
        The precision in which a GPU computes.

    Raises
    ------
    ConfigError
        On every rank, if the number of ranks or the memory does not suit the strategy.
    """
    if ops.ON_DEVICE:
        return _on_device(parallel, comm, model, optimizer, ops, precision)
    if parallel.n_groups is not None:
        return _exact(parallel, comm, model, optimizer, ops)
    if parallel.strategy == "auto":
        return _fastest(parallel, comm, model, optimizer, ops)
    name = parallel.strategy
    if name == "allreduce":
        return _allreduce(parallel, comm, model, optimizer, ops)
    if name == "hierarchical":
        return _hierarchical(
            comm, model.layout, optimizer, ops, compression=parallel.compression
        )
    if name == "server":
        return _server(parallel, roles, model, optimizer, ops)
    if name == "local":
        return _local(parallel, comm, model.layout, optimizer, ops)
    return _sharded(parallel, comm, model, optimizer, ops)


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
            compression=parallel.compression,
        )
    strategy.measure()
    return strategy


def _exact(parallel, comm, model, optimizer, ops):
    from pympi_train.comm.sums.tree import require_leaves
    from pympi_train.parallel.exact import Exact

    n_groups = parallel.n_groups
    require_leaves(n_groups, comm)
    with together(comm):
        return Exact(comm, model.layout, optimizer, ops, n_groups=n_groups)


def _hierarchical(comm, layout, optimizer, ops, *, compression="none"):
    from pympi_train.parallel.hierarchical import Hierarchical

    return Hierarchical(comm, layout, optimizer, ops, compression=compression)


def _on_device(parallel, comm, model, optimizer, ops, precision):
    """Return a strategy whose blocks lie in GPU memory."""
    transport = choose_transport(comm, parallel.transport)
    made_of = parallel, comm, model, optimizer, ops, precision, transport
    try:
        strategy = _by_transport(*made_of)
    except Exception:  # raised on every rank, for example for lack of memory
        transport.abandon()
        raise
    if transport.passed_over:
        strategy.chosen["passed_over"] = transport.passed_over
    return strategy


def _by_transport(parallel, comm, model, optimizer, ops, precision, transport):
    from pympi_train.parallel.gpu.allreduce import DeviceAllreduce
    from pympi_train.parallel.gpu.half import HalfAllreduce

    if parallel.strategy == "local":
        return _local(parallel, comm, model.layout, optimizer, ops, transport)
    if parallel.strategy == "sharded":
        return _sharded(parallel, comm, model, optimizer, ops, transport)
    made_of = comm, model.layout, optimizer, ops
    with together(comm):
        if precision is not None and precision.dtype is not None:
            return HalfAllreduce(
                *made_of,
                transport=transport,
                half=precision.dtype,
                scale=precision.scale,
            )
        return DeviceAllreduce(
            *made_of,
            transport=transport,
            spans=getattr(model, "layer_spans", ()),
            bucket_bytes=parallel.bucket_bytes,
            overlap=parallel.overlap,
            compression=parallel.compression,
        )


def _local(parallel, comm, layout, optimizer, ops, transport=None):
    from pympi_train.parallel.local import Local

    with together(comm):
        return Local(
            comm,
            layout,
            optimizer,
            ops,
            local_steps=parallel.local_steps,
            outer=parallel.outer,
            compression=parallel.compression,
            transport=transport,
        )


def _sharded(parallel, comm, model, optimizer, ops, transport=None):
    from pympi_train.parallel.sharded.strategy import Sharded

    spans = getattr(model, "layer_spans", ())
    with together(comm):
        return Sharded(
            comm,
            model.layout,
            optimizer,
            ops,
            spans=spans,
            stage=parallel.stage,
            transport=transport,
        )


def _fastest(parallel, comm, model, optimizer, ops):
    """Return the strategy for "auto", measured if the choice matters.

    One copy of the parameters per node is faster for some models on some machines.
    Allreduce is taken without measuring if only it supports the settings, for small
    models, and if no ranks share a node.
    """
    from pympi_train.parallel import trials
    from pympi_train.parallel.allreduce import Allreduce

    def plain(layout, optimizer):
        with together(comm):
            strategy = Allreduce(comm, layout, optimizer, ops)
        strategy.measure()
        return strategy

    layout, told = model.layout, {}
    if (
        optimizer is not None
        and _leaves_open(parallel)
        and layout.size * layout.dtype.itemsize >= trials.LEAST_BYTES
        and share_nodes(comm)
    ):
        makers = {
            "allreduce": plain,
            "hierarchical": lambda *of: _hierarchical(comm, *of, ops),
        }
        name, told = trials.choose_strategy(comm, layout, optimizer, makers)
        if name == "hierarchical":
            try:
                strategy = _hierarchical(comm, layout, optimizer, ops)
            except ConfigError:  # the sample fitted into memory, the model does not
                return _allreduce(parallel, comm, model, optimizer, ops)
            strategy.chosen.update(told)
            return strategy
    strategy = _allreduce(parallel, comm, model, optimizer, ops)
    strategy.chosen.update(told)
    return strategy


def _leaves_open(parallel):
    """Return whether ``parallel`` has no setting that only allreduce supports."""
    return parallel == replace(
        type(parallel)(),
        timeout_s=parallel.timeout_s,
        check_every=parallel.check_every,
        debug=parallel.debug,
        overlap="off" if parallel.overlap == "off" else "auto",
    )


def make_roles(parallel, comm):
    """Return the Roles of the ranks of ``comm``; None without servers. Collective.

    Raises
    ------
    ConfigError
        On every rank, if no rank would be a worker.
    """
    if parallel.strategy != "server":
        return None
    from pympi_train.comm.roles import Roles

    return Roles(comm, parallel.servers)


def _server(parallel, roles, model, optimizer, ops):
    staleness, compression = parallel.staleness, parallel.compression
    if roles.serves:
        from pympi_train.parallel.server.server import Server

        with together(roles.everyone):
            return Server(roles, model.layout, optimizer, ops, staleness, compression)
    from pympi_train.parallel.server.worker import StaleWorker, Worker

    with together(roles.everyone):
        if staleness:
            return StaleWorker(roles, model.layout, ops, staleness, compression)
        return Worker(roles, model.layout, ops, compression)
