"""Evaluate and predict with a finished run, on any number of ranks."""

import os
from contextlib import suppress

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.checks import together
from pympi_train.comm.collectives import broadcast
from pympi_train.comm.devices import choose_backend
from pympi_train.comm.mesh import set_threads
from pympi_train.config import config as configuration
from pympi_train.config.build import build_model
from pympi_train.data.feeds.make import make_feed
from pympi_train.data.load import read_again
from pympi_train.errors import DataError
from pympi_train.flat.memory import empty_block
from pympi_train.paths import expanded
from pympi_train.runs import output
from pympi_train.train.metrics import Evaluator


class Run:
    """A trained model with what is needed to feed it.

    Parameters
    ----------
    directory : path
        ``[output] directory`` of a training.
    comm : MPI.Comm
        Rank 0 reads, the others are told.
    backend : str
        As of a Trainer; "auto" also takes NumPy if that was the training's.

    Raises
    ------
    DataError
        On every rank, if the directory is not that of a finished run.

    Notes
    -----
    Collective. A rank that stays away leaves the others waiting.
    """

    def __init__(self, directory, comm, backend="auto"):
        self.comm, found = comm, None
        with together(comm):
            self._directory = directory = expanded(directory)
            if comm.rank == 0:
                found = output.read_run(directory)
        text, self.schema = comm.bcast(found and found[:2], root=0)
        with together(comm):
            self.config = configuration.parse(text, where=output.CONFIG)
        set_threads(comm)
        if backend == "auto" and self.config.train.backend == "numpy":
            backend = "numpy"  # the bits of the training, and a quicker start
        self.backend = choose_backend(comm, backend)
        self.ops = self.backend.ops
        with together(comm):
            _require_match(self.config, self.schema, directory)
            self.model = build_model(self.config.model, self.schema)
            self.model.use(self.ops)
            if found:
                _require_weights(self.model.layout, found[2])
        with together(comm):
            block = empty_block(self.model.layout)
            if found:
                for name, view in self.model.layout.named(block).items():
                    view[...] = found[2][name]
        broadcast(comm, block)
        there = self.ops.empty_block(self.model.layout)
        self.ops.from_host(block, there)
        self.params = self.model.layout.views(there)

    def evaluate(self, data, **reading):
        """Return the metrics on the file ``data``, and its rows as "samples".

        Parameters
        ----------
        data : path
            In a format that training reads, with as many columns.
        **reading
            ``features``, ``target``, ``header`` and ``zero_based`` as for
            `data.load.read_again`; for .npy the target is a file.

        Raises
        ------
        DataError
            On every rank, if the file does not fit, or has an unknown label.

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting.
        """
        dataset = read_again(data, self.schema, self.comm, **reading)
        measure = Evaluator(
            self.model,
            dataset,
            self.comm,
            micro_batch_size=self.config.train.micro_batch_size,
            ops=self.ops,
        )
        return {"samples": dataset.n, "ranks": self.comm.size, **measure(self.params)}

    def has_seen(self, data):
        """Return whether ``data`` is the file that was trained on. Not collective."""
        with suppress(OSError):
            return os.path.samefile(expanded(data), self.config.data.train)
        return False

    def predict(self, data, path, **reading):
        """Write the predictions for the file ``data`` to ``path``, an .npy file.

        Labels as they came in, shape (n,), or numbers, shape (n,) or (n, t), in the
        order of the rows. Each rank writes its own rows. Returns n.
        A link is followed. ``reading`` as for `evaluate`.

        Raises
        ------
        DataError
            On every rank, if ``data`` does not fit or ``path`` cannot be written.

        Notes
        -----
        Collective. A rank that stays away leaves the others waiting.
        """
        with together(self.comm):
            data, path = expanded(data), expanded(path)
            if self.comm.rank == 0:
                path = _destination(path, data, self._directory)
        path = self.comm.bcast(path, root=0)
        reading["need_target"] = False
        dataset = read_again(data, self.schema, self.comm, **reading)
        feed = make_feed(dataset, self.config.train.micro_batch_size, self.ops)
        with together(self.comm), computing():
            parts = [self._answers(batch.x) for batch in feed.batches(_all(dataset))]
            mine = np.concatenate(parts)
        _write_rows(path, mine, dataset, self.comm)
        return dataset.n

    def _answers(self, x):
        outputs = self.ops.numbers(self.model.predict(self.params, x))
        if self.schema.classes is not None:
            return self.schema.classes[self.model.decide(outputs)]
        if self.schema.target_scaling is not None:
            outputs = self.schema.target_scaling.undo(outputs)
        return outputs[:, 0].copy() if self.schema.n_targets == 1 else outputs.copy()


def _all(dataset):
    return slice(0, len(dataset))


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


def _require_weights(layout, tensors):
    shapes = {tensor.name: tuple(tensor.shape) for tensor in layout.tensors}
    if set(shapes) != set(tensors):
        raise DataError(
            f"{output.WEIGHTS} holds {sorted(tensors)}, the model has {sorted(shapes)}"
        )
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != shape:
            raise DataError(
                f"{output.WEIGHTS}: {name} has shape {found.shape}, the model "
                f"wants {shape}"
            )
        if found.dtype != layout.dtype:
            raise DataError(
                f"{output.WEIGHTS}: {name} is {found.dtype}, the model wants "
                f"{layout.dtype}"
            )
        if not np.isfinite(found).all():
            raise DataError(f"{output.WEIGHTS}: {name} has NaN or infinity")


def _destination(path, data, directory):
    """Return the file that predictions for ``data`` go to, at the end of all links."""
    real, folder = os.path.realpath(path), os.path.realpath(directory)
    problem = None
    if os.path.isdir(real):
        problem = "Is a directory"
    elif os.path.exists(real) and not os.path.isfile(real):
        problem = "it is no regular file"
    elif os.path.exists(real) and os.path.exists(data) and os.path.samefile(real, data):
        problem = "it is the file of the data"
    elif real in [os.path.join(folder, name) for name in output.FILES]:
        problem = f"it is a file of the run {directory}"
    elif not os.fspath(path).endswith(".npy"):
        problem = "expected a name that ends in .npy, the format of predictions"
    if problem:
        raise DataError(f"{path}: cannot be written: {problem}; choose another file")
    return real


def _write_rows(path, mine, dataset, comm):
    """Write each rank's rows to their place in one .npy file. Collective.

    To a temporary name, renamed when all have written.
    """
    temporary, offset = f"{path}.{os.getpid()}.tmp", None
    temporary = comm.bcast(temporary, root=0)
    try:
        with together(comm), output.writing(path):
            if comm.rank == 0:
                offset = _write_header(temporary, mine, dataset.n)
        offset = comm.bcast(offset, root=0)
        # A rank on another node that has no such file: the folder is not shared.
        with together(comm), output.writing(path):
            row_bytes = mine.dtype.itemsize * int(np.prod(mine.shape[1:]))
            with open(temporary, "rb+") as file:
                file.seek(offset + dataset.start * row_bytes)
                file.write(np.ascontiguousarray(mine).tobytes())
                file.flush()
                os.fsync(file.fileno())
        with together(comm), output.writing(path):
            if comm.rank == 0:
                os.replace(temporary, path)
    finally:
        if comm.rank == 0 and os.path.exists(temporary):
            os.unlink(temporary)


def _write_header(path, part, n_rows):
    """Write the header of an .npy file of ``n_rows``; return its bytes."""
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(
            file,
            {
                "descr": np.lib.format.dtype_to_descr(part.dtype),
                "fortran_order": False,
                "shape": (n_rows, *part.shape[1:]),
            },
        )
        return file.tell()
