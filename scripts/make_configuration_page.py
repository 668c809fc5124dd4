"""Write docs/configuration.md from the configuration's own definitions.

Keys, types, defaults, limits and meanings are those of ``config/sections.py``; the
refused combinations are the table in ``config/rules.py``. A test compares the page with
the output of this script.
"""

import dataclasses
import types
import typing
from pathlib import Path

from pympi_train.config.config import SECTIONS
from pympi_train.config.rules import RULES

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

OPENING = """\
# Configuration

<!-- Made by scripts/make_configuration_page.py: change that, or config/sections.py. -->

A run is described by one TOML file:

```bash
mpirun -n 4 pympi-train train run.toml
```

```toml
[data]
train = "digits.npz"
features = "X"
target = "y"
validation = 0.2
standardize = true

[model]
kind = "mlp"
hidden = [128, 64]

[optimizer]
name = "adam"
learning_rate = 1e-3

[train]
epochs = 20
batch_size = 256

[output]
directory = "runs/digits"
```

Only `[data] train` and `[model] kind` are required. File names are relative to the
folder of the configuration file.

Any key can be set on the command line. `--set` takes several keys and may be repeated.
The value is written as in TOML, or as a bare string:

```bash
pympi-train train run.toml --set train.epochs=50 model.kind=softmax
```

A key that does not exist is refused, and the message names the closest one that does.
So is a value of the wrong type or outside its limits. Nothing is trained or written
then, and the exit status is 2. The file with all defaults filled in, and with the
backend that was chosen, is written to the [run directory](run-directory.md) as
`config.toml`.
"""

TABLE = """\
| key | type | default | allowed | meaning |
|---|---|---|---|---|
"""

CLOSING = """\
## Combinations that are refused

These make no sense together. The first that applies is printed, and nothing is trained.

{rules}

## File formats

The suffix of the file says its format, unless `format` does. A text format may be
compressed (`.csv.gz`, `.svm.zst`); each rank then decompresses all text before its
rows.

| suffix | features and target | what a rank reads |
|---|---|---|
| `.npz` | named arrays; `features` and `target` choose them | its own rows of \
uncompressed arrays (`numpy.savez`), mapped; rank 0 decompresses a compressed array, \
and sends each rank its rows |
| `.npy` | features in `train`, target in the second file that `target` names | its \
own rows, mapped |
| `.csv`, `.tsv` | columns by their names in the header, or by number (RFC 4180, \
UTF-8) | its share of the bytes to count rows, then its own rows |
| `.parquet`, `.pq` | columns by their names | the columns that are used, in the row \
groups that hold its rows |
| `.h5`, `.hdf5`, `.zarr` | named data sets or arrays, as `.npz` | its own rows, \
mapped if they are not chunked, else its chunks |
| `.svm`, `.libsvm` | `label index:value ...`; the target begins each line | \
as for `.csv`; rows stay sparse or become dense (`sparse`) |

Mapped features stay in their file if they take more than 256 MB on a rank, or if
`memory` says so: they are read once, to see that all are finite, and then batch by
batch. See [Order and memory](data.md#order-and-memory).

[Preparing data](data.md) says what is a label, what is missing, and what to do with
other columns. [The mathematics](mathematics.md) says what the
optimizers do with their keys, and [sharp bits](sharp-bits.md) what surprises people.
"""

WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def page():
    """Return the text of the page."""
    sections = [_section(name, cls) for name, cls in SECTIONS.items()]
    rules = "\n".join(f"* {_escaped(reason)}" for reason, _ in RULES)
    return "\n".join([OPENING, *sections, CLOSING.format(rules=rules)])


def _section(name, cls):
    rows = "".join(_row(field) for field in dataclasses.fields(cls))
    return f"## `[{name}]`\n\n{cls.__doc__.splitlines()[0]}\n\n{TABLE}{rows}"


def _row(field):
    cells = (
        f"`{field.name}`",
        type_text(field.type),
        _default(field),
        limits_text(field.metadata),
        field.metadata["doc"],
    )
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |\n"


def _escaped(text):
    return text.replace("|", r"\|").replace("*", r"\*")


def type_text(kind):
    """Return a type in words: ``list of integers``, ``number or string``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return " or ".join(type_text(arg) for arg in args if arg is not type(None))
    if origin is list:
        return f"list of {type_text(args[0])}s"
    if origin is dict:
        return f"table of {type_text(args[1])}s"
    return WORDS[kind]


def _default(field):
    if field.default_factory is not dataclasses.MISSING:
        return f"`{toml_text(field.default_factory())}`"
    if field.default is dataclasses.MISSING:
        return "required"
    return "none" if field.default is None else f"`{toml_text(field.default)}`"


def toml_text(value):
    """Return a value as it is written in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


def limits_text(limits):
    """Return the limits of a key in words; empty if there are none."""
    if "choices" in limits:
        return ", ".join(f"`{toml_text(choice)}`" for choice in limits["choices"])
    words = {"least": "≥", "above": ">", "most": "≤", "below": "<"}
    return ", ".join(
        f"{sign} {_number(limits[name])}"
        for name, sign in words.items()
        if name in limits
    )


def _number(value):
    if isinstance(value, int) and value > 2**31:
        power = (value + 1).bit_length() - 1
        if value + 1 == 2**power:
            return f"2^{power} - 1"
    return str(value)


def main():
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
