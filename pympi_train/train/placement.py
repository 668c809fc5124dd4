"""Which rank computes a row: the rank that has it, or the rank that owns its group."""

from pympi_train.comm.checks import agreed_within
from pympi_train.data.feeds.group_feed import MISPLACED, GroupFeed
from pympi_train.data.feeds.make import make_feed
from pympi_train.data.groups import own_cuts, regrouped
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


class GroupedPlacement(Placement):
    """Computes rows in ``n_groups`` groups, whatever the number of ranks."""

    def __init__(self, comm, model, ops, max_rows, n_groups):
        super().__init__(comm, model, ops, max_rows)
        self._n_groups = n_groups

    def place(self, dataset):
        """Return the dataset with rows on the ranks of their groups. Collective."""
        return regrouped(dataset, self._n_groups, self._comm)

    def feed(self, dataset):
        """Return a Feed of a placed dataset whose batches can be cut by group."""
        rank, size = self._comm.rank, self._comm.size
        cuts = own_cuts(dataset.n, self._n_groups, rank, size)
        return GroupFeed(dataset, cuts, self._max_rows, self._y_dtype)

    def evaluator(self, dataset, pass_over):
        """Return an ExactEvaluator of ``dataset``. Collective."""
        return ExactEvaluator(
            self._model,
            self.place(dataset),
            self._comm,
            micro_batch_size=self._max_rows,
            ops=self._ops,
            n_groups=self._n_groups,
        )


def make_placement(n_groups, comm, model, ops, max_rows, dtype=None):
    """Return the Placement; without ``n_groups`` rows stay on their ranks."""
    if n_groups is not None:
        return GroupedPlacement(comm, model, ops, max_rows, n_groups)
    return Placement(comm, model, ops, max_rows, dtype)
