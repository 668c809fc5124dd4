"""The noise of the gradient between rows, and the critical batch size."""

import math

from pympi_train.comm.collectives import reduced

STEPS = 100  # over which the exponential averages run
N_SUMS = 9
ROUNDING = 1e-9  # of averages of whole numbers
PART = 2**16  # elements that BLAS adds at once, in single precision


class GradientNoise:
    r"""Estimates the critical batch size from norms of gradients, while training.

    A step has pieces :math:`k`: the micro-batches, or the shares of the ranks, with
    :math:`N_k` rows and gradient sum :math:`S_k`. With :math:`N = \sum N_k` and
    :math:`S = \sum S_k`,

    .. math::
        \mathrm{tr}\,\Sigma = \frac{\sum_k |S_k|^2 / N_k - |S|^2 / N}{n - 1}, \qquad
        |G|^2 = \frac{|S|^2}{N^2} - \frac{\mathrm{tr}\,\Sigma}{N}, \qquad
        B = \frac{\mathrm{tr}\,\Sigma}{|G|^2}

    are unbiased for :math:`n` pieces of any sizes (the ratio approximately): the
    analysis of variance in one way. For pieces of equal size these are the estimators
    of [1]_, appendix A.1. As there, numerators and denominators are averaged
    separately, exponentially over ``STEPS`` steps.

    The gradient of a row includes its sample weight. (With the weights of the pieces in
    place of :math:`N_k`, small pieces would seem to have too little noise.) That a
    batch is divided by its own weight, not by the mean one, is left out: :math:`B` is
    too large by the squared coefficient of variation of the weights, in rows.

    Batches are drawn rank by rank. If the rows of the ranks differ, as those of a
    sorted file do, the shares differ by more than the noise of a batch. Where ranks
    have two micro-batches or more, the trace is therefore that within ranks.

    Attributes
    ----------
    n_rows : int or None
        Rows of the next step's global batch; to be set before it. None: its weight.

    Notes
    -----
    The sums are linear in the norms, so that every rank adds up what it knows, and
    nothing is sent in a step. `estimate` sums nine numbers over the ranks.

    On a GPU the norms are still being computed when a step is complete: they are read
    in `commit`, during the next step.

    References
    ----------
    .. [1] S. McCandlish, J. Kaplan, D. Amodei et al., "An Empirical Model of
       Large-Batch Training", 2018, arXiv:1812.06162.
    """

    n_rows = None

    def __init__(self):
        self._sums = [0.0] * N_SUMS
        self._last = None  # a complete step that is not in the sums
        self.begin()

    def begin(self):
        """Begin a step; forget the parts of one that was not completed."""
        self._shares, self._batches, self._squares = [], [], []

    def begin_batch(self, n_rows):
        """Begin a micro-batch of so many rows."""
        self._batches.append((n_rows, []))

    def see_batch(self, ops, block):
        """Look at the gradient sum of the micro-batch, or at a part of it.

        Without a call, the share counts as one micro-batch.
        """
        self._batches[-1][1].extend(squares_of(ops, block))

    def see_share(self, ops, block):
        """Look at the gradient sum of the share, or at a part of it."""
        self._squares.extend(squares_of(ops, block))

    def end_share(self):
        """End the share of this rank, or of a group of rows."""
        self._shares.append((self._batches, self._squares))
        self._batches, self._squares = [], []

    def end_step(self, ops, blocks, weight, *, scale=1.0, is_counted):
        """Complete a step whose update was made, or queued.

        Parameters
        ----------
        ops : module
            The backend.
        blocks : list of array
            This rank's part of the gradient sum over all ranks: together, the ranks
            pass each element once.
        weight : float
            Of the global batch.
        scale : float
            Factor on all gradients.
        is_counted : bool
            Whether this rank counts the step; one rank does.
        """
        if self._batches:
            self.end_share()
        squares = [s for block in blocks for s in squares_of(ops, block)]
        rows = weight if self.n_rows is None else self.n_rows
        self._last = self._shares, squares, rows, weight, scale, is_counted

    def drop(self):
        """Forget the complete step: its update was refused."""
        self._last = None

    def commit(self):
        """Add the complete step, if any, to the sums; on a GPU, wait for its norms."""
        if self._last is None:
            return
        (shares, squares, rows, *last), self._last = self._last, None
        weight, scale, is_counted = last
        batch_sum, n_batches, share_sum, n_shares = _sums_of(shares)
        square, factor = math.fsum(map(float, squares)), 1 / scale**2
        counted = float(is_counted)
        found = (
            *(factor * batch_sum, n_batches, factor * share_sum, n_shares),
            *(factor * square / rows, factor * square / rows**2),
            *(counted / rows, counted, counted * weight / rows),
        )
        self._sums = [old + (new - old) / STEPS for old, new in zip(self._sums, found)]

    def totals(self, comm):
        """Return the sums over all ranks, as a list of numbers. Collective."""
        self.commit()
        found = reduced(comm, self._sums).tolist()
        # From here on as after `take`, so that a resumed training has the same bits.
        self.take(found, comm.rank)
        return found

    def take(self, totals, rank):
        """Go on from what `totals` returned; None: start afresh."""
        is_known = totals and len(totals) == N_SUMS  # else of an older version
        self._sums = list(totals) if is_known and rank == 0 else [0.0] * N_SUMS

    def estimate(self, comm):
        """Return the estimates so far; see `noise_scale`. Collective."""
        return noise_scale(self.totals(comm))


