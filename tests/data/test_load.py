"""From files to data sets: the same rows, scaled and encoded alike, on any ranks."""

import numpy as np
import pytest
from named_arrays import save_arrays
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.data.loading.again import read_again
from pympi_train.data.order import held_out, held_out_count
from pympi_train.data.partition import own_range
from pympi_train.errors import ConfigError, DataError

N, NAMES = 61, ["height", "width", "always"]


def make_rows(n=N, seed=2):
    """Return features, the third constant, and labels: text, sorted."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)) * [1, 1e-3, 0] + [1e3, 5, 0.1]
    return x, np.sort(rng.choice(["oak", "elm", "ash"], n, p=[0.6, 0.3, 0.1]))


def write_csv(path, x, y):
    lines = [",".join([*NAMES, "tree"])]
    lines += [",".join([*map(repr, row), label]) for row, label in zip(x.tolist(), y)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(params=["npz", "csv"])
def file(request, mpi_tmp_path, comm):
    """A file of ``make_rows``, written by rank 0, and the arguments that read it."""
    x, y = make_rows()
    path = mpi_tmp_path / f"rows.{request.param}"
    if comm.rank == 0:
        if request.param == "csv":
            write_csv(path, x, y)
        else:
            np.savez(path, X=x, tree=y)
    comm.Barrier()
    return path, {"target": "tree", "comm": comm}


def gathered(comm, data):
    """Return all ranks' rows of a data set, and check where they lie."""
    ranges = comm.allgather((data.start, data.stop))
    assert [stop for _, stop in ranges[:-1]] == [start for start, _ in ranges[1:]]
    assert (ranges[0][0], ranges[-1][1]) == (0, data.n)
    parts = comm.allgather(data.x), comm.allgather(data.y)
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def check_held_out_fraction(comm, path, kwargs, seed):
    """Held-out rows are those of the order; training statistics scale both parts."""
    x, y = make_rows()
    loaded = pt.load(path, **kwargs, validation=0.2, seed=seed, standardize=True)
    held = held_out(N, held_out_count(N, 0.2), seed, 0, N)
    classes = np.unique(y)
    mean, scale = x[~held].mean(axis=0), x[~held].std(axis=0)
    mean[2], scale[2] = x[0, 2], 1  # constant
    for data, rows in ((loaded.train, ~held), (loaded.validation, held)):
        got_x, got_y = gathered(comm, data)
        assert got_x.dtype == np.float32
        assert_allclose(got_x, (x[rows] - mean) / scale, rtol=1e-5, atol=1e-6)
        assert not got_x[:, 2].any()
        assert_array_equal(classes[got_y], y[rows])
        assert data.weights is None
    assert loaded.train.n + loaded.validation.n == N
    assert_array_equal(loaded.schema.classes, classes)
    assert_allclose(loaded.schema.preparation.scaling.mean, mean, rtol=1e-12)
    assert_allclose(loaded.schema.preparation.scaling.scale, scale, rtol=1e-9)
    start, stop = own_range(N, comm.rank, comm.size)
    assert len(loaded.train) == np.count_nonzero(~held[start:stop])
    return held


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("seed", [0, 5])
def test_held_out_fraction(comm, file, seed):
    check_held_out_fraction(comm, *file, seed)


@pytest.mark.parametrize("seed", [0, 5])
def test_held_out_fraction_on_one_rank(comm, file, seed):
    held = check_held_out_fraction(comm, *file, seed)
    assert held.sum() == 12


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_fewer_rows_than_ranks(comm, mpi_tmp_path, n):
    path = mpi_tmp_path / "few.npz"
    x = np.arange(2.0 * n).reshape(n, 2)
    if comm.rank == 0:
        np.savez(path, X=x, y=np.arange(n))
    comm.Barrier()
    loaded = pt.load(path, target="y", validation=0.5, standardize=True, comm=comm)
    assert 0 in comm.allgather(len(loaded.validation)) or n >= 2 * comm.size
    held = held_out(n, held_out_count(n, 0.5), 0, 0, n)
    assert_array_equal(gathered(comm, loaded.train)[1], np.flatnonzero(~held))
    assert_array_equal(gathered(comm, loaded.validation)[1], np.flatnonzero(held))


