"""The configuration file: frozen dataclasses made from TOML."""

import dataclasses
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pympi_train.comm.checks import on_root
from pympi_train.config.data_config import DataConfig
from pympi_train.config.rules import refusal
from pympi_train.config.sections import (
    CheckpointConfig,
    ElasticConfig,
    ModelConfig,
    OptimizerConfig,
    OutputConfig,
    SearchConfig,
    TrainConfig,
)
from pympi_train.data.formats.read import target_is_file
from pympi_train.data.loading.options import FILLING
from pympi_train.errors import ConfigError
from pympi_train.keys import checked, require_known, section, takes_text_alone
from pympi_train.parallel.settings import Parallel
from pympi_train.paths import expanded, in_each, is_remote, require_utf8

CHECKPOINTS = "checkpoints"  # in the run directory


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
    elastic: ElasticConfig
    search: SearchConfig

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
    return on_root(comm, lambda: read_text(path))


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
    text,
    *,
    where="configuration",
    folder=".",
    overrides=(),
    trial=(),
    literal_paths=False,
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
    trial : sequence of str
        Further overrides, which take precedence: those of a trial of a search.

    Raises
    ------
    ConfigError
        For a syntax error (with line and column), an unknown section or key (with
        the closest known one), a wrong type, a value outside its limits, or an invalid
        combination (with the reason).
    """
    tables = parse_tables(text, where)
    for override in overrides:
        set_by_text(tables, override)
    for override in trial:
        set_by_text(tables, override, "--param ")
    return from_tables(tables, where, folder, literal_paths)


def parse_tables(text, where):
    """Return the tables of TOML text; raise ConfigError for a syntax error."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5000 digits
        raise ConfigError(f"{where}: {error}") from error


def from_tables(tables, where, folder, literal_paths=False):
    """Return the ``Config`` of the tables of a configuration; see `parse`."""
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


def set_by_text(tables, text, option="--set "):
    """Set a key of the tables of a configuration by ``section.key=value``.

    ``option`` is what stands before the text in messages.
    """
    path, equals, value = text.partition("=")
    where = f"{option}{text}"
    if not equals:
        raise ConfigError(f"{where}: expected section.key=value")
    set_key(tables, path, _from_text(value, key_field(path, where).type), where)


def set_key(tables, path, value, where):
    """Set the key ``path``, "section.key", of the tables of a configuration.

    Raises
    ------
    ConfigError
        If there is no such key, or the value has a wrong type or is outside its limits.
    """
    f, name = key_field(path, where), path.strip().partition(".")[0]
    where = f"{where}: [{name}]"
    table = tables.setdefault(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table")
    table[f.name] = checked(f, value, where)


def key_field(path, where):
    """Return the dataclass field of the key ``path``, "section.key".

    Raises
    ------
    ConfigError
        If there is none; names the closest one.
    """
    name, dot, key = path.strip().partition(".")
    if not (dot and name and key):
        raise ConfigError(f"{where}: expected section.key=value")
    require_known([name], SECTIONS, where, "section")
    fields = {f.name: f for f in dataclasses.fields(SECTIONS[name])}
    require_known([key], fields, f"{where}: [{name}]", "key")
    return fields[key]


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

    validation = None if data.validation in (0, []) else data.validation
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
