"""torch's tensors, and the example that trains a module of it."""

import sys
from pathlib import Path

import pytest

from pympi_train.comm.exchange import as_block
from pympi_train.errors import DataError

PATH = Path(__file__).parents[2] / "examples" / "torch_mpi.py"

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


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


@pytest.mark.parametrize("n_ranks, arguments", [(2, []), (3, ["int8"])])
def test_example(torch, mpirun, n_ranks, arguments):
    returncode, stdout, stderr = mpirun(n_ranks, [sys.executable, PATH, *arguments])
    assert returncode == 0, stdout + stderr
    assert stdout.startswith(f"{n_ranks} ranks")
    assert float(stdout.split()[-1]) > 0.88
