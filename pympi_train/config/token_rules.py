"""Invalid combinations of keys for token files and models of language.

Part of the table in `config.rules`.
"""

import dataclasses

from pympi_train.config.data_config import DataConfig
from pympi_train.data.formats.files import suffix_of

LANGUAGE_MODELS = ("neural-ngram",)
# Keys of [data] that token files have no use for.
OF_COLUMNS = (
    "rows",
    "target",
    "features",
    "weights",
    "drop",
    "categorical",
    "ordinal",
    "dates",
    "missing",
    "missing_indicator",
    "rare_categories",
    "validation_features",
    "validation_target",
    "oversample",
    "header",
    "n_features",
    "zero_based",
    "sparse",
    "standardize",
    "standardize_target",
    "clip",
)
OF_SPLITS = ("split", "split_column", "group", "fold")


def are_token_files(names, format_):
    """Return whether files are token files, by their format or their names."""
    if format_ is not None:
        return format_ == "tokens"
    names = names if isinstance(names, list) else [names]
    return any(suffix_of(str(name)) == ".bin" for name in names)


def _has(c):
    return c.model.kind in LANGUAGE_MODELS


def _sets(data, names):
    """Return whether one of these keys has another value than its default."""
    defaults = {f.name: f.default for f in dataclasses.fields(DataConfig)}
    return any(getattr(data, name) != defaults[name] for name in names)


TOKEN_RULES = (
    (
        'token files (.bin, or format = "tokens") are for [model] kind = '
        '"neural-ngram"',
        lambda c: not _has(c) and are_token_files(c.data.train, c.data.format),
    ),
    (
        "window and token_dtype are for token files, vocabulary for [model] kind = "
        '"neural-ngram"',
        lambda c: not _has(c)
        and (
            _sets(c.data, ("window", "token_dtype")) or c.model.vocabulary is not None
        ),
    ),
    (
        'kind = "neural-ngram" is trained on token files: .bin, or 1-d .npy files with '
        '[data] format = "tokens"',
        lambda c: _has(c)
        and not (
            are_token_files(c.data.train, c.data.format)
            and (
                not isinstance(c.data.validation, (str, list))
                or are_token_files(c.data.validation, c.data.format)
            )
        ),
    ),
    (
        f"token files have no columns: leave out {', '.join(OF_COLUMNS)}",
        lambda c: _has(c) and _sets(c.data, OF_COLUMNS),
    ),
    (
        "of token files, the last windows are held out, as neighbouring windows are of "
        f"the same text: leave out {', '.join(OF_SPLITS)}",
        lambda c: _has(c) and _sets(c.data, OF_SPLITS),
    ),
    (
        'token files are mapped: leave memory out, or set it to "mapped"',
        lambda c: _has(c) and c.data.memory not in ("auto", "mapped"),
    ),
    (
        'class_weights are for classes of rows: kind = "neural-ngram" has none',
        lambda c: _has(c) and c.model.class_weights is not None,
    ),
    (
        'kind = "neural-ngram" computes in full precision: leave precision out',
        lambda c: _has(c) and c.train.precision != "full",
    ),
    (
        'kind = "neural-ngram" needs [data] window, the number of tokens of a row',
        lambda c: _has(c) and c.data.window is None,
    ),
    (
        "context must not exceed [data] window: further tokens would all be padding",
        lambda c: _has(c)
        and c.data.window is not None
        and c.model.context > c.data.window,
    ),
)
