"""Writes a checkpoint: all ranks write tensors, rank 0 the manifest."""

import shutil
import threading

import numpy as np

from pympi_train.checkpoint import manifest
from pympi_train.checkpoint.folder import begin_folder, complete_folder, write_share
from pympi_train.checkpoint.shares import own_share
from pympi_train.comm.checks import raise_together, together
from pympi_train.comm.collectives import reduced

TAG = 20_711  # of the messages to rank 0, on a communicator that others use too


def write_checkpoint(state, path, comm, *, about=None, texts=None):
    """Write the state of a training to a new folder; return the bytes of its files.

    The folder appears under its name when everything in it is on the disk.

    Parameters
    ----------
    state : State
        This rank's part.
    path : str
        The folder, which must not exist; equal on every rank. Folders above it are
        made.
    comm : MPI.Comm
        All ranks that have a part of the state.
    about : dict, optional
        Plain values to be stored in the manifest; rank 0's count.
    texts : dict of str to str, optional
        Further files and their content; rank 0's are written.

    Raises
    ------
    DataError
        On every rank, if a rank cannot write, or the folder exists. Nothing is left of
        the checkpoint.

    Notes
    -----
    Collective.

    Ranks that hold the same elements write equal shares of them, of at least 4 MiB. The
    files are in the format safetensors, and a rank's is named after it; a JSON file,
    the manifest, says which region of which tensor lies where.
    """
    work = Writing(state, path, comm, about=about, texts=texts)
    work.write()
    return work.finish()


class Writing:
    """A checkpoint that is being written.

    Parameters
    ----------
    state, path, comm, about, texts
        As for `write_checkpoint`. The arrays of the state must not change before
        `write` has returned, unless ``is_copied``.
    room_bytes : int
        Copy what the ranks write if this is room enough on each of them; -1: never.
    done : callable, optional
        Called on rank 0 when the checkpoint is whole.

    Attributes
    ----------
    is_copied : bool
        Whether this object has copies of the arrays.

    Raises
    ------
    DataError
        On every rank, if the folder cannot be made.

    Notes
    -----
    Collective.

    After `write`, which may run in a thread, every rank tells rank 0 what it has
    written. Rank 0 then writes the manifest, and renames the folder. Both happen in
    `finish`, or earlier by `poll`.
    """

    def __init__(
        self, state, path, comm, *, about=None, texts=None, room_bytes=-1, done=None
    ):
        self._comm, self._path, self._done = comm, path, done
        self._about, self._texts = about or {}, texts or {}
        self._values, self._folder = state.values, None
        self._entry = self._error = self._request = None  # of `write`, and its sending
        self._entries, self._end, self._n_bytes = {}, None, 0
        with together(comm):
            if comm.rank == 0:
                self._folder = begin_folder(path)
        self._folder = comm.bcast(self._folder, root=0)
        share = own_share(comm, state)
        n_bytes = sum(region.array.nbytes for _, region in share)
        self.is_copied = not reduced(comm, [n_bytes > room_bytes], op="MAX")[0]
        if self.is_copied:
            share = [(name, r._replace(array=r.array.copy())) for name, r in share]
        self._share = share

    def write(self):
        """Write this rank's tensors; keep an error for `finish`. Makes no MPI call."""
        try:
            made_of = self._folder, self._comm.rank, self._share, self._values
            self._entry = manifest.packed(write_share(*made_of))
        except Exception as error:
            self._error, self._entry = error, b""
        self._share = None

    def start(self):
        """Let a thread `write`."""
        self._thread = threading.Thread(target=self.write, name="checkpoint")
        self._thread.start()

    def poll(self):
        """Go on if this rank, or rank 0, can; return at once. Not collective."""
        if self._entry is None:  # not yet written
            return
        if self._comm.rank != 0:
            self._tell()
            return
        from mpi4py import MPI

        status = MPI.Status()
        while self._comm.Iprobe(MPI.ANY_SOURCE, TAG, status):
            self._hear(status.source, status.Get_count(MPI.BYTE))
        if len(self._entries) == self._comm.size - 1 and self._end is None:
            self._end = threading.Thread(target=self._complete, name="manifest")
            self._end.start()

    def finish(self):
        """Wait until the checkpoint is whole; return its bytes, on every rank.

        Raises
        ------
        DataError
            On every rank, if a rank could not write. Nothing is left of it.

        Notes
        -----
        Collective.
        """
        if self._thread is not None:
            self._thread.join()
        if self._comm.rank != 0:
            self._tell()
            self._request.Wait()
        else:
            for source in range(1, self._comm.size):
                if source not in self._entries:
                    self._hear(source)
            if self._end is not None:
                self._end.join()
            else:
                self._complete()
        try:
            raise_together(self._comm, self._error)
        except BaseException:
            if self._comm.rank == 0:
                shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self._comm.bcast(self._n_bytes, root=0)

    def abandon(self):
        """Wait for this rank's threads only: other ranks have died. Not collective."""
        for thread in (self._thread, self._end):
            if thread is not None:
                thread.join()

    def _tell(self):
        """Send this rank's entry to rank 0; empty: it has failed."""
        if self._request is None:
            own = np.frombuffer(self._entry, np.uint8)
            self._request = self._comm.Isend(own, 0, TAG)

    def _hear(self, source, n_bytes=None):
        from mpi4py import MPI

        if n_bytes is None:
            status = MPI.Status()
            self._comm.Probe(source, TAG, status)
            n_bytes = status.Get_count(MPI.BYTE)
        block = np.empty(n_bytes, np.uint8)
        self._comm.Recv(block, source, TAG)
        self._entries[source] = block.tobytes()

    def _complete(self):
        """Write the manifest, and rename the folder; on rank 0."""
        entries = [self._entry, *(self._entries[i] for i in sorted(self._entries))]
        if not all(entries):  # a rank has failed
            return
        try:
            found = map(manifest.unpacked, entries)
            made_of = self._folder, self._path, found, self._about, self._texts
            self._n_bytes = complete_folder(*made_of)
            if self._done is not None:
                self._done()
        except Exception as error:
            self._error = error

    _thread = None