def squares_of(ops, block):
    """Return parts of the squared norm of a flat block; on a GPU they are pending."""
    if ops.ON_DEVICE and block.size:
        return [ops.squared_norm(block, None, grad_scale=1.0, l2=0.0)]
    return [ops.square(block[i : i + PART]) for i in range(0, block.size, PART)]


def _sums_of(shares):
    """Return sums and numbers of micro-batches, and of shares, with rows."""
    batch_sum = share_sum = 0.0
    n_batches = n_shares = 0
    for batches, parts in shares:
        batches = [batch for batch in batches if batch[0] > 0]
        if not batches:
            continue
        own = math.fsum(map(float, parts)) / sum(n for n, _ in batches)
        share_sum, n_shares = share_sum + own, n_shares + 1
        if len(batches) > 1 and all(squares for _, squares in batches):
            batch_sum += math.fsum(
                math.fsum(map(float, squares)) / n for n, squares in batches
            )
            n_batches += len(batches)
        else:
            batch_sum, n_batches = batch_sum + own, n_batches + 1
    return batch_sum, n_batches, share_sum, n_shares


def noise_scale(totals):
    """Return the estimates of the result of `GradientNoise.totals`, as a dict.

    Returns
    -------
    dict
        - critical_batch_size: in rows. None if the noise is so large that the gradient
          cannot be told from 0.
        - gradient_square: |G|^2 of the mean gradient, without penalties.
        - trace: of the covariance of the gradient of a row, times its weight in units
          of the mean weight.
        - between: "micro-batches" or "ranks"; None, as the numbers are, if a step has
          a single piece.
    """
    names = ("critical_batch_size", "gradient_square", "trace", "between")
    batch_sum, n_batches, share_sum, n_shares, *rest = totals
    square, mean_square, inverse, n, weight = rest
    within, across = n_batches - n_shares, n_shares - n
    has_across = across > ROUNDING * n
    # With several ranks, micro-batches count if they are not only those of few steps.
    if within > (n / 2 if has_across else ROUNDING * n):
        trace, between = (batch_sum - share_sum) / within, "micro-batches"
    elif has_across:
        trace, between = (share_sum - square) / across, "ranks"
    else:
        return dict.fromkeys(names)
    trace = max(trace, 0.0)  # but for rounding it is
    gradient_square = (mean_square - trace * inverse) / n
    critical = trace / gradient_square if gradient_square > 0 else None
    unit = (n / weight) ** 2  # of the mean weight
    return dict(zip(names, (critical, unit * gradient_square, unit * trace, between)))
