import json

import gpus
import pytest

from pympi_train.backends.select import select
from pympi_train.bench import kernels, loops
from pympi_train.cli import main
from pympi_train.errors import ConfigError


@pytest.fixture(params=["numpy", "numba", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request, comm):
    if request.param != "cuda":
        return select(request.param)
    from mpi4py import MPI

    from pympi_train.comm.devices import choose_backend

    gpus.use()
    return choose_backend(MPI.COMM_SELF, "cuda")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_hot_loop_is_timed_beside_a_copy(backend, dtype, monkeypatch):
    monkeypatch.setattr(kernels, "BATCH", 1)
    found = kernels.measure(backend, 1000, dtype, repeats=1)
    assert set(found["kernels"]) == set(loops.loops_of(backend.ops))
    assert found["backend"] == backend.name and found["copy_bytes_per_s"] > 0
    for one in found["kernels"].values():
        assert one["bytes_per_s"] == pytest.approx(one["bytes"] / one["median_s"])
        assert one["share_of_copy"] > 0


@pytest.mark.parametrize(
    "name, bytes_each",
    [
        ("adam_update", 28),
        ("sgd_update", 12),
        ("sgd_update, momentum", 20),
        ("squared_norm", 8),
        ("add", 12),
        ("pack_bf16", 14),
    ],
)
def test_bytes_are_those_of_the_table_of_kernels(name, bytes_each):
    found = kernels.measure(select("numpy"), 4096, repeats=1)
    assert found["kernels"][name]["bytes"] == 4096 * bytes_each


@pytest.mark.gpu
@pytest.mark.parametrize(
    "name, bytes_each",
    [("adam_update", 26), ("sgd_update", 10), ("squared_norm", 6), ("add", 10)],
)
def test_half_gradients_save_two_bytes(comm, name, bytes_each):
    from mpi4py import MPI

    from pympi_train.comm.devices import choose_backend

    gpus.use()
    found = kernels.measure(choose_backend(MPI.COMM_SELF, "cuda"), 4096, repeats=1)
    assert found["kernels"][f"{name}, float16"]["bytes"] == 4096 * bytes_each


def test_every_function_of_a_backend_that_loops_is_timed():
    ops = select("numpy").ops
    timed = {name.split(",")[0] for name in loops.CASES}
    # BLAS computes products; the others allocate, copy, or are special cases.
    others = {"matmul", "copy", "copy_rows", "empty", "zeros", "empty_block"}
    others |= {"subtract"}
    others |= {"to_host", "from_host", "numbers", "weights_square", "square"}
    assert timed <= set(ops.__all__)
    assert set(ops.__all__) - timed <= others | {"ON_DEVICE"}


def test_command(capsys):
    argv = ["bench", "kernels", "--backend", "numpy", "--size", "1000", "--repeats"]
    assert main([*argv, "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["size"] == 1000 and set(found["kernels"]) == set(loops.CASES)
    assert main([*argv, "1"]) == 0
    text = capsys.readouterr().out
    assert "backend numpy (as configured)" in text and "of a copy" in text
    assert all(name in text for name in loops.CASES)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((999,), "size must be at least 1000"),
        ((1000, "float16"), "dtype must be float32 or float64, got 'float16'"),
        ((1000, "float32", 0), "repeats at least 1"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        kernels.measure(select("numpy"), *arguments)
