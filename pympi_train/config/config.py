"""The configuration file: frozen dataclasses made from TOML."""

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pympi_train.comm.checks import together
from pympi_train.config.data_config import DataConfig
from pympi_train.config.rules import refusal
from pympi_train.data.formats.read import target_is_file
from pympi_train.data.loading.options import FILLING
from pympi_train.errors import ConfigError
from pympi_train.keys import (
    MOST,
    checked,
    key,
    require_known,
    section,
    takes_text_alone,
)
from pympi_train.parallel.settings import Parallel
from pympi_train.paths import expanded, in_each, is_remote, require_utf8

CHECKPOINTS = "checkpoints"  # in the run directory


@dataclass(frozen=True)
class ModelConfig:
    """The section ``[model]``: the model and its loss."""

    kind: str = key(
        "the model; neural-ngram is a language model, for token files",
        choices=("linear", "logistic", "softmax", "mlp", "neural-ngram"),
    )
    hidden: list[int] = key(
        "mlp, neural-ngram: width of each hidden layer",
        [128, 64],
        least=1,
        most=10_000_000,
    )
    activation: str = key(
        "mlp, neural-ngram: activation", "relu", choices=("relu", "tanh", "gelu")
    )
    context: int = key(
        "neural-ngram: number of tokens that the next one is predicted from",
        4,
        least=1,
        most=10_000,
    )
    embedding: int = key(
        "neural-ngram: length of the vector of a token", 32, least=1, most=10_000_000
    )
    vocabulary: int | None = key(
        "neural-ngram: tokens are 0 to vocabulary - 1; if omitted, up to the largest "
        "token of the training and validation files",
        None,
        least=2,
        most=2**31 - 2,
    )
    init: str = key(
        "mlp, neural-ngram: scale of the initial weights of hidden layers",
        "glorot",
        choices=("glorot", "he"),
    )
    task: str = key(
        "mlp: the kind of outputs",
        "classification",
        choices=("classification", "regression"),
    )
    intercept: bool = key("linear, logistic, softmax: fit an intercept", True)
    l2: float = key(
        "add (l2/2)|W|^2 to the loss, for weights, not biases", 0.0, least=0
    )
    class_weights: str | dict[str, float] | None = key(
        'classification: "balanced", or a table of label = weight', None
    )
    dtype: str = key(
        "type of parameters and features", "float32", choices=("float32", "float64")
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """The section ``[optimizer]``: the algorithm and its learning rate."""

    name: str = key(
        "the algorithm",
        "adam",
        choices=("gd", "sgd", "adam", "adamw", "adagrad", "lbfgs"),
    )
    learning_rate: float = key("step size; unused by lbfgs", 1e-3, above=0)
    momentum: float = key("sgd: heavy-ball momentum", 0.0, least=0, below=1)
    nesterov: bool = key("sgd: Nesterov's momentum", False)
    weight_decay: float = key(
        "sgd, adam, adagrad: added to the gradient; adamw: decoupled; weights, not "
        "biases",
        0.0,
        least=0,
    )
    beta1: float = key("adam, adamw: decay of the first moment", 0.9, least=0, below=1)
    beta2: float = key(
        "adam, adamw: decay of the second moment", 0.999, least=0, below=1
    )
    eps: float = key(
        "adam, adamw, adagrad: floor of the denominator", 1e-8, least=1e-30, below=1
    )
    clip_norm: float | None = key(
        "maximum global norm of the mean gradient", None, above=0
    )
    schedule: str = key(
        "schedule of the learning rate",
        "constant",
        choices=("constant", "step", "cosine"),
    )
    warmup_epochs: float = key("epochs of linear warm-up", 0.0, least=0, most=1e9)
    step_epochs: int = key(
        "schedule step: epochs between two reductions", 30, least=1, most=MOST
    )
    gamma: float = key("schedule step: factor of a reduction", 0.1, above=0, most=1)
    floor: float = key(
        "schedule cosine: final learning rate / initial", 0.0, least=0, most=1
    )
    history: int = key("lbfgs: number of pairs kept", 10, least=1, most=1000)
    tolerance: float = key(
        "lbfgs: stop when max|gradient| is at most this", 1e-5, least=0
    )


@dataclass(frozen=True)
class TrainConfig:
    """The section ``[train]``: epochs, batches, backend and early stopping."""

    epochs: int = key(
        "passes over the training rows; lbfgs: maximum number of iterations",
        20,
        least=1,
        most=MOST,
    )
    batch_size: int = key(
        "rows of a global batch; gd and lbfgs use all rows", 256, least=1, most=MOST
    )
    micro_batch_size: int = key(
        "maximum rows that a rank computes at once; it accumulates the gradients of "
        "a larger share; neural-ngram: fewer if their outputs, window times "
        "vocabulary each, would be more than 2^26 numbers",
        4096,
        least=1,
        most=MOST,
    )
    seed: int = key(
        "seed of the row order, the held-out rows and the initial parameters",
        0,
        least=0,
        most=2**64 - 1,
    )
    init: str | None = key(
        "weights to start from: the run directory or a checkpoint of another training, "
        "relative to the configuration file",
        None,
    )
    backend: str = key(
        "implementation of the hot loops; auto: cuda if every rank has a GPU that "
        "works, else numba if it is installed and the job takes more than a second or "
        "two, else numpy",
        "auto",
        choices=("auto", "numpy", "numba", "cuda"),
    )
    precision: str = key(
        "backend cuda: precision of computation; parameters stay in [model] dtype",
        "full",
        choices=("full", "float16", "bfloat16"),
    )
    patience: int | None = key(
        "stop after this many epochs without a better monitor, and keep the best "
        "weights",
        None,
        least=1,
        most=MOST,
    )
    monitor: str = key(
        "quantity for patience; auto: validation_loss if there are validation rows, "
        "else train_loss",
        "auto",
        choices=("auto", "train_loss", "validation_loss", "accuracy", "rmse", "r2"),
    )


@dataclass(frozen=True)
class OutputConfig:
    """The section ``[output]``: the run directory."""

    directory: str = key(
        "run directory, relative to the configuration file", "runs/run"
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """The section ``[checkpoint]``: when the state of the training is saved."""

    directory: str | None = key(
        "folder of the checkpoints, relative to the configuration file; default: "
        "checkpoints in the run directory",
        None,
    )
    every_steps: int | None = key("steps between two", None, least=1, most=MOST)
    every_s: float | None = key("seconds between two", 600.0, above=0)
    keep: int = key(
        "number of the newest that are kept; the best epoch's by [train] monitor is "
        "kept as well",
        2,
        least=1,
        most=MOST,
    )
    asynchronous: bool = key(
        "write in the background while the training goes on; takes as much memory as "
        "a rank writes, or else writes at once",
        True,
    )
    on_error: str = key(
        "what follows if one cannot be written: a warning, or the end of the training",
        "warn",
        choices=("warn", "stop"),
    )
    max_time: float | None = key(
        "seconds since the start of the program after which the training has saved "
        "its state and ended; default: the end of the SLURM job",
        None,
        above=0,
    )


@dataclass(frozen=True)
class Config:
    """The configuration of a whole run."""

    data: DataConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    parallel: Parallel
    output: OutputConfig
    checkpoint: CheckpointConfig

    @property
    def task(self):
        """Return "classification", "regression" or "language"."""
        by_kind = {
            "linear": "regression",
            "mlp": self.model.task,
            "neural-ngram": "language",
        }
        return by_kind.get(self.model.kind, "classification")

    @property
    def checkpoints(self):
        """Return the folder of the checkpoints."""
        default = os.path.join(self.output.directory, CHECKPOINTS)
        return self.checkpoint.directory or default

    @property
    def keeps_sparse(self):
        """Whether rows of sparse files stay sparse."""
        if self.data.sparse is not None:
            return self.data.sparse
        fills = self.data.missing in FILLING
        is_wide = self.model.kind != "mlp"  # whose products are faster with dense rows
        is_on_cpu = self.train.backend != "cuda" and self.train.precision == "full"
        return is_wide and not fills and is_on_cpu

    def to_dict(self):
        """Return nested dicts of plain values, without keys that are None."""
        sections = dataclasses.asdict(self)
        return {
            name: {key: v for key, v in section.items() if v is not None}
            for name, section in sections.items()
        }


SECTIONS = {f.name: f.type for f in dataclasses.fields(Config)}


def read(path, comm):
    """Return the text of a configuration file, read by rank 0 only. Collective.

    Raises
    ------
    ConfigError
        On every rank, if it cannot be read or is not UTF-8.
    """
    text = None
    with together(comm):
        if comm.rank == 0:
            text = read_text(path)
    return comm.bcast(text, root=0)


def read_text(path):
    """Return the text of a configuration file, read by this process.

    Raises
    ------
    ConfigError
        If it cannot be read or is not UTF-8.
    """
    try:
        if Path(path).is_char_device() or Path(path).is_block_device():
            raise ConfigError(f"{path}: expected a file, found a device")
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{path!r}: {error}") from error


def parse(
    text, *, where="configuration", folder=".", overrides=(), literal_paths=False
):
    """Return the ``Config`` of TOML text.

    Parameters
    ----------
    text : str
        The file's content.
    where : str
        Its name, for messages.
    folder : path
        Folder that paths in the text are relative to. The result has absolute paths.
    literal_paths : bool
        Whether ``~`` and ``$`` in file names are ordinary characters, as in a resolved
        configuration.
    overrides : sequence of str
        ``section.key=value``; the value is TOML or a bare string.

    Raises
    ------
    ConfigError
        For a syntax error (with line and column), an unknown section or key (with
        the closest known one), a wrong type, a value outside its limits, or an invalid
        combination (with the reason).
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5000 digits
        raise ConfigError(f"{where}: {error}") from error
    for override in overrides:
        _override(tables, override)
    require_known(tables, SECTIONS, where, "section")
    parts = {
        name: section(cls, tables.get(name, {}), f"{where}: [{name}]")
        for name, cls in SECTIONS.items()
    }
    try:
        expand = (lambda name, key: name) if literal_paths else expanded
        config = _absolute(Config(**parts), Path(folder), where, expand)
    # A NUL, a removed working directory, or a cycle of links.
    except (ValueError, OSError, RuntimeError) as error:
        message = f"{where}: a file name cannot be resolved: {error}"
        raise ConfigError(message) from error
    reason = refusal(config)
    if reason:
        raise ConfigError(f"{where}: {reason}")
    return config


def _override(tables, text):
    path, equals, value = text.partition("=")
    name, dot, key = path.strip().partition(".")
    if not (equals and dot and name and key):
        raise ConfigError(f"--set {text}: expected section.key=value")
    require_known([name], SECTIONS, f"--set {text}", "section")
    where = f"--set {text}: [{name}]"
    fields = {f.name: f for f in dataclasses.fields(SECTIONS[name])}
    require_known([key], fields, where, "key")
    table = tables.setdefault(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table")
    table[key] = checked(fields[key], _from_text(value, fields[key].type), where)


def _from_text(text, kind):
    """Return a value read as TOML, or as a string: --set data.train=digits.npz."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    plain = not isinstance(value, (str, list, dict))
    return text.strip() if plain and takes_text_alone(kind) else value


def _absolute(config, folder, where, expand):
    """Resolve the file names of ``config`` against ``folder``."""
    data, output = config.data, config.output

    def resolved(names, key):
        key = f"{where}: {key}"

        def in_folder(name):
            name = expand(name, key)
            return name if is_remote(name) else os.path.abspath(folder / name)

        return in_each(names, lambda name: require_utf8(in_folder(name), key))

    def target_of(file, target, key):
        is_file = target_is_file(file, target, data.format)
        return resolved(target, key) if is_file else target

    validation = data.validation or None
    if isinstance(validation, (str, list)):
        validation = resolved(validation, "[data] validation")
    of_validation = data.validation_target
    data = dataclasses.replace(
        data,
        train=resolved(data.train, "[data] train"),
        target=target_of(data.train, data.target, "[data] target"),
        weights=target_of(data.train, data.weights, "[data] weights"),
        validation=validation,
        validation_target=target_of(
            validation, of_validation, "[data] validation_target"
        ),
    )
    directory = resolved(output.directory, "[output] directory")
    output = dataclasses.replace(output, directory=directory)
    train = config.train
    if train.init is not None:
        init = resolved(train.init, "[train] init")
        train = dataclasses.replace(train, init=init)
    saved = config.checkpoint.directory
    if saved is not None:
        saved = resolved(saved, "[checkpoint] directory")
    checkpoint = dataclasses.replace(config.checkpoint, directory=saved)
    return dataclasses.replace(
        config, data=data, train=train, output=output, checkpoint=checkpoint
    )
