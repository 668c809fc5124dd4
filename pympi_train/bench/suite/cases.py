"""What ``bench all`` times: kernels, exchanges, steps, input and checkpoints."""

import importlib.util
import os
import secrets
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pympi_train.bench import exchange, reading, saving, step, tables
from pympi_train.bench.loops import copy_of, loops_of
from pympi_train.bench.stream import Triad
from pympi_train.bench.suite.timing import Benchmark
from pympi_train.comm.checks import together
from pympi_train.data.formats.read import read_rows
from pympi_train.data.windows.choice import choose_windows
from pympi_train.flat.memory import Layout, Tensor
from pympi_train.parallel.allreduce import Allreduce

ROWS = 64  # of a rank's batch
LIMIT_OF_MEMORY, LIMIT_OF_PRODUCTS = "kernels/triad", "kernels/matmul"
COMPRESSED = ("bf16", "int8")
STRATEGIES = ("allreduce", "sharded")


class Sizes(NamedTuple):
    """Sizes of what is timed, and for how long.

    Attributes
    ----------
    elements : int
        Of the arrays of kernels.
    product : int
        Rows and columns of the matrices whose product is the limit.
    blocks : tuple of int
        Bytes of the blocks that are exchanged.
    layers : dict of str to list of int
        Layers of the networks, by name.
    file_bytes, state_bytes : int
        Of each rank's input, and of the whole checkpoint.
    rounds : int
    round_s : float
        Seconds of each benchmark in a round.
    """

    elements: int
    product: int
    blocks: tuple
    layers: dict
    file_bytes: int
    state_bytes: int
    rounds: int
    round_s: float


FULL = Sizes(
    elements=2**22,
    product=1024,
    blocks=(2**12, 2**16, 2**20, 25_000_000),
    layers={"softmax": [784, 10], "mlp": [784, 512, 512, 10]},
    file_bytes=2**26,
    state_bytes=10**8,
    rounds=10,
    round_s=0.2,
)
QUICK = Sizes(
    elements=2**16,
    product=256,
    blocks=(2**12, 2**18),
    layers={"softmax": [64, 10], "mlp": [64, 64, 10]},
    file_bytes=2**20,
    state_bytes=10**6,
    rounds=4,
    round_s=0.004,
)


def kernel_cases(ops, backend, sizes):
    """Return the benchmarks of the triad, the matrix product and all hot loops.

    Parameters
    ----------
    ops : module
        Of the backend.
    backend : str
        Its name.
    sizes : Sizes

    Returns
    -------
    list of Benchmark
        On a GPU, a copy takes the place of the triad.
    """
    dtype, n = np.dtype(np.float32), sizes.elements
    settings = {"elements": n, "dtype": "float32"}
    if ops.ON_DEVICE:
        limit, n_bytes = partial(copy_of, ops, n, dtype), 2 * n * dtype.itemsize
        settings["limit"] = "copy"
    else:
        limit, n_bytes = partial(Triad, n, dtype, backend), 3 * n * dtype.itemsize
        settings["limit"] = "triad"
    triad = Benchmark(
        LIMIT_OF_MEMORY,
        lambda: getattr(limit(), "call", None) or limit(),
        settings,
        n_bytes=n_bytes,
    )
    square = (sizes.product,) * 3
    found = [triad, _product(LIMIT_OF_PRODUCTS, ops, square, None)]
    layer = (ROWS, *sizes.layers["mlp"][:2])
    found.append(_product("kernels/layer", ops, layer, LIMIT_OF_PRODUCTS))
    for name, make in loops_of(ops).items():
        found.append(
            Benchmark(
                f"kernels/{name}",
                lambda make=make: make(ops, n, dtype).call,
                {"elements": n, "dtype": "float32"},
                n_bytes=make(ops, n, dtype).n_bytes,
                beside=LIMIT_OF_MEMORY,
            )
        )
    return found


def _product(name, ops, shape, beside):
    """Return the benchmark of a product of k x m and m x n matrices."""
    k, m, n = shape

    def make():
        left, right = _matrix(ops, k, m), _matrix(ops, m, n)
        return partial(ops.matmul, left, right, ops.empty((k, n), np.float32))

    settings = {"shape": [k, m, n], "dtype": "float32"}
    return Benchmark(name, make, settings, n_flops=2 * k * m * n, beside=beside)


def _matrix(ops, k, m):
    matrix = ops.empty((k, m), np.float32)
    ops.from_host(np.random.default_rng(0).random((k, m), np.float32), matrix)
    return matrix


