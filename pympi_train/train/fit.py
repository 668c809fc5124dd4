"""One call of ``Trainer.fit``: the epochs, their steps and their records."""

import numpy as np

from pympi_train.comm.checks import KeepsError, is_agreed, raise_together, together
from pympi_train.comm.collectives import from_rank_0, reduced
from pympi_train.comm.watch import journal as j
from pympi_train.data.epoch import EpochPlan
from pympi_train.train.record import Stopwatch
from pympi_train.train.stopping import has_reached

NO_ROWS = slice(0, 0)


class Fit(KeepsError):
    """One call of ``fit`` on a rank that has a share of the rows.

    Parameters
    ----------
    trainer : Trainer
    made : Assembly
        The parts of the trainer.
    given : FitArguments
        The rows of ``train`` lie on the ranks that compute them; ``monitor`` is a key
        of the records.
    stopping : EarlyStopping or None
    speed : Speed
        Measures how fast this rank is, to balance the ranks.

    Attributes
    ----------
    records : list of dict
        One record per epoch.
    feed : Feed
        The batches of the training rows.
    can_be_cut : bool
        Whether the evaluation at the end of an epoch may be ended, and repeated later.

    Notes
    -----
    Collective.
    """

    def __init__(self, trainer, made, given, stopping, speed):
        self._goal, self._is_reached = None, False
        if given.target is not None:
            self._goal = given.monitor, given.target
        train, validation = given.train, given.validation
        self.trainer, self.strategy = trainer, trainer.strategy
        self._made, self.train, self.feed = made, train, made.feed(train)
        self._evaluate, self._stopping = None, stopping
        if validation is not None:
            self._evaluate = trainer.evaluator(validation)
        self._on_epoch, self._on_step = given.on_epoch, given.on_step
        self.records, self._stopwatch = [], Stopwatch(trainer.comm, self.strategy)
        self._speed, self._told = speed if given.balance else None, {}
        self.can_be_cut = False

    def begin_epoch(self):
        """Start the clocks of an epoch; move rows if ranks should be balanced.

        Notes
        -----
        Collective.
        """
        self._stopwatch.start()
        if self._speed is not None:
            self._balance()

    def _balance(self):
        """Move rows to the ranks that were fast; in the middle of an epoch, none do.

        Collective.
        """
        placement, train, speed = self._made.placement, self.train, 0.0
        if self.trainer.progress.batch == 0:
            speed = self._speed.take(self.trainer.comm)
        old, new = placement.balanced(train, speed)
        if new != old:
            self.feed = None  # it may hold rows in the memory of a GPU
            placement.move(train, old, new)
            self.feed = self._made.feed_again(train)
        counts = np.diff(placement.rows_of(new, train))
        self._told = {
            "rows_least": int(counts.min()),
            "rows_most": int(counts.max()),
            "rank_of_least": int(counts.argmin()),
        }
        self.strategy.laps.lap("communication")

    def measure(self, part=1.0):
        """Measure this rank's speed by a part of an epoch, which has just been done."""
        if self._speed is not None:
            self._speed.add(self.strategy.laps, part * len(self.train))

    def end_epoch(self, loss, lr=None, **told):
        """End an epoch: evaluate, add its record; return why the training is over.

        Returns "" if it is not. Returns None if the evaluation was ended: the epoch has
        then no record, and its end is to be repeated. ``told`` holds further fields of
        the record, equal on all ranks.

        Notes
        -----
        Collective.
        """
        trainer, n_rows = self.trainer, self.train.n
        spent = self._stopwatch.spent(trainer.progress.spent)
        times = self._stopwatch.stop(n_rows, trainer.progress.spent)
        measured = self._measured()
        if measured is None:
            trainer.progress.spent = spent
            return None
        trainer.progress.end_epoch(n_rows)  # last: until here, it can be repeated
        record = {
            "epoch": trainer.epoch,
            "step": trainer.steps,
            "samples": trainer.samples,
            "train_loss": loss,
            "learning_rate": lr,
            **told,
            **trainer.precision.told(),
            **measured,
            **self._told,
            **times,
        }
        if trainer.noise is not None:
            record["gradient_noise"] = trainer.noise.estimate(trainer.comm)
        self.records.append(record)
        self.strategy.mark(j.END_OF_EPOCH)
        if self._stopping is not None:  # first: a callback may save the state
            self._stopping.take(record)
        if self._goal is not None:
            is_reached = float(has_reached(record, *self._goal))
            self._is_reached = bool(from_rank_0(trainer.comm, is_reached)[0])
        self._call(self._on_epoch, record)
        raise_together(trainer.comm, self._error)
        return self.is_over()

    def _measured(self):
        """Return the metrics of the validation rows; None if a rank cannot wait."""
        if self._evaluate is None:
            return {}
        self.strategy.mark(j.EVALUATION)
        with self.strategy.traced("evaluation"):
            found = self._evaluate(lambda: self.can_be_cut and self.trainer.is_urgent)
        return found and {"validation_loss": found.pop("loss"), **found}

    def is_over(self):
        """Return why the training is over: "target", "patience", or "" if it is not."""
        if self._is_reached:
            return "target"
        stopping, epoch = self._stopping, self.trainer.epoch
        return "patience" if stopping is not None and stopping.is_over(epoch) else ""

    def is_told_to_stop(self):
        """Return whether any rank requested to stop. Collective."""
        return bool(reduced(self.trainer.comm, [self.trainer.stopping], op="MAX")[0])

    def _call(self, callback, *args):
        """Call a user's function; keep its exception until all ranks raise."""
        if callback is None or self._error is not None:
            return
        try:
            callback(*args)
        except Exception as caught:
            if is_agreed(caught, self.trainer.comm):
                raise
            self._error = caught

    def descend(self, epochs):
        """Run the steps of ``epochs`` epochs; return why they ended.

        The rest of an unfinished epoch counts as one epoch.

        Notes
        -----
        Collective.
        """
        self.can_be_cut = True
        trainer, progress = self.trainer, self.trainer.progress
        full_batch = trainer.optimizer.full_batch
        batch_size = self.train.n if full_batch else trainer.batch_size
        trainer.precision.expect(batch_size)
        with together(trainer.comm):
            n_steps = progress.begin(self.train.n, batch_size)
        left = epochs * n_steps - progress.batch
        total = max(progress.total_updates, self.strategy.count + left)
        progress.total_updates = total
        for n_left in range(epochs, 0, -1):
            self.begin_epoch()
            first = progress.batch
            before = self.strategy.count - first
            progress.begin(self.train.n, batch_size)
            try:
                stop = self._steps(n_steps, batch_size, goes_on=n_left > 1)
                self.measure((progress.batch - first) / n_steps)
                is_whole = progress.batch == n_steps
                if not is_whole:
                    raise_together(trainer.comm, self._error)
                stop |= self.strategy.settle()
            finally:  # failed steps are undone; on some ranks several of them
                progress.undo(before + progress.batch - self.strategy.count)
            if not is_whole:
                progress.spent = self._stopwatch.spent(progress.spent)
                return "stop"
            weight, loss = self.strategy.totals(*progress.sums())
            mean = float(loss / weight) if weight > 0 else 0.0
            reason = self.end_epoch(mean, progress.lr)
            if reason is None:
                return "stop"
            if reason:
                return reason
            stop |= self.is_told_to_stop()
            if stop and n_left > 1:
                return "stop"
        return "epochs"

    def _steps(self, n_steps, batch_size, goes_on):
        """Run the remaining steps of an epoch; return whether to stop.

        ``goes_on`` says that another epoch may follow.
        """
        trainer, progress, strategy = self.trainer, self.trainer.progress, self.strategy
        step, feed = strategy.step, self.feed
        shares = self._shares(batch_size, progress.batch, goes_on)
        # No step is left if only the evaluation of an epoch is to be repeated.
        upcoming = self._attempt(next, shares) if progress.batch < n_steps else None
        for done in range(progress.batch + 1, n_steps + 1):
            rows = NO_ROWS if upcoming is None else upcoming
            upcoming = self._attempt(next, shares) if done < n_steps else None
            feed.announce(upcoming)
            strategy.goes_on = upcoming is not None
            lr = self._attempt(self._learning_rate, n_steps)
            if trainer.noise is not None:
                left = self.train.n - (done - 1) * batch_size
                trainer.noise.n_rows = min(batch_size, left)
            outcome = step(feed, rows, lr, error=self._error, stop=trainer.stopping)
            progress.add(outcome, lr)
            if self._on_step is not None:
                self._call(self._on_step, trainer.epoch + 1, done, n_steps)
            if outcome.stop:
                return True
        return False

    def _learning_rate(self, n_steps):
        trainer = self.trainer
        factor = trainer.schedule.factor(
            self.strategy.count,
            steps_per_epoch=n_steps,
            total_updates=trainer.progress.total_updates,
        )
        return factor * trainer.optimizer.lr

    def _shares(self, batch_size, first, goes_on):
        """Yield this rank's rows of each global batch, from batch ``first`` on."""
        train, trainer = self.train, self.trainer
        if batch_size >= train.n:  # all rows in one batch: their order does not matter
            yield slice(0, len(train))
            return
        plan = EpochPlan(
            train.n,
            trainer.seed,
            trainer.epoch,
            train.start,
            train.stop,
            batch_size,
            train.order,
            goes_on,
        )
        for index in range(first, plan.n_batches):
            train.read_ahead(plan.read_ahead(index))
            yield plan.batch(index)
