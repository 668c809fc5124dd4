"""Which GPU a rank gets, and who shares one."""

import gpus
import pytest

from pympi_train.backends import gpu
from pympi_train.comm import launcher
from pympi_train.comm.devices import choose_backend, local_rank, ranks_by_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning"),
]
on_ranks = pytest.mark.mpi(min_size=2, max_size=3)


@pytest.fixture(autouse=True)
def bound(comm):
    gpus.use()
    gpu.unavailable(local_rank(comm))


@pytest.fixture
def own(monkeypatch):
    """What a process knows of its GPU, as at its start."""
    from pympi_train.backends.cuda import device as cuda

    cuda._device.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    cuda._device.cache_clear()


@on_ranks
def test_a_rank_alone_has_its_number_among_all(comm, monkeypatch):
    from mpi4py import MPI

    own = local_rank(comm)
    assert sorted(comm.allgather(own)) == list(range(comm.size))
    assert local_rank(MPI.COMM_SELF) == own
    for name in launcher.LOCAL_RANKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(comm.size))
    monkeypatch.setenv("SLURM_LOCALID", str(5 + comm.rank))
    assert local_rank(comm) == local_rank(MPI.COMM_SELF) == 5 + comm.rank
    monkeypatch.setenv("SLURM_LOCALID", "5")  # of a launcher around this one
    assert local_rank(comm) == comm.rank
    assert local_rank(MPI.COMM_SELF) == 5
    monkeypatch.delenv("SLURM_LOCALID")
    assert local_rank(MPI.COMM_SELF) == 0


@on_ranks
def test_a_process_keeps_its_gpu(comm):
    from mpi4py import MPI

    from pympi_train.backends.cuda import device as cuda

    before = cuda.device()
    turned = comm.Split(color=0, key=-comm.rank)
    for group in (MPI.COMM_SELF, turned, comm):
        choose_backend(group, "cuda")
        assert cuda.device() == before
    turned.Free()


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
@on_ranks
def test_ranks_that_see_one_gpu_each_share_none(comm, own):
    own.setenv("CUDA_VISIBLE_DEVICES", str(comm.rank))
    own.setattr("cupy.cuda.runtime._current", 0)
    assert ranks_by_gpu(comm) == [[rank] for rank in range(comm.size)]


@pytest.mark.skipif(gpus.PRESENT, reason="there is a GPU")
@on_ranks
def test_one_gpu_is_one_by_whatever_number_it_goes(comm, own):
    own.setenv("CUDA_VISIBLE_DEVICES", "1" if comm.rank else "3,1")
    own.setattr("cupy.cuda.runtime._current", 0 if comm.rank else 1)
    assert ranks_by_gpu(comm) == [list(range(comm.size))]


@on_ranks
def test_cupy_on_some_ranks_alone_is_told(comm, monkeypatch):
    monkeypatch.setattr(gpu, "_found", [])
    monkeypatch.setattr(gpu, "is_installed", lambda: comm.rank == 0)
    found = choose_backend(comm, "auto")
    assert found.name != "cuda"
    assert "no GPU: rank 1: CuPy is not installed" in found.reason


def test_no_visible_gpu_is_told_with_the_variable(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = gpu._told(RuntimeError("cudaErrorNoDevice: no CUDA-capable device"))
    assert line == "the driver shows no GPU (CUDA_VISIBLE_DEVICES is '')"
