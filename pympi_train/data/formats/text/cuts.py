r"""Parallel counting of rows in text files, and the byte ranges of each rank's rows.

No rank reads everything. The bytes of all files, without their headers, count as one
sequence of ``s`` bytes:

1. Rank ``r`` of ``P`` scans the lines that start in bytes
   :math:`[\lfloor s r / P \rfloor, \lfloor s (r+1) / P \rfloor)`: a part of one file,
   or of several. Whether its first line begins inside a quoted field depends on the
   bytes of the ranks before it. The rank therefore counts its rows for both cases in
   one pass.
2. One Allgather of a few integers per part decides which case holds, and how many rows
   and lines of its file come before each part.
3. For each cut ``r*n // P``, the rank whose part contains it finds its byte. An
   Allreduce gives all cuts to all ranks.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from pympi_train.comm.checks import agreed_within, together
from pympi_train.data.formats.text.lines import (
    CHUNK_BYTES,
    count_lines,
    line_start,
    opened,
    row_pieces,
)
from pympi_train.data.formats.text.scans import (
    NONE,
    Summary,
    chain,
    find_cuts,
    scan_range,
)
from pympi_train.data.partition import bounds
from pympi_train.errors import DataError


class Body(NamedTuple):
    """The bytes of a file that hold rows, and the line feeds before them."""

    path: str
    start: int
    stop: int
    n_lines: int = 0


class Span(NamedTuple):
    """Successive rows of one file.

    Attributes
    ----------
    file : int
        Index of the file.
    path : str
    begin, end : int
        First byte, and one past the last.
    n_lines : int
        Number of line feeds before ``begin`` in the file.
    stop : int
        Number of this rank's rows up to the end of the span.
    """

    file: int
    path: str
    begin: int
    end: int
    n_lines: int
    stop: int


@dataclass(frozen=True)
class Cut:
    """This rank's rows.

    Attributes
    ----------
    n : int
        Number of rows of all files.
    start, stop : int
        This rank's rows.
    spans : list of Span
        Where they are.
    """

    n: int
    start: int
    stop: int
    spans: list

    def path_of(self, row):
        """Return the file of one of this rank's rows: 0 is row ``start``."""
        return next(span.path for span in self.spans if row < span.stop)


def cut_rows(bodies, comm, scan, chunk_bytes=CHUNK_BYTES):
    """Return the Cut of this rank's rows ``[r*n // P, (r+1)*n // P)`` of text files.

    Parameters
    ----------
    bodies : sequence of Body
        The files, in order; the same on every rank.
    comm : MPI.Comm
        The ranks that read them.
    scan : callable
        Function from bytes to `Scan`.
    chunk_bytes : int
        Number of bytes read at once.

    Returns
    -------
    Cut

    Raises
    ------
    DataError
        If a file cannot be read, has no row, or has a misplaced quote.

    Notes
    -----
    Collective.
    """
    pieces, before, counts = scan_bodies(bodies, comm, scan, chunk_bytes)
    starts = [0, *accumulate(counts)]
    rows = bounds(starts[-1], comm.size)
    places = [_place(row, starts) for row in rows]
    with together(comm):
        found = {}
        for i, state in before.items():
            wanted = {row for at, row in places if at == i}
            with opened(bodies[i].path) as file:
                cuts = find_cuts(file, pieces[i], state, wanted, scan)
            found.update({(i, row): cut for row, cut in cuts.items()})
    cuts = _agreed(found, places, bodies, comm)
    own = slice(comm.rank, comm.rank + 2)
    spans = _spans(bodies, counts, places[own], cuts[own])
    return Cut(starts[-1], *rows[own], spans)


def scan_bodies(bodies, comm, scan, chunk_bytes=CHUNK_BYTES):
    """Scan this rank's part of text files, and count the rows of all.

    The parameters and errors are those of `cut_rows`.

    Returns
    -------
    pieces : dict of int to list of Piece
        Of the files with bytes in this rank's part, by number.
    before : dict of int to Before
        The state before these pieces.
    counts : list of int
        Number of rows of each file.

    Notes
    -----
    Collective.
    """
    pieces, mine = {}, []
    with together(comm):
        for i, part in own_parts(bodies, comm.rank, comm.size):
            body = bodies[i]
            with opened(body.path) as file:
                ends = [line_start(file, at, body.start, body.stop) for at in part]
                pieces[i], summary = scan_range(file, *ends, scan, chunk_bytes)
            mine.append((i, *summary))
    chains, before = chained(comm.allgather(mine), bodies, comm.rank)
    for body, found in zip(bodies, chains):
        require_rows(body.path, comm, found)
    return pieces, before, [states[-1].n_rows for states, *_ in chains]


