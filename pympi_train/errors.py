"""Exceptions that callers may want to catch by kind."""


class PympiTrainError(Exception):
    """Root of the errors this package raises on purpose."""


class UserError(PympiTrainError):
    """Something the user can mend; the message says how. Exit status 2."""


class ConfigError(UserError):
    """A configuration key or value that makes no sense."""


class DataError(UserError):
    """A file that is missing, malformed, or does not fit the model."""


class LaunchError(UserError):
    """No MPI library, or a launcher that does not belong to the loaded one."""


class DivergenceError(UserError):
    """The loss or the gradient became NaN or infinite."""

    undone = 0  # steps by which this rank was ahead of the parameters that are left


class DeviceMemoryError(UserError):
    """A GPU has not the memory that a training asks of it."""


class RankMismatchError(PympiTrainError):
    """Ranks disagree about something that has to be equal everywhere."""


class DriftError(PympiTrainError):
    """Parameters that have to be equal on all ranks no longer are."""


class RemoteRankError(PympiTrainError):
    """Another rank failed.

    Attributes
    ----------
    rank : int
        The rank that failed; the lowest where several did.
    traceback : str
        Its traceback, formatted there.
    """

    def __init__(self, message, rank, traceback):
        super().__init__(message)
        self.rank = rank
        self.traceback = traceback