@pytest.mark.mpi(min_size=2)
def test_validation_file_is_read_as_the_training_file(comm, file):
    path, kwargs = file
    other_x, other_y = make_rows(23, seed=9)
    other_x[:, 2] = 0.7  # constant in training, another value here
    other = path.with_name(f"other{path.suffix}")
    if comm.rank == 0:
        if path.suffix == ".csv":
            write_csv(other, other_x, other_y)
        else:
            np.savez(other, X=other_x, tree=other_y)
    comm.Barrier()
    x, y = make_rows()
    loaded = pt.load(
        path, **kwargs, validation=other, standardize=True, dtype="float64"
    )
    assert (loaded.train.n, loaded.validation.n) == (N, 23)
    scale = x.std(axis=0)
    scale[2] = 1
    got_x, got_y = gathered(comm, loaded.validation)
    mean = [*x[:, :2].mean(axis=0), 0.1]
    assert_allclose(got_x, (other_x - mean) / scale, rtol=1e-8, atol=1e-9)
    assert_array_equal(np.unique(y)[got_y], other_y)


@pytest.mark.mpi(min_size=2)
def test_validation_file_keeps_its_digits_until_it_is_scaled(comm, mpi_tmp_path):
    """Of an offset a million times the deviation, float32 would leave no digit."""
    x, y = make_rows()
    path = mpi_tmp_path / "offset.csv"
    if comm.rank == 0:
        write_csv(path, x + [1e6, 0, 0], y)
    comm.Barrier()
    kwargs = {"target": "tree", "validation": path, "standardize": True}
    loaded = pt.load(path, **kwargs, comm=comm)
    assert loaded.validation.x.dtype == np.float32
    assert_array_equal(loaded.validation.x, loaded.train.x)


@pytest.mark.mpi(min_size=2)
def test_label_unseen_in_training_is_named_on_every_rank(comm, file):
    path, kwargs = file
    other_x, other_y = make_rows(23, seed=9)
    other_y[-1] = "yew"  # on the last rank alone
    other = path.with_name("other.csv")
    if comm.rank == 0:
        write_csv(other, other_x, other_y)
    comm.Barrier()
    if path.suffix == ".npz":
        kwargs["features"] = None
        path = path.with_name("same.csv")
        if comm.rank == 0:
            write_csv(path, *make_rows())
        comm.Barrier()
    with pytest.raises(DataError, match=r"other\.csv: row 22 .* label 'yew', which no"):
        pt.load(path, **kwargs, validation=other)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("standardize", [False, True])
