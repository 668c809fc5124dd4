"""Methods of communicators that record their calls in the journal."""

import functools
from time import perf_counter

from pympi_train.comm.watch import journal as j
from pympi_train.comm.watch import survivors
from pympi_train.comm.watch.operations import (
    COLLECTIVES,
    OPERATIONS,
    SPLITS,
    STARTED,
)
from pympi_train.comm.watch.sites import agree_on_call
from pympi_train.trace.events import END, PAIRWISE

OF_OBJECTS = ("allreduce", "reduce")  # mpi4py makes a communicator of its own for them


def record_wait(comm, name, function, *args, **kwargs):
    """Call ``function``, recorded as a wait that does not count as a collective."""
    row, operation = comm.row, OPERATIONS.index(name)
    comm._pairs += 1
    around = row[j.WAITING]  # waits may be nested
    row[j.WAITING] = j.waiting(comm._pairs, operation, comm._channel)
    append = comm._journal.append
    if append is not None:
        append(name)
        append(perf_counter())
    try:
        found = function(*args, **kwargs)
        if comm.family is not None:
            survivors.require_alive(comm)
        return found
    except Exception as error:
        _revoke(error, comm)
        raise
    finally:
        row[j.WAITING] = around
        if append is not None:
            append(END)
            append(perf_counter())


def _revoke(error, comm):
    """Let the other ranks' calls raise too, if this job outlives ranks that die."""
    if survivors.is_survived(comm, error):
        survivors.revoke(comm.family)
    elif comm.family is not None and not survivors.is_alive(comm):
        survivors.revoke(comm.family)
        survivors.require_alive(comm)  # the error may be of what only half arrived


def recorded(plain, name):
    """Return the method ``plain`` of a communicator, recorded as a collective."""
    code, at_waiting = OPERATIONS.index(name), j.WAITING

    def method(self, *args, **kwargs):
        row = self.row
        if row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            agree_on_call(self, name, args, kwargs)
        # Inlined journal.waiting: a function call costs as much as the stores.
        self._begun = row[self._at] = number = self._begun + 1
        around, row[at_waiting] = (
            row[at_waiting],
            number << 16 | code << 8 | self._channel,
        )
        append = self._journal.append
        if append is not None:
            append(name)
            append(perf_counter())
        try:
            found = plain(self, *args, **kwargs)
            if self.family is not None:
                survivors.require_alive(self)
            return found
        except Exception as error:
            _revoke(error, self)
            raise
        finally:
            row[at_waiting] = around
            if append is not None:
                append(END)
                append(perf_counter())

    return method


def make_methods(base, request_kind):
    """Return the recorded methods of a class of communicators, by name.

    Parameters
    ----------
    base : type
        MPI.Intracomm.
    request_kind : type
        Requests of started collectives become of this kind, with the communicator as
        their ``comm``.
    """
    plain = {name: getattr(base, name) for name in OPERATIONS if hasattr(base, name)}
    methods = {name: recorded(plain[name], name) for name in COLLECTIVES}
    for name in OF_OBJECTS:
        methods[name] = recorded(_reduction(base, name), name)
    for name in STARTED:
        methods[name] = _started(plain[name], name, request_kind)
    for name in PAIRWISE:
        methods[name] = _pairwise(plain[name], name)
    for name in SPLITS:
        methods[name] = _split(plain[name], name)
    for name, method in methods.items():
        method.__name__, method.__qualname__ = name, f"Guarded.{name}"
        about = plain[name].__doc__
        method.__doc__ = f"As MPI.Intracomm's, and noted in the journal.\n\n{about}"
    return methods


def _reduction(base, name):
    """Return mpi4py's reduction of objects, in a form that can be revoked."""
    from mpi4py import MPI

    plain = getattr(base, name)

    def method(self, sendobj, op=MPI.SUM, **root):
        if self.family is None:
            return plain(self, sendobj, op, **root)
        found = functools.reduce(op, base.allgather(self, sendobj))
        return found if root.get("root", self.rank) == self.rank else None

    return method


def _started(plain, name, request_kind):
    def method(self, *args, **kwargs):
        row = self.row
        if row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            agree_on_call(self, name, args, kwargs)
        self._begun = row[self._at] = self._begun + 1
        append = self._journal.append
        if append is not None:
            append(name)
            append(perf_counter())
        request = request_kind(plain(self, *args, **kwargs))
        if append is not None:
            append(END)
            append(perf_counter())
        request.comm = self
        return request

    return method


def _pairwise(plain, name):
    def method(self, *args, **kwargs):
        if self.row is None:
            return plain(self, *args, **kwargs)
        return record_wait(self, name, plain, self, *args, **kwargs)

    return method


def _split(plain, name):
    def method(self, *args, **kwargs):
        if self.row is None:
            return plain(self, *args, **kwargs)
        if self.debug:
            agree_on_call(self, name, (), {})
        self._begun = self.row[self._at] = self._begun + 1
        return record_wait(self, name, self._guard_child, plain, *args, **kwargs)

    return method
