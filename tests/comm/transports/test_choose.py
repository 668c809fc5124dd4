"""What moves blocks between GPUs, against MPI in host memory; which one is taken."""

import io
import sys
import threading

import gpus
import numpy as np
import pytest

from pympi_train.comm.transports import cuda_aware
from pympi_train.errors import ConfigError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning"),
]
on_ranks = pytest.mark.mpi(min_size=2, max_size=3)
SIZES = (0, 1, 7, 1000, 30_001)


@pytest.fixture(autouse=True)
def gpu(monkeypatch, comm, tmp_path):
    from pympi_train.comm.devices import choose_backend

    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", comm.bcast(str(tmp_path), root=0))
    monkeypatch.delenv(cuda_aware.OVERRIDE, raising=False)
    choose_backend(comm, "cuda")


@pytest.fixture
def aware(monkeypatch):
    """MPI that reads the GPU's memory: the stand-in's is the host's."""
    if not gpus.PRESENT:
        monkeypatch.setenv(cuda_aware.OVERRIDE, "1")


@pytest.fixture(params=["nccl", "mpi", "staged"])
def transport(request, comm, aware, monkeypatch):
    from pympi_train.comm.transports import staged
    from pympi_train.comm.transports.choose import choose_transport

    if gpus.PRESENT:
        gpus.require_transport(request.param, comm)
    monkeypatch.setattr(staged, "CHUNK_BYTES", 4096)  # several of them
    found = choose_transport(comm, request.param)
    assert found.name == request.param
    yield found
    found.free()


@pytest.fixture
def host(comm):
    from pympi_train.comm.transports.host import HostTransport

    return HostTransport(comm)


def numbers(comm, n, dtype="f4"):
    """Return whole numbers, other ones on each rank: their sums have one result."""
    rng = np.random.default_rng(comm.rank)
    return rng.integers(-1000, 1000, n).astype(dtype)


def put(array):
    from pympi_train.backends.cuda import ops

    there = ops.empty(array.shape, array.dtype)
    ops.from_host(array, there)
    return there


def get(array):
    from pympi_train.backends.cuda import ops

    return ops.to_host(array)


@on_ranks
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sum(comm, transport, host, dtype):
    for n in SIZES:
        want = numbers(comm, n, dtype)
        block = put(want)
        transport.sum(block)
        host.sum(want)
        np.testing.assert_array_equal(get(block), want)


@on_ranks
def test_sum_in_stretches_that_are_not_written_yet(comm, transport, host):
    from pympi_train.backends.cuda import device as cuda
    from pympi_train.backends.cuda import ops

    want = numbers(comm, 10_001)
    source, block, ready = put(want), put(np.zeros_like(want)), []
    for start, stop in ((0, 10), (10, 10), (10, 9_000), (9_000, 10_001)):
        ops.copy(source[start:stop], block[start:stop])
        ready.append((start, stop, cuda.record()))
    transport.sum(block, ready)
    if transport.name == "nccl":  # its stream waits by itself, whatever runs first
        cuda.wait_for(transport._stream)
    ops.scale(block, 0.5)
    host.sum(want)
    np.testing.assert_array_equal(get(block), want / 2)


@on_ranks
@pytest.mark.parametrize("empty", [False, True])
def test_slices_of_a_sum_and_back(comm, transport, host, empty):
    counts = [17 + 100 * rank for rank in range(comm.size)]
    if empty:
        counts[0] = 0
    want, n = numbers(comm, sum(counts)), counts[comm.rank]
    block, out = put(want), put(np.zeros(n, "f4"))
    transport.reduce_scatter(block, counts, out)
    want_out = np.zeros(n, "f4")
    host.reduce_scatter(want, counts, want_out)
    np.testing.assert_array_equal(get(out), want_out)

    start = sum(counts[: comm.rank])
    whole = put(np.full(sum(counts), np.nan, "f4"))
    from pympi_train.backends.cuda import ops

    ops.copy(out, whole[start : start + n])
    transport.all_gather(whole, counts)
    np.testing.assert_array_equal(get(whole), np.concatenate(comm.allgather(want_out)))


@on_ranks
def test_slices_of_bytes(comm, transport, host):
    sizes = [0, 33, 64][: comm.size]
    codes = np.random.default_rng(comm.rank).integers(0, 255, sum(sizes), "u1")
    found = []
    for way, make in ((transport, put), (host, np.copy)):
        block, slices = make(codes), way.slices(sizes)
        parts = make(np.zeros((comm.size, sizes[comm.rank]), "u1"))
        slices.start_scatter(block, parts).Wait()
        slices.start_gather(block).Wait()
        read = get if way is transport else np.copy
        found.append((read(parts), read(block)))
    for mine, theirs in zip(*found):
        np.testing.assert_array_equal(mine, theirs)


def choose(comm, name="auto"):
    """Return the name of the transport that is taken. Collective."""
    from pympi_train.comm.transports.choose import choose_transport

    found = choose_transport(comm, name)
    found.free()
    names = comm.allgather(found.name)
    assert len(set(names)) == 1
    return names[0]


@pytest.fixture
def without_nccl(monkeypatch, comm):
    """One rank has no NCCL."""
    from pympi_train.backends.cuda import nccl as cuda_nccl

    reason = "it is not there" if comm.rank == comm.size - 1 else None
    monkeypatch.setattr(cuda_nccl, "unavailable", lambda: reason)