def test_regression_targets_and_dtype(comm, mpi_tmp_path, dtype, standardize):
    path = mpi_tmp_path / "numbers.csv"
    x, _ = make_rows()
    targets = np.stack([x[:, 0] * 1e-3, x[:, 1] / 3], axis=1)
    if comm.rank == 0:
        rows = np.hstack([x, targets])
        text = [",".join([*NAMES, "a", "b"])]
        text += [",".join(map(repr, row)) for row in rows.tolist()]
        path.write_text("\n".join(text))
    comm.Barrier()
    loaded = pt.load(
        path,
        target=["a", "b"],
        task="regression",
        dtype=dtype,
        standardize=standardize,
        standardize_target=False,
        comm=comm,
    )
    got_x, got_y = gathered(comm, loaded.train)
    assert got_x.dtype == got_y.dtype == dtype
    assert_array_equal(got_y, targets.astype(dtype))
    if not standardize:
        assert_array_equal(got_x, x.astype(dtype))
    schema = loaded.schema
    assert (schema.n_features, schema.n_targets, schema.classes) == (3, 2, None)
    assert (schema.dtype, schema.preparation.is_plain) == (dtype, not standardize)
    assert schema.feature_names == NAMES
    assert loaded.validation is None


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("standardize, said", [(True, None), (False, True)])
def test_targets_are_scaled_where_features_are(comm, mpi_tmp_path, standardize, said):
    """Over the training rows alone, and undone exactly as it was done."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((N, 2))
    y = np.column_stack([4e5 + 1e5 * rng.standard_normal(N), np.full(N, 7.0), x[:, 0]])
    path = mpi_tmp_path / "f.npz"
    if comm.rank == 0:
        np.savez(path, X=x, price=y[:, 0], constant=y[:, 1], small=y[:, 2])
    comm.Barrier()
    names = ["price", "constant", "small"]
    how = {"features": "X", "target": names, "task": "regression", "comm": comm}
    how |= {"standardize": standardize, "validation": 0.25}
    loaded = pt.load(path, **how, standardize_target=said, dtype="float64")
    kept = ~held_out(N, held_out_count(N, 0.25), 0, 0, N)
    mean, scale = y[kept].mean(axis=0), y[kept].std(axis=0)
    scale[1] = 1
    scaling = loaded.schema.target_scaling
    assert_allclose(scaling.mean, mean, rtol=1e-12)
    assert_allclose(scaling.scale, scale, rtol=1e-9)
    for data, rows in ((loaded.train, kept), (loaded.validation, ~kept)):
        found = gathered(comm, data)[1]
        assert_allclose(found, (y[rows] - mean) / scale, rtol=1e-9, atol=1e-12)
        assert_allclose(scaling.undo(found), y[rows], rtol=1e-12)
        assert data.units.names == tuple(names)
        assert_array_equal(data.units.scale, scaling.scale)
    plain = pt.load(path, **how | {"standardize": True}, standardize_target=False)
    assert plain.schema.target_scaling is None and plain.train.units.scale is None
    again = read_again(path, loaded.schema, comm)
    assert_allclose(again.y, (y[again.start : again.stop] - mean) / scale, rtol=1e-9)
    exact = pt.load(path, **how, standardize_target=said, virtual_shards=4)
    assert exact.train.units.names == tuple(names)


def test_targets_of_one_array_are_called_by_number(tmp_path):
    from mpi4py import MPI

    np.savez(tmp_path / "f.npz", X=np.ones((4, 1)), y=np.ones((4, 2)))
    how = {"target": "y", "task": "regression", "comm": MPI.COMM_SELF}
    loaded = pt.load(tmp_path / "f.npz", **how)
    assert loaded.schema.target_names == ["0", "1"]
    assert loaded.train.units.names == ("0", "1")
    np.save(tmp_path / "f.npy", np.ones((4, 1)))
    np.save(tmp_path / "price.npy", np.ones(4))
    loaded = pt.load(tmp_path / "f.npy", **how | {"target": "price.npy"})
    assert loaded.schema.target_names == ["price"]
    for name in ("f", "price"):
        (tmp_path / f"{name}.npy").rename(tmp_path / f"{name}.NPY")
    loaded = pt.load(tmp_path / "f.NPY", **how | {"target": "price.NPY"})
    assert loaded.schema.target_names == ["price"]
    (tmp_path / "f.svm").write_text("0.5 1:1\n1.5 1:2\n")
    loaded = pt.load(tmp_path / "f.svm", **how | {"target": None})
    assert loaded.schema.target_names == ["0"]
    with pytest.raises(DataError, match="target array 'y' is named twice"):
        pt.load(tmp_path / "f.npz", **how | {"target": ["y", "y"]})


@pytest.mark.mpi(min_size=2)
def test_balanced_class_weights_count_training_rows(comm, file):
    from sklearn.utils.class_weight import compute_sample_weight

    path, kwargs = file
    loaded = pt.load(path, **kwargs, validation=0.3, class_weights="balanced", seed=1)
    y = make_rows()[1][~held_out(N, held_out_count(N, 0.3), 1, 0, N)]
    weights = np.concatenate(comm.allgather(loaded.train.weights))
    assert weights.dtype == np.float32
    assert_allclose(weights, compute_sample_weight("balanced", y), rtol=1e-6)
    assert loaded.validation.weights is None


@pytest.mark.mpi(min_size=2)
def test_class_weight_too_large_for_the_dtype(comm, file):
    path, kwargs = file
    with pytest.raises(ConfigError, match=r"weights: 1e\+39 is too large for"):
        pt.load(path, **kwargs, class_weights={"elm": 1e39})
    loaded = pt.load(path, **kwargs, class_weights={"elm": 1e39}, dtype="float64")
    assert loaded.train.n == N


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("row", [0, N - 1])  # on one rank alone
def test_numbers_that_are_not_finite(comm, mpi_tmp_path, value, row):
    """1e39 is finite in the file, but not in float32."""
    path = mpi_tmp_path / "bad.npz"
    x, y = make_rows()
    x[row, 1] = value
    if comm.rank == 0:
        np.savez(path, X=x, y=y)
    comm.Barrier()
    with pytest.raises(DataError, match=r"bad\.npz.*finite"):
        pt.load(path, target="y", comm=comm)
    if np.isfinite(value):
        loaded = pt.load(path, target="y", dtype="float64", comm=comm)
        assert loaded.train.n == N


@pytest.mark.mpi(min_size=2)
@pytest.mark.filterwarnings("error")
def test_numbers_too_large_to_be_standardised(comm, mpi_tmp_path):
    path = mpi_tmp_path / "huge.npz"
    x, y = make_rows()
    x[:, 1] *= 1e200
    if comm.rank == 0:
        np.savez(path, X=x, y=y)
    comm.Barrier()
    with pytest.raises(DataError, match=r"huge\.npz: feature 1 .* standardised"):
        pt.load(path, target="y", standardize=True, comm=comm)
    with pytest.raises(DataError, match='try .model. dtype = "float64" or .data.'):
        pt.load(path, target="y", comm=comm)


@pytest.mark.mpi(min_size=2)
def test_advice_is_not_what_is_set_already(comm, mpi_tmp_path):
    paths = [mpi_tmp_path / "fine.npz", mpi_tmp_path / "huge.npz"]
    x, y = make_rows()
    if comm.rank == 0:
        np.savez(paths[0], X=x, y=y)
        np.savez(paths[1], X=x * 1e100, y=y)
    comm.Barrier()
    with pytest.raises(DataError, match='too large for float32; try .*"float64"$'):
        pt.load(
            paths[0], target="y", validation=paths[1], standardize=True, comm=comm
        )


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "name, kwargs, text",
    [
        ("absent.csv", {"target": "y"}, r"absent\.csv: no such file"),
        ("rows.txt", {"target": "y"}, r"rows\.txt: .*format"),
    ],
)
def test_errors_rise_on_every_rank(comm, mpi_tmp_path, name, kwargs, text):
    with pytest.raises(DataError, match=text):
        pt.load(mpi_tmp_path / name, **kwargs, comm=comm)


@pytest.mark.mpi(min_size=2)
def test_absent_target_names_the_closest(comm, file):
    path, kwargs = file
    with pytest.raises(DataError, match="'treee'; the closest is 'tree'"):
        pt.load(path, target="treee", comm=comm)


@pytest.mark.mpi(min_size=2)
def test_validation_file_of_other_width(comm, mpi_tmp_path):
    """One clear message, also from files without column names."""
    x, y = make_rows()
    paths = [mpi_tmp_path / "wide.npz", mpi_tmp_path / "narrow.npz"]
    if comm.rank == 0:
        np.savez(paths[0], X=x, y=y)
        np.savez(paths[1], X=x[:, :2], y=y)
    comm.Barrier()
    with pytest.raises(DataError, match="2 features, but the model was trained on 3"):
        pt.load(paths[0], target="y", validation=paths[1], comm=comm)


# Features and labels that any format can hold.
PLAIN = np.arange(24.0).reshape(12, 2) % 5 + [0.5, 0.25]
LABELS = np.arange(12) % 2


def write_plain(folder, suffix, x=PLAIN, y=LABELS, names=("a", "b"), first=1):
    """Write rows in a format; return the path, and what names the target there."""
    path, rows = folder / f"rows.{suffix}", list(zip(x.tolist(), y.tolist()))
    if suffix == "csv":
        lines = [",".join(map(str, (*row, label))) for row, label in rows]
        path.write_text("\n".join([",".join([*names, "y"]), *lines]) + "\n")
    elif suffix == "svm":
        lines = [
            f"{label} " + " ".join(f"{i}:{v!r}" for i, v in enumerate(row, first))
            for row, label in rows
        ]
        path.write_text("\n".join(lines) + "\n")
    elif suffix == "npy":
        np.save(path, x)
        np.save(folder / "y.npy", y)
    else:
        save_arrays(path, {"X": x, "y": y})
    return path, {"target": "y.npy"} if suffix == "npy" else {"target": "y"}


FORMATS = ["csv", "npz", "npy", "svm", "h5", "zarr"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("trained", FORMATS)
def test_a_schema_reads_all_formats(comm, mpi_tmp_path, trained):
    """To evaluate and to predict, by number where names are of another format."""
    if comm.rank == 0:
        for suffix in FORMATS:
            write_plain(mpi_tmp_path, suffix)
    comm.Barrier()
    for other in FORMATS:
        path = mpi_tmp_path / f"rows.{trained}"
        target = "y.npy" if trained == "npy" else "y"
        schema = pt.load(path, target=target, comm=comm).schema
        assert schema.format == trained
        path = mpi_tmp_path / f"rows.{other}"
        needs_target = other == "npy" or (trained == "npy" and other != "svm")
        if needs_target:
            with pytest.raises(DataError, match="which .* holds its targets"):
                read_again(path, schema, comm)
        said = {"npy": "y.npy", "svm": None}.get(other, "y")
        data = read_again(path, schema, comm, target=said)
        assert_array_equal(data.x, PLAIN[data.start : data.stop])
        assert_array_equal(data.y, LABELS[data.start : data.stop])
        if needs_target and other != "npy":  # whose target is a column like others
            with pytest.raises(DataError, match="on 2( |$)|3 features"):
                read_again(path, schema, comm, need_target=False)
        else:
            data = read_again(path, schema, comm, need_target=False)
            assert_array_equal(data.x, PLAIN[data.start : data.stop])
            assert data.y is None
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
def test_names_count_before_places(comm, mpi_tmp_path):
    """Columns in another order, and one that is missing, in a file of one's format."""
    other = mpi_tmp_path / "other.csv"
    if comm.rank == 0:
        write_plain(mpi_tmp_path, "csv")
        other.write_text("y,b,a\n" + "1,2.5,3.5\n" * 4)
    comm.Barrier()
    schema = pt.load(mpi_tmp_path / "rows.csv", target="y", comm=comm).schema
    assert (read_again(other, schema, comm).x == [3.5, 2.5]).all()
    comm.Barrier()
    if comm.rank == 0:
        other.write_text("y,c,d\n1,2.5,3.5\n")
    comm.Barrier()
    with pytest.raises(DataError, match="no feature column 'a'"):
        read_again(other, schema, comm)
    data = read_again(other, schema, comm, features=["d", "c"])
    assert (data.x == [3.5, 2.5]).all()


