"""Alternating stretches of a flat block with and without penalties."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Runs:
    """Alternating runs of weights, to which L2 and weight decay apply, and of biases.

    Attributes
    ----------
    ends : tuple of int
        End of each run, exclusive; ascending.
    weights_first : bool
        Whether the first run is one of weights.

    Notes
    -----
    Iteration yields ``(slice, is_weight)`` for each run. Runs are hashed by value, so
    that a GPU keeps one table of equal Runs.

    Examples
    --------
    >>> list(Runs.joined([(2, True), (5, True), (6, False)]))
    [(slice(0, 5, None), True), (slice(5, 6, None), False)]
    """

    ends: tuple
    weights_first: bool

    @classmethod
    def joined(cls, stretches):
        """Return the runs of ``[(end, is_weight), ...]``, with equal neighbours merged.

        Empty stretches are dropped.
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
    """Yield ``(arrays, penalties)`` for each stretch with uniform penalties.

    Parameters
    ----------
    arrays : tuple of ndarray, shape (n,), or None
        Split at the runs.
    runs : Runs or None
        None means that all elements are weights.
    penalties : tuple of float
        Zeros for biases. If all are zero, the whole arrays are yielded at once.
    """
    if runs is None or not any(penalties):
        yield arrays, penalties
        return
    nothing = (0.0,) * len(penalties)
    for part, is_weight in runs:
        cut = [array if array is None else array[part] for array in arrays]
        yield cut, penalties if is_weight else nothing
