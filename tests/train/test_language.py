"""Training a language model: on any ranks, in every strategy, as on one rank."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.data.loading.tokens import load_tokens, read_tokens_again
from pympi_train.errors import ConfigError, DataError

WINDOW, N_TOKENS = 8, 11
COUNTS = (300, 9, 600)
STRATEGIES = {
    "sharded": {"strategy": "sharded", "stage": 3},
    "local": {"strategy": "local", "local_steps": 2},
}


@pytest.fixture
def alone():
    from mpi4py import MPI

    return MPI.COMM_SELF


@pytest.fixture
def folder(comm, mpi_tmp_path):
    """A folder of token files: mostly, the next token is the last plus one."""
    if comm.rank == 0:
        for i, n in enumerate(COUNTS):
            steps = np.random.default_rng(i).choice([1, 3], n, p=[0.8, 0.2])
            (np.cumsum(steps) % N_TOKENS).astype("u2").tofile(
                mpi_tmp_path / f"{i}.bin"
            )
    comm.Barrier()
    return str(mpi_tmp_path)


def fitted(folder, comm, order="full", backend="numpy", epochs=4, **parallel):
    how = {"order_window": 8, "order_shards": 4} if order == "window" else {}
    data = load_tokens(folder, WINDOW, validation=0.2, order=order, comm=comm, **how)
    model = pt.NeuralNGram(
        data.schema.n_tokens, 2, width=5, hidden=[9], dtype="float64"
    )
    with pt.Trainer(
        model,
        pt.Adam(0.02),
        batch_size=8,
        backend=backend,
        parallel=pt.Parallel(timeout_s=0, **parallel),
        comm=comm,
    ) as trainer:
        records = trainer.fit(data.train, data.validation, epochs=epochs)
        return trainer.weights(), records[-1]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("order", ["full", "window"])
def test_distributed_is_serial(comm, folder, alone, order):
    weights, record = fitted(folder, comm, order)
    want, want_record = fitted(folder, alone, order)
    for name, array in weights.items():
        assert_allclose(array, want[name], rtol=1e-8, atol=1e-11)
    for name in ("train_loss", "validation_loss", "perplexity", "accuracy"):
        assert_allclose(record[name], want_record[name], rtol=1e-9)
    assert_allclose(record["perplexity"], np.exp(record["validation_loss"]))
    assert record["validation_loss"] < 0.7 < np.log(N_TOKENS)  # entropy 0.5
    assert record["accuracy"] > 0.7


@pytest.mark.mpi(min_size=2)
def test_exact_mode_has_the_bits_of_one_rank(comm, folder, alone):
    how = {"reduction": "exact", "virtual_shards": 8, "epochs": 2}
    weights, record = fitted(folder, comm, **how)
    want, want_record = fitted(folder, alone, **how)
    for name, array in weights.items():
        assert_array_equal(array, want[name])
    assert record["perplexity"] == want_record["perplexity"]


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies(comm, folder, strategy):
    weights, record = fitted(folder, comm, epochs=2)
    found, other = fitted(folder, comm, epochs=2, **STRATEGIES[strategy])
    assert_allclose(other["validation_loss"], record["validation_loss"], rtol=0.3)
    if strategy == "sharded":
        for name, array in found.items():
            assert_allclose(array, weights[name], rtol=1e-8, atol=1e-11)


@pytest.mark.mpi(min_size=2)
def test_what_is_held_out_and_found(comm, folder, alone):
    data = load_tokens(folder, WINDOW, validation=0.2, comm=comm)
    whole = pt.TokenDataset(folder, WINDOW, comm=alone)
    x = whole.batch(slice(0, whole.n)).x
    n = data.train.n
    assert n + data.validation.n == whole.n == 37 + 1 + 74
    for part, rows in ((data.train, x[:n]), (data.validation, x[n:])):
        own = part.batch(slice(0, len(part)))
        assert_array_equal(own.x, rows[part.start : part.stop])
        assert own.rows == slice(part.start, part.stop)
    assert data.schema.n_tokens == data.train.largest(comm) + 1 == N_TOKENS
    again = read_tokens_again(folder, data.schema, comm, target=None)
    assert again.n == whole.n


@pytest.mark.mpi(min_size=2)
def test_a_token_beyond_the_vocabulary_is_named(comm, folder):
    if comm.rank == 0:
        for i, places in ((0, [296, 299]), (2, [200, 590])):
            tokens = np.fromfile(f"{folder}/{i}.bin", "u2")
            tokens[places] = 40  # 296 is the last target, 299 is in no window
            tokens.tofile(f"{folder}/{i}.bin")
    comm.Barrier()
    with pytest.raises(DataError, match=r"0.bin: token 296 \(from 0\) is 40"):
        load_tokens(folder, WINDOW, vocabulary=N_TOKENS, comm=comm)
    words = r"2.bin: token 200 \(from 0\) is 40; expected tokens from 0 to 10"
    with pytest.raises(DataError, match=words):
        load_tokens(f"{folder}/[12].bin", WINDOW, vocabulary=N_TOKENS, comm=comm)
    found = load_tokens(f"{folder}/1.bin", WINDOW, validation=folder, comm=comm)
    assert found.schema.n_tokens == 41  # those of validation count
    with pytest.raises(ConfigError, match="features is not for token files"):
        read_tokens_again(folder, found.schema, comm, features="x")
    with pytest.raises(DataError, match="token files have windows of tokens, not feat"):
        pt.load(folder, comm=comm)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning")
@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("strategy", ["allreduce", "sharded"])
def test_a_gpu_takes_the_steps_of_numpy(comm, folder, strategy, monkeypatch):
    import gpus

    gpus.use()
    monkeypatch.setenv("STANDIN_NCCL", folder)
    how = {"epochs": 2, "strategy": strategy}
    weights, record = fitted(folder, comm, backend="cuda", **how)
    want, want_record = fitted(folder, comm, **how)
    for name, array in weights.items():
        assert_allclose(array, want[name], rtol=1e-8, atol=1e-11)
    for name in ("train_loss", "validation_loss", "perplexity", "accuracy"):
        assert_allclose(record[name], want_record[name], rtol=1e-9)
