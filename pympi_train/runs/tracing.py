"""The trace of a training: recorded on all ranks, written as one file by rank 0."""

import contextlib
import socket
from time import perf_counter

import numpy as np

from pympi_train.checkpoint.durable import naming
from pympi_train.comm.checks import is_agreed, together
from pympi_train.comm.collectives import reduced
from pympi_train.comm.mesh import Nodes
from pympi_train.comm.watch.clocks import read_offset
from pympi_train.errors import DataError
from pympi_train.runs.output import TRACE, replacing
from pympi_train.trace import chrome
from pympi_train.trace.clocks import Reading, on_common_clock

MOST_SPANS = 2**16  # of a rank
LEAST_SPANS = 2**10
ALL_SPANS = 2**22  # of all ranks: about 500 MB of JSON, which Perfetto still opens
MAX_SHARE = 0.01  # of the time
PIECE_BYTES = 2**20
TAG = 8


@contextlib.contextmanager
def traced(config, comm, trainer, run, console=None):
    """Trace the body if ``[output] trace`` says so, and write the file at its end.

    It is also written when the body raises an error on all ranks together.

    Parameters
    ----------
    config : Config
    comm : MPI.Comm
        All ranks of the job, servers too.
    trainer : Trainer
    run : RunDirectory or None
        On rank 0.
    console : Console or None
        On rank 0.

    Notes
    -----
    Collective.
    """
    if not config.output.trace:
        yield
        return
    trace = RunTrace(comm, trainer)
    try:
        yield
    except Exception as error:
        if is_agreed(error, comm):
            with contextlib.suppress(DataError):  # the first error counts
                trace.write(run)
            trace.free()
        raise
    path = trace.write(run)
    trace.free()
    if console is not None:
        console.say(f"trace    {path}")


class RunTrace:
    """Records a training from now on, and writes its file.

    Parameters
    ----------
    comm : MPI.Comm
        All ranks of the job, servers too.
    trainer : Trainer

    Notes
    -----
    Collective; ``write`` is too.

    The clocks of different nodes are compared now, and again by ``write``; their drift
    is taken as constant in between. The ranks of a node read the same clock of the
    kernel.
    """

    def __init__(self, comm, trainer):
        self._comm, self._trainer = comm, trainer
        self._nodes = Nodes(comm)
        try:
            self._node, self._first = self._read_clock()
        except Exception:
            self._nodes.free()
            raise
        self._zero_s = self._from_root(perf_counter() + self._first.offset_s)
        self._trace = trainer.start_trace(spans_for(comm.size), MAX_SHARE)

    def free(self):
        """Free the communicators. Collective."""
        self._nodes.free()

    def write(self, run):
        """Write the spans of all ranks to a file of the run directory.

        Parameters
        ----------
        run : RunDirectory or None
            On rank 0.

        Returns
        -------
        Path
            Of the file; on rank 0.

        Raises
        ------
        DataError
            On every rank, if the file cannot be written.

        Notes
        -----
        Collective. A rank holds the text of its own spans, and rank 0 receives that of
        the others in pieces of 1 MiB, one rank after another.
        """
        spans, flights = self._trace.read()
        _, last = self._read_clock()
        for table in (spans, flights):
            for name in ("start_s", "end_s"):
                times_s = on_common_clock(table[name], self._first, last)
                # The first spans of another rank may lie before rank 0 has started.
                table[name] = np.maximum(times_s - self._zero_s, 0.0)
        text = chrome.lane_text(
            spans,
            self._comm.rank,
            self._node,
            socket.gethostname(),
            "server" if self._trainer.serves else "",
            self._trace.is_overwritten,
            flights,
        ).encode()
        layout = self._trainer.model.layout
        n_bytes = layout.n_parameters * layout.dtype.itemsize
        trainer = self._trainer
        told = [last.error_s, trainer.trace_every, trainer.steps, n_bytes]
        error_s, *told = reduced(self._comm, told, op="MAX").tolist()
        every, last_step, n_bytes = map(int, told)
        about = {
            "ranks": self._comm.size,
            "every": every,
            "last_step": last_step,
            "clock_error_us": round(error_s * 1e6, 3),
            "gradient_bytes": n_bytes,
        }
        return _write_in_turn(self._comm, run and run.path / TRACE, about, text)

    def _read_clock(self):
        """Return the number of this node, and the Reading of its clock. Collective."""
        nodes, found = self._nodes, np.zeros(4)
        if nodes.n_nodes > 1 and nodes.node.rank == 0:
            found[:] = nodes.across.rank, *read_offset(nodes.across)
        nodes.node.Bcast(found)
        number, at_s, offset_s, error_s = found.tolist()
        return int(number), Reading(at_s or perf_counter(), offset_s, error_s)

    def _from_root(self, value):
        found = np.array([value])
        self._comm.Bcast(found)
        return float(found[0])


def spans_for(n_ranks):
    """Return the number of spans that each of ``n_ranks`` ranks keeps."""
    return max(LEAST_SPANS, min(MOST_SPANS, ALL_SPANS // n_ranks))


def _write_in_turn(comm, path, about, text):
    """Write all ranks' texts to the file ``path`` of rank 0. Collective."""
    sizes = np.zeros(comm.size if comm.rank == 0 else 0, np.int64)
    comm.Gather(np.array([len(text)]), sizes)
    with contextlib.ExitStack() as files:
        file = None
        with together(comm):
            if comm.rank == 0:
                temporary = files.enter_context(replacing(path))
                file = files.enter_context(open(temporary, "wb"))
        error = None
        if comm.rank > 0:
            for piece in _pieces(len(text)):
                comm.Ssend(text[piece], 0, TAG)  # rank 0 has room for one piece
        else:
            own = chrome.head_text(about).encode() + text
            error = _copy_all(comm, sizes, own, file)
        with together(comm):
            if error is not None:
                with naming(path):
                    raise error
            files.close()  # renames the file
    return path


def _copy_all(comm, sizes, text, file):
    """Write this rank's text and those of the others; return an error, or None.

    After an error, the others' texts are only received, so that no rank waits.
    """
    error = _write(file, text)
    room = memoryview(bytearray(PIECE_BYTES))
    for rank in range(1, comm.size):
        error = error or _write(file, b",\n")
        for piece in _pieces(int(sizes[rank])):
            own = room[: piece.stop - piece.start]
            comm.Recv(own, rank, TAG)
            error = error or _write(file, own)
    return error or _write(file, chrome.END_OF_FILE.encode())


def _write(file, data):
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        return error
    return None


def _pieces(n_bytes):
    starts = range(0, n_bytes, PIECE_BYTES)
    return [slice(start, min(start + PIECE_BYTES, n_bytes)) for start in starts]
