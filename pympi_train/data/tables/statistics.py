"""Statistics of the columns of a table, over ranks, without gathering rows."""

import numpy as np

from pympi_train.comm.collectives import reduced
from pympi_train.data.standardise import (
    CHUNK_BYTES,
    combine_moments,
    join_moments,
    local_moments,
)
from pympi_train.data.tables.distinct import Distinct, agree_distinct
from pympi_train.data.tables.source import batch_length, flat_rows, missing_mask

CELLS = 200_000  # distinct values remembered by a rank, over all columns
MAX_DISTINCT, MIN_DISTINCT = 1000, 20  # of a column
COUNTS = ("missing", "infinite", "longest")


class Statistics:
    """Collects statistics of the stripes of a rank, and merges those of all ranks.

    Parameters
    ----------
    fields : sequence of Field
    stripes : Stripes
    """

    def __init__(self, fields, stripes):
        self._fields, self._stripes = tuple(fields), stripes
        self._numbers = [field for field in self._fields if field.is_number]
        ends = np.cumsum([0, *(field.width for field in self._fields)])
        places = map(slice, ends[:-1].tolist(), ends[1:].tolist())
        self._places = {field.name: at for field, at in zip(fields, places)}
        self._groups = _grouped(self._fields)
        d, self._n = int(ends[-1]), 0
        self._step = max(1, CHUNK_BYTES // (8 * max(1, d)))
        self._counts = {name: np.zeros(d, dtype=np.int64) for name in COUNTS}
        self._low = np.full(d, 2**64 - 1, dtype=np.uint64)
        self._high = np.zeros(d, dtype=np.uint64)
        width = sum(field.width for field in self._numbers)
        self._parts = {leaf: _empty_part(width) for leaf in stripes.leaves}
        most = min(max(CELLS // max(1, d), MIN_DISTINCT), MAX_DISTINCT)
        self._distinct = {f.name: Distinct(most) for f in fields if not f.shape}

    def add(self, stripe, batch):
        """Count rows of one stripe; stripes come in order."""
        for start in range(0, batch_length(batch), self._step):
            some = slice(start, start + self._step)
            self._add_some(stripe, {name: v[some] for name, v in batch.items()})

    def _add_some(self, stripe, batch):
        """Count a few rows, of which there are float64 copies."""
        self._n += batch_length(batch)
        matrices = []
        for group in self._groups:
            place, values = self._place(group), _values_of(group, batch)
            mask = missing_mask(values)
            self._counts["missing"][place] += _per_column(mask)
            for i, field in enumerate(group):
                if field.name in self._distinct:
                    some = (slice(None), i) if len(group) > 1 else ...
                    own = np.ma.getdata(values)[some]
                    self._distinct[field.name].add(own, ~mask[some])
            if field.is_text:
                lengths = [len(text) for text in values[~mask].tolist()]
                longest = self._counts["longest"][place]
                longest[:] = max(longest[0], max(lengths, default=0))
                continue
            if field.is_number:
                matrices.append(self._finite(place, values, mask))
                mask = np.isnan(matrices[-1])
            self._extend(place, np.ma.getdata(values), mask)
        if matrices:
            x = np.concatenate(matrices, axis=1) if len(matrices) > 1 else matrices[0]
            every = np.ones(len(x), dtype=bool)
            with np.errstate(over="ignore", invalid="ignore"):
                part = local_moments(x, every, slice(0, len(x)))
                leaf = self._stripes.leaf_of(stripe)
                self._parts[leaf] = join_moments(self._parts[leaf], part)

    def _place(self, group):
        """Return where the values of a group are among those of a row."""
        first, last = (self._places[field.name] for field in (group[0], group[-1]))
        return slice(first.start, last.stop)

    def _finite(self, place, values, mask):
        """Return finite values as float64, shape (k, w), and NaN for all others."""
        x = np.array(np.ma.getdata(values), dtype=np.float64)
        x[mask] = np.nan
        is_infinite = np.isinf(x)
        self._counts["infinite"][place] += _per_column(is_infinite)
        x[is_infinite] = np.nan
        return flat_rows(x)

    def _extend(self, place, values, mask):
        """Extend the range of keys of a column."""
        keys = flat_rows(_keys(values))
        is_gap = mask.reshape(keys.shape)
        low = np.where(is_gap, np.uint64(2**64 - 1), keys)
        high = np.where(is_gap, np.uint64(0), keys)
        self._low[place] = np.vstack([self._low[place], low]).min(axis=0)
        self._high[place] = np.vstack([self._high[place], high]).max(axis=0)

    def agree(self, comm):
        """Return the statistics over all ranks: a list of one dict per value of a row.

        Notes
        -----
        Collective. The same bits on any number of ranks.
        """
        from mpi4py import MPI

        n = int(reduced(comm, [self._n])[0])
        counts = {
            name: reduced(comm, block, op="MAX" if name == "longest" else "SUM")
            for name, block in self._counts.items()
        }
        comm.Allreduce(MPI.IN_PLACE, self._low, op=MPI.MIN)
        comm.Allreduce(MPI.IN_PLACE, self._high, op=MPI.MAX)
        moments = None
        if self._numbers:
            moments = combine_moments(
                list(self._parts.values()), self._stripes.n_leaves, comm
            )
        distinct = agree_distinct(self._distinct, comm)
        found, at = [], 0
        for field in self._fields:
            for i, label in enumerate(field.labels()):
                j = self._places[field.name].start + i
                one = {"name": label, "type": field.type, "rows": n}
                one["missing"] = int(counts["missing"][j])
                one["count"] = n - one["missing"]
                if field.is_text:
                    one["longest"] = int(counts["longest"][j])
                elif self._low[j] <= self._high[j]:
                    ends = np.array([self._low[j], self._high[j]])
                    one["min"], one["max"] = _plain(_values(ends, field.dtype))
                if field.is_number:
                    one["infinite"] = int(counts["infinite"][j])
                    if moments.count[at]:
                        one["mean"] = float(moments.mean[at])
                        one["std"] = float(moments.deviation[at])
                    at += 1
                one.update(distinct.get(field.name, {}))
                found.append(one)
        return found


def _grouped(fields):
    """Return lists of successive fields, of which some are computed as a matrix."""

    def kind(field):
        is_plain = field.is_number and not field.shape and not field.nullable
        return field.type if is_plain else None

    groups: list = []
    for field in fields:
        if groups and kind(field) and kind(field) == kind(groups[-1][0]):
            groups[-1].append(field)
        else:
            groups.append([field])
    return groups


def _values_of(group, batch):
    if len(group) == 1:
        return batch[group[0].name]
    return np.stack([batch[field.name] for field in group], axis=1)


def _empty_part(d):
    return (
        np.zeros(d),
        np.full(d, np.inf),
        np.zeros(d),
        np.zeros(d),
        np.full(d, np.inf),
        np.full(d, -np.inf),
    )


def _per_column(mask):
    return flat_rows(mask).sum(axis=0)


def _keys(values):
    """Return uint64 keys in the order of values of any dtype but text."""
    kind = values.dtype.kind
    if kind in "bu":
        return values.astype(np.uint64)
    if kind in "iM":
        return values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    bits = values.astype(np.float64).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def _values(keys, dtype):
    """Return the values of ``keys``: the inverse of `_keys`."""
    if dtype.kind in "bu":
        return keys.astype(dtype)
    sign = np.uint64(1 << 63)
    if dtype.kind in "iM":
        return (keys ^ sign).view(np.int64).astype(dtype)
    return np.where(keys & sign, keys ^ sign, ~keys).view(np.float64)


def _plain(values):
    """Return values as numbers, or dates as text, for JSON."""
    if values.dtype.kind == "M":
        return [str(value) for value in values]
    return values.tolist()