def own_parts(bodies, rank, size):
    """Yield each file with bytes in a rank's share, and the range of these bytes."""
    starts = [0, *accumulate(body.stop - body.start for body in bodies)]
    first, stop = (starts[-1] * r // size for r in (rank, rank + 1))
    for i in range(max(0, bisect_right(starts, first) - 1), len(bodies)):
        part = max(first, starts[i]), min(stop, starts[i + 1])
        if part[0] < part[1]:
            yield i, [at + bodies[i].start - starts[i] for at in part]
        elif starts[i] >= stop:
            return


def chained(found, bodies, rank):
    """Return the `chain` of each file, and the state before each part of ``rank``.

    ``found`` has a list per rank: the index of a file and the Summary of a part of it.
    """
    summaries, own = [[] for _ in bodies], {}
    for r, parts in enumerate(found):
        for i, *summary in parts:
            if r == rank:
                own[i] = len(summaries[i])
            summaries[i].append(Summary(*summary))
    chains = [chain(all_, body.n_lines) for all_, body in zip(summaries, bodies)]
    return chains, {i: chains[i][0][part] for i, part in own.items()}


def _place(row, starts):
    """Return the file that row ``row`` of all files is in, and its number there."""
    i = bisect_right(starts, row) - 1
    return i, row - starts[i]


def _agreed(found, places, bodies, comm):
    """Return (byte, n_lines) at each of ``places``, found on one rank. Collective."""
    from mpi4py import MPI

    cuts = np.zeros((len(places), 2), dtype=np.int64)
    for cut, place in zip(cuts, places):
        cut[:] = found.get(place, 0)
    comm.Allreduce(MPI.IN_PLACE, cuts, op=MPI.MAX)
    for cut, (i, row) in zip(cuts, places):
        if row == 0 and i < len(bodies):
            cut[:] = bodies[i].start, bodies[i].n_lines
    return cuts.tolist()


def _spans(bodies, counts, places, cuts):
    """Return the Spans between two places, whose (byte, n_lines) are ``cuts``."""
    (first, first_row), (last, last_row) = places
    spans, stop = [], 0
    for i in range(first, last + (last_row > 0)):
        body, n_rows = bodies[i], counts[i]
        (begin, n_lines), end = (body.start, body.n_lines), body.stop
        if i == last:
            n_rows, end = last_row, cuts[1][0]
        if i == first:
            n_rows, (begin, n_lines) = n_rows - first_row, cuts[0]
        if n_rows:
            stop += n_rows
            spans.append(Span(i, body.path, begin, end, n_lines, stop))
    return spans


def span_pieces(span, whole, chunk_bytes=CHUNK_BYTES):
    """Yield the bytes of a span in pieces of whole rows, and line feeds before each.

    ``whole`` and ``chunk_bytes`` are as for `row_pieces`.
    """
    n_lines = span.n_lines
    with opened(span.path) as file:
        for _offset, data in row_pieces(file, *span[2:4], whole, chunk_bytes):
            yield data, n_lines
            n_lines += count_lines(data)


def require_read(span, n_rows):
    """Raise DataError unless ``n_rows`` of this rank's rows end where the span does."""
    if n_rows != span.stop:
        raise DataError(f"{span.path}: changed while it was being read")


def require_rows(path, comm, chained):
    """Raise the same error on every rank if there are no rows or quotes are wrong."""
    before, wrong, open_quote = chained
    if wrong != NONE:
        message = (
            f"line {wrong + 1}: a quote inside a field; a field that holds quotes is "
            'put in quotes, and they are doubled: "a ""b"" c"'
        )
    elif open_quote != NONE:
        message = f"line {open_quote + 1}: the file ends inside the quote opened here"
    elif before[-1].n_rows == 0:
        raise agreed_within(comm, DataError(f"{path}: no rows"))
    else:
        return
    raise agreed_within(comm, DataError(f"{path}, {message}"))
