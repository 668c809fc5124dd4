"""Stretches of a flat block that penalties act on, in turn with those they do not."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Runs:
    """Runs of weights, which L2 and weight decay act on, and of biases, in turn.

    Attributes
    ----------
    ends : tuple of int
        The element after each run, ascending.
    weights_first : bool
        Whether the first run is one of weights.

    Notes
    -----
    Iterating gives ``(slice, is_weight)`` of each run. Equal ones are equal and have
    the same hash, so that a GPU keeps a table of each.

    Examples
    --------
    >>> list(Runs.joined([(2, True), (5, True), (6, False)]))
    [(slice(0, 5, None), True), (slice(5, 6, None), False)]
    """

    ends: tuple
    weights_first: bool

    @classmethod
    def joined(cls, stretches):
        """Return the runs of ``[(end, is_weight), ...]``, neighbours of a kind as one.

        Stretches that are empty are left out.
        """
        ends, kinds, last = [], [], 0
        for end, is_weight in stretches:
            if end == last:
                continue
            if kinds and kinds[-1] == is_weight:
                ends[-1] = end
            else:
                ends.append(end)
                kinds.append(is_weight)
            last = end
        return cls(tuple(ends), bool(kinds and kinds[0]))

    def __iter__(self):
        start, is_weight = 0, self.weights_first
        for end in self.ends:
            yield slice(start, end), is_weight
            start, is_weight = end, not is_weight

    def __len__(self):
        return len(self.ends)


def by_run(arrays, runs, penalties):
    """Yield ``(arrays, penalties)`` for each stretch with penalties of its own.

    Parameters
    ----------
    arrays : tuple of ndarray, shape (n,), or None
        Cut at the runs.
    runs : Runs or None
        None: all are weights.
    penalties : tuple of float
        Zeros for biases; the whole arrays come at once where there is none.
    """
    if runs is None or not any(penalties):
        yield arrays, penalties
        return
    nothing = (0.0,) * len(penalties)
    for part, is_weight in runs:
        cut = [array if array is None else array[part] for array in arrays]
        yield cut, penalties if is_weight else nothing