@pytest.mark.mpi(min_size=2)
def test_train_and_test_arrays_in_one_file(comm, mpi_tmp_path):
    path = mpi_tmp_path / "all.npz"
    if comm.rank == 0:
        arrays = {"x_train": PLAIN, "y_train": LABELS, "x_test": PLAIN[:5]}
        np.savez(path, **arrays, y_test=LABELS[:5])
    comm.Barrier()
    loaded = pt.load(
        path,
        features="x_train",
        target="y_train",
        validation=path,
        validation_features="x_test",
        validation_target="y_test",
        comm=comm,
    )
    assert (loaded.train.n, loaded.validation.n) == (12, 5)
    rows = slice(loaded.validation.start, loaded.validation.stop)
    assert_array_equal(loaded.validation.x, PLAIN[:5][rows])
    test = {"features": "x_test", "target": "y_test"}
    assert read_again(path, loaded.schema, comm, **test).n == 5


@pytest.mark.mpi(min_size=2)
def test_a_file_without_header(comm, mpi_tmp_path):
    path = mpi_tmp_path / "rows.csv"
    if comm.rank == 0:
        write_plain(mpi_tmp_path, "csv")
        lines = path.read_text().split("\n", 1)[1]
        path.write_text(lines)
    comm.Barrier()
    with pytest.raises(DataError, match="looks like a row of numbers .*header = false"):
        pt.load(path, target="2", comm=comm)
    loaded = pt.load(path, target="2", header=False, comm=comm)
    assert_array_equal(loaded.train.x, PLAIN[loaded.train.start : loaded.train.stop])
    assert loaded.schema.feature_names == ["0", "1"]
    other = mpi_tmp_path / "no target.csv"
    if comm.rank == 0:
        other.write_text("".join(f"{a},{b}\n" for a, b in PLAIN.tolist()))
    comm.Barrier()
    how = {"header": False, "task": "regression", "comm": comm}
    first = pt.load(other, target="0", **how).schema
    found = read_again(other, first, comm, need_target=False)
    assert found.x.shape[1] == 1  # of both columns, the target is none
    found = read_again(other, loaded.schema, comm, need_target=False)
    assert_array_equal(found.x, PLAIN[found.start : found.stop])
    again = read_again(path, loaded.schema, comm)  # without a header as well
    assert_array_equal(again.y, loaded.train.y)
    comm.Barrier()
    if comm.rank == 0:
        write_plain(mpi_tmp_path, "csv")
    comm.Barrier()
    again = read_again(path, loaded.schema, comm, target="y", header=True)
    assert_array_equal(again.x, loaded.train.x)
    named = pt.load(path, target="y", comm=comm).schema
    comm.Barrier()
    if comm.rank == 0:
        write_plain(mpi_tmp_path, "csv", names=("p", "q"))
    comm.Barrier()
    for header in (None, True):  # the same, said and unsaid: names have to be there
        with pytest.raises(DataError, match="no feature column 'a'"):
            read_again(path, named, comm, header=header)


