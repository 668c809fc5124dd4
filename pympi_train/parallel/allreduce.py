"""Every rank holds all parameters; gradients are summed by Allreduce."""

from time import perf_counter

from pympi_train.comm.collectives import ring_bytes
from pympi_train.comm.node_sums import fits
from pympi_train.comm.sums.compress import compressed_sum
from pympi_train.parallel import trials
from pympi_train.parallel.lazy.touched import TouchedColumns, can_be_lazy
from pympi_train.parallel.overlap import Flight, Watched
from pympi_train.parallel.synchronous import Synchronous
from pympi_train.parallel.whole_gradient import WholeGradient


class Allreduce(WholeGradient, Synchronous):
    """Parameters, gradients and optimizer state, replicated on every rank.

    All ranks apply the same update to the same parameters with the same summed
    gradient, so replicas that start equal stay equal bit for bit.

    Parameters
    ----------
    comm, layout, optimizer, ops
        As for `Strategy`; the optimizer's state is allocated here.
    spans : sequence of slice
        The model's ``layer_spans``; without them, nothing can be sent before backward
        has ended.
    bucket_bytes : int
        With overlap: maximum size of a bucket, which is sent while backward computes.
        Buckets are smaller, down to 1 MiB, if the block would fill fewer than eight.
    overlap : {"off", "on", "auto"}
        auto: the first steps of training are taken without and with overlap in turn;
        it stays on if backward and exchange together take less time with it.
    compression : {"none", "fp16", "bf16", "int8", "topk", "powersgd"}
        Unless none, the gradient is sent after backward, and a rank holds the error
        feedback; see `comm.sums` (``compress``, ``topk``, ``powersgd``) for the bytes.

    Notes
    -----
    With ``n`` parameters and ``P`` ranks, a rank sends at best ``2 n (P - 1) / P``
    elements in a step [1]_: in one call, or with overlap in one call per bucket [2]_
    and one for the rest after backward. A rank holds ``2 n`` elements and the
    optimizer state; the sum is in place.

    Sums with and without overlap, and by MPI in one call, in pieces and by slices,
    differ by rounding: an MPI library's order of summation depends on the length of
    the block.

    References
    ----------
    .. [1] P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for
       clusters of workstations", J. Parallel Distrib. Comput. 69 (2009).
    .. [2] S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data
       Parallel Training", VLDB 13 (2020), section 3.2.
    """

    _takes_columns = True  # whether steps on sparse rows may touch some columns alone
    _touched = None  # the columns of a step

    def __init__(
        self,
        comm,
        layout,
        optimizer,
        ops,
        *,
        spans=(),
        bucket_bytes=25 * 2**20,
        overlap="off",
        compression="none",
    ):
        super().__init__(comm, layout, optimizer, ops)
        if optimizer is not None:
            optimizer.allocate(layout, ops)
        self._sum = trials.SUMS["mpi"]
        self._flight = self._trial = None
        if compression != "none":
            self._wire = compressed_sum(compression, comm, layout, ops)
            overlap = "off"
        self._backward_s = 0.0
        self._step_bytes = ring_bytes(self.grads.nbytes, comm.size)
        if comm.size > 1 and overlap != "off":
            flight = Flight(comm, layout, spans, self.grads, bucket_bytes, self.laps)
            worth = overlap == "on" or self.grads.nbytes >= trials.LEAST_BYTES
            self._flight = flight if flight.is_useful and worth else None
        self._may_fly = self._flight if overlap == "auto" else None
        if self._may_fly:
            self._trial = trials.Trial(comm, ("off", "on"))
        is_plain = self._wire is None or comm.size == 1
        exchange = "mpi" if is_plain else compression
        self.chosen = {"strategy": "allreduce", "exchange": exchange}
        if not self._trial:
            self.chosen["overlap"] = "off" if overlap == "auto" else overlap

    def measure(self):
        """Time the methods of summation and choose one, if there is a choice.

        Collective.
        """
        if self._wire is not None:
            return
        if self._flight is None and fits(self.comm, self.grads):
            self._sent_with_control = self.grads
            self.chosen["exchange"] = "node"
            return
        name, told = trials.choose_sum(self.comm, self.grads)
        self._sum = trials.SUMS[name]
        self.chosen.update(exchange=name, **told)

    @property
    def is_replicated(self):
        """Whether each rank alone has the whole state between two steps."""
        is_plain = self._wire is None and self.minimiser is None
        return is_plain and not self.ops.ON_DEVICE

    def choices(self):
        """Return the method of summation and overlap, as far as they were measured."""
        found = {}
        if "exchange_seconds" in self.chosen:
            found["exchange"] = self.chosen["exchange"]
        if self._may_fly and not self._trial:
            found["overlap"] = self.chosen["overlap"]
        return found

    def take_choices(self, choices):
        """Adopt another training's choices, because they affect the sums' bits."""
        name = choices.get("exchange")
        if name in trials.SUMS and "exchange_seconds" in self.chosen:
            self._sum, self.chosen["exchange"] = trials.SUMS[name], name
        if self._may_fly and choices.get("overlap") in ("on", "off"):
            self.chosen.pop("overlap_seconds", None)
            self._decide_overlap(choices["overlap"])

    def expect_sparse(self, is_sparse):
        """Take steps by touched columns where they have the results of dense ones."""
        how = self._model, self._optimizer, self._l2, self.params
        is_plain = self._wire is None and self._sent_with_control is None
        is_open = self._takes_columns and not (self._flight or self._trial)
        self._touched = None
        if is_sparse and is_plain and is_open and can_be_lazy(*how):
            made_of = self.comm, self.layout, self._optimizer, self.ops
            self._touched = TouchedColumns(*made_of)
        self.chosen.pop("update", None)
        if self._touched is not None:
            self.chosen["update"] = "touched columns"

    def backward(self, model, params, index, last):
        """Write the micro-batch's gradient sum, or add it to the previous ones.

        Collective for the last micro-batch with overlap, which then starts sums.
        """
        touched = self._touched
        if touched is not None and touched.backward(model, index, self.grads):
            return
        began_s = perf_counter()
        if last and self._exchanges_early:
            self._backward_in_flight(model, params, index)
        else:
            super().backward(model, params, index, last)
        self._backward_s = perf_counter() - began_s

    @property
    def choosing(self):
        """Whether the trial of overlap is still running."""
        return self._trial is not None

    @property
    def _exchanges_early(self):
        if self._trial:
            return self._trial.name == "on"
        return self._flight is not None

    def _backward_in_flight(self, model, params, index):
        views, scratch, flight = self.grad_views, None, self._flight
        noise = self.noise
        if index > 0:
            views, scratch = self._second_block()

        def final(start, stop):
            if scratch is not None:
                if noise is not None:
                    noise.see_batch(self.ops, scratch[start:stop])
                self.ops.add(scratch[start:stop], self.grads[start:stop])
            if noise is not None:
                noise.see_share(self.ops, self.grads[start:stop])
            if start > 0:  # else backward has ended, and ``combine`` sums the rest
                flight.advance(start)

        watched = Watched(views, self.layout, final)
        model.gradient(params, watched)
        watched.close()

    def _note_own(self):
        if self._touched is None:
            super()._note_own()
        else:
            self.noise.see_share(self.ops, self._touched.own(self.grads))

    def _own_sums(self):
        if self._touched is not None and self._touched.is_summed:
            return [self._touched.own(self.grads)] if self.comm.rank == 0 else []
        return super()._own_sums()

    def fail(self):
        """Complete this step's exchange with NaN. Collective."""
        self._flight.poison(self.grad_views)

    def _combine_or_leave(self, *args):
        if self._sent_with_control is None:
            super()._combine_or_leave(*args)
        else:  # already summed, with the control exchange
            self.sent_bytes += self._step_bytes

    def combine(self):
        """Sum the gradients over the ranks. Collective."""
        if self._wire is not None:
            before = self._wire.sent_bytes
            self._wire.sum(self.grads)
            self.sent_bytes += self._wire.sent_bytes - before
            return
        if self._touched is not None:
            before = self._touched.sent_bytes
            is_summed = self._touched.combine(self.grads)
            self.sent_bytes += self._touched.sent_bytes - before
            if is_summed:
                return
        self.sent_bytes += self._step_bytes
        began_s = perf_counter()
        if self._exchanges_early:
            self._sum(self.comm, self.grads[: self._flight.start])
            self._flight.land()
        else:
            self._sum(self.comm, self.grads)
        if self._trial:
            seconds = self._backward_s + perf_counter() - began_s
            if self._trial.record(seconds):
                trial = self._trial
                self._decide_overlap(trial.name, overlap_seconds=trial.seconds)

    def _decide_overlap(self, name, **told):
        self._trial, self._flight = None, self._may_fly if name == "on" else None
        self.chosen.update(overlap=name, **told)

    def update(self, *, lr, weight, l2, clip_norm=None):
        """Update the parameters from the summed gradient of a batch."""
        if self._touched is not None and self._touched.is_summed:
            how = {"lr": lr, "weight": weight, "clip_norm": clip_norm}
            self._touched.update(self.params, **how)
        else:
            self._move(lr, weight, l2, clip_norm)
