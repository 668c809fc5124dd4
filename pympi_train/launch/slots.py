"""How many ranks can be started now: found by starting a program that does nothing."""

import subprocess

from pympi_train.errors import LaunchError
from pympi_train.launch.launched import Launched

NOTHING = ("true",)
START_S = 60.0  # maximum time to start and end a program that does nothing


def largest_number(can_start, least, most):
    """Return the largest number of ranks that can be started; None if none can.

    Parameters
    ----------
    can_start : callable
        Of a number of ranks. If it is true for a number, it is for smaller ones.
    least, most : int
        Bounds, inclusive.

    Notes
    -----
    It asks for ``most`` first, then for ``least``, and then halves what is left.
    """
    if can_start(most):
        return most
    if least == most or not can_start(least):
        return None
    while most - least > 1:
        middle = (least + most) // 2
        if can_start(middle):
            least = middle
        else:
            most = middle
    return least


def startable_ranks(launcher, least, most):
    """Return how many ranks the launcher can start, of at most ``most``.

    Neither the variables of a batch system nor the number of CPUs tell whether a node
    has been lost, and whether the launcher accepts more ranks than CPUs. Starting a
    program that does nothing tells both.

    Raises
    ------
    LaunchError
        If not even ``least``, with what the launcher said.
    """

    def can_start(n_ranks):
        job = Launched(launcher.command(n_ranks, NOTHING), stdout=subprocess.DEVNULL)
        with job:
            return job.wait(START_S) == 0

    n_ranks = largest_number(can_start, least, most)
    if n_ranks is None:
        raise LaunchError(
            f"{launcher} cannot start {least} ranks: see what it printed above"
        )
    return n_ranks
