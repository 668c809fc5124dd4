"""The configuration: what is read, what is refused, and how it is said."""

import dataclasses
import math
from unittest import mock

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from pympi_train.config import config as configuration
from pympi_train.config.config import SECTIONS, Config, parse
from pympi_train.errors import ConfigError

LEAST = '[data]\ntrain = "x.npz"\n[model]\nkind = "mlp"\n'


def refusal(text, **arguments):
    """The message with which ``text`` is refused."""
    with pytest.raises(ConfigError) as info:
        parse(text, where="c.toml", **arguments)
    return str(info.value)


def with_keys(*lines, section="train"):
    return LEAST + f"[{section}]\n" + "\n".join(lines)


def test_defaults():
    config = parse(LEAST)
    assert config.data.target == "y"
    assert config.data.features is None
    assert config.data.validation is None
    assert config.data.standardize is False
    assert config.model.hidden == [128, 64]
    assert config.model.dtype == "float32"
    assert config.optimizer.name == "adam"
    assert config.optimizer.learning_rate == 1e-3
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (
        20,
        256,
        0,
    )
    assert config.train.backend == "auto"


def test_defaults_are_not_shared():
    parse(LEAST).model.hidden.append(7)
    assert parse(LEAST).model.hidden == [128, 64]


@pytest.mark.parametrize(
    "key",
    [
        *("data.train", "data.validation", "train.init"),
        *("output.directory", "checkpoint.directory"),
    ],
)
def test_an_empty_name_is_refused(key):
    """It would stand for the folder of the configuration."""
    section, name = key.split(".")
    said = refusal(LEAST, overrides=[f"{key}="])
    assert said == f"c.toml: [{section}] {name} '': an empty file name"


def test_names_are_relative_to_the_folder_of_the_file(tmp_path):
    config = parse(
        '[data]\ntrain = "a/x.npz"\nvalidation = "../v.npz"\n[model]\nkind = "linear"\n'
        '[output]\ndirectory = "runs/a"',
        folder=tmp_path / "sub",
    )
    assert config.data.train == str(tmp_path / "sub" / "a" / "x.npz")
    assert config.data.validation == str(tmp_path / "v.npz")
    assert config.output.directory == str(tmp_path / "sub" / "runs" / "a")
    assert config.data.target == "y"  # a name inside the file


def test_target_of_npy_is_a_file(tmp_path):
    text = '[data]\ntrain = "x.npy"\ntarget = "y.npy"\n[model]\nkind = "linear"'
    assert parse(text, folder=tmp_path).data.target == str(tmp_path / "y.npy")


def test_urls_are_not_relative(tmp_path):
    text = """
    [data]
    train = ["https://host/a.npy?key=1", "b.npy"]
    target = ["s3://bucket//y.npy", "c.npy"]
    [model]
    kind = "linear"
    """
    data = parse(text, folder=tmp_path).data
    assert data.train == ["https://host/a.npy?key=1", str(tmp_path / "b.npy")]
    assert data.target == ["s3://bucket//y.npy", str(tmp_path / "c.npy")]


def test_whole_numbers_where_numbers_are_wanted():
    text = with_keys("learning_rate = 1", section="optimizer")
    rate = parse(text).optimizer.learning_rate
    assert (type(rate), rate) == (float, 1.0)
    text = '[data]\ntrain = "x.npz"\n[model]\nkind = "softmax"\n'
    config = parse(text + 'class_weights = {"7" = 2, a = 0.5}')
    assert config.model.class_weights == {"7": 2.0, "a": 0.5}


@pytest.mark.parametrize("kind, task", [("linear", "regression"), ("logistic", None)])
def test_task_follows_from_the_kind(kind, task):
    text = f'[data]\ntrain = "x.npz"\n[model]\nkind = "{kind}"'
    assert parse(text).task == (task or "classification")


def test_task_of_an_mlp_is_configured():
    assert parse(LEAST).task == "classification"
    assert parse(LEAST + 'task = "regression"').task == "regression"


