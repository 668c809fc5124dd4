"""A checkpoint whose files are damaged again and again: none may be loaded."""

import itertools
import os
import shutil
from unittest import mock

import crash_runs
from damaged_files import each_damage, random_damages

from pympi_train.checkpoint.read import read_checkpoint
from pympi_train.errors import DataError


def check(folder, comm, n, share=(0, 1)):
    """Damage one file of a checkpoint at a time, ``n`` times; read it each time.

    Parameters
    ----------
    folder : path
        Empty; in memory, for speed.
    comm : MPI.Comm
        Of one rank.
    n : int
        Number of damages that change a byte: all single bits, truncations and blocks
        of zeros of all files, or every i-th if these are more than half of ``n``; then
        random ones.
    share : (int, int)
        Which of several equal parts of the work to do.

    Returns
    -------
    dict of str to int
        Damages by file name.

    Raises
    ------
    AssertionError
        If one is not found, or found otherwise than as a DataError that names the file.
    """
    older, path = (crash_runs.save(folder, step, comm) for step in (10, 20))
    files, stale = contents(path), contents(older)
    counts = dict.fromkeys(files, 0)
    damages = (d for d in _damages(files, stale, n) if d[2] != files[d[0]])
    for name, what, damaged in itertools.islice(damages, share[0], n, share[1]):
        _replace(path, name, damaged)
        error = _error_of(path, comm)
        assert error is not None, f"{name}: {what}: loaded"
        # A whole older manifest is blamed on files that it does not fit.
        is_named = name in str(error) or damaged == stale[name]
        assert is_named, f"{name}: {what}: {error}"
        counts[name] += 1
        _replace(path, name, files[name])
    assert crash_runs.loaded_step(read_checkpoint(path, comm)) == 20
    return counts


def check_mixes(folder, comm):
    """Mix the files of two checkpoints in all ways, swap files, and remove some.

    Returns the number of mixtures; raises as `check`.
    """
    older, path = (crash_runs.save(folder, step, comm) for step in (10, 20))
    files, stale = contents(path), contents(older)
    mixtures = []
    for taken in itertools.product((True, False), repeat=len(files)):
        chosen = {n: (stale if t else files)[n] for n, t in zip(files, taken)}
        mixtures += [chosen, {n: files[n] for n, t in zip(files, taken) if t}]
    for order in itertools.permutations(files):
        mixtures.append({n: files[other] for n, other in zip(files, order)})
    whole = (files, stale)
    mixtures = [mixture for mixture in mixtures if mixture not in whole]
    for mixture in mixtures:
        shutil.rmtree(path)
        os.mkdir(path)
        for name, content in mixture.items():
            _replace(path, name, content)
        assert _error_of(path, comm) is not None, f"loaded {mixture}"
    return len(mixtures)


@mock.patch("traceback.format_exception", lambda error: [])  # it takes half of the time
def _error_of(path, comm):
    try:
        read_checkpoint(path, comm)
    except DataError as error:
        return error


def contents(path):
    """Return the files of a folder by name."""
    found = {}
    for name in sorted(os.listdir(path)):
        with open(os.path.join(path, name), "rb") as file:
            found[name] = file.read()
    return found


def _replace(path, name, content):
    with open(os.path.join(path, name), "wb") as file:
        file.write(content)


def _damages(files, stale, n):
    n_each = sum(9 * len(content) for content in files.values())
    every = -(-2 * n_each // n)
    for name, content in files.items():
        others = [stale[name], *(f for f in files.values() if f != content)]
        each = each_damage(content, others)
        for what, damaged in itertools.islice(each, 0, None, every):
            yield name, what, damaged
    # In the end as many for the manifest as for all others.
    manifest = "manifest.json"
    names = [name for other in files if other != manifest for name in (other, manifest)]
    random = {}
    for seed, (name, content) in enumerate(files.items()):
        others = [stale[name], *(f for f in files.values() if f != content)]
        random[name] = random_damages(content, others, seed)
    for name in itertools.cycle(names):
        yield name, *next(random[name])