@pytest.mark.mpi(min_size=2)
def test_svm_with_other_numbers_of_features(comm, mpi_tmp_path):
    path, wide = mpi_tmp_path / "rows.svm", mpi_tmp_path / "wide.svm"
    if comm.rank == 0:
        write_plain(mpi_tmp_path, "svm")
        wide.write_text("1 1:1 4:1\n0 0:3 2:1\n" * 3)
    comm.Barrier()
    schema = pt.load(path, target="y", comm=comm).schema
    with pytest.raises(DataError, match="from 1 to 2, found 4; .*n_features says"):
        read_again(wide, schema, comm)
    schema = pt.load(path, target="y", n_features=6, comm=comm).schema
    assert schema.n_features == 6
    with pytest.raises(DataError, match="from 1 to 6, found 0; .*zero_based = true"):
        read_again(wide, schema, comm)
    data = read_again(wide, schema, comm, zero_based=True)
    assert comm.bcast(data.x[0].tolist(), root=0) == [0, 1, 0, 0, 1, 0]
    loaded = pt.load(path, target="y", zero_based=True, comm=comm)
    assert loaded.schema.n_features == 3 and not loaded.train.x[:, 0].any()


@pytest.mark.mpi(min_size=2)
def test_classes_are_counted_and_suspects_named(comm, mpi_tmp_path):
    path = mpi_tmp_path / "rows.csv"
    rows = [f"{i},{i % 3 / 2},{i * 0.5},{'no' if i % 4 else 'yes'}" for i in range(40)]
    if comm.rank == 0:
        path.write_text("\n".join([",a,b,y", *rows]) + "\n")
    comm.Barrier()
    loaded = pt.load(path, target="y", comm=comm)
    assert loaded.class_counts.tolist() == [30, 10]
    (remark,) = loaded.remarks
    assert remark.startswith("the feature '' counts the rows. If it is an index")
    held = pt.load(path, target="y", validation=0.5, comm=comm)
    assert held.class_counts.sum() == held.train.n == 20
    assert pt.load(path, features="a", target="y", comm=comm).remarks == []
    numbers = pt.load(path, target="b", features="a", task="regression", comm=comm)
    assert numbers.class_counts is None and numbers.remarks == []
    comm.Barrier()
    if comm.rank == 0:
        rows = [f"{i % 7},{i + 1},{i}" for i in range(30)]
        path.write_text("\n".join(["Unnamed: 0,id,y", *rows]) + "\n")
    comm.Barrier()
    remarks = pt.load(path, target="y", comm=comm).remarks
    assert "the feature 'id' counts the rows" in remarks[0]
    comm.Barrier()
    if comm.rank == 0:  # an index with a gap
        rows = [f"{i + (i > 5)},{i % 7},{i % 2}" for i in range(30)]
        path.write_text("\n".join([",a,y", *rows]) + "\n")
    comm.Barrier()
    (remark,) = pt.load(path, target="y", comm=comm).remarks
    assert remark.startswith("column '' is taken as a feature, but has no name")
    assert "column 'Unnamed: 0' is taken as a feature, but has no name" in remarks[1]
    assert "30 classes for 30 rows. If the target is a quantity" in remarks[2]


