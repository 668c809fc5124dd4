"""A configuration file that is read once and parsed with several sets of overrides."""

from pathlib import Path
from typing import NamedTuple

from pympi_train.config.config import parse, read_text
from pympi_train.paths import expanded


class ConfigFile(NamedTuple):
    """The text of a configuration file.

    Attributes
    ----------
    path : str
        ``~`` and variables are replaced.
    text : str
    """

    path: str
    text: str

    @classmethod
    def read(cls, path):
        """Read a file in this process.

        Raises
        ------
        ConfigError
            If it cannot be read or is not UTF-8.
        """
        path = expanded(path)
        return cls(path, read_text(path))

    def parse(self, overrides=()):
        """Return the Config with overrides ``section.key=value``.

        Raises
        ------
        ConfigError
            If it is not valid.
        """
        folder = Path(self.path).parent
        return parse(self.text, where=self.path, folder=folder, overrides=overrides)
