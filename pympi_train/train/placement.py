"""Where rows are computed: as they lie, or by the rank that owns their group."""

from pympi_train.comm.checks import agreed_within
from pympi_train.data.feeds.group_feed import MISPLACED, GroupFeed
from pympi_train.data.feeds.make import make_feed
from pympi_train.data.groups import own_cuts, regrouped
from pympi_train.errors import ConfigError
from pympi_train.train.metrics import Evaluator, ExactEvaluator


class Placement:
    """Rows are computed on the rank that has them.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the rows.
    model : Model
    ops : module
        A backend.
    max_rows : int
        Rows computed at once.
    dtype : dtype, optional
        That the model computes in, if not in that of its parameters.
    """

    def __init__(self, comm, model, ops, max_rows, dtype=None):
        self._comm, self._model, self._ops = comm, model, ops
        self._max_rows, self._dtype = max_rows, dtype
        self._y_dtype = getattr(model, "y_dtype", None)

    def place(self, dataset):
        """Return the dataset with its rows where they are computed. Collective."""
        return dataset

    def require_placed(self, dataset):
        """Raise ConfigError unless its rows are where they are computed. Collective."""
        if self.place(dataset) is not dataset:
            raise agreed_within(self._comm, ConfigError(MISPLACED))

    def feed(self, dataset):
        """Return a placed dataset as batches."""
        return make_feed(dataset, self._max_rows, self._ops, self._y_dtype, self._dtype)

    def evaluator(self, dataset, pass_over):
        """Return a function of parameter views that measures ``dataset``. Collective.

        ``pass_over`` is that of the strategy.
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
    """Rows are computed in ``n_groups`` groups that know no rank."""

    def __init__(self, comm, model, ops, max_rows, n_groups):
        super().__init__(comm, model, ops, max_rows)
        self._n_groups = n_groups

    def place(self, dataset):
        """Return the dataset with rows where their groups are. Collective."""
        return regrouped(dataset, self._n_groups, self._comm)

    def feed(self, dataset):
        """Return a placed dataset as batches that can be cut by group."""
        rank, size = self._comm.rank, self._comm.size
        cuts = own_cuts(dataset.n, self._n_groups, rank, size)
        return GroupFeed(dataset, cuts, self._max_rows, self._y_dtype)

    def evaluator(self, dataset, pass_over):
        """Return a function of views that measures ``dataset``. Collective."""
        return ExactEvaluator(
            self._model,
            self.place(dataset),
            self._comm,
            micro_batch_size=self._max_rows,
            ops=self._ops,
            n_groups=self._n_groups,
        )


def make_placement(n_groups, comm, model, ops, max_rows, dtype=None):
    """Return the Placement; ``n_groups`` is None for rows as they lie."""
    if n_groups is not None:
        return GroupedPlacement(comm, model, ops, max_rows, n_groups)
    return Placement(comm, model, ops, max_rows, dtype)
