"""A trained model in memory, for prediction with and without MPI."""

from collections.abc import Mapping

import numpy as np

from pympi_train.backends.csr import CSR
from pympi_train.backends.environment import computing
from pympi_train.config import config as configuration
from pympi_train.config.build import build_model
from pympi_train.data.formats.files import TABLES
from pympi_train.data.formats.table_columns import as_dates, as_numbers, coded
from pympi_train.data.loading.sparse import prepared_values
from pympi_train.data.sources.sparse import as_csr
from pympi_train.data.values import require_finite
from pympi_train.errors import DataError
from pympi_train.flat.memory import empty_block
from pympi_train.runs import output


class TrainedModel:
    """A model with its parameters and the schema of its training data.

    Created by `inference.load_model`.

    Parameters
    ----------
    directory : path
        The run directory or the checkpoint, for messages.
    text : str
        The run's configuration.
    schema : Schema
    tensors : dict of ndarray, StoredTensor or WholeTensor, or None
        The weights; None: the caller fills ``block`` later.

    Attributes
    ----------
    schema : Schema or TokenSchema
        Feature names, classes and scaling; or the vocabulary.
    config : Config
    model : Network
    """

    def __init__(self, directory, text, schema, tensors):
        self.config = configuration.parse(
            text, where=output.CONFIG, literal_paths=True
        )
        self.schema = schema
        _require_match(self.config, schema, directory)
        self.model = build_model(self.config.model, schema)
        if tensors is not None:
            _require_weights(self.model.layout, tensors, directory)
        self.block = empty_block(self.model.layout)
        for name, view in self.weights().items() if tensors is not None else ():
            view[...] = tensors[name][...]
            if not np.isfinite(view).all():
                raise DataError(f"{directory}: {name} has NaN or infinity")

    def use(self, ops):
        """Compute with this backend from now on; ``block`` must be filled."""
        self.ops = ops
        self.model.use(ops)
        there = ops.empty_block(self.model.layout)
        ops.from_host(self.block, there)
        self.params = self.model.layout.views(there)
        return self

    def weights(self):
        """Return the tensors by name, views of ``block``."""
        return self.model.layout.named(self.block)

    def predict(self, x):
        """Return the model's predictions for rows in memory. Not collective.

        Parameters
        ----------
        x : array_like or sparse matrix of SciPy, shape (k, d)
            Features as in the files, not scaled. From a table with column names
            (pandas), the columns of the training are selected. For a language model,
            k sequences of d tokens, of any length.

        Returns
        -------
        ndarray, shape (k,), or (k, t) for t > 1 targets
            Labels as in the training data, or numbers in their own units. Of a language
            model, the most probable next tokens.

        Raises
        ------
        DataError
            If ``x`` does not match the training data, or has a NaN or an infinity.
        """
        return self._computed(x, self.answers)

    def predict_proba(self, x):
        """Return the probability of each class, shape (k, c). Not collective.

        Column j is for ``schema.classes[j]``, or for token j. ``x`` is as for
        `predict`.

        Raises
        ------
        DataError
            As for `predict`, and if this is a regression.
        """
        self.require_classes()
        return self._computed(x, self.probabilities)

    def require_classes(self):
        """Raise DataError unless there are classes."""
        if self.schema.task == "regression":
            raise DataError("probabilities are those of classes; this is a regression")

    def answers(self, outputs):
        """Return labels, or numbers in their own units, for outputs on the host."""
        schema = self.schema
        if schema.task == "language":
            return self.model.decide(outputs)
        if schema.classes is not None:
            return schema.classes[self.model.decide(outputs)]
        if schema.target_scaling is not None:
            outputs = schema.target_scaling.undo(outputs)
        return outputs[:, 0].copy() if schema.n_targets == 1 else outputs.copy()

    def probabilities(self, outputs):
        """Return the probability of each class for outputs on the host."""
        return self.model.probabilities(outputs)

    def _computed(self, x, finish):
        if self.schema.task == "language":
            return self._computed_next(x, finish)
        x, schema = self._features(x), self.schema
        prepared = schema.preparation
        step, parts = self.config.train.micro_batch_size, []
        for start in range(0, max(len(x), 1), step):
            part = x[start : start + step]
            if isinstance(part, CSR) and not self._keeps_sparse:
                part = part.toarray()
            if isinstance(part, CSR):
                part = part.compact()
                numbers = prepared_values(part, prepared, schema.dtype)
                part = part.with_values(numbers)
            else:
                require_finite(part, "x", start, optional=prepared.fill is not None)
                part = prepared.apply(part)
                with np.errstate(over="ignore"):
                    numbers = part = np.asarray(part, schema.dtype, order="C")
            if not np.isfinite(numbers).all():
                raise DataError(
                    f"x: a number in rows {start} to {start + len(part) - 1} (from 0) "
                    f"is too large for {schema.dtype}"
                )
            with computing():
                outputs = self.model.predict(self.params, self._on_device(part))
                parts.append(finish(self.ops.numbers(outputs)))
        return np.concatenate(parts)

    def _computed_next(self, x, finish):
        """Return what ``finish`` makes of the logits of each sequence's next token."""
        x, n = np.asarray(x), self.schema.n_tokens
        if x.ndim != 2 or x.dtype.kind not in "iu":
            raise DataError(
                f"x: expected tokens, integers of shape (sequences, length), got "
                f"{x.dtype} of {x.shape}"
            )
        if x.size and not (0 <= x.min() and x.max() < n):
            raise DataError(
                f"x: expected tokens from 0 to {n - 1}, got {x.min()} to {x.max()}"
            )
        step, parts = self.config.train.micro_batch_size, []
        for start in range(0, max(len(x), 1), step):
            with computing():
                part = self._on_device(x[start : start + step])
                outputs = self.model.predict(self.params, part)
                parts.append(finish(self.ops.numbers(outputs)))
        return np.concatenate(parts)

    @property
    def _keeps_sparse(self):
        """Whether sparse rows are computed as they are."""
        return self.config.keeps_sparse and self.schema.preparation.keeps_zeros

    def _on_device(self, x):
        if not self.ops.ON_DEVICE:
            return x
        if isinstance(x, CSR):
            return self.ops.sparse.csr_to_device(x)
        there = self.ops.empty(x.shape, x.dtype)
        self.ops.from_host(x, there)
        return there

    def _features(self, x):
        """Return rows as the readers of files return them."""
        names, prepared = self.schema.feature_names, self.schema.preparation
        if hasattr(x, "tocsr"):
            x = as_csr(x)
            self._require_width(x)
            return x
        if isinstance(x, np.ma.MaskedArray):
            raise DataError("x: a masked array; .filled() makes it plain")
        if isinstance(x, Mapping) and names is not None:
            return self._stacked([np.asarray(self._column_of(x, n)) for n in names])
        if hasattr(x, "columns") and names is not None:
            absent = [name for name in names if name not in x.columns]
            is_table = self.schema.format in TABLES
            if absent and (is_table or set(names) - set(absent)):
                raise DataError(f"x: no column {absent[0]!r}, which was trained on")
            # Column by column: a whole table of several types has dtype object.
            chosen = list(x.columns) if absent else names
            return self._stacked([np.asarray(x[name]) for name in chosen])
        try:
            x = np.asarray(x)
        except (TypeError, ValueError) as error:
            raise DataError(f"x: expected numbers in rows: {error}") from None
        self._require_width(x)
        if x.dtype.kind in "biuf" and not prepared.encodings:
            return x
        return self._stacked(list(x.T))

    def _column_of(self, x, name):
        """Return a column of a mapping from names, such as a batch of a table."""
        if name not in x:
            raise DataError(f"x: no column {name!r}, which was trained on")
        values = x[name]
        is_masked = isinstance(values, np.ma.MaskedArray)
        return values.astype(np.float64).filled(np.nan) if is_masked else values

    def _require_width(self, x):
        n = self.schema.preparation.n_columns
        if x.ndim != 2 or x.shape[1] != n:
            raise DataError(
                f"x: expected numbers of shape (rows, {n}), got {x.dtype} of {x.shape}"
            )

    def _stacked(self, columns):
        """Return columns of numbers, categories and dates as one array of numbers."""
        prepared = self.schema.preparation
        if len(columns) != prepared.n_columns:
            raise DataError(
                f"x: expected {prepared.n_columns} columns, got {len(columns)}"
            )
        codes = {encoding.column: encoding for encoding in prepared.encodings}
        dates = {column for _, column in prepared.dates}
        out = []
        for i, values in enumerate(columns):
            place = f"x, column {i} (from 0)"
            if i in codes:
                out.append(coded(values, codes[i], place))
            elif i in dates:
                out.append(as_dates(values, place))
            else:
                out.append(as_numbers(values, place))
        return np.column_stack(out)


def backend_of(trained, backend):
    """Return the backend to request for predictions with a trained model."""
    if backend == "auto" and trained.config.train.backend == "numpy":
        return "numpy"  # the same bits as in training, and a faster start
    return backend


def _require_match(config, schema, directory):
    for name, one, other in (
        ("task", config.task, schema.task),
        ("dtype", config.model.dtype, schema.dtype),
    ):
        if one != other:
            raise DataError(
                f"{directory}: {name} is {one!r} by {output.CONFIG} but {other!r} by "
                f"{output.SCHEMA}: they are not of one run"
            )


def _require_weights(layout, tensors, directory):
    shapes = {tensor.name: tuple(tensor.shape) for tensor in layout.tensors}
    if set(shapes) != set(tensors):
        raise DataError(
            f"{directory}: the weights are {sorted(tensors)}, the model has "
            f"{sorted(shapes)}"
        )
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != shape:
            raise DataError(
                f"{directory}: {name} has shape {found.shape}, the model wants {shape}"
            )
        if found.dtype != layout.dtype:
            raise DataError(
                f"{directory}: {name} is {found.dtype}, the model wants {layout.dtype}"
            )