@pytest.mark.parametrize(
    "text, words",
    [
        ("[data\n", ["line 1, column 6"]),
        (LEAST + "hidden = [1,\n2\nactivation", ["line 7, column 1"]),
        ('[data]\ntrain = "a"\ntrain = "b"', ["Cannot overwrite a value"]),
        ("[dat]", ["unknown section 'dat'", "did you mean 'data'?"]),
        ("[zzz]", ["unknown section 'zzz'", "known: data, model, optimizer"]),
        ("epochs = 3", ["unknown section 'epochs'"]),
        ("data = 3", ["[data] must be a table, got 3"]),
        ("", ["[data] needs the key 'train'"]),
        ('[data]\ntrain = "x"', ["[model] needs the key 'kind'"]),
        (with_keys("epoch = 3"), ["[train]: unknown key 'epoch'", "mean 'epochs'?"]),
        (with_keys("qqq = 3"), ["unknown key 'qqq'; known: epochs, batch_size"]),
        (with_keys('epochs = "3"'), ["[train] epochs must be an integer, got '3'"]),
        (with_keys("epochs = 3.0"), ["epochs must be an integer, got 3.0"]),
        (with_keys("epochs = true"), ["epochs must be an integer, got True"]),
        (with_keys("epochs = 0"), ["epochs must be at least 1, got 0"]),
        (with_keys(f"seed = {2**64}"), [f"seed must be at most {2**64 - 1}"]),
        (with_keys(f"batch_size = {10**300}"), ["batch_size must be at most 900719"]),
        (with_keys("history = 1001", section="optimizer"), ["at most 1000, got"]),
        (
            with_keys("warmup_epochs = 1e308", section="optimizer"),
            ["warmup_epochs must be at most"],
        ),
        (LEAST + f"hidden = [2, {2**40}]", ["hidden must be at most 10000000, got"]),
        (with_keys("seed = -1"), ["seed must be at least 0, got -1"]),
        (
            with_keys('backend = "gpu"'),
            ["must be one of 'auto', 'numpy', 'numba', 'cuda'"],
        ),
        (LEAST + 'hidden = "64"', ["hidden must be a list, each an integer"]),
        (LEAST + "hidden = [64, 0]", ["hidden must be at least 1, got 0"]),
        (LEAST + "hidden = [64, 1.5]", ["a list, each an integer, got [64, 1.5]"]),
        (LEAST + "l2 = nan", ["l2 must be finite, got nan"]),
        (LEAST + "l2 = -0.5", ["l2 must be at least 0, got -0.5"]),
        (LEAST + "class_weights = {a = inf}", ["class_weights must be finite"]),
        (LEAST + 'class_weights = {a = "b"}', ["or a table of numbers or left out"]),
        (LEAST + "intercept = 1", ["intercept must be true or false, got 1"]),
        (
            with_keys("learning_rate = 0", section="optimizer"),
            ["[optimizer] learning_rate must be above 0"],
        ),
        (
            with_keys("learning_rate = 1" + 400 * "0", section="optimizer"),
            ["learning_rate must be finite"],
        ),
        (
            with_keys("beta1 = 1", section="optimizer"),
            ["[optimizer] beta1 must be below 1"],
        ),
        (with_keys(f"epochs = {5000 * '9'}"), ["digits"]),
        (with_keys("learning_rate = " + 5000 * "[", section="optimizer"), []),
        ('[data]\ntrain = "\\u0000"\n[model]\nkind = "mlp"', ["with a null byte"]),
        (LEAST.replace('"mlp"', '"tree"'), ["kind must be one of 'linear'"]),
    ],
)
def test_refused_with_words(text, words):
    message = refusal(text)
    assert message.startswith("c.toml: ")
    for word in words:
        assert word in message


def test_long_values_are_cut_in_messages():
    assert len(refusal(with_keys(f"epochs = {list(range(10_000))}"))) < 400
    assert "thousands of digits" in refusal(with_keys(f"backend = 0x{5000 * 'f'}"))


@pytest.mark.parametrize(
    "override, section, key, value",
    [
        ("train.epochs=5", "train", "epochs", 5),
        (" train.epochs = 5", "train", "epochs", 5),
        ("optimizer.learning_rate=1e-2", "optimizer", "learning_rate", 0.01),
        ("optimizer.learning_rate=1", "optimizer", "learning_rate", 1.0),
        ("optimizer.name=sgd", "optimizer", "name", "sgd"),
        ('optimizer.name="sgd"', "optimizer", "name", "sgd"),
        ("data.standardize=true", "data", "standardize", True),
        ("model.hidden=[3, 4]", "model", "hidden", [3, 4]),
        ("model.class_weights={a=2}", "model", "class_weights", {"a": 2.0}),
        ("data.target=a=b", "data", "target", "a=b"),
        ("data.target=a#b", "data", "target", "a#b"),
        ("data.target=1", "data", "target", "1"),
        ("data.target= 2024-01-01 ", "data", "target", "2024-01-01"),
        ('data.target=["1", "2"]', "data", "target", ["1", "2"]),
        ("data.validation=0.5", "data", "validation", 0.5),
        ("output.directory=/tmp/a b", "output", "directory", "/tmp/a b"),
    ],
)
def test_override(override, section, key, value):
    config = parse(LEAST, overrides=[override])
    assert getattr(getattr(config, section), key) == value
    assert config != parse(LEAST)


def test_override_wins_over_the_file_and_the_last_over_the_first():
    text = with_keys("epochs = 3")
    overrides = ["train.epochs=4", "train.epochs=5", "train.seed=1"]
    train = parse(text, overrides=overrides).train
    assert (train.epochs, train.seed) == (5, 1)


