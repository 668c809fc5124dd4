"""The state of a `Trainer`: saved, and loaded into another."""

from functools import cached_property

from pympi_train.backends.numerics import numerics
from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.checkpoint.write import Writing
from pympi_train.mpi_libraries import library_title
from pympi_train.train import saving
from pympi_train.train.base import BaseTrainer


class Resumable(BaseTrainer):
    """A training whose state can be saved, and that goes on from a saved one."""

    def state(self, copies=True):
        """Return this rank's part of the state from which the training can resume.

        The state holds the parameters, the optimizer state, the residuals of
        compression, the loss scale, the position in the epoch and the schedule, and
        the best epoch of early stopping. Call it between calls of ``fit``, or at the
        end of an epoch; with servers only outside ``fit``.

        Parameters
        ----------
        copies : bool
            False: it may hold the arrays of the training themselves, which the next
            step changes.

        Returns
        -------
        State
            In host memory. `State.merged` merges the states of all ranks.

        Raises
        ------
        RuntimeError
            If part of the state is not available at this time.

        Notes
        -----
        Collective.
        """
        self._require_alive()
        return saving.state_of(self, self._everyone, copies)

    def writing(self, path, *, about=None, texts=None, room_bytes=-1, done=None):
        """Return a `checkpoint.write.Writing` of the state, which has these options.

        Collective. May be called when `state` may.
        """
        self._require_alive()
        state = saving.state_of(self, self._everyone, copies=False)
        return Writing(
            state,
            path,
            self._everyone,
            about={**self._software, **(about or {})},
            texts=texts,
            room_bytes=room_bytes,
            done=done,
        )

    @cached_property
    def _software(self):
        """What determines the last bits on this rank, as plain values."""
        from mpi4py import MPI

        return {
            "numerics": numerics(self.backend.ops.ON_DEVICE),
            "mpi": library_title(MPI.Get_library_version()),
        }

    def load_state(self, state):
        """Continue from a saved state of this training or another.

        Model and kind of optimizer must be the same; batch size, strategy and number
        of ranks may differ. State that this strategy needs and the saved one did not
        have is initialised.

        Parameters
        ----------
        state : State
            Merged from all ranks; equal on every rank.

        Raises
        ------
        DataError
            On every rank, if a part is missing or does not fit. The trainer is then
            unchanged.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        saving.resume(self, state, self._everyone)

    def start_from(self, weights):
        """Start from the weights of another training instead of the initial ones.

        Call it before the first step. Tensors fit if they have the name and the shape
        of one of the model's; the others of the model keep their initial values.

        Parameters
        ----------
        weights : dict of str to ndarray
            As `weights` of another Trainer, or of `load_model`; equal on every rank.
            Anything that has ``shape``, ``dtype`` and slices serves as an array: a rank
            reads only what it holds.

        Returns
        -------
        dict of str to str
            Why tensors do not fit, by name, in either direction; empty if all do.

        Raises
        ------
        DataError
            On every rank, if none fits, or one has a NaN or an infinity. The trainer is
            then unchanged.
        ConfigError
            On every rank, if steps were taken.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        return saving.start(self, weights, self._everyone)

    def save(self, path, *, about=None, texts=None):
        """Write the `state` to a new folder, a checkpoint; return its bytes.

        All ranks write at once. Any number of ranks can `load` it.

        Parameters
        ----------
        path : str
            The folder, which must not exist.
        about : dict, optional
            Plain values to be stored with it.
        texts : dict of str to str, optional
            Files to be stored with it, and their content.

        Raises
        ------
        DataError
            On every rank, if it cannot be written; nothing is left of it.

        Notes
        -----
        Collective. May be called when `state` may.
        """
        work = self.writing(path, about=about, texts=texts)
        work.write()
        return work.finish()

    def load(self, path):
        """Continue from a checkpoint that `save` wrote, as `load_state` does.

        Raises
        ------
        DataError
            On every rank, if a file is missing or damaged, or a part does not fit. The
            trainer is then unchanged.

        Notes
        -----
        Collective.
        """
        self._require_idle()
        self.load_state(read_checkpoint(path, self._everyone).state)
