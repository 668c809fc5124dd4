"""What a training on some ranks leaves to the ranks that go on when others die."""


class Attempt:
    """A training on some ranks, as far as it has come.

    Attributes
    ----------
    trainer : Trainer or None
        None until the run directory is this run's.
    saver : Checkpoints or None
    records : list of dict
        Those of the epochs so far.
    """

    trainer = saver = None

    def __init__(self):
        self.records = []

    @property
    def has_saved(self):
        """Whether a checkpoint was written."""
        return self.saver is not None and self.saver.has_saved

    def begin(self, trainer, saver, records):
        """Note that the run directory is this run's, and what trains."""
        self.trainer, self.saver = trainer, saver
        self.records = list(records)

    def abandon(self):
        """Wait for threads that write a checkpoint. Not collective."""
        if self.saver is not None:
            self.saver.abandon()