@pytest.mark.parametrize(
    "column, is_told",
    [
        (np.arange(12), True),
        (np.arange(1, 13, dtype=np.uint8), True),
        (np.arange(12, dtype=np.float32), True),
        (np.arange(2, 14), False),
        (np.r_[np.arange(11), 10], False),
        (np.ones(12, dtype=bool), False),
        (np.arange(9), False),  # few rows may count by chance
    ],
)
def test_columns_that_count_the_rows(tmp_path, column, is_told):
    from mpi4py import MPI

    x = np.column_stack([column * 0 + 3, column])
    np.savez(tmp_path / "f.npz", X=x, y=np.arange(len(x)) % 2)
    loaded = pt.load(tmp_path / "f.npz", target="y", comm=MPI.COMM_SELF)
    told = ["feature 1 (from 0) counts the rows" in remark for remark in loaded.remarks]
    assert told == [True] * is_told


@pytest.mark.mpi(min_size=2)
def test_targets_that_lose_their_digits_are_named(comm, mpi_tmp_path):
    path = mpi_tmp_path / "f.npz"
    rng = np.random.default_rng(0)
    wide = np.array([rng.standard_normal(30), 1e8 + rng.standard_normal(30)])
    if comm.rank == 0:
        np.savez(path, X=rng.standard_normal((30, 2)), y=wide.T, c=np.full(30, 0.1))
    comm.Barrier()
    how = {"features": "X", "task": "regression", "comm": comm}
    (remark,) = pt.load(path, target="y", **how).remarks
    assert "target '1' lies between 1e+08 and 1e+08, and float32 rounds it" in remark
    for kind in ({"dtype": "float64"}, {"standardize_target": True}):
        assert pt.load(path, target="y", **how, **kind).remarks == []
    assert pt.load(path, target="c", **how).remarks == []


