"""Epochs of steps, each by the gradient of one global batch."""

from pympi_train.comm import collectives
from pympi_train.data.order import plan_epoch


def descend(trainer, step, feed, train, *, epochs, start, finish, on_step):
    """Train for some epochs; return why they ended.

    Parameters
    ----------
    trainer : Trainer
        Gives batch size, seed, schedule, and the epochs done.
    step : Step
    feed : Feed
    train : Dataset
    epochs : int
    start : callable
        ``start()`` when an epoch begins.
    finish : callable
        ``finish(loss, lr)`` when it ends; returns whether to stop.
    on_step : callable or None
        ``on_step(epoch, done, total)`` after each step.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """
    optimizer = trainer.optimizer
    batch_size = train.n if optimizer.full_batch else trainer.batch_size
    trainer.precision.expect(batch_size)
    n_steps = -(-train.n // batch_size)
    first, total = step.count, epochs * n_steps
    for epoch in range(trainer.epoch, trainer.epoch + epochs):
        start()
        weights = losses = 0.0
        shares = _shares(trainer, train, epoch, batch_size)
        for done, (rows, upcoming) in enumerate(_with_next(shares), 1):
            feed.announce(upcoming)
            factor = trainer.schedule.factor(
                step.count - first, steps_per_epoch=n_steps, total_updates=total
            )
            lr = factor * optimizer.lr
            weight, loss = step.run(feed, rows, lr)
            weights, losses = weights + weight, losses + weight * loss
            if on_step is not None:
                on_step(epoch + 1, done, n_steps)
        step.settle()
        if not step.synchronous:  # those of this rank's shares
            weights, losses = collectives.reduced(trainer.comm, [weights, losses])
        if finish(float(losses / weights) if weights > 0 else 0.0, lr):
            return "patience"
    return "epochs"


def _shares(trainer, train, epoch, batch_size):
    """This rank's rows of each global batch of an epoch."""
    if batch_size >= train.n:  # all rows, in any order: no need to gather them
        return [slice(0, len(train))]
    plan = plan_epoch(
        train.n, trainer.seed, epoch, train.start, train.stop, batch_size
    )
    return map(plan.batch, range(plan.n_batches))


def _with_next(shares):
    """Yield each share and the one after it, None after the last."""
    shares = iter(shares)
    now = next(shares, None)
    while now is not None:
        then = next(shares, None)
        yield now, then
        now = then