def exchange_cases(comm, ops, sizes):
    """Return the benchmarks of sums over ranks, beside MPI's Allreduce. Collective."""
    found = []
    for n_bytes in sizes.blocks:
        layout = Layout([Tensor("weight", (n_bytes // 4,))], "float32")
        strategy = Allreduce(comm, layout, None, ops)
        strategy.measure()
        calls = exchange.ways_to_sum(comm, strategy, n_bytes // 4)
        calls = {name: calls[name] for name in ("plain", "allreduce")}
        if n_bytes >= exchange.COMPRESSED_BYTES:
            ways = exchange.compressed_ways(comm, n_bytes // 4, ops)
            calls |= {name: ways[name] for name in COMPRESSED}
        plain = f"exchange/plain {n_bytes}"
        for name, call in calls.items():
            found.append(
                Benchmark(
                    f"exchange/{name} {n_bytes}",
                    partial(_same, call),
                    {"bytes": n_bytes},
                    n_bytes=n_bytes,
                    beside=None if name == "plain" else plain,
                    prepare=getattr(call, "prepare", None),
                )
            )
    return found


def _same(call):
    return call


def step_cases(stack, comm, backend, sizes):
    """Return the benchmarks of training steps, by network and strategy.

    Parameters
    ----------
    stack : ExitStack
        Closes the trainings.
    comm : MPI.Comm
    backend : str
    sizes : Sizes

    Notes
    -----
    Collective.
    """
    found = []
    for model, layers in sizes.layers.items():
        for strategy in STRATEGIES if comm.size > 1 else STRATEGIES[:1]:
            how = {"model": model, "layers": layers, "batch_size": ROWS}
            training = step.random_training(
                comm, **how, backend=backend, parallel=[f"strategy={strategy}"]
            )
            trainer, call = stack.enter_context(training)
            call()
            while trainer.choosing:
                call()
            found.append(
                Benchmark(
                    f"step/{model} {strategy}",
                    partial(_same, call),
                    {**how, "strategy": strategy, "optimizer": "adam"},
                    n_flops=step_flops(layers, ROWS),
                    n_rows=ROWS,
                    beside=LIMIT_OF_PRODUCTS,
                )
            )
    return found


def step_flops(layers, n_rows):
    """Return the floating-point operations of the matrix products of a step.

    A layer of n x m weights takes 2 n m operations a row for its outputs, as many for
    its gradient, and as many for that of its inputs, which the first layer does not
    need.
    """
    weights = [n * m for n, m in zip(layers, layers[1:])]
    return 2 * n_rows * (3 * sum(weights) - weights[0])


def input_cases(stack, comm, folder, sizes):
    """Return the benchmarks of reading; each rank has a file of its own in ``folder``.

    The file is dropped from the page cache before each reading. Collective.
    """
    n = sizes.file_bytes // reading.ROW_BYTES
    with together(comm):
        path = stack.enter_context(reading.random_file(Path(folder), n))
    out = np.empty((reading.BATCH_ROWS, reading.ROW_BYTES // 4), np.float32)
    windows = choose_windows(n, reading.ROW_BYTES)
    how = {
        "settings": {"rows": n, "row_bytes": reading.ROW_BYTES},
        "n_bytes": n * reading.ROW_BYTES,
        "n_rows": n,
        "prepare": partial(reading.drop_cached, path),
    }
    batches = partial(reading.read_batches, path, n, out=out)
    plain, window = partial(reading.read_plain, path), {"order": windows}
    found = [
        Benchmark("input/read", partial(_same, plain), **how),
        Benchmark(
            "input/window",
            partial(_same, partial(batches, in_file_order=False, **window)),
            beside="input/read",
            **how,
        ),
    ]
    if importlib.util.find_spec("pyarrow") is not None:
        found.append(_table_case(stack, comm, folder, sizes))
    return found


def _table_case(stack, comm, folder, sizes):
    from mpi4py import MPI

    n = sizes.file_bytes // (4 * (tables.FEATURES + 1))
    with together(comm):
        table = stack.enter_context(tables.random_table(Path(folder), "parquet", n))
    options = {"target": "y", "target_kind": "number", "dtype": "float32"}
    return Benchmark(
        "input/parquet",
        partial(_same, partial(read_rows, str(table), MPI.COMM_SELF, **options)),
        {"rows": n, "features": tables.FEATURES},
        n_bytes=4 * n * (tables.FEATURES + 1),
        n_rows=n,
        prepare=partial(reading.drop_cached, table),
    )


def checkpoint_cases(stack, comm, folder, sizes):
    """Return the benchmarks of plain writes and of checkpoints in ``folder``.

    Collective.
    """
    name = f"pympi-train-bench-{secrets.token_hex(4)}"
    path = os.path.join(folder, comm.bcast(name, root=0))
    training = saving.saved_training(comm, folder, sizes.state_bytes)
    trainer, _ = stack.enter_context(training)
    n_bytes = trainer.save(path)
    if comm.rank == 0:  # alone, since the others may have failed; all have written
        stack.callback(shutil.rmtree, path, ignore_errors=True)
    settings = {"bytes": n_bytes}
    return [
        Benchmark(
            "checkpoint/plain",
            lambda: partial(saving.write_plain, comm, f"{path}.plain", n_bytes),
            settings,
            n_bytes=n_bytes // comm.size,
        ),
        Benchmark(
            "checkpoint/save",
            lambda: partial(trainer.save, path),
            settings,
            n_bytes=n_bytes // comm.size,
            beside="checkpoint/plain",
            prepare=partial(saving.remove_folder, comm, path),
        ),
    ]
