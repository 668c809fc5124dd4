"""Windows of token files are rows, on any ranks, for a model of one's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.data.partition import own_range
from pympi_train.errors import ConfigError, DataError

COUNTS, WINDOW, VOCABULARY = (50, 9, 131), 8, 11


def tokens_of(i, dtype):
    """The tokens of a file: mostly, the next one is the last plus one."""
    rng = np.random.default_rng(i)
    steps = rng.choice([1, 3], COUNTS[i], p=[0.8, 0.2])
    return (np.cumsum(steps) % VOCABULARY).astype(dtype)


def write(folder, suffix, dtype):
    for i in range(len(COUNTS)):
        if suffix == "bin":
            tokens_of(i, dtype).tofile(folder / f"{i}.bin")
        else:
            np.save(folder / f"{i}.npy", tokens_of(i, dtype))


def windows(dtype="u2"):
    """The rows of all files: x and y, one file after the other."""
    rows = []
    for i in range(len(COUNTS)):
        found = tokens_of(i, dtype)
        for first in range(0, len(found) - WINDOW, WINDOW):
            rows.append(found[first : first + WINDOW + 1])
    return np.array(rows)[:, :-1], np.array(rows)[:, 1:]


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "suffix, dtype, wide",
    [("bin", "uint16", "i4"), ("bin", "uint32", "i8"), ("npy", ">u2", "i4")],
)
def test_rows_are_windows(comm, mpi_tmp_path, suffix, dtype, wide):
    if comm.rank == 0:
        write(mpi_tmp_path, suffix, dtype)
    comm.Barrier()
    how = {"token_dtype": dtype} if suffix == "bin" else {}
    files = mpi_tmp_path / f"*.{suffix}"
    source = pt.TokenDataset(files, WINDOW, **how, comm=comm)
    x, y = windows()
    assert source.n == len(x) == 6 + 1 + 16
    assert (source.start, source.stop) == own_range(len(x), comm.rank, comm.size)
    n = len(source)
    for rows in (slice(0, n), slice(1, 1), np.arange(n)[::-2]):
        room = source.room(n)
        for out in (None, room):
            batch = source.batch(rows, out)
            assert_array_equal(batch.x, x[source.start : source.stop][rows])
            assert_array_equal(batch.y, y[source.start : source.stop][rows])
            assert batch.x.dtype == batch.y.dtype == np.dtype(wide)
    assert_array_equal(source.targets(), y[source.start : source.stop])
    bare = source.features_only()
    assert bare.batch(slice(0, n)).y is None and bare.kinds.y is None
    cuts = [source.n * min(r, 2) // 2 for r in range(comm.size + 1)]  # other ones
    old = [source.n * r // comm.size for r in range(comm.size + 1)]
    there = source.moved(old, cuts, comm)
    own = slice(cuts[comm.rank], cuts[comm.rank + 1])
    assert_array_equal(there.batch(slice(0, len(there))).x, x[own])


def bigrams():
    """A model of the next token: a softmax for each token before it."""

    def loss_and_grad(params, batch, grads):
        logits = params["table"][batch.x]  # (k, w, vocabulary)
        logits = logits - logits.max(axis=-1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(axis=-1, keepdims=True)
        hit = np.take_along_axis(p, batch.y[..., None].astype(np.intp), -1)
        p[(*np.indices(batch.y.shape), batch.y)] -= 1
        np.add.at(grads["table"], batch.x, p / WINDOW)
        return -np.log(hit).sum() / WINDOW

    table = pt.Tensor("table", (VOCABULARY, VOCABULARY))
    return pt.FunctionModel([table], loss_and_grad, dtype="float64")


def fitted(source, comm, **how):
    with pt.Trainer(bigrams(), pt.Adam(0.1), batch_size=8, comm=comm, **how) as trainer:
        records = trainer.fit(source, source, epochs=5)
        return trainer.params.copy(), records[-1]["validation_loss"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_a_training_on_any_ranks_is_that_on_one(comm, mpi_tmp_path, alone, reduction):
    if comm.rank == 0:
        write(mpi_tmp_path, "bin", "u2")
    comm.Barrier()
    how = {"timeout_s": 0} if reduction == "fast" else {
        "reduction": "exact",
        "virtual_shards": 8,
        "timeout_s": 0,
    }
    found = []
    for of in (comm, alone):
        source = pt.TokenDataset(str(mpi_tmp_path / "*.bin"), WINDOW, comm=of)
        found.append(fitted(source, of, parallel=pt.Parallel(**how)))
    (params, loss), (want, alone_loss) = found
    assert loss < 0.9 * np.log(VOCABULARY)
    if reduction == "exact":
        assert_array_equal(params, want)
    else:
        assert_allclose(params, want, rtol=1e-9, atol=1e-12)
    assert_allclose(loss, alone_loss, rtol=1e-12)


@pytest.mark.mpi(min_size=2)
def test_a_file_that_is_too_short_is_told_on_all_ranks(comm, mpi_tmp_path):
    if comm.rank == 0:
        write(mpi_tmp_path, "bin", "u2")
        np.arange(WINDOW, dtype="u2").tofile(mpi_tmp_path / "1.bin")
    comm.Barrier()
    with pytest.raises(DataError, match="1.bin: 8 tokens, but a window of 8 needs 9"):
        pt.TokenDataset(mpi_tmp_path / "*.bin", WINDOW, comm=comm)
    comm.Barrier()


@pytest.mark.mpi(min_size=2)
def test_a_negative_token_is_told_on_all_ranks(comm, mpi_tmp_path):
    if comm.rank == 0:
        tokens = np.arange(20 * WINDOW + 1, dtype="i8") % 5
        np.save(mpi_tmp_path / "0.npy", tokens)
        tokens[-2] = -3  # of the last rank
        np.save(mpi_tmp_path / "1.npy", tokens)
    comm.Barrier()
    how = {"batch_size": 8, "backend": "numpy", "comm": comm}
    with pt.Trainer(bigrams(), pt.SGD(0.1), **how) as trainer:
        with pytest.raises(DataError, match="1.npy: .*token.* is -3"):
            source = pt.TokenDataset(mpi_tmp_path, WINDOW, comm=comm)
            trainer.fit(source, epochs=1)
    comm.Barrier()


@pytest.mark.parametrize(
    "name, how, error, words",
    [
        ("a.bin", {"window": 0}, ConfigError, "window must be an integer of 1 or more"),
        ("a.bin", {"token_dtype": "int16"}, ConfigError, "token_dtype must be one of"),
        ("a.bin", {"token_dtype": "uint64"}, DataError, "no whole number of uint64"),
        ("no.bin", {}, DataError, "no.bin: no such file"),
        ("a.txt", {}, DataError, "expected token files, .bin or .npy, got .*a.txt"),
        ("f.npy", {}, DataError, r"array of integers of shape \(n,\), found .*float64"),
        ("two.npy", {}, DataError, r"found shape \(3, 2\) of int64"),
    ],
)
def test_refused(alone, tmp_path, name, how, error, words):
    np.arange(21, dtype="u2").tofile(tmp_path / "a.bin")
    np.save(tmp_path / "f.npy", np.ones(20))
    np.save(tmp_path / "two.npy", np.ones((3, 2), int))
    with pytest.raises(error, match=words):
        pt.TokenDataset(tmp_path / name, **({"window": 4} | how), comm=alone)
    with pytest.raises(DataError, match="not read from a URL"):
        pt.TokenDataset("http://a/x.bin", 4, comm=alone)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.integers(1, 5),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_part_has_its_windows(tmp_path_factory, more, window, data):
    from mpi4py import MPI

    folder, comm = tmp_path_factory.mktemp("tokens"), MPI.COMM_SELF
    texts, at = [], 0
    for i, n in enumerate(more):  # every token is another number
        texts.append(np.arange(at, at + window + 1 + n))
        texts[-1].astype("u2").tofile(folder / f"{i}.bin")
        at += len(texts[-1])
    rows = [
        text[first : first + window + 1]
        for text in texts
        for first in range(0, len(text) - window, window)
    ]
    whole = pt.TokenDataset(folder, window, comm=comm)
    assert whole.n == len(rows)
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    part = whole.part(start, stop, comm)
    batch = part.batch(slice(0, len(part)))
    assert_array_equal(batch.x, np.array(rows)[start:stop, :-1])
    assert_array_equal(batch.y, np.array(rows)[start:stop, 1:])
    largest = max(row[-1] for row in rows[start:stop])
    assert part.largest(comm) == largest
    part.require_below(largest + 1, comm)
    with pytest.raises(DataError, match=f"is {largest}; expected tokens from 0"):
        part.require_below(largest, comm)
    part.read_ahead(np.array([[0, len(part)]]))


def test_order(alone, tmp_path):
    np.arange(4000, dtype="u2").tofile(tmp_path / "a.bin")
    source = pt.TokenDataset(tmp_path / "a.bin", 4, order="window", comm=alone)
    assert isinstance(source.order, pt.WindowOrder)
    with pytest.raises(ConfigError, match="order must be 'full' or 'window'"):
        pt.TokenDataset(tmp_path / "a.bin", 4, order="sorted", comm=alone)


def test_a_model_need_not_read_known_tokens_again(alone, tmp_path):
    np.arange(11, dtype="u2").tofile(tmp_path / "a.bin")
    source, seen = pt.TokenDataset(tmp_path / "a.bin", 2, comm=alone), []

    class Model:
        n_tokens = 11

        def check(self, batch):
            seen.append(len(batch.x))

    source.check(Model())
    source.largest(alone)
    source.with_targets(np.intp).check(Model())
    Model.n_tokens = 10
    source.check(Model())
    assert seen == [5, 1, 5]