@pytest.mark.parametrize(
    "override, words",
    [
        ("train", "--set train: expected section.key=value"),
        ("epochs=3", "--set epochs=3: expected section.key=value"),
        (".epochs=3", "expected section.key=value"),
        ("train.=3", "expected section.key=value"),
        ("train.epochs", "expected section.key=value"),
        ("train.epoch=3", "did you mean 'epochs'?"),
        ("optimizer.lr=3", "did you mean 'learning_rate'?"),
        ("data.alpha=3", "unknown key 'alpha'; known: train, format"),
        ("tran.epochs=3", "unknown section 'tran'; did you mean 'train'?"),
        ("train.epochs=many", "epochs must be an integer, got 'many'"),
        ("train.epochs=", "epochs must be an integer, got ''"),
        ("train.epochs.a=3", "unknown key 'epochs.a'"),
    ],
)
def test_override_refused(override, words):
    message = refusal(LEAST, overrides=[override])
    assert words in message and message.startswith(f"--set {override}: ")


def test_override_of_a_section_that_is_no_table():
    message = refusal("train = 3\n" + LEAST, overrides=["train.epochs=3"])
    assert "[train] must be a table" in message


def test_folder_that_was_removed(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "c.toml: a file name cannot be resolved" in refusal(LEAST)


def test_links_in_a_circle(tmp_path):
    (tmp_path / "x.npz").symlink_to(tmp_path / "x.npz")
    try:
        assert parse(LEAST, folder=tmp_path)  # from Python 3.13 on
    except ConfigError as error:
        assert "a file name cannot be resolved" in str(error)


def test_byte_order_mark(tmp_path):
    from mpi4py import MPI

    (tmp_path / "c.toml").write_text(LEAST, encoding="utf-8-sig")
    assert configuration.read(tmp_path / "c.toml", MPI.COMM_SELF) == LEAST


def test_whole_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(LEAST).train.epochs = 3


# Any values that TOML can hold, under known and unknown names.
SCALARS = st.one_of(
    st.none().map(lambda _: math.inf),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = [f.name for cls in SECTIONS.values() for f in dataclasses.fields(cls)]
NAMES = st.sampled_from(KEYS) | st.text(max_size=4)
TABLES = st.dictionaries(NAMES, VALUES, max_size=4)
FILES = st.dictionaries(
    st.sampled_from(list(SECTIONS)) | st.text(max_size=4), TABLES | VALUES, max_size=4
)


@settings(deadline=None)
@given(FILES)
def test_anything_is_a_configuration_or_a_refusal(tables):
    try:
        config = parse(tomli_w.dumps(tables))
    except ConfigError as error:
        assert str(error).startswith("configuration: ")
    else:
        assert isinstance(config, Config)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_configuration_or_a_refusal(text):
    with pytest.raises(ConfigError):  # the least it takes is hardly found by chance
        parse(text)


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_override_is_taken_or_refused(name, value):
    for path in (name, "train." + name, "output.directory"):
        try:
            parse(LEAST, overrides=[f"{path}={value}"])
        except ConfigError:
            pass


def allowed(f):
    """Values that a key may have, in the eyes of its type and limits."""
    limits = f.metadata
    if "choices" in limits:
        return st.sampled_from(limits["choices"])
    least = limits.get("least", limits.get("above", 0))
    most = limits.get("most", limits.get("below", 2**40))
    number = st.floats(
        least,
        most,
        exclude_min="above" in limits,
        exclude_max="below" in limits,
    )
    # In a path, "$" and "~" are replaced: tests/test_paths.py.
    characters = st.characters(codec="utf-8", exclude_characters="\0$~")
    name = st.text(characters, min_size=1)
    by_type = {
        str: name,
        bool: st.booleans(),
        bool | None: st.booleans(),
        int: st.integers(int(least), int(most)),
        float: number,
        str | list[str]: name | st.lists(name),
        str | list[str] | None: name | st.lists(name),
        float | str | list[str] | None: number | name | st.lists(name),
        str | None: name,
        list[int]: st.lists(st.integers(1, 4096)),
        str
        | dict[str, float]
        | None: st.just("balanced")
        | st.dictionaries(name, st.floats(0, 1e300)),
        float | None: number,
        int | None: st.integers(int(least), int(most)),
    }
    return by_type[f.type]


def tables_of(cls):
    keys = {f.name: allowed(f) for f in dataclasses.fields(cls)}
    required = {name: keys.pop(name) for name in ("train", "kind") if name in keys}
    return st.fixed_dictionaries(required, optional=keys)


@settings(deadline=None)
@given(st.fixed_dictionaries({name: tables_of(cls) for name, cls in SECTIONS.items()}))
def test_round_trip_through_toml(tables):
    # Each value is allowed; their combination need not make sense.
    with mock.patch.object(configuration, "refusal", lambda config: None):
        config = parse(tomli_w.dumps(tables), folder="/some/folder")
        again = parse(tomli_w.dumps(config.to_dict()), folder="/elsewhere")
    assert again == config
