"""Columns with equal values in every row, found by hashes and without gathering."""

import hashlib

import numpy as np

from pympi_train.data.tables.source import flat_rows, missing_mask

_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


def mixed(words):
    """Return well-mixed words, uint64, by the finalizer of SplitMix64.

    References
    ----------
    .. [1] G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number
       generators", OOPSLA 2014. doi:10.1145/2660193.2660195.
    """
    words = words ^ (words >> np.uint64(30))
    words *= _FACTORS[0]
    words ^= words >> np.uint64(27)
    words *= _FACTORS[1]
    return words ^ (words >> np.uint64(31))


class ColumnHashes:
    r"""Sums, modulo :math:`2^{64}`, of a hash of each value with its row number.

    The order of the rows' arrival does not matter, so that ranks can add. Different
    columns of n rows have one sum with a probability of :math:`2^{-64}`.

    Parameters
    ----------
    fields : sequence of Field
    """

    def __init__(self, fields):
        self._fields = tuple(fields)
        self._labels = [label for field in fields for label in field.labels()]
        self._sums = np.zeros(len(self._labels), dtype=np.uint64)

    def add(self, start, batch):
        """Add the rows of a batch that begins with row ``start``."""
        at = 0
        for field in self._fields:
            values = batch[field.name]
            rows = np.arange(start, start + len(values), dtype=np.uint64)
            salts = mixed(rows * _STEP + _STEP)
            words = flat_rows(_words(values, field))
            for column in words.T:
                self._sums[at : at + 1] += mixed(column ^ salts).sum(dtype=np.uint64)
                at += 1

    def duplicates(self, comm):
        """Return (column, the earlier column that it equals) of all. Collective."""
        from mpi4py import MPI

        comm.Allreduce(MPI.IN_PLACE, self._sums, op=MPI.SUM)
        first: dict = {}
        found = []
        for label, word in zip(self._labels, self._sums.tolist()):
            earlier = first.setdefault(word, label)
            if earlier != label:
                found.append((label, earlier))
        return found


def _words(values, field):
    """Return a word for each value; equal numbers of any type have equal words."""
    mask = missing_mask(values)
    plain = np.ma.getdata(values)
    if field.is_text:
        filled = np.where(mask, "", plain).astype(str)
        texts, codes = np.unique(filled, return_inverse=True)
        digests = [
            hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
            for text in texts.tolist()
        ]
        words = np.frombuffer(b"".join(digests), dtype=np.uint64)[codes]
    elif field.is_number:
        words = (plain.astype(np.float64) + 0.0).view(np.uint64)
        if plain.dtype in (np.int64, np.uint64):
            # Integers beyond 2^53 differ where their float64 do not.
            least = -(2**53) if plain.dtype == np.int64 else 0
            is_exact = (least <= plain) & (plain <= 2**53)
            words = np.where(is_exact, words, plain.view(np.uint64))
    else:
        words = plain.astype(np.int64).view(np.uint64)
    words[mask] = _STEP
    return words
