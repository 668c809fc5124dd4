"""Work of one rank while the others sleep: ranks that wait in MPI take whole cores."""

import time


def sleep_until_all_are_here(comm):
    """Wait for all ranks without computing. Collective."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.005)
