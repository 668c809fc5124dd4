"""Held-out rows: the same at any number of ranks, and as the keys say."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pympi_train as pt

N = 150
LABELS = np.random.default_rng(0).choice(["a", "b", "c"], N, p=[0.8, 0.15, 0.05])
PATIENTS = np.random.default_rng(1).integers(0, 25, N)


@pytest.fixture
def file(mpi_tmp_path, comm):
    path = mpi_tmp_path / "rows.npz"
    if comm.rank == 0:
        np.savez(path, x=np.arange(N) * 1.5, y=LABELS, patient=PATIENTS)
    comm.Barrier()
    return path


def held(path, comm, **how):
    """Return the numbers of held-out rows, and check that the others train."""
    how = {"features": "x", "validation": 0.2, **how}
    loaded = pt.load(path, target="y", dtype="float64", comm=comm, **how)
    parts = [
        np.concatenate(comm.allgather(data.x))[:, 0] / 1.5
        for data in (loaded.train, loaded.validation)
    ]
    assert_array_equal(np.sort(np.concatenate(parts)), np.arange(N))
    return parts[1].astype(int)


SPLITS = {
    "random": {},
    "stratified": {"split": "stratified"},
    "group": {"group": "patient"},
}


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", SPLITS)
def test_any_number_of_ranks_holds_out_the_same_rows(comm, file, split):
    from mpi4py import MPI

    found = held(file, comm, **SPLITS[split])
    assert_array_equal(found, held(file, MPI.COMM_SELF, **SPLITS[split]))
    other = held(file, comm, **SPLITS[split], seed=1)
    assert not np.array_equal(found, other)
    if split == "stratified":
        for label in "abc":
            n = np.count_nonzero(LABELS == label)
            assert np.count_nonzero(LABELS[found] == label) == round(n * 0.2)
    if split == "group":
        rest = np.delete(PATIENTS, found)
        assert not set(PATIENTS[found]) & set(rest)
        assert abs(len(found) - 0.2 * N) <= np.bincount(PATIENTS).max()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("split", SPLITS)
def test_folds_hold_out_each_row_once(comm, file, split):
    folds = [
        held(file, comm, **SPLITS[split], validation=0.25, fold=fold)
        for fold in range(4)
    ]
    assert_array_equal(np.sort(np.concatenate(folds)), np.arange(N))
    for fold in folds:
        if split == "stratified":
            for label in "abc":
                n = np.count_nonzero(LABELS == label)
                assert abs(np.count_nonzero(LABELS[fold] == label) - n / 4) < 1
        elif split == "random":
            assert abs(len(fold) - N / 4) < 1
        else:
            others = np.setdiff1d(np.arange(N), fold)
            assert not set(PATIENTS[fold]) & set(PATIENTS[others])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("how", [{}, {"virtual_shards": 7}, {"rows": "x > 30"}])
@pytest.mark.parametrize("split", SPLITS)
def test_all_folds_are_numbered_as_each_is_held_out(comm, file, split, how):
    how = {"target": "y", "dtype": "float64", "validation": 0.2, "comm": comm} | how
    how |= {"features": "x", **SPLITS[split]}
    loaded = pt.load(file, fold="all", **how)
    assert loaded.validation is None
    assert loaded.folds.shape == (len(loaded.train),)
    assert loaded.folds.dtype == np.int32
    found = [np.concatenate(comm.allgather(a)) for a in (loaded.train.x, loaded.folds)]
    for fold in range(5):
        held_out = pt.load(file, fold=fold, **how).validation
        wanted = np.concatenate(comm.allgather(held_out.x))[:, 0]
        assert_array_equal(np.sort(found[0][found[1] == fold, 0]), np.sort(wanted))
    assert found[1].min() >= 0


@pytest.mark.mpi(min_size=2)
def test_numbers_of_folds_and_rows_that_are_repeated(comm, file):
    with pytest.raises(pt.errors.ConfigError, match="oversample repeats"):
        pt.load(
            file,
            features="x",
            validation=0.2,
            fold="all",
            oversample="balanced",
            comm=comm,
        )
