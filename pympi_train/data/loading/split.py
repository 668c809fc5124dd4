"""Which rows are for training and which for validation; the same at any rank count."""

import hashlib
from dataclasses import replace

import numpy as np

from pympi_train.comm.checks import together
from pympi_train.comm.collectives import reduced
from pympi_train.data import order
from pympi_train.data.formats.rows import shown
from pympi_train.data.loading.options import n_folds
from pympi_train.data.order_statistics import select
from pympi_train.errors import DataError
from pympi_train.random import HOLDOUT, bits

CHUNK_ROWS = 1 << 18  # whose random words are made at once
TRAINING = ("train", "training", "0", "false")  # texts in a split column, any case
VALIDATION = ("validation", "valid", "val", "dev", "1", "true")
NEITHER = ("test", "testing")


def split_rows(rows, there, options, name, comm):
    """Return masks of this rank's training and validation rows. Collective.

    Parameters
    ----------
    rows : Rows
        With labels encoded; no row has moved between ranks.
    there : ndarray of bool, shape (k,)
        The rows that are used at all.
    options : Options
    name : str
        The data set, for messages.
    comm : MPI.Comm
    """
    held = np.zeros(len(there), dtype=bool)
    if not options.holds_out:
        return there, held
    if options.group is not None:
        held = _by_group(rows, there, options, name, comm)
    elif options.split == "stratified":
        held = _stratified(rows, there, options, comm)
    else:
        first, stop = _held_range(rows.n, options)
        at = order.positions(
            rows.n, options.seed, 0, rows.start, rows.stop, stream=HOLDOUT
        )
        held = (first <= at) & (at < stop)
    return there & ~held, there & held


def number_folds(rows, there, options, name, comm):
    """Return the fold of each of this rank's rows, int32; -1 for unused rows.

    Fold f has the rows that `split_rows` holds out for ``fold`` f. Arguments as there.
    Collective.
    """
    count = n_folds(options.validation)
    if options.group is None and options.split == "random":
        folds = order.fold_numbers(
            rows.n, count, options.seed, rows.start, rows.stop
        )
        folds[~there] = -1
        return folds
    folds = np.full(len(there), -1, np.int32)
    for fold in range(count):
        how = replace(options, fold=fold)
        folds[split_rows(rows, there, how, name, comm)[1]] = fold
    return folds


def _held_range(n, options):
    """Return which places in the random order of ``n`` rows are held out."""
    if options.fold is None:
        return 0, order.held_out_count(n, options.validation)
    folds = n_folds(options.validation)
    return n * options.fold // folds, n * (options.fold + 1) // folds


def _stratified(rows, there, options, comm):
    """Return the held-out rows: the same fraction of each class. Collective.

    Each row has a random word; those of a class with the lowest words are held out.
    """
    y = rows.y
    n_classes = int(reduced(comm, [y.max(initial=-1) + 1], op="MAX")[0])
    counts = reduced(comm, np.bincount(y[there], minlength=n_classes)).astype(np.int64)
    ranges = np.array([_held_range(int(n), options) for n in counts]).reshape(-1, 2)

    def chunks():
        for start in range(0, len(y), CHUNK_ROWS):
            used = np.flatnonzero(there[start : start + CHUNK_ROWS])
            n_rows = min(CHUNK_ROWS, len(y) - start)
            words = bits(options.seed, HOLDOUT, 0, rows.start + start, n_rows)
            yield words[used], y[start + used], start + used

    limits = select(lambda: (part[:2] for part in chunks()), ranges, comm)
    held = np.zeros(len(y), dtype=bool)
    for words, groups, places in chunks():
        (first, stop), (low, high) = ranges[groups].T, limits[groups].T
        is_held = (low <= words) & ((words < high) | (stop == counts[groups]))
        held[places] = is_held & (first < stop)
    return held


def _by_group(rows, there, options, name, comm):
    """Return the held-out rows: whole groups, about the wanted fraction. Collective.

    Groups are put in a random order, which depends on their names and the seed.
    """
    groups = rows.others[options.group]
    with together(comm):
        lacks = there & (groups.values == "")[groups.codes]
        if lacks.any():
            raise DataError(
                f"{name}: row {rows.start + int(np.argmax(lacks))} (from 0) has no "
                f"group in {options.group!r}"
            )
    used, counts = np.unique(groups.codes[there], return_counts=True)
    own = dict(zip(groups.values[used].tolist(), counts.tolist()))
    total: dict = {}
    for part in comm.allgather(own):
        for text, count in part.items():
            total[text] = total.get(text, 0) + count
    ordered = sorted(total, key=lambda text: _word(text, options.seed))
    ends = np.cumsum([total[text] for text in ordered])
    starts, n = ends - [total[text] for text in ordered], int(ends[-1])
    if options.fold is None:
        count = order.held_out_count(n, options.validation)
        # The number of groups whose rows come closest; some are left on either side.
        n_held = int(np.argmin(np.abs(ends[:-1] - count))) + 1 if len(ends) > 1 else 0
        held = set(ordered[:n_held])
    else:
        folds = n_folds(options.validation)
        fold = (starts + ends) // 2 * folds // n
        held = {text for text, at in zip(ordered, fold.tolist()) if at == options.fold}
    is_held = np.array([text in held for text in groups.values.tolist()], dtype=bool)
    return is_held[groups.codes]


def _word(text, seed):
    """Return random bytes for a text, and the text to break ties."""
    digest = hashlib.blake2b(text.encode(), key=seed.to_bytes(8, "little"))
    return digest.digest(), text


def split_by_column(rows, there, column, name, comm):
    """Return the masks of `split_rows` as the texts of a column say. Collective."""
    texts = rows.others[column]
    known = [text.casefold() for text in texts.values.tolist()]
    is_train, is_held, is_neither = (
        np.array([text in words for text in known], dtype=bool)[texts.codes]
        for words in (TRAINING, VALIDATION, NEITHER)
    )
    with together(comm):
        odd = there & ~(is_train | is_held | is_neither)
        if odd.any():
            row = int(np.argmax(odd))
            raise DataError(
                f"{name}: row {rows.start + row} (from 0) has {shown(texts[row])} in "
                f"the column {column!r}; expected train, validation, or test (left out)"
            )
    train, held = there & is_train, there & is_held
    counts = reduced(comm, [train.sum(), held.sum()])
    with together(comm):
        for what, count in zip(("train", "validation"), counts):
            if not count:
                raise DataError(f"{name}: no row has {what} in the column {column!r}")
    return train, held