standin_only = pytest.mark.skipif(gpus.PRESENT, reason="depends on the ranks' GPUs")


@on_ranks
@standin_only
def test_auto_takes_nccl(comm):
    assert choose(comm) == "nccl"


@on_ranks
@standin_only
def test_auto_takes_mpi_where_one_rank_has_no_nccl(comm, without_nccl, aware):
    assert choose(comm) == "mpi"


@on_ranks
def test_auto_takes_pinned_memory_where_nothing_else_works(comm, without_nccl):
    assert choose(comm) == "staged"


@on_ranks
def test_one_rank_that_has_no_nccl_is_named(comm, without_nccl):
    text = f"transport nccl: rank {comm.size - 1}: it is not there"
    with pytest.raises(ConfigError, match=text):
        choose(comm, "nccl")


@on_ranks
@standin_only
def test_mpi_that_does_not_say_so_is_refused(comm):
    with pytest.raises(ConfigError, match=f"set {cuda_aware.OVERRIDE}=1 on all ranks"):
        choose(comm, "mpi")


@on_ranks
@standin_only
def test_mpi_has_to_be_able_on_all_ranks(comm, aware, without_nccl, monkeypatch):
    if comm.rank == 0:
        monkeypatch.setenv(cuda_aware.OVERRIDE, "0")
    assert choose(comm) == "staged"


@on_ranks
@standin_only
def test_a_transport_that_adds_up_wrongly_on_one_rank_is_not_taken(
    comm, aware, monkeypatch
):
    from pympi_train.comm.transports.nccl import NcclTransport

    right = NcclTransport.sum

    def wrong(self, block, ready=()):
        right(self, block, ready)
        if comm.rank == 1:
            from pympi_train.backends.cuda import ops as cuda_ops

            cuda_ops.fill(block[7:8], 0.0)

    monkeypatch.setattr(NcclTransport, "sum", wrong)
    assert choose(comm) == "mpi"
    with pytest.raises(ConfigError, match="rank 1: a sum came out wrong"):
        choose(comm, "nccl")


@on_ranks
@standin_only
def test_a_transport_that_raises_is_not_taken(comm, monkeypatch):
    from pympi_train.backends.cuda import nccl as cuda_nccl
    from pympi_train.comm.transports.choose import choose_transport

    def fails(self, *args):
        raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR")

    monkeypatch.setattr(cuda_nccl.Communicator, "reduce", fails)
    assert choose(comm) == "staged"
    found = choose_transport(comm, "auto")
    found.free()
    assert found.passed_over.startswith(
        "nccl: rank 0: RuntimeError: NCCL_ERROR_SYSTEM_ERROR; mpi: MPI has to read"
    )


def test_a_rank_that_failed_says_so_while_the_others_do_not_come(monkeypatch):
    from pympi_train.comm.transports import choose as transport

    said, flushed = io.StringIO(), threading.Event()
    said.flush = flushed.set
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(transport, "TELL_AFTER_S", 0.0)

    class Comm:
        rank, size = 1, 2

        def allgather(self, reason):
            assert reason is None or flushed.wait(60)
            return [None, reason]

    assert transport._agreed_reason(Comm(), "nccl", None) is None
    assert transport._agreed_reason(Comm(), "nccl", "Odd: it") == "rank 1: Odd: it"
    told = said.getvalue()
    assert told == "rank 1 of 2 waits for the others, as its nccl failed: Odd: it\n"


@pytest.mark.parametrize("value", ["1", "0", " 1 "])
def test_what_the_environment_says_is_believed(monkeypatch, value):
    monkeypatch.setenv(cuda_aware.OVERRIDE, value)
    assert cuda_aware.supported() is (value.strip() == "1")


def test_what_it_may_not_say_is_refused(monkeypatch):
    monkeypatch.setenv(cuda_aware.OVERRIDE, "perhaps")
    with pytest.raises(ConfigError, match="expected 0 or 1, got 'perhaps'"):
        cuda_aware.supported()


class OpenMPI:
    """A library that knows one of the questions."""

    def __init__(self, answer):
        self.MPIX_Query_cuda_support = lambda: answer


class MPICH:
    def __init__(self, status, answer):
        self._status, self._answer = status, answer

    def MPIX_GPU_query_support(self, kind, found):  # noqa: N802: MPICH's
        assert kind == 0
        found._obj.value = self._answer
        return self._status


@pytest.mark.parametrize(
    "library, vendor, answer",
    [
        (OpenMPI(1), "Open MPI", True),
        (OpenMPI(0), "Open MPI", False),
        (MPICH(0, 1), "MPICH", True),
        (MPICH(0, 0), "MPICH", False),
        (MPICH(1, 1), "MPICH", None),  # the question itself failed
        (object(), "Open MPI", None),
        (object(), "MPICH", None),
        (OpenMPI(1), "MPICH", None),  # MPICH's would end the process
    ],
)
def test_what_a_library_answers(library, vendor, answer):
    assert cuda_aware._ask(library, vendor) is answer


def test_else_the_library_is_asked(comm):
    assert cuda_aware.supported() in (
        (True, False, None) if gpus.PRESENT else (False, None)
    )
