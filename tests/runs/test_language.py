"""A run on token files: made, trained, evaluated, predicted, on three ranks."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pympi_train as pt
from pympi_train.checkpointtools.onnx_file import onnx_bytes
from pympi_train.config import config as configuration
from pympi_train.datatools.info import describe_files, info_lines
from pympi_train.datatools.split_files import split_files
from pympi_train.datatools.synth import make_data
from pympi_train.errors import ConfigError, DataError
from pympi_train.runs import job
from pympi_train.runs.inference import Run
from pympi_train.runs.schema_file import plain_schema, schema_of
from pympi_train.runs.tryout import try_out

VOCABULARY, WINDOW = 12, 32
CONFIG = f"""
[data]
train = "made"
format = "tokens"
window = {WINDOW}
validation = 0.1
[model]
kind = "neural-ngram"
context = 2
embedding = 8
hidden = [32]
[optimizer]
learning_rate = 0.01
[train]
epochs = 4
batch_size = 16
backend = "numpy"
[output]
directory = "run"
"""


@pytest.fixture
def folder(comm, mpi_tmp_path):
    how = {"rows": 24_000, "rows_per_shard": 9000, "vocabulary": VOCABULARY}
    how |= {"seed": 1, "noise": 0.1, "is_shown": False}
    make_data("tokens", str(mpi_tmp_path / "made"), comm, **how)
    if comm.rank == 0:
        tokens = [np.load(p) for p in sorted((mpi_tmp_path / "made").glob("*.npy"))]
        np.concatenate(tokens).astype("u4").tofile(mpi_tmp_path / "all.bin")
        tokens[0][5000] = VOCABULARY
        np.save(mpi_tmp_path / "beyond.npy", tokens[0])
    comm.Barrier()
    return mpi_tmp_path


def trained(folder, comm, *overrides):
    config = configuration.parse(CONFIG, folder=folder, overrides=overrides)
    return job.train(config, comm)


def unigram_entropy(folder):
    p = np.bincount(np.fromfile(folder / "all.bin", "u4")) / 24_000
    return -(p * np.log(p)).sum()


@pytest.mark.mpi(min_size=2)
def test_from_made_tokens_to_predictions(comm, folder):
    trained(folder, comm, "train.epochs=1")  # the next run replaces its files
    result = trained(folder, comm)
    found = result["validation"]
    assert found["loss"] < 0.5 * unigram_entropy(folder)
    assert_allclose(found["perplexity"], np.exp(found["loss"]))
    assert found["accuracy"] > 0.8
    text = (folder / "run" / "schema.json").read_text()
    assert json.loads(text)["n_tokens"] == VOCABULARY
    again = configuration.parse((folder / "run" / "config.toml").read_text())
    assert again.model.vocabulary == VOCABULARY

    run = Run(folder / "run", comm)
    measured = run.evaluate(folder / "made")
    n = 2 * (8999 // WINDOW) + 5999 // WINDOW
    assert measured["samples"] == n and measured["loss"] < 0.5 * unigram_entropy(folder)
    assert run.predict(folder / "made", folder / "next.npy") == n
    assert run.predict(folder / "made", folder / "p.npy", proba=True) == n
    assert run.predict(folder / "made", folder / "next.csv") == n
    comm.Barrier()
    tokens, p = np.load(folder / "next.npy"), np.load(folder / "p.npy")
    assert tokens.shape == (n,) and p.shape == (n, VOCABULARY)
    assert_array_equal(p.argmax(axis=1), tokens)
    assert (folder / "next.csv").read_text().startswith(f"token\n{tokens[0]}\n")
    first = np.load(sorted((folder / "made").glob("*.npy"))[0])
    model = pt.load_model(folder / "run")
    windows = first[: 8999 // WINDOW * WINDOW].reshape(-1, WINDOW)
    assert_array_equal(model.predict(windows), tokens[: len(windows)])
    follows = (31 * windows[:, -1].astype(int) + 7) % VOCABULARY
    assert (tokens[: len(windows)] == follows).mean() > 0.9
    for wrong, words in ((first, "shape"), ([[VOCABULARY]], "from 0 to 11, got 12")):
        with pytest.raises(DataError, match=words):
            model.predict(wrong)
    with pytest.raises(DataError, match="a language model, which cannot be exported"):
        onnx_bytes(model, "run")
    with pytest.raises(DataError, match=r"beyond.npy: token 5000 \(from 0\) is 12"):
        run.evaluate(folder / "beyond.npy")
    with pytest.raises(ConfigError, match="rows is not for token files"):
        run.evaluate(folder / "made", rows="a > 1")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "overrides",
    [
        ["parallel.strategy=server", "parallel.servers=1"],
        ["parallel.strategy=sharded", "data.validation=beyond.npy"],
        ["data.order=window", "data.train=all.bin", "data.token_dtype=uint32"],
    ],
)
def test_other_settings(comm, folder, overrides):
    result = trained(folder, comm, "train.epochs=2", *overrides)
    assert result["train_loss"] < 0.9 * unigram_entropy(folder)
    if "data.validation=beyond.npy" in overrides:
        schema = Run(folder / "run", comm).schema
        assert schema.n_tokens == VOCABULARY + 1


@pytest.mark.mpi(min_size=2)
def test_tools(comm, folder):
    config = configuration.parse(CONFIG, folder=folder)
    facts = try_out(config, comm)
    assert facts["features"] == WINDOW and facts["samples"] > 600
    for name, how in (("made", {}), ("all.bin", {"token_dtype": "uint32"})):
        path = str(folder / name)
        found = describe_files(path, comm, is_shown=False, **how)
        data = found["suggestion"]["data"]
        assert data == {"train": path, "window": 64, "validation": 0.1} | (
            how or {"format": "tokens"}
        )
        text = "\n".join(info_lines(found))
        assert "24,000 tokens of uint" in text and "the largest is 11" in text
    with pytest.raises(DataError, match="single tokens, chosen at random"):
        split_files(str(folder / "made"), str(folder / "s"), comm, fraction=0.5)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*share one, and wait:RuntimeWarning")
def test_a_gpu_trains_evaluates_and_predicts(tmp_path):
    import gpus
    from mpi4py import MPI

    gpus.use()
    comm, found = MPI.COMM_SELF, []
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 3000).astype("u2")
    tokens.tofile(tmp_path / "made.bin")
    settings = ["data.train=made.bin", "train.epochs=1", "model.dtype=float64"]
    for backend in ("cuda", "numpy"):
        more = [f"train.backend={backend}", f"output.directory={backend}"]
        result = trained(tmp_path, comm, *settings, *more)
        run = Run(tmp_path / "cuda", comm, backend)  # on either
        measured = run.evaluate(tmp_path / "made.bin")
        run.predict(tmp_path / "made.bin", tmp_path / "p.npy", proba=True)
        probabilities = run.trained.predict_proba(tokens[:8].reshape(2, 4)).ravel()
        outputs = [measured["loss"], measured["accuracy"], *probabilities]
        found.append([result["train_loss"], *outputs, *np.load(tmp_path / "p.npy")[3]])
    assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize(
    "change",
    [{"window": 0}, {"token_dtype": "int8"}, {"n_tokens": "9"}, {"dtype": "f2"}, {}],
)
def test_schemas_are_checked(change):
    from pympi_train.data.loading.schema import TokenSchema

    schema = TokenSchema(8, "uint16", 9, "float32")
    plain = plain_schema(schema) | change
    if not change:
        assert schema_of(plain) == schema
        return
    with pytest.raises(ValueError, match=f"unexpected value of '{[*change][0]}'"):
        schema_of(plain)
