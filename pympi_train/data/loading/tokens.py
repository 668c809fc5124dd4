"""Loading token files for training, and others that must match them."""

from pympi_train.comm.checks import agreed_within, together
from pympi_train.comm.ranks import resolve
from pympi_train.data.formats.files import find_files
from pympi_train.data.loading.schema import Loaded, TokenSchema
from pympi_train.data.order import held_out_count
from pympi_train.data.sources.tokens import TokenDataset
from pympi_train.data.windows.choice import set_order
from pympi_train.errors import ConfigError, DataError

MAX_TOKENS = 2**31 - 2  # the model's table has one more row


def load_tokens(
    path,
    window,
    *,
    token_dtype="uint16",
    format=None,
    vocabulary=None,
    validation=None,
    order="full",
    order_window=None,
    order_shards=None,
    dtype="float32",
    comm=None,
):
    """Return this rank's windows of token files, for training.

    Parameters
    ----------
    path : str, path, or list of them
        .bin or .npy files, a pattern or a folder.
    window : int
        Tokens of a row.
    token_dtype : str
        Of .bin files: "uint8", "uint16", "uint32" or "uint64".
    format : "tokens" or None
        Needed for .npy files.
    vocabulary : int, optional
        Tokens are 0 to ``vocabulary - 1``. By default up to the largest token of all
        files, those of validation included.
    validation : float, path or list of paths, optional
        Fraction of the rows to hold out, the last ones; or other files.
    order, order_window, order_shards
        As for `load`.
    dtype : str
        Dtype of the model.
    comm : MPI.Comm, optional

    Returns
    -------
    Loaded

    Raises
    ------
    DataError
        On every rank, if a file is missing or malformed, or a token lies beyond the
        vocabulary.
    ConfigError
        On every rank, for a setting that makes no sense.

    Notes
    -----
    Collective.

    Neighbouring windows are of the same text, so that a random choice of held-out rows
    would know much of them from training. Therefore the last rows are held out.
    """
    comm = resolve(comm)
    files = find_files(path, comm, format)
    train = _opened(files, window, token_dtype, comm)
    other = None
    if isinstance(validation, float):
        train, other = _last_held_out(train, validation, files.name, comm)
    elif validation is not None:
        found = find_files(validation, comm, format)
        other = _opened(found, window, token_dtype, comm)
    parts = [train] if other is None else [train, other]
    if vocabulary is None:
        vocabulary = 1 + max(part.largest(comm) for part in parts)
        _require_vocabulary(vocabulary, files.name, comm)
    else:
        for part in parts:
            part.require_below(vocabulary, comm)
    remarks = set_order(train, comm, order, order_window, order_shards)
    schema = TokenSchema(window, token_dtype, vocabulary, dtype)
    return Loaded(train, other, schema, None, files, remarks)


def read_tokens_again(path, schema, comm, *, format_=None, **others):
    """Return the windows of token files that must match those of the training.

    Parameters
    ----------
    path : str, path, or list of them
    schema : TokenSchema
    comm : MPI.Comm
    format_ : "tokens" or None
        .npy files are token files here.
    **others
        Options for files of other formats; all must be None or False.

    Raises
    ------
    ConfigError
        On every rank, if another option is set.
    DataError
        On every rank, if a file cannot be read, or has a token beyond the vocabulary.

    Notes
    -----
    Collective.
    """
    given = [name for name, value in others.items() if value not in (None, False)]
    if given:
        text = f"{given[0]} is not for token files: the model was trained on tokens"
        raise agreed_within(comm, ConfigError(text))
    files = find_files(path, comm, "tokens" if format_ is None else format_)
    found = _opened(files, schema.window, schema.token_dtype, comm)
    found.require_below(schema.n_tokens, comm)
    return found


def _opened(files, window, token_dtype, comm):
    if files.format != "tokens":
        text = (
            f"{files.name}: expected token files, .bin, or .npy with format = "
            f'"tokens"; found {files.format}'
        )
        raise agreed_within(comm, DataError(text))
    return TokenDataset(files, window, token_dtype=token_dtype, comm=comm)


def _last_held_out(rows, fraction, name, comm):
    """Return all rows but the last, and the last ones. Collective."""
    with together(comm):
        if rows.n < 2:
            raise DataError(
                f"{name}: a single window cannot be both for training and validation; "
                "make [data] window smaller, or name a file for validation"
            )
        n = held_out_count(rows.n, fraction)
    return rows.part(0, rows.n - n, comm), rows.part(rows.n - n, rows.n, comm)


def _require_vocabulary(n_tokens, name, comm):
    if not 2 <= n_tokens <= MAX_TOKENS:
        text = (
            f"{name}: the largest token is {n_tokens - 1}; a model needs two tokens or "
            f"more, and at most {MAX_TOKENS}: is token_dtype right?"
        )
        raise agreed_within(comm, DataError(text))
