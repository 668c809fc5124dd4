"""Epochs of mini-batch steps of all lanes."""

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import KeepsError, raise_together, together
from pympi_train.data.epoch import EpochPlan
from pympi_train.lanes.lane import DIVERGED, DROPPED, FINISHED, STOPPED
from pympi_train.lanes.updates import Updates, why_unstable

NO_ROWS = slice(0, 0)


class Descent(KeepsError):
    """Trains lanes by mini-batches, in the steps that a Trainer takes.

    Parameters
    ----------
    group : LaneGroup
        The lanes that are still trained.
    optimizer : Optimizer
    schedule : Schedule
    batch_size, epochs, seed : int
    clip_norm : float or None
    on_epoch, should_stop : callable or None
        As for `train_lanes`.
    """

    def __init__(
        self,
        group,
        optimizer,
        schedule,
        *,
        batch_size,
        epochs,
        seed,
        clip_norm,
        on_epoch,
        should_stop,
    ):
        self._group, self._data, self._comm = group, group.data, group.comm
        self._optimizer, self._schedule = optimizer, schedule
        n = self._data.n
        self._batch_size = n if optimizer.full_batch else min(batch_size, n)
        self._epochs, self._seed, self._clip_norm = epochs, seed, clip_norm
        self._on_epoch, self._should_stop = on_epoch, should_stop
        self._step = 0

    def run(self):
        """Train until all lanes have ended. Collective."""
        group = self._group
        self._drop_unstable()
        if group.live:
            self._updates = Updates(
                self._optimizer, group.lanes, group.products, self._clip_norm
            )
        for epoch in range(1, self._epochs + 1):
            if not group.live:
                return
            with computing():
                stop = self._run_epoch(epoch)
            if epoch < self._epochs:
                if stop:
                    group.end(group.live, STOPPED)
                    return
                self._ask(epoch)
            elif stop and self._is_cut:
                group.end(group.live, STOPPED)
        group.end(group.live, FINISHED)

    def _drop_unstable(self):
        group = self._group
        for index, lane in zip(group.live, group.lanes):
            l2 = lane.l2 if self._clip_norm is None else 0.0
            why = why_unstable(self._optimizer, lane.learning_rate, l2)
            group.results[index].message = why
        wrong = [i for i in group.live if group.results[i].message is not None]
        group.end(wrong, DIVERGED)

    def _run_epoch(self, epoch):
        """Run the steps of an epoch, and validate; return whether to stop."""
        group = self._group
        n_steps = -(-self._data.n // self._batch_size)
        self._sums = np.zeros((2, len(group.live)))  # weight, loss
        shares, self._is_cut = self._shares(epoch - 1, epoch < self._epochs), False
        for done in range(1, n_steps + 1):
            rows = self._attempt(next, shares)
            stop = self._take_step(NO_ROWS if rows is None else rows, n_steps)
            self._is_cut = done < n_steps and (stop or not group.live)
            if self._is_cut:
                break
        raise_together(self._comm, self._error)
        if self._is_cut or not group.live:
            return stop
        group.check_drift(f"after epoch {epoch}")
        weights, losses = self._sums
        means = losses / np.where(weights > 0, weights, 1.0)
        for index, mean in zip(group.live, means.tolist()):
            record = {"epoch": epoch, "step": self._step, "train_loss": mean}
            group.results[index].records.append(record)
        group.validate()
        return stop

    def _take_step(self, rows, n_steps):
        """Update all lanes by one global batch; return whether to stop."""
        group, updates, params = self._group, self._updates, self._group.params
        penalties = updates.penalties(params)
        factor = self._attempt(self._factor, n_steps)
        stop = self._attempt(self._should_stop) if self._should_stop else False
        weights, losses, stop = group.gradient(rows, error=self._error, stop=bool(stop))
        scales = np.divide(1.0, weights, out=np.zeros(len(weights)), where=weights > 0)
        is_finite = np.isfinite(losses)
        is_usable = updates.are_usable(params, group.grads, scales, factor)
        diverged = ~is_finite | (~is_usable & (weights > 0))
        active = (weights > 0) & ~diverged
        updates.update(params, group.grads, scales, factor, active)
        self._step += 1
        self._sums[0] += weights
        self._sums[1] += losses + weights * penalties
        if diverged.any():
            self._drop(diverged, is_finite)
        return stop

    def _drop(self, diverged, is_finite):
        """End the lanes of a mask, whose parameters are those before the step."""
        group = self._group
        for place in np.flatnonzero(diverged).tolist():
            what = "gradient" if is_finite[place] else "loss"
            text = f"the {what} became NaN or infinite at step {self._step}"
            group.results[group.live[place]].message = text
        self._end(diverged, DIVERGED)

    def _end(self, mask, status):
        """End the lanes of a mask; go on with the others. Collective."""
        group, kept = self._group, np.flatnonzero(~mask)
        before = group.columns
        group.end([group.live[i] for i in np.flatnonzero(mask)], status)
        self._sums = self._sums[:, kept]
        if group.live:
            updates = Updates(
                self._optimizer, group.lanes, group.products, self._clip_norm
            )
            updates.take_over(self._updates, before, kept)
            self._updates = updates

    def _ask(self, epoch):
        """Ask ``on_epoch`` which lanes to drop. Collective."""
        group = self._group
        mask = np.zeros(len(group.results), np.int8)
        if self._on_epoch is None or not group.live:
            return
        with together(self._comm):
            found = self._on_epoch(epoch, group.results)
            mask[list(() if found is None else found)] = 1
        self._comm.Bcast(mask, root=0)
        if mask[group.live].any():
            self._end(mask[group.live] > 0, DROPPED)

    def _factor(self, n_steps):
        return self._schedule.factor(
            self._step, steps_per_epoch=n_steps, total_updates=n_steps * self._epochs
        )

    def _shares(self, epoch, goes_on):
        """Yield this rank's rows of each global batch of an epoch."""
        data = self._data
        if self._batch_size >= data.n:
            yield slice(0, len(data))
            return
        plan = EpochPlan(
            data.n,
            self._seed,
            epoch,
            data.start,
            data.stop,
            self._batch_size,
            data.order,
            goes_on,
        )
        for index in range(plan.n_batches):
            data.read_ahead(plan.read_ahead(index))
            yield plan.batch(index)