def test_targets_too_large_for_the_dtype_are_named(tmp_path):
    from mpi4py import MPI

    np.savez(tmp_path / "f.npz", X=np.ones((4, 2)), y=np.array([1, 2, 1e39, 3]))
    how = {"features": "X", "task": "regression", "comm": MPI.COMM_SELF}
    message = r"f.npz: target 'y' is too large for float32: 1e\+39; try \[data\]"
    with pytest.raises(DataError, match=message):
        pt.load(tmp_path / "f.npz", **how)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("resident_bytes", [0, 2**28])
@pytest.mark.parametrize("virtual_shards", [None, 8])
def test_several_files_are_the_data_set_of_one(
    comm, mpi_tmp_path, monkeypatch, resident_bytes, virtual_shards
):
    limit = "pympi_train.data.loading.finish.RESIDENT_BYTES"
    monkeypatch.setattr(limit, resident_bytes)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((41, 3)).astype(np.float32), rng.standard_normal(41)
    if comm.rank == 0:
        np.savez(mpi_tmp_path / "whole.npz", X=x, y=y)
        (mpi_tmp_path / "parts").mkdir()
        for i, rows in enumerate(np.split(np.arange(41), [2, 20, 21])):
            np.savez(mpi_tmp_path / "parts" / f"{i}.npz", X=x[rows], y=y[rows])
    comm.Barrier()
    how = {"task": "regression", "standardize": True, "validation": 0.2, "comm": comm}
    how["virtual_shards"] = virtual_shards
    one, several = (
        pt.load(mpi_tmp_path / name, **how) for name in ("whole.npz", "parts")
    )
    for part in ("train", "validation"):
        want, found = getattr(one, part), getattr(several, part)
        assert (found.n, found.start, found.stop) == (want.n, want.start, want.stop)
        rows = np.arange(len(want))[::-1]
        for index in (slice(0, len(want)), rows):
            for a, b in zip(found.batch(index)[:2], want.batch(index)[:2]):
                assert_array_equal(a, b)
    one, several = (found.schema.preparation.scaling for found in (one, several))
    assert_array_equal(one.scale, several.scale)
