"""Evaluate and predict with a finished run, on any number of ranks."""

import os
from contextlib import suppress

import numpy as np

from pympi_train.backends import select
from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import broadcast
from pympi_train.comm.devices import choose_backend
from pympi_train.comm.mesh import set_threads
from pympi_train.data.feeds.make import make_feed
from pympi_train.data.formats.files import NAMELESS, seen_files
from pympi_train.data.loading.again import read_again
from pympi_train.data.loading.tokens import read_tokens_again
from pympi_train.errors import ConfigError, DataError
from pympi_train.paths import all_expanded, expanded
from pympi_train.runs.earlier.weights import open_earlier
from pympi_train.runs.predictions import destination, write_rows
from pympi_train.runs.trained import TrainedModel, backend_of
from pympi_train.train.metrics import Evaluator


class Run:
    """A trained model of a run directory, for evaluation and prediction.

    Parameters
    ----------
    directory : path
        ``[output] directory`` of a training, or a checkpoint of it.
    comm : MPI.Comm
        Rank 0 reads the run and broadcasts it.
    backend : str
        As for Trainer, except that "auto" takes NumPy if the training used NumPy.

    Attributes
    ----------
    remarks : tuple of str
        What the user should know of the files that were read last.

    Raises
    ------
    DataError
        On every rank, if it is neither a finished run nor a whole checkpoint.

    Notes
    -----
    Collective.
    """

    def __init__(self, directory, comm, backend="auto"):
        self.comm, self.remarks, found, tensors = comm, (), None, None
        with together(comm):
            self._directory = directory = expanded(directory)
        earlier = open_earlier(directory, comm)
        with together(comm):
            if comm.rank == 0:
                found, tensors = earlier.config_and_schema(), earlier.tensors
        text, self.schema = comm.bcast(found, root=0)
        with together(comm):
            self.trained = TrainedModel(directory, text, self.schema, tensors)
        self.config, self.model = self.trained.config, self.trained.model
        broadcast(comm, self.trained.block)
        set_threads(comm)
        self.backend = choose_backend(comm, backend_of(self.trained, backend))
        with together(comm):
            self.trained.use(self.backend.ops)
        self.ops, self.params = self.trained.ops, self.trained.params

    def evaluate(self, data, **reading):
        """Return the metrics on the file ``data``, and its row count as "samples".

        Parameters
        ----------
        data : path
            In a format that training reads, with the same number of features.
        **reading
            ``features``, ``target``, ``weights``, ``need_weights``, ``format_``,
            ``header``, ``zero_based`` and ``rows`` as for
            `data.loading.again.read_again`; for .npy the target is a file.

        Raises
        ------
        DataError
            On every rank, if the file does not match the training data, or has an
            unknown label.

        Notes
        -----
        Collective.
        """
        with together(self.comm):
            data = all_expanded(data)
        dataset = self._read(data, reading)
        measure = Evaluator(
            self.model,
            dataset,
            self.comm,
            micro_batch_size=self.config.train.micro_batch_size,
            ops=self.ops,
        )
        return {"samples": dataset.n, "ranks": self.comm.size, **measure(self.params)}

    def has_seen(self, data, format_=None):
        """Return whether a file of ``data`` was trained on. Not collective."""
        c = self.config.data
        with suppress(OSError, DataError):
            trained_on = seen_files(c.train, c.format).paths
            given = seen_files(all_expanded(data), format_).paths
            seen = set(map(os.path.realpath, trained_on))
            return not seen.isdisjoint(map(os.path.realpath, given))
        return False

    def predict(self, data, path, *, proba=False, **reading):
        """Write the predictions for the file ``data`` to ``path``, .npy or .csv.

        The predictions are labels as in the training data, shape (n,), or numbers in
        their own units, shape (n,) or (n, t), in the order of the rows. Of a language
        model, they are the most probable tokens after each window, shape (n,). Each
        rank writes its own rows. Returns n. Symbolic links are followed. ``reading`` is
        as for `evaluate`.

        Parameters
        ----------
        data : path or list of paths
        path : path
        proba : bool
            Whether to write the probability of each class instead, shape (n, c).

        Raises
        ------
        DataError
            On every rank, if ``data`` does not match the training data, ``path``
            cannot be written, or ``proba`` is True for a regression.

        Notes
        -----
        Collective.
        """
        trained = self.trained
        with together(self.comm):
            data, to = all_expanded(data), expanded(path)
            found, format_ = None, reading.get("format_")
            if proba:
                trained.require_classes()
            if self.comm.rank == 0:
                paths = seen_files(data, format_).paths
                found = destination(to, paths, self._directory, self._trained_on())
        path, as_text = self.comm.bcast(found, root=0)
        reading["need_target"] = False
        dataset = self._read(data, reading)
        max_rows = self.config.train.micro_batch_size
        feed = make_feed(dataset, max_rows, self.ops, forward_only=True)
        finish = trained.probabilities if proba else trained.answers
        with together(self.comm), computing():
            mine = np.concatenate(
                [
                    finish(self.ops.numbers(self.model.predict(self.params, batch.x)))
                    for batch in feed.batches(_all(dataset))
                ]
            )
        names = self._columns(proba) if as_text else None
        write_rows(path, mine, dataset.n, names, self.comm)
        return dataset.n

    def _read(self, data, reading):
        """Return this rank's rows of files. Collective."""
        if self.schema.task == "language":
            how = {k: v for k, v in reading.items() if not k.startswith("need_")}
            dataset = read_tokens_again(data, self.schema, self.comm, **how)
            return dataset if reading.get("need_target", True) else (
                dataset.features_only()
            )
        how = {"sparse": self.config.keeps_sparse, **reading}
        dataset = read_again(data, self.schema, self.comm, **how)
        self.remarks = dataset.remarks
        return dataset

    def _trained_on(self):
        """Return the files of the training that are still there."""
        c = self.config.data
        paths = []
        for names in (c.train, c.target, c.weights, c.validation, c.validation_target):
            with suppress(OSError, DataError, TypeError):
                paths += seen_files(names, c.format).paths
        return paths

    def _columns(self, proba):
        """Return the names of the columns of predictions."""
        schema = self.schema
        if schema.task == "language":
            return list(map(str, range(schema.n_tokens))) if proba else ["token"]
        if proba:
            return [str(label) for label in schema.classes.tolist()]
        if schema.classes is None:
            return schema.target_names
        is_name = isinstance(schema.target, str) and schema.format not in NAMELESS
        return [schema.target if is_name else "label"]


def load_model(run, *, backend="auto", comm=None):
    """Return the TrainedModel of a run directory or a checkpoint.

    Parameters
    ----------
    run : path
        ``[output] directory`` of a training, or one of its checkpoints: a folder in
        ``checkpoints`` of that directory.
    backend : {"auto", "numpy", "numba", "cuda"}
        "auto" takes NumPy if the training used NumPy. "cuda" needs ``comm``.
    comm : MPI.Comm, optional
        Rank 0 reads the weights and broadcasts them. Each rank has a model, which
        predicts for rows of that rank alone. Without ``comm``, no MPI is needed.

    Raises
    ------
    DataError
        If it is neither a finished run nor a whole checkpoint.
    ConfigError
        If the backend is not available.

    Notes
    -----
    Collective with ``comm``.
    """
    if comm is not None:
        return Run(run, comm, backend).trained
    if backend == "cuda":
        raise ConfigError("load_model on a GPU: pass comm, such as MPI.COMM_SELF")
    run = expanded(run)
    earlier = open_earlier(run)
    trained = TrainedModel(run, *earlier.config_and_schema(), earlier.tensors)
    return trained.use(select.select(backend_of(trained, backend)).ops)


def _all(dataset):
    return slice(0, len(dataset))
