"""How far a training has come, and how long its steps take."""

import time

EVERY_S = 0.25


class Meter:
    """Measures a training on constant ranks.

    Parameters
    ----------
    trainer : Trainer
    """

    def __init__(self, trainer):
        self._trainer = trainer
        self._last_s, self._last_step = time.monotonic(), trainer.steps

    def read(self):
        """Return what is new, at most every EVERY_S seconds and once a step, or None.

        Returns
        -------
        dict or None
            step, steps (of the whole training, as planned), epoch, step_s, exchange
            (share of the step's time in communication).
        """
        now_s, trainer = time.monotonic(), self._trainer
        n_steps, elapsed_s = trainer.steps - self._last_step, now_s - self._last_s
        if n_steps < 1 or elapsed_s < EVERY_S:
            return None
        self._last_s, self._last_step = now_s, trainer.steps
        seconds = trainer.laps.seconds
        return {
            "step": trainer.steps,
            "steps": max(trainer.progress.total_updates, trainer.steps),
            "epoch": trainer.epoch,
            "step_s": elapsed_s / n_steps,
            "exchange": seconds["communication"] / max(sum(seconds.values()), 1e-9),
        }
