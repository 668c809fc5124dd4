"""torch's tensors, and the example that trains a module of it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pympi_train as pt
from pympi_train.comm.exchange import as_block
from pympi_train.errors import DataError

PATH = Path(__file__).parents[2] / "examples" / "torch_mpi.py"

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def example(torch):
    spec = importlib.util.spec_from_file_location("torch_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_tensor_shares_its_memory(torch):
    tensor = torch.ones(2, 3)
    as_block(tensor)[1, 2] = 5
    assert tensor[1, 2] == 5


def test_tensors_that_cannot_be_summed(torch):
    ones = torch.ones(2, 3)
    wrong = [ones.half(), ones.bfloat16(), ones.T, ones.to("meta")]
    for tensor in (*wrong, ones.clone().requires_grad_()):
        with pytest.raises(DataError, match="torch.Tensor"):
            as_block(tensor)


@pytest.mark.mpi(min_size=2)
def test_sums_tensors(torch, comm):
    tensors = [torch.full((3, 2), float(comm.rank)), torch.ones(4).double()]
    with pt.Exchange(comm) as exchange:
        exchange.sum_all(tensors)
    assert (tensors[0] == sum(range(comm.size))).all()
    assert (tensors[1] == comm.size).all()


@pytest.mark.mpi(min_size=2)
def test_example_is_the_training_of_one_process(example, comm):
    from mpi4py import MPI

    accuracy, module = example.train(comm)
    _, alone = example.train(MPI.COMM_SELF)
    for ours, theirs in zip(module.parameters(), alone.parameters()):
        # Adam enlarges rounding where gradients are nearly zero.
        assert np.abs((ours - theirs).detach().numpy()).mean() < 1e-2
    assert accuracy > 0.88
    assert_allclose(example.train(comm, "int8")[0], accuracy, atol=0.03)
