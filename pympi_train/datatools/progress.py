"""A bar of progress on rank 0."""

import contextlib
import sys


@contextlib.contextmanager
def progress(comm, what, total, is_shown=True):
    """Yield ``advance(rows)``, which moves a bar on rank 0's standard error.

    The bar shows the rows of rank 0, and only on a terminal.

    Parameters
    ----------
    comm : MPI.Comm
    what : str
    total : int
        Rows of rank 0.
    is_shown : bool
    """
    if comm.rank or not is_shown or not sys.stderr.isatty():
        yield lambda rows: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=" rows", unit_scale=True) as bar:
        yield bar.update
