"""Exceptions that callers may want to catch by type."""

# What code raises that reads values which are not of the expected form.
MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class PympiTrainError(Exception):
    """Base class of the errors that this package raises on purpose."""


class UserError(PympiTrainError):
    """An error that the user can fix; the message says how. Exit status 2."""


class ConfigError(UserError):
    """An invalid configuration key or value."""


class UnstableError(ConfigError):
    """Learning rate and decay that make the weights grow at each step."""


class DataError(UserError):
    """A file that is missing, malformed, or does not fit the model."""


class UnreadableError(DataError):
    """A file that is there, but that the system cannot read."""


class LaunchError(UserError):
    """There is no MPI library, or the launcher does not belong to the loaded one."""


class DivergenceError(UserError):
    """The loss or the gradient became NaN or infinite."""

    undone = 0  # steps of this rank that the remaining parameters do not include


class DeviceMemoryError(UserError):
    """A GPU has too little memory for the training."""


class JobError(UserError):
    """A job of a pool that failed, was cancelled, or could not begin.

    Attributes
    ----------
    cause : str or None
        Name of the class of the error that it raised.
    """

    cause: str | None = None


class RankMismatchError(PympiTrainError):
    """A value that must be equal on all ranks differs between ranks."""


class DriftError(PympiTrainError):
    """Parameters that must be equal on all ranks differ."""


class RemoteRankError(PympiTrainError):
    """Another rank failed.

    Attributes
    ----------
    rank : int
        The rank that failed; the lowest one if several did.
    traceback : str
        The traceback of that rank, formatted.
    """

    def __init__(self, message, rank, traceback):
        super().__init__(message)
        self.rank = rank
        self.traceback = traceback
