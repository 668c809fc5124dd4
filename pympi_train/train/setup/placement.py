"""Which rank computes a row: the rank that has it, or the rank that owns its group."""

import numpy as np

from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.collectives import broadcast, reduced
from pympi_train.comm.sums.tree import leaf_cuts
from pympi_train.data.balanced import balanced_cuts
from pympi_train.data.feeds.group_feed import MISPLACED, GroupFeed
from pympi_train.data.feeds.make import make_feed
from pympi_train.data.groups import own_cuts, regrouped, rows_of_groups
from pympi_train.errors import ConfigError
from pympi_train.train.metrics import Evaluator, ExactEvaluator


class Placement:
    """Computes rows on the rank that has them.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the rows.
    model : Model
    ops : module
        A backend.
    max_rows : int
        Maximum number of rows computed at once.
    dtype : dtype, optional
        The dtype the model computes in; by default that of its parameters.
    """

    def __init__(self, comm, model, ops, max_rows, dtype=None):
        self._comm, self._model, self._ops = comm, model, ops
        self._max_rows, self._dtype = max_rows, dtype
        self._y_dtype = getattr(model, "y_dtype", None)

    def place(self, dataset):
        """Return the dataset with rows on the ranks that compute them. Collective."""
        return dataset

    def require_placed(self, dataset):
        """Raise ConfigError unless `place` would leave the rows. Collective."""
        if self.place(dataset) is not dataset:
            raise agreed_within(self._comm, ConfigError(MISPLACED))

    def feed(self, dataset):
        """Return a Feed of a placed dataset."""
        return make_feed(dataset, self._max_rows, self._ops, self._y_dtype, self._dtype)

    def evaluator(self, dataset, pass_over):
        """Return an Evaluator of ``dataset``, called with parameter views. Collective.

        ``pass_over`` is the strategy's method.
        """
        return Evaluator(
            self._model,
            dataset,
            self._comm,
            micro_batch_size=self._max_rows,
            ops=self._ops,
            dtype=self._dtype,
            pass_over=pass_over,
        )

    def balanced(self, dataset, speed):
        """Return cuts of the units that move, as they are, and for equal times.

        Units are rows, or groups of rows.

        Parameters
        ----------
        dataset : Dataset
            Placed.
        speed : float
            Rows that this rank computes a second; 0: not measured.

        Returns
        -------
        old, new : list of int, length P + 1
            ``new`` by `data.balanced.balanced_cuts`. Equal on every rank.

        Notes
        -----
        Collective.
        """
        told = np.zeros((2, self._comm.size))
        told[:, self._comm.rank] = dataset.start, speed
        starts, speeds = reduced(self._comm, told)
        old = self._units([*map(int, starts), dataset.n])
        new = np.array(old, dtype=np.int64)
        with together(self._comm):
            if self._comm.rank == 0:  # ranks could differ in a last bit
                new[:] = balanced_cuts(old, speeds * old[-1] / dataset.n)
        broadcast(self._comm, new)
        return old, new.tolist()

    def _units(self, row_cuts):
        return row_cuts

    def rows_of(self, cuts, dataset):
        """Return the cuts of the rows for cuts of the units."""
        return cuts

    def move(self, dataset, old, new):
        """Move the dataset's rows from cuts of units to others, in place. Collective.
        """
        cuts = (self.rows_of(cuts, dataset) for cuts in (old, new))
        dataset.move(*cuts, self._comm)


class GroupedPlacement(Placement):
    """Computes rows in ``n_groups`` groups, whatever the number of ranks.

    At first the ranks share the groups evenly. Groups move as a whole; the strategy's
    ``share_groups`` is called with their new cuts.
    """

    def __init__(self, comm, model, ops, max_rows, n_groups, share_groups):
        super().__init__(comm, model, ops, max_rows)
        self._n_groups, self._share_groups = n_groups, share_groups
        self._shares = leaf_cuts(comm.size, n_groups)

    def place(self, dataset):
        """Return the dataset with rows on the ranks of their groups. Collective."""
        return regrouped(dataset, self._n_groups, self._comm, self._shares)

    def feed(self, dataset):
        """Return a Feed of a placed dataset whose batches can be cut by group."""
        ranks = self._comm.rank, self._comm.size
        cuts = own_cuts(dataset.n, self._n_groups, *ranks, self._shares)
        return GroupFeed(dataset, cuts, self._max_rows, self._y_dtype)

    def _units(self, row_cuts):
        return self._shares

    def rows_of(self, cuts, dataset):
        """Return the cuts of the rows for cuts of the groups."""
        return rows_of_groups(dataset.n, self._n_groups, cuts)

    def move(self, dataset, old, new):
        """Move groups between ranks; see `Placement.move`. Collective."""
        super().move(dataset, old, new)
        self._shares = new
        self._share_groups(new)

    def evaluator(self, dataset, pass_over):
        """Return an ExactEvaluator of ``dataset``. Collective."""
        return ExactEvaluator(
            self._model,
            regrouped(dataset, self._n_groups, self._comm),  # evenly
            self._comm,
            micro_batch_size=self._max_rows,
            ops=self._ops,
            n_groups=self._n_groups,
        )


def make_placement(n_groups, comm, model, ops, max_rows, dtype=None, strategy=None):
    """Return the Placement; without ``n_groups`` rows stay on their ranks."""
    if n_groups is not None:
        share = strategy.share_groups
        return GroupedPlacement(comm, model, ops, max_rows, n_groups, share)
    return Placement(comm, model, ops, max_rows, dtype)
