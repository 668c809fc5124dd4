"""How the rows of a data set become batches: in rank order, or group by group."""

from pympi_train.backends.threads import limit_to_one
from pympi_train.data.feeds import make_feed
from pympi_train.data.groups import own_cuts, regrouped
from pympi_train.parallel.exact_step import ExactStep, GroupFeed
from pympi_train.parallel.free_step import FreeStep
from pympi_train.parallel.step import Step
from pympi_train.train.metrics import Evaluator, ExactEvaluator


class Placement:
    """A rank's rows as they lie: what ``reduction = "fast"`` trains on.

    Parameters
    ----------
    comm : MPI.Comm
        The ranks that share the rows.
    model : Model
    ops : module
        A backend.
    most : int
        Placement computed at once.
    dtype : dtype, optional
        That the model computes in, if not in that of its parameters.
    """

    def __init__(self, comm, model, ops, most, dtype=None):
        self._comm, self._model, self._ops, self._most = comm, model, ops, most
        self._dtype = dtype
        self._y_dtype = getattr(model, "y_dtype", None)

    @staticmethod
    def step_kind(strategy):
        """Return the class of the steps that ``strategy`` takes."""
        return Step if strategy.synchronous else FreeStep

    def placed(self, dataset):
        """Return the dataset with its rows where they are computed. Collective."""
        return dataset

    def feed(self, dataset):
        """Return a placed dataset as batches."""
        return make_feed(
            dataset, self._most, self._ops, self._y_dtype, self._dtype
        )

    def evaluator(self, dataset, meets):
        """Return a function of parameter views that measures ``dataset``. Collective.

        ``meets``: whether the ranks meet in the model's calls.
        """
        return Evaluator(
            self._model,
            dataset,
            self._comm,
            micro_batch_size=self._most,
            ops=self._ops,
            dtype=self._dtype,
            meets=meets,
        )


class GroupedPlacement(Placement):
    """Placement in ``n_groups`` groups that know no rank: ``reduction = "exact"``."""

    def __init__(self, comm, model, ops, most, n_groups):
        super().__init__(comm, model, ops, most)
        self._n_groups = n_groups

    @staticmethod
    def step_kind(strategy):
        """Return the class of the steps that ``strategy`` takes."""
        return ExactStep

    def placed(self, dataset):
        """Return the dataset with rows where their groups are. Collective."""
        limit_to_one()  # again: another Trainer may have set its share since
        return regrouped(dataset, self._n_groups, self._comm)

    def feed(self, dataset):
        """Return a placed dataset as batches that can be cut by group."""
        rank, size = self._comm.rank, self._comm.size
        cuts = own_cuts(dataset.n, self._n_groups, rank, size)
        return GroupFeed(dataset, cuts, self._most, self._ops, self._y_dtype)

    def evaluator(self, dataset, meets):
        """Return a function of views that measures ``dataset``. Collective."""
        return ExactEvaluator(
            self._model,
            self.placed(dataset),
            self._comm,
            micro_batch_size=self._most,
            ops=self._ops,
            meets=meets,
            n_groups=self._n_groups,
        )


def make_rows(parallel, comm, model, ops, most, dtype=None):
    """Return the Placement that ``parallel`` asks for."""
    if parallel.reduction == "exact":
        return GroupedPlacement(comm, model, ops, most, parallel.virtual_shards)
    return Placement(comm, model, ops, most, dtype)
