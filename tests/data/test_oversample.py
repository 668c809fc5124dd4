"""Repeated rows of rare classes: as many of each class, the same on any ranks."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pympi_train as pt
from pympi_train.errors import ConfigError

N = 200


@pytest.fixture(params=["npy", "csv", "svm", "parquet"])
def file(request, comm, mpi_tmp_path):
    rng = np.random.default_rng(1)
    x = np.arange(1.0, N + 1)[:, None] * [1, 2]
    y = rng.choice(3, N, p=[0.7, 0.25, 0.05])
    path = mpi_tmp_path / f"rows.{request.param}"
    if comm.rank == 0:
        if path.suffix == ".npy":
            np.save(path, x)
            np.save(mpi_tmp_path / "y.npy", y)
        elif path.suffix == ".csv":
            rows = zip(x.tolist(), y.tolist())
            text = "".join(f"{a},{b},{label}\n" for (a, b), label in rows)
            path.write_text("a,b,y\n" + text)
        elif path.suffix == ".svm":
            rows = zip(x.tolist(), y.tolist())
            lines = (f"{label} 1:{a} 2:{b}\n" for (a, b), label in rows)
            path.write_text("".join(lines))
        else:
            import pyarrow
            from pyarrow import parquet

            table = pyarrow.table({"a": x[:, 0], "b": x[:, 1], "y": y})
            parquet.write_table(table, path)
    comm.Barrier()
    how = {
        ".npy": {"target": "y.npy", "memory": "mapped"},
        ".svm": {"sparse": True},
        ".parquet": {"memory": "stream", "order": "window"},
    }
    return path, how.get(path.suffix, {})


def whole(comm, data):
    x = data.x[:]
    x = x if isinstance(x, np.ndarray) else x.toarray()
    parts = comm.allgather((np.asarray(x), data.y))
    return [np.concatenate(part) for part in zip(*parts)]


@pytest.mark.mpi(min_size=2)
def test_every_class_has_the_rows_of_the_largest(comm, file):
    from mpi4py import MPI

    path, how = file
    how = {**how, "validation": 0.25, "oversample": "balanced", "dtype": "float64"}
    loaded = pt.load(path, comm=comm, **how)
    x, y = whole(comm, loaded.train)
    plain = pt.load(path, comm=comm, **how | {"oversample": None})
    most = plain.class_counts.max()
    assert_array_equal(np.bincount(y), [most] * 3)
    assert_array_equal(loaded.class_counts, [most] * 3)
    assert loaded.validation.n == plain.validation.n
    rows, times = np.unique(x[:, 0], return_counts=True)
    assert_array_equal(rows, np.sort(whole(comm, plain.train)[0][:, 0]))
    for label, count in enumerate(plain.class_counts):
        of_class = times[np.isin(rows, x[y == label, 0])]
        assert set(of_class) <= {most // count, -(-most // count)}
    alone = pt.load(path, comm=MPI.COMM_SELF, **how)
    assert_array_equal(x, whole(MPI.COMM_SELF, alone.train)[0])
    text = f"oversample: {plain.train.n} training rows are now {3 * most}"
    assert text in loaded.remarks


@pytest.mark.mpi(min_size=2)
def test_refused(comm, file):
    path, how = file
    how = {**how, "oversample": "balanced", "comm": comm}
    with pytest.raises(ConfigError, match="oversample is for classification"):
        pt.load(path, task="regression", **how)
    with pytest.raises(ConfigError, match="oversample and class_weights both"):
        pt.load(path, class_weights="balanced", **how)
    with pytest.raises(ConfigError, match="oversample must be 'balanced', got True"):
        pt.load(path, **how | {"oversample": True})
