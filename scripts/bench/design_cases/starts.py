"""Work at the start of a training."""

import operator

from design_cases.mock import Mock, case, layout

CATEGORIES = [f"category {i}" for i in range(20)]


@case("start", "equal settings (Trainer, fit, Ranks)", "comm/checks.py")
def settings(size):
    from pympi_train.comm.checks import require_all_equal

    comm, found = Mock(size), {f"setting {i}": i for i in range(20)}
    return lambda: require_all_equal(comm, found)


@case("start", "nodes of the ranks", "comm/mesh.py")
def nodes(size):
    from pympi_train.comm.mesh import Nodes

    return lambda: Nodes(Mock(size))


@case("start", "rows of each rank: bounds", "data/partition.py")
def rows(size):
    from pympi_train.data.partition import bounds

    return lambda: bounds(1000 * size, size)


@case("start", "rows agreed: Dataset.split", "comm/messages.py")
def dataset(size):
    from pympi_train.comm.messages import numbers_of_ranks

    comm = Mock(size)
    return lambda: numbers_of_ranks(comm, 1000, False).T


@case("start", "files: of_each", "data/formats/files.py")
def files(size):
    from pympi_train.data.formats.files import of_each

    paths = [f"part-{i:05}.npy" for i in range(1000)]

    class Some(Mock):
        """The ranks of which as many have a file as there are files."""

        def Allgather(self, own, everyones):
            everyones[: len(paths)], everyones[len(paths) :] = own, 0

        def Allgatherv(self, own, everyones):
            everyones[0].reshape(-1, own.size)[:] = own

    return lambda: of_each(paths, str, Some(size))


@case("start", "20 categories agreed", "data/formats/categories.py")
def categories(size):
    from pympi_train.data.formats.categories import in_order

    comm = Mock(size)
    return lambda: in_order(comm.allreduce(set(CATEGORIES), op=operator.or_))


@case("start", "strategy allreduce", "parallel/allreduce.py")
def make_allreduce(size):
    return _strategy(size, "pympi_train.parallel.allreduce", "Allreduce")


@case("start", "strategy local", "parallel/local.py")
def make_local(size):
    return _strategy(
        size, "pympi_train.parallel.local", "Local", local_steps=8, outer="mean"
    )


@case("start", "strategy sharded, stage 3", "parallel/sharded/partition.py")
def make_sharded(size):
    return _strategy(size, "pympi_train.parallel.sharded.strategy", "Sharded", stage=3)


@case("start", "strategy exact, a group a rank", "comm/sums/subtrees.py")
def make_exact(size):
    return _strategy(size, "pympi_train.parallel.exact", "Exact", n_groups=size)


def _strategy(size, module, name, **how):
    import importlib

    from pympi_train.backends.numpy import ops
    from pympi_train.optim.adam import Adam

    cls, made_of = getattr(importlib.import_module(module), name), layout()
    return lambda: cls(Mock(size), made_of, Adam(0.01), ops, **how)
