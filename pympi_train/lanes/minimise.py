"""L-BFGS of all lanes at once, for grids of l2."""

import copy
import math

import numpy as np

from pympi_train.backends.environment import computing
from pympi_train.comm.collectives import broadcast
from pympi_train.errors import DivergenceError
from pympi_train.lanes.lane import DIVERGED, FINISHED, STOPPED

GOES_ON, ENDED, FAILED, CUT = range(4)  # what rank 0 says of a lane
STATUS = {ENDED: FINISHED, FAILED: DIVERGED, CUT: STOPPED}


class Minimisation:
    """Minimises the loss of each lane by L-BFGS, with line searches of their own.

    Rank 0 runs the searches. In each round it broadcasts the point at which each lane
    wants loss and gradient; all ranks compute them for all lanes in one pass over the
    rows. A lane that has ended takes part no longer.

    Parameters
    ----------
    group : LaneGroup
    optimizer : LBFGS
    max_iterations : int
    should_stop : callable or None
        As for `train_lanes`.
    """

    def __init__(self, group, optimizer, max_iterations, should_stop):
        self._group, self._comm = group, group.comm
        self._optimizer, self._max_iterations = optimizer, max_iterations
        self._should_stop = should_stop
        self._searches: dict = {}  # by place in the results; on rank 0
        self._error = None

    @computing()
    def run(self):
        """Minimise until all lanes have ended. Collective."""
        group, rows = self._group, slice(0, len(self._group.data))
        places = list(group.live)
        if self._comm.rank == 0:
            self._attempt(self._begin)
        stop = False
        while group.live:
            self._tell_points(stop)
            if not group.live:
                break
            if self._should_stop is not None:
                stop = bool(self._attempt(self._should_stop))
            found = group.gradient(rows, error=self._error, stop=stop)
            stop = found[-1]
            if self._comm.rank == 0:
                self._attempt(self._answer, *found[:2])
        self._share_records(places)
        group.validate(places)

    def _attempt(self, function, *args):
        """Return ``function(*args)``; if it raises, keep the error and return None."""
        try:
            return function(*args)
        except Exception as caught:
            self._error = self._error or caught
            return None

    def _begin(self):
        arrays = self._group.columns.unpack(self._group.params)
        for place, start in zip(self._group.live, arrays):
            made_of = self._optimizer, start, self._max_iterations
            self._searches[place] = _Search(*made_of, self._group.results[place])

    def _tell_points(self, stop):
        """Broadcast the points of the lanes; end those that have ended. Collective."""
        group = self._group
        flags = np.zeros(len(group.live), np.int8)
        if self._comm.rank == 0 and self._error is None:
            own = [self._searches[place] for place in group.live]
            for search in own:
                if stop and search.flag == GOES_ON:
                    search.cut()
            flags[:] = [search.flag for search in own]
            points = np.array([search.point for search in own])
            group.columns.pack(points, out=group.params)
        broadcast(self._comm, flags)
        broadcast(self._comm, group.params.reshape(-1))
        told = dict(zip(group.live, flags.tolist()))
        for flag, status in STATUS.items():
            group.end([place for place in told if told[place] == flag], status)

    def _answer(self, weights, losses):
        """Give each search the loss and the gradient at its point."""
        group = self._group
        grads = group.columns.unpack(group.grads)
        for place, *found in zip(group.live, weights.tolist(), losses.tolist(), grads):
            self._searches[place].answer(*found)

    def _share_records(self, places):
        """Give all ranks the records of rank 0. Collective."""
        results = [self._group.results[place] for place in places]
        told = [(r.records, r.message) for r in results]
        for result, own in zip(results, self._comm.bcast(told, root=0)):
            result.records, result.message = own


class _Search:
    """The minimisation of one lane."""

    def __init__(self, optimizer, start, max_iterations, result):
        self.flag, self.point, self._result = GOES_ON, start, result
        self._l2 = result.lane.l2
        self._shape = start.shape
        own = copy.copy(optimizer)
        own._memory = None
        self._course = own.course(
            self.point.reshape(-1),
            max_iterations=max_iterations,
            callback=self._record,
        )
        _, self._grad = next(self._course)

    def answer(self, weight, loss, grad):
        """Take loss sum and gradient sum at ``point``; move it to the next one."""
        f = loss / weight if weight > 0 else 0.0
        if math.isfinite(f):
            own = self._grad.reshape(self._shape)
            np.multiply(grad, 1.0 / weight if weight > 0 else 0.0, out=own)
            w = self.point[:-1]
            if self._l2:
                own[:-1] += w * w.dtype.type(self._l2)
                f += 0.5 * self._l2 * float(np.square(w, dtype=np.float64).sum())
        try:
            _, self._grad = self._course.send(f)
        except StopIteration as end:
            self.flag = ENDED
            if end.value.iterations == 0:  # the start is the minimum
                self._record(1, end.value.f, end.value.gradient_norm, 1)
        except DivergenceError as error:
            self.flag, self._result.message = FAILED, str(error)

    def cut(self):
        """End at the point of the last iteration."""
        self._course.close()
        self.flag = CUT

    def _record(self, iteration, f, gradient_norm, n_evaluations):
        self._result.records.append(
            {
                "epoch": iteration,
                "step": iteration,
                "train_loss": f,
                "largest_gradient": gradient_norm,
            }
        )
        return False
